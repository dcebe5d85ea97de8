"""Training, calibrating, measuring and comparing classifiers on a collection's labelled photos."""

from vitsearch.collection.training import (
    TrainReport,
    calibrate_on,
    labelled_vectors,
    load_trained,
    train_classifier,
)
from vitsearch.evaluation.accuracy import Accuracy, Evaluation, evaluate, evaluate_model
from vitsearch.evaluation.class_map import (
    ClassMap,
    derive_class_map,
    read_class_map,
    write_class_map,
)
from vitsearch.evaluation.comparison import Comparison, Method, compare
from vitsearch.evaluation.datasets import Retrieval

__all__ = [
    "Accuracy",
    "ClassMap",
    "Comparison",
    "Evaluation",
    "Method",
    "Retrieval",
    "TrainReport",
    "calibrate_on",
    "compare",
    "derive_class_map",
    "evaluate",
    "evaluate_model",
    "labelled_vectors",
    "load_trained",
    "read_class_map",
    "train_classifier",
    "write_class_map",
]
