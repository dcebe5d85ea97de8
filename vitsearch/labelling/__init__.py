"""What a collection's labelled photos are good for: calibrating a classifier, and training one."""

from vitsearch.labelling.examples import labelled_vectors
from vitsearch.labelling.training import TrainReport, calibrate_on, load_trained, train_on

__all__ = ["TrainReport", "calibrate_on", "labelled_vectors", "load_trained", "train_on"]
