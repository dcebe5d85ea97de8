"""Training and calibrating classifiers on a collection's labelled photos."""

from collections.abc import Sequence
from typing import TypeVar

from vitsearch.arrays import Vectors
from vitsearch.collection.collection import Collection
from vitsearch.collection.examples import EXAMPLES, right_labels
from vitsearch.collection.training import Method, Trained, TrainReport, train_on
from vitsearch.errors import QueryError
from vitsearch.labels import Calibration, Label, LabelClassifier, calibrate, parse_labels
from vitsearch.labels.ground_truth import read_labels

ClassifierT = TypeVar("ClassifierT", bound=LabelClassifier)


def labelled_vectors(collection: Collection, source: str) -> tuple[list[str], Vectors, list[str]]:
    """Return the paths, vectors ``(n, dim)`` and labels of the labelled photos, in order of path.

    ``source`` is "folders" or a CSV file (see `read_labels`), or "examples": the labels that were
    given on the page. Raises QueryError.
    """
    photos, vectors = collection.vectors()
    if source == EXAMPLES:
        truth = right_labels(collection)
    else:
        truth = read_labels(source, [photo.path for photo in photos])
    positions = [i for i, photo in enumerate(photos) if photo.path in truth]
    return (
        [photos[i].path for i in positions],
        vectors[positions],
        [truth[photos[i].path] for i in positions],
    )


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
    return train_on(collection, vectors, truth, method, labels=labels, templates=templates)


def _check_examples(labels: Sequence[str | Label], truth: Sequence[str]) -> None:
    """Raise QueryError for a label that the user named and of which there is no example."""
    seen = set(truth)
    empty = [label.name for label in parse_labels(labels) if label.name not in seen]
    if empty:
        raise QueryError(
            f"there is no example of {', '.join(empty[:5])}: label some photos so, or take it out"
        )
