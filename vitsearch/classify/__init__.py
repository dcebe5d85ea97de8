"""Labels as vectors: what turns the vectors of a collection into labels, and how sure it is."""

from vitsearch.classify.answers import Answer, Choice, answer
from vitsearch.classify.calibration import Calibration, calibrate
from vitsearch.classify.few_shot import TipClassifier, prototype_classifier, tip_classifier
from vitsearch.classify.labels import NOTHING, Label, parse_labels
from vitsearch.classify.linear import Classifier, LinearClassifier
from vitsearch.classify.zero_shot import PLAIN, check_templates, zero_shot_classifier

__all__ = [
    "NOTHING",
    "PLAIN",
    "Answer",
    "Calibration",
    "Choice",
    "Classifier",
    "Label",
    "LinearClassifier",
    "TipClassifier",
    "answer",
    "calibrate",
    "check_templates",
    "parse_labels",
    "prototype_classifier",
    "tip_classifier",
    "zero_shot_classifier",
]
