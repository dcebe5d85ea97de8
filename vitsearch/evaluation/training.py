"""Training a classifier on a collection's labelled photos, and making one's probabilities true on
them.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Vectors
from vitsearch.collection import Collection
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
from vitsearch.labels.ground_truth import read_labels

# -- The photos of a collection whose label a person gave ------------------------------------------


def labelled_vectors(collection: Collection, source: str) -> tuple[list[str], Vectors, list[str]]:
    """Return the paths, the vectors ``(n, dim)`` and the labels of the photos that have one, in
    order of path.

    ``source`` is "folders" or a CSV file (see `read_labels`); raises QueryError.
    """
    photos, vectors = collection.vectors()
    truth = read_labels(source, [photo.path for photo in photos])
    kept = [place for place, photo in enumerate(photos) if photo.path in truth]
    return (
        [photos[place].path for place in kept],
        vectors[kept],
        [truth[photos[place].path] for place in kept],
    )


# -- Training a classifier on a collection's labelled photos ---------------------------------------

Method = Literal["probe", "prototype", "tip"]
Trained = LinearClassifier | TipClassifier
AnyClassifier = TypeVar("AnyClassifier", bound=LabelClassifier)
FOLDS = 5


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a classifier was trained on and how good it is on photos that it was not trained on.

    ``right`` of ``judged`` photos were right in at most 5 folds, each judged by a classifier
    trained on the others; ``judged`` is 0 where some class has one example only.
    """

    classes: int
    photos: int
    right: int
    judged: int


def calibrate_on(
    collection: Collection, classifier: AnyClassifier, source: str
) -> tuple[AnyClassifier, Calibration]:
    """Return the classifier with its probabilities made true on the collection's labelled photos,
    and what it gained (see `calibrate`).
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
    """Return a classifier trained on the stored vectors of the collection's labelled photos; no
    photo is read.

    ``method`` is "probe" (logistic regression, two examples of each class or more), "prototype"
    (mean vectors, one or more) or "tip" (zero-shot with a cache of examples). ``labels`` and
    ``templates`` are the prompts of "tip"; without labels, the classes' own names. Photos labelled
    "none of these" are examples of the background class (see `zero_shot_classifier`), which "tip"
    has where there are any. Raises QueryError for too few classes or examples, ClassifierError
    where scikit-learn is missing.
    """
    _, vectors, truth = labelled_vectors(collection, source)
    if method == "tip" and labels is not None:
        _check_examples(labels, truth)
    names = labels if labels is not None else sorted(set(truth) - {NOTHING})
    make = _maker(collection, method, names, templates, NOTHING in truth)
    classifier = make(vectors, truth)
    right, judged = _judged(make, vectors, truth)
    return classifier, TrainReport(len(classifier.classes), len(truth), right, judged)


def load_trained(folder: str | os.PathLike[str]) -> Trained:
    """Return the classifier that `train_classifier` made and that was saved to a folder; raises
    ClassifierError.
    """
    from vitsearch.labels.classifier import classifier_kind

    return (
        TipClassifier.load(folder)
        if classifier_kind(folder) == "tip"
        else LinearClassifier.load(folder)
    )


def _maker(
    collection: Collection,
    method: Method,
    labels: Sequence[str | Label],
    templates: str | Sequence[str],
    background: bool,
) -> Callable[[Vectors, list[str]], Trained]:
    fingerprint = collection.settings.encoder_fingerprint
    if method == "prototype":
        return lambda vectors, truth: prototype_classifier(vectors, truth, fingerprint=fingerprint)
    if method == "tip":
        zero_shot = collection.zero_shot(labels, templates, background)
        return lambda vectors, truth: tip_classifier(zero_shot, vectors, truth)
    if method != "probe":
        raise QueryError(f"there is no method {method!r}: choose probe, prototype or tip")
    return probe_maker(fingerprint)


def probe_maker(fingerprint: str) -> Callable[[Vectors, list[str]], LinearClassifier]:
    """Return what makes a linear probe of vectors and their labels; raises ClassifierError where
    scikit-learn is missing.
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


def _judged(
    make: Callable[[Vectors, list[str]], Trained], vectors: Vectors, truth: list[str]
) -> tuple[int, int]:
    """Return how many of how many examples are right by classifiers that were trained on the
    others; (0, 0) for too few examples.
    """
    folds = cross_validated(make, vectors, truth)
    right = sum(
        name == truth[i]
        for here, made in folds
        for name, i in zip(_best(made, vectors[here]), here, strict=True)
    )
    return right, sum(len(here) for here, _ in folds)


def _best(classifier: LabelClassifier, vectors: Vectors) -> list[str]:
    return [classifier.classes[place] for place in classifier.logits(vectors).argmax(axis=1)]


def cross_validated(
    make: Callable[[Vectors, list[str]], AnyClassifier], vectors: Vectors, truth: list[str]
) -> list[tuple[NDArray[np.int64], AnyClassifier]]:
    """Return for each of at most 5 folds the places of its examples and a classifier made of all
    the others.

    Examples of each class are dealt to the folds in turn, in order. There is no fold where some
    class has too few examples.
    """
    _, right = np.unique(truth, return_inverse=True)
    folds = min(FOLDS, int(np.bincount(right).min()))
    if folds < 2:
        return []
    fold = np.empty(len(truth), dtype=np.int64)
    fold[np.argsort(right, kind="stable")] = np.arange(len(truth)) % folds
    try:
        return [
            (
                np.flatnonzero(fold == number),
                make(vectors[fold != number], [truth[i] for i in np.flatnonzero(fold != number)]),
            )
            for number in range(folds)
        ]
    except QueryError:  # too few examples left of a class
        return []
