"""What a collection's labelled photos are good for: calibrating a classifier, training one, and measuring one."""

from vitsearch.labelling.captions import Retrieval
from vitsearch.labelling.evaluation import Accuracy, Evaluation, evaluate, evaluate_model
from vitsearch.labelling.examples import labelled_vectors
from vitsearch.labelling.training import TrainReport, calibrate_on, load_trained, train_on

__all__ = [
    "Accuracy",
    "Evaluation",
    "Retrieval",
    "TrainReport",
    "calibrate_on",
    "evaluate",
    "evaluate_model",
    "labelled_vectors",
    "load_trained",
    "train_on",
]
