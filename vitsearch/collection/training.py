"""Training classifiers on the stored vectors of labelled photos."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Vectors
from vitsearch.collection.collection import Collection
from vitsearch.errors import ClassifierError, QueryError
from vitsearch.labels import (
    NOTHING,
    Label,
    LabelClassifier,
    LinearClassifier,
    TipClassifier,
    prototype_classifier,
    tip_classifier,
)
from vitsearch.labels.classifier import classifier_kind

Method = Literal["probe", "prototype", "tip"]
Trained = LinearClassifier | TipClassifier
ClassifierT = TypeVar("ClassifierT", bound=LabelClassifier)
FOLDS = 5


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a classifier was trained on, and its cross-validated accuracy.

    ``right`` of the ``validated`` photos were right in at most 5 folds, each classified by a
    classifier trained on the other folds; ``validated`` is 0 where some class has a single example.
    """

    classes: int
    photos: int
    right: int
    validated: int


def train_on(
    collection: Collection,
    vectors: Vectors,
    truth: list[str],
    method: Method,
    *,
    labels: Sequence[str | Label] | None = None,
    templates: str | Sequence[str] = "plain",
) -> tuple[Trained, TrainReport]:
    """Return a classifier trained on ``(n, dim)`` unit rows and their labels, and the report.

    ``method``, ``labels``, ``templates`` and errors as of `vitsearch.train_classifier`.
    """
    named = labels if labels is not None else sorted(set(truth))
    names = [label for label in named if label != NOTHING]
    has_background = NOTHING in truth or len(names) < len(named)
    make = _maker(collection, method, names, templates, has_background)
    classifier = make(vectors, truth)
    right, validated = _validated(make, vectors, truth)
    return classifier, TrainReport(len(classifier.classes), len(truth), right, validated)


def load_trained(folder: str | os.PathLike[str]) -> Trained:
    """Return a classifier that `train_classifier` made and that was saved to a folder.

    Raises ClassifierError.
    """
    is_tip = classifier_kind(folder) == "tip"
    return TipClassifier.load(folder) if is_tip else LinearClassifier.load(folder)


def _maker(
    collection: Collection,
    method: Method,
    labels: Sequence[str | Label],
    templates: str | Sequence[str],
    background: bool,
) -> Callable[[Vectors, list[str]], Trained]:
    fingerprint = collection.config.encoder_fingerprint
    if method == "prototype":
        return lambda vectors, truth: prototype_classifier(vectors, truth, fingerprint=fingerprint)
    if method == "tip":
        zero_shot = collection.zero_shot(labels, templates, background)
        return lambda vectors, truth: tip_classifier(zero_shot, vectors, truth)
    if method != "probe":
        raise QueryError(f"there is no method {method!r}: choose probe, prototype or tip")
    return probe_maker(fingerprint)


def probe_maker(fingerprint: str) -> Callable[[Vectors, list[str]], LinearClassifier]:
    """Return the function that trains a linear probe on vectors and their labels.

    Raises ClassifierError where scikit-learn is missing.
    """
    try:
        from vitsearch.labels.probe import probe_classifier
    except ImportError as error:
        raise ClassifierError(
            "a probe needs scikit-learn: pip install 'vitsearch[probe]', or use --method "
            "prototype or tip"
        ) from error
    return lambda vectors, truth: probe_classifier(vectors, truth, fingerprint=fingerprint)


def _validated(
    make: Callable[[Vectors, list[str]], Trained], vectors: Vectors, truth: list[str]
) -> tuple[int, int]:
    """Return how many of how many examples are right in cross-validation.

    (0, 0) for too few examples.
    """
    folds = cross_validated(make, vectors, truth)
    right = sum(
        name == truth[i]
        for held_out, classifier in folds
        for name, i in zip(_best(classifier, vectors[held_out]), held_out, strict=True)
    )
    return right, sum(len(held_out) for held_out, _ in folds)


def _best(classifier: LabelClassifier, vectors: Vectors) -> list[str]:
    return [classifier.classes[i] for i in classifier.logits(vectors).argmax(axis=1)]


def cross_validated(
    make: Callable[[Vectors, list[str]], ClassifierT], vectors: Vectors, truth: list[str]
) -> list[tuple[NDArray[np.int64], ClassifierT]]:
    """Return, for each of at most 5 folds, its examples' positions and a classifier of the others.

    The examples of each class are dealt to the folds in turn, in order. There are no folds where
    some class has too few examples.
    """
    _, right = np.unique(truth, return_inverse=True)
    folds = min(FOLDS, int(np.bincount(right).min()))
    if folds < 2:
        return []
    fold_of = np.empty(len(truth), dtype=np.int64)
    fold_of[np.argsort(right, kind="stable")] = np.arange(len(truth)) % folds
    try:
        trained = []
        for number in range(folds):
            rest = np.flatnonzero(fold_of != number)
            classifier = make(vectors[rest], [truth[i] for i in rest])
            trained.append((np.flatnonzero(fold_of == number), classifier))
        return trained
    except QueryError:  # too few examples left of a class
        return []
