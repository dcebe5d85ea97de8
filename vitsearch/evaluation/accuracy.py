"""How good an encoder and its classifiers are on a folder of photos in one folder a class, as the
field measures it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Ids, Vectors, to_probabilities
from vitsearch.classifiers import ImageClassifier
from vitsearch.collection import Collection
from vitsearch.errors import PhotoError, QueryError
from vitsearch.evaluation.captions import Retrieval, read_captions, retrieve
from vitsearch.evaluation.class_map import label_logits
from vitsearch.labels import Label, LabelClassifier, parse_labels
from vitsearch.labels.ground_truth import FOLDERS, read_labels
from vitsearch.labels.metrics import (
    accuracy_interval,
    confidence_gap,
    first_right_ranks,
    mean_per_class_accuracy,
)
from vitsearch.types import Activation

# -- How good an encoder and its classifiers are on a folder of photos in one folder a class -------

_ROWS = 4096  # photos judged at once: it bounds the memory


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many were right."""

    right: int
    total: int

    @property
    def value(self) -> float:
        """The share, from 0 to 1."""
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval (Wilson 1927)."""
        return accuracy_interval(self.right, self.total)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How well a classifier tells the classes of a set; equal scores rank in order of class.

    ``classes`` is how many it chose from. ``top5`` is None where these are fewer than 5.
    ``mean_per_class`` is the mean of the classes' own shares (mean per-class recall),
    ``calibration_error`` the expected one of 15 bins, ``per_class`` in order of name.
    """

    classifier: str
    classes: int
    top1: Share
    top5: Share | None
    mean_per_class: float
    calibration_error: float
    per_class: Mapping[str, Share]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured on a set: ``left_out`` of its ``photos`` lie in no folder and have no
    class.

    ``accuracy`` is None where there are captions but no classes to tell, ``retrieval`` where there
    are no captions.
    """

    photos: int
    left_out: int
    accuracy: Accuracy | None
    retrieval: Retrieval | None


@dataclass(frozen=True, slots=True)
class _Truth:
    """The photos that have a class: their places among all photos, in order of path, and the class
    of each.
    """

    classes: tuple[str, ...]
    places: Ids
    names: list[str]


def evaluate(
    collection: Collection,
    classifier: LabelClassifier | None = None,
    *,
    labels: Sequence[str | Label] | None = None,
    templates: str | Sequence[str] = "plain",
    captions: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Return the accuracy of a classifier on a collection whose photos lie in one folder a class,
    and its encoder's retrieval recall.

    Without a ``classifier`` it is zero-shot: the folders' names are the classes; ``labels`` says
    what their prompts are instead ("n01440764 := tench"), one for each folder. Measures are those
    of CLIP_benchmark. ``captions`` is a file of lines ``path<TAB>caption`` (None: ``captions.tsv``
    in the photo folder, where there is one), several a photo, paths relative to the folder with
    ``/``. Raises QueryError for fewer than two classes, labels that are not the folders' names, or
    a damaged line of captions; EncoderMismatch for a classifier of other vectors.
    """
    photos, vectors = collection.vectors()
    paths = [photo.path for photo in photos]
    found = read_captions(collection, paths, captions)
    truth = None
    try:
        truth = _truth(paths)
    except QueryError as error:
        if found is None or classifier is not None or labels is not None:
            raise
        collection.notes.append(f"no classes to tell: {error}")
    accuracy = (
        _classified(collection, truth, vectors, classifier, labels=labels, templates=templates)
        if truth
        else None
    )
    left_out = len(paths) - len(truth.places) if truth else len(paths)
    return Evaluation(len(paths), left_out, accuracy, retrieve(collection, vectors, found))


def evaluate_model(
    collection: Collection,
    model: ImageClassifier,
    *,
    labels: Sequence[str | Label] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Accuracy:
    """Return the accuracy of a supervised classifier on the photos of a collection, choosing among
    the folders' classes alone.

    A folder's class is the model's class of its name, or else of one of its label's words
    ("n01440764 := tench"). The photos are read; ``progress`` is told how many more are done. Raises
    QueryError naming the folders that are no class of the model, PhotoError.
    """
    paths = [photo.path for photo in collection.photos()]
    truth = _truth(paths)
    columns = _columns(model, _labels_of(truth.classes, labels))
    blocks = _model_logits(
        model, collection.root, [paths[place] for place in truth.places], columns, progress
    )
    return _accuracy(model.name, truth, truth.classes, blocks, model.head.activation)


# -- classes ---------------------------------------------------------------------------------------


def _truth(paths: Sequence[str]) -> _Truth:
    """Return which photo is of which class; raises QueryError for fewer than two classes."""
    if not paths:
        raise QueryError(
            "there is no photo in the collection: index a folder with one folder of photos a class"
        )
    labelled = read_labels(FOLDERS, paths)
    classes = tuple(sorted(set(labelled.values())))
    if len(classes) < 2:
        raise QueryError(
            f"all photos lie in one folder, {classes[0]!r}: an evaluation needs two classes or "
            "more, a folder for each"
        )
    places = [place for place, path in enumerate(paths) if path in labelled]
    return _Truth(
        classes, np.array(places, dtype=np.int64), [labelled[paths[place]] for place in places]
    )


def _labels_of(folders: Sequence[str], labels: Sequence[str | Label] | None) -> list[Label]:
    """Return a label for each folder, in order of folder; raises QueryError for a folder without
    one or one without a folder.
    """
    if labels is None:
        return [Label(name, (name,)) for name in folders]
    given = {label.name: label for label in parse_labels(labels)}
    bare, idle = sorted(set(folders) - set(given)), sorted(set(given) - set(folders))
    if bare:
        raise QueryError(
            f"there is no label for the folder {', '.join(bare[:5])}{_more(bare)}: write {bare[0]} "
            ":= what its photos show"
        )
    if idle:
        raise QueryError(
            f"there is no folder for the label {', '.join(idle[:5])}{_more(idle)}: a label's name "
            "must be a folder's"
        )
    return [given[name] for name in folders]


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 5} more" if len(names) > 5 else ""


def _classified(
    collection: Collection,
    truth: _Truth,
    vectors: Vectors,
    classifier: LabelClassifier | None,
    *,
    labels: Sequence[str | Label] | None,
    templates: str | Sequence[str],
) -> Accuracy:
    named = _labels_of(truth.classes, labels)
    name = "zero-shot" if classifier is None else "classifier"
    chosen = collection.zero_shot(named, templates) if classifier is None else classifier
    collection.check_classifier(chosen)
    missing = sorted(set(truth.classes) - set(chosen.classes))
    if missing:
        raise QueryError(
            f"the classifier has no class for the folder {', '.join(missing[:5])}{_more(missing)}: "
            f"it has {', '.join(chosen.classes[:5])}"
        )
    blocks = (
        chosen.logits(vectors[truth.places[start : start + _ROWS]])
        for start in range(0, len(truth.places), _ROWS)
    )
    return _accuracy(name, truth, chosen.classes, blocks, chosen.activation)


def _accuracy(
    name: str,
    truth: _Truth,
    classes: Sequence[str],
    blocks: Iterable[NDArray[np.floating]],
    activation: Activation,
) -> Accuracy:
    """Return what the logits of the photos that have a class, a block of rows at a
    time, are worth.
    """
    column = {label: place for place, label in enumerate(classes)}
    right = np.array([column[label] for label in truth.names], dtype=np.int64)
    ranks, best, sure = np.empty_like(right), np.empty_like(right), np.empty(len(right))
    start = 0
    for logits in blocks:
        here = slice(start, start + len(logits))
        ranks[here] = first_right_ranks(logits, right[here, None] == np.arange(len(classes)))
        best[here] = logits.argmax(axis=1)
        sure[here] = to_probabilities(logits, activation).max(axis=1)
        start += len(logits)
    return Accuracy(
        classifier=name,
        classes=len(classes),
        top1=_share(ranks <= 1),
        top5=_share(ranks <= 5) if len(classes) >= 5 else None,
        mean_per_class=mean_per_class_accuracy(best, right),
        calibration_error=confidence_gap(sure, ranks == 1),
        per_class={label: _share(ranks[right == column[label]] == 1) for label in truth.classes},
    )


def _share(right: NDArray[np.bool_]) -> Share:
    return Share(int(right.sum()), len(right))


# -- a model that reads photos ---------------------------------------------------------------------


def _columns(model: ImageClassifier, labels: Sequence[Label]) -> list[list[int]]:
    """Return the places of each label among the model's classes, of which two may have one name."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(model.classes):
        places.setdefault(name, []).append(place)
    found = [
        next((places[word] for word in (label.name, *label.words) if word in places), [])
        for label in labels
    ]
    missing = [label.name for label, columns in zip(labels, found, strict=True) if not columns]
    if missing:
        raise QueryError(
            f"{model.name} has no class {', '.join(missing[:5])}{_more(missing)}: it has "
            f"{', '.join(model.classes[:3])}, ...; say which with --labels-file, such as n01440764 "
            ":= tench"
        )
    return found


def _model_logits(
    model: ImageClassifier,
    root: Path,
    paths: Sequence[str],
    columns: Sequence[Sequence[int]],
    progress: Callable[[int], None],
) -> Iterator[NDArray[np.float64]]:
    """Yield the logits of the columns; two classes of one name count as either of the two."""
    ahead = iter(paths)
    for batch in model.logits_of(root / path for path in paths):
        rows = []
        for path, (_, row) in zip(islice(ahead, len(batch)), batch, strict=True):
            if isinstance(row, PhotoError):
                raise PhotoError(f"{path}: {row}") from row
            rows.append(row)
        yield label_logits(np.stack(rows), columns, model.head.activation)
        progress(len(batch))
