"""Training and calibrating classifiers on a collection's labelled photos."""

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
    Calibration,
    Label,
    LabelClassifier,
    LinearClassifier,
    TipClassifier,
    calibrate,
    parse_labels,
    prototype_classifier,
    tip_classifier,
)
from vitsearch.labels.classifier import classifier_kind
from vitsearch.labels.ground_truth import read_labels

Method = Literal["probe", "prototype", "tip"]
Trained = LinearClassifier | TipClassifier
ClassifierT = TypeVar("ClassifierT", bound=LabelClassifier)
FOLDS = 5


def labelled_vectors(collection: Collection, source: str) -> tuple[list[str], Vectors, list[str]]:
    """Return the paths, vectors ``(n, dim)`` and labels of the labelled photos, in order of path.

    ``source`` is "folders" or a CSV file (see `read_labels`); raises QueryError.
    """
    photos, vectors = collection.vectors()
    truth = read_labels(source, [photo.path for photo in photos])
    positions = [i for i, photo in enumerate(photos) if photo.path in truth]
    return (
        [photos[i].path for i in positions],
        vectors[positions],
        [truth[photos[i].path] for i in positions],
    )


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


def calibrate_on(
    collection: Collection, classifier: ClassifierT, source: str
) -> tuple[ClassifierT, Calibration]:
    """Return the classifier, calibrated on the collection's labelled photos, and what it gained.

    See `calibrate`.
    """
    collection.check_classifier(classifier)
    _, vectors, truth = labelled_vectors(collection, source)
    return calibrate(classifier, vectors, truth)


def train_classifier(
    collection: Collection,
    source: str,
    method: Method,
    *,
    labels: Sequence[str | Label] | None = None,
    templates: str | Sequence[str] = "plain",
) -> tuple[Trained, TrainReport]:
    """Return a classifier trained on the stored vectors of labelled photos, and the report.

    No photo is read. ``method`` is "probe" (logistic regression, two examples of each class or
    more), "prototype" (mean vectors, one or more) or "tip" (zero-shot with a cache of examples).
    ``labels`` and ``templates`` are the prompts of "tip"; without labels, the classes' own names.
    Photos labelled "none of these" are examples of the background class (see
    `zero_shot_classifier`), which "tip" has where there are any. Raises QueryError for too few
    classes or examples, ClassifierError where scikit-learn is missing.
    """
    _, vectors, truth = labelled_vectors(collection, source)
    if method == "tip" and labels is not None:
        _check_examples(labels, truth)
    names = labels if labels is not None else sorted(set(truth) - {NOTHING})
    make = _maker(collection, method, names, templates, NOTHING in truth)
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


def _check_examples(labels: Sequence[str | Label], truth: Sequence[str]) -> None:
    """Raise QueryError for a label that the user named and of which there is no example."""
    seen = set(truth)
    empty = [label.name for label in parse_labels(labels) if label.name not in seen]
    if empty:
        raise QueryError(
            f"there is no example of {', '.join(empty[:5])}: label some photos so, or take it out"
        )


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
