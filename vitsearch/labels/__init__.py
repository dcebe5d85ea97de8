"""Labels as vectors: what turns the vectors of a collection into labels, and how sure it is."""

from vitsearch.labels.classifier import (
    Decision,
    LabelClassifier,
    LabelScore,
    LinearClassifier,
    predict,
)
from vitsearch.labels.few_shot import (
    Calibration,
    TipClassifier,
    calibrate,
    prototype_classifier,
    tip_classifier,
)
from vitsearch.labels.labels import NOTHING, Label, parse_labels
from vitsearch.labels.zero_shot import PLAIN, check_templates, zero_shot_classifier

__all__ = [
    "NOTHING",
    "PLAIN",
    "Calibration",
    "Decision",
    "Label",
    "LabelClassifier",
    "LabelScore",
    "LinearClassifier",
    "TipClassifier",
    "calibrate",
    "check_templates",
    "parse_labels",
    "predict",
    "prototype_classifier",
    "tip_classifier",
    "zero_shot_classifier",
]
