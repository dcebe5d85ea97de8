"""Learning from a collection's examples: what a person said about labels on the page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from vitsearch.collection.collection import Collection
from vitsearch.collection.local import put_predictions
from vitsearch.collection.training import Method, Trained, TrainReport, load_trained, train_on
from vitsearch.collection.understanding import LABELLED
from vitsearch.errors import ClassifierError, QueryError
from vitsearch.labels import NOTHING, parse_labels
from vitsearch.storage.albums import writing
from vitsearch.storage.examples import Example, examples, put_trained
from vitsearch.storage.store import PhotoStore
from vitsearch.storage.values import values_of
from vitsearch.types import Prediction

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
