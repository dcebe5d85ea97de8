"""Training and calibrating classifiers on the stored vectors of a collection's labelled photos:
labels in folders or a CSV file, and examples, which are what a person said about labels on the
page.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Vectors
from vitsearch.collection import Collection
from vitsearch.collection.local import put_predictions
from vitsearch.collection.understanding import LABELLED
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
from vitsearch.labels.labels import read_labels
from vitsearch.storage.metadata import values_of
from vitsearch.storage.store import PhotoStore
from vitsearch.storage.user_data import Example, examples, put_trained, writing
from vitsearch.types import Prediction

Method = Literal["probe", "prototype", "tip"]
Trained = LinearClassifier | TipClassifier
# -- Labelled photos -------------------------------------------------------------------------------


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


# -- Examples --------------------------------------------------------------------------------------


EXAMPLES = "examples"  # in place of a file of labels: those of the collection
FOLDER = "classifier"
# the facts of the labels before the last training, and of those that it stored: `LABELLED`
_BEFORE, _SINCE = "labels-before", "labels-trained"


def stored_examples(collection: Collection) -> dict[int, Example]:
    """Return the examples of a collection by the ids of their photos; none of one in Milvus."""
    store = collection.store
    return examples(store) if isinstance(store, PhotoStore) else {}


def right_labels(collection: Collection) -> dict[str, str]:
    """Return the labels that a person gave, by the paths of their photos, in order of path; raises
    QueryError for none.
    """
    by_photo = stored_examples(collection)
    labels = {
        photo.path: by_photo[photo.photo_id].label
        for photo in collection.photos()
        if photo.photo_id in by_photo and by_photo[photo.photo_id].label
    }
    if not labels:
        raise QueryError(
            "the collection has no examples: say on the page's view of labels (`vitsearch serve`) "
            "which are right"
        )
    return labels


def train_examples(
    collection: Collection, method: Method, labels: Sequence[str] = ()
) -> TrainReport:
    """Train a classifier on the examples, store it with the collection, label the photos by it and
    store their labels (`label_with_examples`); return the report.

    With "tip", ``labels`` are further ones, of which there need be no example. Raises QueryError
    for too few examples, and what `Collection.store_labels` does.
    """
    truth = right_labels(collection)
    photos, vectors = collection.vectors()
    rows = [row for row, photo in enumerate(photos) if photo.path in truth]
    right = [truth[photos[row].path] for row in rows]
    named = [label for label in labels if label != NOTHING]
    known = {label.name for label in parse_labels(named)} if named else set()
    names = [*labels, *sorted({*right} - known - {NOTHING})]
    positions = np.array(rows, dtype=int)
    classifier, report = train_on(collection, vectors[positions], right, method, labels=names)
    predictions = label_with_examples(collection, classifier)
    facts = asdict(report) | {
        "method": method,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with writing(collection.folder) as store:
        put_with_undo(store, predictions)
        put_trained(store, facts)
        classifier.save(classifier_folder(collection))  # last: what fails leaves all as it was
    return report


def put_with_undo(store: PhotoStore, predictions: Sequence[Prediction]) -> None:
    """Store the first label of each photo (inside `writing`) so that `restore_labels` can bring
    back those of before.
    """
    labels = values_of(store, ("id", "label", "score"))
    put_predictions(store, predictions)
    store.set_meta(_BEFORE, json.dumps([store.generation(), labels]))
    store.set_meta(_SINCE, str(store.get_meta(LABELLED)))


def can_restore_labels(store: PhotoStore) -> bool:
    """Return whether the labels are those that `put_with_undo` stored."""
    return store.get_meta(_SINCE) == (store.get_meta(LABELLED) or "")


def restore_labels(store: PhotoStore) -> None:
    """Bring back the labels from before `put_with_undo` (inside `writing`), but of photos that are
    others since; nothing where other labels were stored.
    """
    if can_restore_labels(store):
        generation, labels = json.loads(str(store.get_meta(_BEFORE)))
        batches = store.vector_batches(since=generation)
        changed = {photo_id for ids, _ in batches for photo_id in ids.tolist()}
        put_predictions(store, [])
        store.put_labels([row for row in labels if row[0] not in changed])
        store.remove_facts([_BEFORE, _SINCE])


def classifier_folder(collection: Collection) -> Path:
    """Return the folder of the classifier that was trained on the examples."""
    return collection.folder / FOLDER


def label_with_examples(
    collection: Collection, classifier: Trained | None = None
) -> list[Prediction]:
    """Return the label of every photo, in order of path: that which a person gave, with the
    probability 1, or the likeliest that nobody called wrong.

    ``classifier`` is that of the collection unless given. Raises ClassifierError where there is
    none, and EncoderMismatch where it is of another encoder.
    """
    by_photo = stored_examples(collection)
    if classifier is None and not classifier_folder(collection).exists():
        raise ClassifierError(
            "nothing was trained on examples yet: say on the page's view of labels (`vitsearch "
            "serve`) which are right, and train there"
        )
    chosen = classifier or load_trained(classifier_folder(collection))
    top = 1 + max((len(example.wrong) for example in by_photo.values()), default=0)
    return corrected(collection.label(chosen, top=min(top, len(chosen.classes))), by_photo)


def corrected(
    predictions: Iterable[Prediction], by_photo: Mapping[int, Example]
) -> list[Prediction]:
    """Return one label for each photo of predictions (photo by photo, the best first) that agrees
    with what a person said; none where all are wrong.
    """
    chosen: dict[int, Prediction] = {}
    for prediction in predictions:
        example = by_photo.get(prediction.photo_id)
        if example and example.label:
            prediction = Prediction(prediction.path, example.label, 1.0, prediction.photo_id)
        elif example and prediction.label in example.wrong:
            continue
        chosen.setdefault(prediction.photo_id, prediction)
    return list(chosen.values())


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
