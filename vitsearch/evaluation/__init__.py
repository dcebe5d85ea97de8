"""Training, calibrating, measuring and comparing classifiers on a collection's labelled photos."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Ids, Vectors, to_probabilities
from vitsearch.classifiers import ImageClassifier
from vitsearch.collection import Collection
from vitsearch.collection.training import (
    TrainReport,
    calibrate_on,
    labelled_vectors,
    load_trained,
    train_classifier,
)
from vitsearch.errors import PhotoError, QueryError
from vitsearch.evaluation.class_map import (
    ClassMap,
    derive_class_map,
    label_logits,
    read_class_map,
    write_class_map,
)
from vitsearch.evaluation.comparison import Comparison, Method, compare
from vitsearch.evaluation.datasets import Retrieval, read_captions, retrieve
from vitsearch.labels import Label, LabelClassifier, parse_labels
from vitsearch.labels.labels import FOLDERS, read_labels
from vitsearch.labels.metrics import (
    Share,
    confidence_gap,
    first_right_ranks,
    mean_per_class_accuracy,
)
from vitsearch.types import Activation, OnProgress, Progress, no_progress

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


# -- Accuracy --------------------------------------------------------------------------------------


log = logging.getLogger("vitsearch")

_ROWS = 4096  # photos classified at once: it bounds the memory


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How well a classifier recognises the classes of a set; equal scores rank in order of class.

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
    """What was measured on a set of ``photos``.

    ``left_out`` of them lie outside any folder and have no class. ``accuracy`` is None where there
    are captions but no classes, ``retrieval`` where there are no captions.
    """

    photos: int
    left_out: int
    accuracy: Accuracy | None
    retrieval: Retrieval | None


@dataclass(frozen=True, slots=True)
class _Truth:
    """The photos that have a class: their positions among all photos, and the class of each."""

    classes: tuple[str, ...]
    positions: Ids
    names: list[str]


def evaluate(
    collection: Collection,
    classifier: LabelClassifier | None = None,
    *,
    labels: Sequence[str | Label] | None = None,
    templates: str | Sequence[str] = "plain",
    all_labels: bool = False,
    captions: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Return the accuracy of a classifier on a collection, and its encoder's retrieval recall.

    The photos lie in one folder per class. Without a ``classifier`` it is zero-shot: the folders'
    names are the classes; ``labels`` says what their prompts are instead ("n01440764 := tench"),
    one for each folder, or with ``all_labels`` more: the classes without a photo, which count where
    they are chosen. Measures are those of CLIP_benchmark. ``captions`` is a file of lines
    ``path<TAB>caption`` (None: ``captions.tsv`` in the photo folder, if there is one), any number
    per photo, paths relative to the folder with ``/``; "descriptions" are the photos' own, such as
    a data set's captions in shards or Parquet. Raises QueryError for fewer than two
    classes, labels that are not the folders' names, or a damaged line of captions; EncoderMismatch
    for a classifier of other vectors.
    """
    photos, vectors = collection.vectors()
    paths = [photo.path for photo in photos]
    captions_read = read_captions(collection, photos, captions)
    truth = None
    try:
        truth = _truth(paths)
    except QueryError as error:
        if captions_read is None or classifier is not None or labels is not None:
            raise
        log.warning(f"no classes to tell: {error}")
    accuracy = (
        _classified(
            collection,
            truth,
            vectors,
            classifier,
            labels=labels,
            templates=templates,
            all_labels=all_labels,
        )
        if truth
        else None
    )
    left_out = len(paths) - len(truth.positions) if truth else len(paths)
    return Evaluation(len(paths), left_out, accuracy, retrieve(collection, vectors, captions_read))


def evaluate_model(
    collection: Collection,
    model: ImageClassifier,
    *,
    labels: Sequence[str | Label] | None = None,
    progress: OnProgress = no_progress,
) -> Accuracy:
    """Return the accuracy of a supervised classifier on the photos of a collection.

    It chooses among the folders' classes alone. A folder's class is the model's class of its name,
    or else of one of its label's words ("n01440764 := tench"). The photos are read; ``progress`` is
    called as it goes on. Raises QueryError naming the folders that are not a class of the
    model, PhotoError.
    """
    paths = [photo.path for photo in collection.photos()]
    truth = _truth(paths)
    columns = _columns(model, _labels_of(truth.classes, labels))
    selected = [paths[i] for i in truth.positions]
    blocks = _model_logits(model, collection.root, selected, columns, progress)
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
    positions = [i for i, path in enumerate(paths) if path in labelled]
    names = [labelled[paths[i]] for i in positions]
    return _Truth(classes, np.array(positions, dtype=np.int64), names)


def _labels_of(folders: Sequence[str], labels: Sequence[str | Label] | None) -> list[Label]:
    """Return a label for each folder, in order of folder.

    Raises QueryError for a folder without a label or a label without a folder.
    """
    if labels is None:
        return [Label(name, (name,)) for name in folders]
    by_name = {label.name: label for label in parse_labels(labels)}
    bare, idle = sorted(set(folders) - set(by_name)), sorted(set(by_name) - set(folders))
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
    return [by_name[name] for name in folders]


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
    all_labels: bool,
) -> Accuracy:
    named = (
        parse_labels(labels)
        if all_labels and labels is not None
        else _labels_of(truth.classes, labels)
    )
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
        chosen.logits(vectors[truth.positions[start : start + _ROWS]])
        for start in range(0, len(truth.positions), _ROWS)
    )
    return _accuracy(name, truth, chosen.classes, blocks, chosen.activation)


def _accuracy(
    name: str,
    truth: _Truth,
    classes: Sequence[str],
    blocks: Iterable[NDArray[np.floating]],
    activation: Activation,
) -> Accuracy:
    """Return the accuracy of the logits of the photos that have a class, a block at a time."""
    column = {label: i for i, label in enumerate(classes)}
    right = np.array([column[label] for label in truth.names], dtype=np.int64)
    ranks, best, confidence = np.empty_like(right), np.empty_like(right), np.empty(len(right))
    start = 0
    for logits in blocks:
        rows = slice(start, start + len(logits))
        ranks[rows] = first_right_ranks(logits, right[rows, None] == np.arange(len(classes)))
        best[rows] = logits.argmax(axis=1)
        confidence[rows] = to_probabilities(logits, activation).max(axis=1)
        start += len(logits)
    return Accuracy(
        classifier=name,
        classes=len(classes),
        top1=_share(ranks <= 1),
        top5=_share(ranks <= 5) if len(classes) >= 5 else None,
        mean_per_class=mean_per_class_accuracy(best, right),
        calibration_error=confidence_gap(confidence, ranks == 1),
        per_class={label: _share(ranks[right == column[label]] == 1) for label in truth.classes},
    )


def _share(right: NDArray[np.bool_]) -> Share:
    return Share(int(right.sum()), len(right))


# -- a model that reads photos ---------------------------------------------------------------------


def _columns(model: ImageClassifier, labels: Sequence[Label]) -> list[list[int]]:
    """Return the positions of each label's classes in the model; two classes may share a name."""
    positions: dict[str, list[int]] = {}
    for i, name in enumerate(model.classes):
        positions.setdefault(name, []).append(i)
    columns = [
        next((positions[word] for word in (label.name, *label.words) if word in positions), [])
        for label in labels
    ]
    missing = [label.name for label, members in zip(labels, columns, strict=True) if not members]
    if missing:
        raise QueryError(
            f"{model.name} has no class {', '.join(missing[:5])}{_more(missing)}: it has "
            f"{', '.join(model.classes[:3])}, ...; say which with --labels-file, "
            "such as n01440764 := tench"
        )
    return columns


def _model_logits(
    model: ImageClassifier,
    root: Path,
    paths: Sequence[str],
    columns: Sequence[Sequence[int]],
    progress: OnProgress,
) -> Iterator[NDArray[np.float64]]:
    """Yield the logits of the columns; classes that share a name count together."""
    pending, done = iter(paths), 0
    for batch in model.logits_of(root / path for path in paths):
        rows = []
        for path, (_, row) in zip(islice(pending, len(batch)), batch, strict=True):
            if isinstance(row, PhotoError):
                raise PhotoError(f"{path}: {row}") from row
            rows.append(row)
        yield label_logits(np.stack(rows), columns, model.head.activation)
        done += len(batch)
        progress(Progress("classifying", done, len(paths)))
