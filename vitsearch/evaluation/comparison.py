"""Zero-shot beside a supervised classifier beside a probe, on the same photos."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vitsearch.arrays import Ids, Vectors, to_probabilities
from vitsearch.classifiers import ImageClassifier, load_classifier
from vitsearch.classifiers.classifier import Logits
from vitsearch.collection import Collection
from vitsearch.collection.training import cross_validated, probe_maker
from vitsearch.errors import ClassifierError, PhotoError, QueryError
from vitsearch.evaluation.class_map import ClassMap, derive_class_map, label_called, label_logits
from vitsearch.labels import (
    Decision,
    Label,
    LabelClassifier,
    LabelScore,
    parse_labels,
    predict,
    prototype_classifier,
)
from vitsearch.labels.labels import read_labels
from vitsearch.labels.metrics import Share, confidence_gap
from vitsearch.types import Activation, OnProgress, Progress, no_progress

MethodName = Literal["zero-shot", "supervised", "probe"]
_MIN_SECONDS = 0.05  # of timed runs: a single run on a few vectors is lost in the clock's noise


@dataclass(frozen=True, eq=False)
class Method:
    """One method of labelling, and its answers for the photos of a comparison.

    ``answers`` are (label, probability) of each photo in order. It is None for the photos in
    ``failed``, (path, reason), which count as wrong, and for those that a probe left out, which do
    not count. ``seconds`` is the time for the ``photo_count`` photos: the supervised method reads
    and computes them, the others label their stored vectors (the mean of warm runs; the probe's
    with a single classifier). Without truth the measures are None: ``accuracy``, the accuracy of
    each class in order of label, the expected calibration error (15 bins), and ``confusion``, the
    counts ``(labels, labels)`` of true labels in rows and answers in columns.
    """

    name: MethodName
    model: str
    answers: tuple[LabelScore | None, ...]
    failed: tuple[tuple[str, str], ...]
    photo_count: int
    seconds: float
    accuracy: Share | None = None
    per_class: Mapping[str, Share] | None = None
    calibration_error: float | None = None
    confusion: Ids | None = None

    @property
    def photos_per_second(self) -> float:
        """How many photos were labelled per second."""
        return self.photo_count / max(self.seconds, 1e-9)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The answers of several methods for the same photos, whose paths are in order.

    ``truth`` holds the photos' labels where they are known. ``agreement`` is, for each pair of
    methods, the share of equal answers among the photos that both answered. ``disagreements`` are
    the positions of the photos on which methods differ: with truth, those where one of them is
    right come first. ``notes`` are lines for the user.
    """

    labels: tuple[str, ...]
    photos: tuple[str, ...]
    truth: tuple[str, ...] | None
    methods: tuple[Method, ...]
    agreement: Mapping[tuple[MethodName, MethodName], Share]
    disagreements: tuple[int, ...]
    class_map: ClassMap
    notes: tuple[str, ...]


def compare(
    collection: Collection,
    labels: Sequence[str | Label],
    *,
    model: str | ImageClassifier = "mini",
    truth: str | None = None,
    templates: str | Sequence[str] = "plain",
    class_map: ClassMap | None = None,
    progress: OnProgress = no_progress,
) -> Comparison:
    """Return how zero-shot, a supervised classifier and a probe label a collection.

    Zero-shot labels the stored vectors by words (``templates``). The supervised ``model`` reads the
    photos, and ``class_map`` (None: `derive_class_map`) says which of its classes belong to a
    label: their probabilities are summed and divided by the sum of all labels', so that a score is
    the probability among the labels, as in `evaluate_model`; of independent classes ("sigmoid") the
    highest probability counts as it is. The probe is logistic regression on the stored vectors,
    cross-validated. ``truth`` is "folders" or a CSV file (`read_labels`): photos without a label
    there are left out. ``progress`` is called as the model reads the photos. Without ``truth``
    there is no probe. Raises QueryError for a single label, labels of which the model has none, a
    class map of another model, or no photos.
    """
    parsed = parse_labels(labels)
    if len(parsed) < 2:
        raise QueryError(f"there is one label, {parsed[0].name!r}: a comparison needs two or more")
    network = load_classifier(model) if isinstance(model, str) else model
    names, notes = tuple(label.name for label in parsed), list[str]()
    chosen_map = class_map or derive_class_map(network.classes, parsed)
    columns = _columns(network, chosen_map, names, notes)
    paths, vectors, true_labels = _photos(collection, parsed, truth, notes)
    members = dict(zip(names, columns, strict=True))
    methods = [
        _zero_shot(collection.zero_shot(parsed, templates), vectors),
        _supervised(network, members, collection.root, paths, progress),
    ]
    if true_labels is not None and (probe := _probe(collection, vectors, true_labels, notes)):
        methods.append(probe)
    if true_labels is not None:
        methods = [_measured(method, names, true_labels) for method in methods]
    return Comparison(
        labels=names,
        photos=paths,
        truth=true_labels,
        methods=tuple(methods),
        agreement={
            (first.name, second.name): share
            for first, second in combinations(methods, 2)
            if (share := _agreement(first, second))
        },
        disagreements=_disagreements(methods, true_labels),
        class_map=chosen_map,
        notes=tuple(notes),
    )


# -- What is compared ------------------------------------------------------------------------------


def _columns(
    network: ImageClassifier, mapped: ClassMap, names: Sequence[str], notes: list[str]
) -> list[list[int]]:
    """Return the positions of each label's classes, and note the labels that have none."""
    if mapped.classes != tuple(network.classes):
        raise QueryError(
            f"the class map is of other classes than those of {network.name}: derive it anew"
        )
    columns = mapped.columns(names)
    missing = [name for name, members in zip(names, columns, strict=True) if not members]
    hint = "give them synonyms (label = word | word), or edit the class map"
    if len(missing) == len(names):
        raise QueryError(f"{network.name} has no class of any label ({_listed(missing)}): {hint}")
    if missing:
        notes.append(
            f"{network.name} has no class of {_listed(missing)}, so it never answers so: {hint}"
        )
    return columns


def _photos(
    collection: Collection, labels: Sequence[Label], source: str | None, notes: list[str]
) -> tuple[tuple[str, ...], Vectors, tuple[str, ...] | None]:
    """Return the paths, vectors and true labels of the photos, and note which are left out."""
    photos, vectors = collection.vectors()
    if not photos:
        raise QueryError("there is no photo in the collection: index a folder of photos")
    paths = [photo.path for photo in photos]
    if source is None:
        return tuple(paths), vectors, None
    truth = read_labels(source, paths)
    label_by_name = {name: label_called(name, labels) for name in sorted(set(truth.values()))}
    other = [name for name, label in label_by_name.items() if label is None]
    if len(other) == len(label_by_name):
        raise QueryError(
            f"no photo's true label ({_listed(other)}) is one of the labels "
            f"({_listed([label.name for label in labels])})"
        )
    true_labels = {path: label for path, name in truth.items() if (label := label_by_name[name])}
    if other:
        notes.append(
            f"{len(truth) - len(true_labels):,} photos are left out: "
            f"{_listed(other)} is no label here"
        )
    if len(truth) < len(paths):
        notes.append(
            f"{len(paths) - len(truth):,} of {len(paths):,} photos have no "
            "true label and are left out"
        )
    positions = [i for i, path in enumerate(paths) if path in true_labels]
    return (
        tuple(paths[i] for i in positions),
        vectors[positions],
        tuple(true_labels[paths[i]] for i in positions),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# -- The methods -----------------------------------------------------------------------------------


def _zero_shot(classifier: LabelClassifier, vectors: Vectors) -> Method:
    answers, seconds = _answers(classifier, vectors), _seconds(classifier, vectors)
    return Method("zero-shot", "words", tuple(answers), (), len(answers), seconds)


def _answers(classifier: LabelClassifier, vectors: Vectors) -> list[LabelScore]:
    return [best for [best] in predict(classifier, vectors, Decision())]


def _seconds(classifier: LabelClassifier, vectors: Vectors) -> float:
    """Return how many seconds a warm classifier takes to label all the vectors.

    It is the mean of as many runs as fill `_MIN_SECONDS`.
    """
    _answers(classifier, vectors)
    start, runs = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < _MIN_SECONDS or not runs:
        _answers(classifier, vectors)
        runs += 1
    return spent / runs


def _supervised(
    network: ImageClassifier,
    named: Mapping[str, Sequence[int]],
    root: Path,
    paths: Sequence[str],
    progress: OnProgress,
) -> Method:
    """Return the answers of a model that reads the files; ``named`` are its classes by label."""
    network.logits([Image.new("RGB", (64, 64))])  # the first run of a model is slower
    start = time.perf_counter()
    results: list[LabelScore | PhotoError] = []
    for batch in network.logits_of(root / path for path in paths):
        results.extend(_best_labels([row for _, row in batch], named, network.head.activation))
        progress(Progress("classifying", len(results), len(paths)))
    seconds = time.perf_counter() - start
    failed = tuple(
        (path, str(result))
        for path, result in zip(paths, results, strict=True)
        if isinstance(result, PhotoError)
    )
    answers = tuple(None if isinstance(result, PhotoError) else result for result in results)
    return Method("supervised", network.name, answers, failed, len(paths), seconds)


def _best_labels(
    rows: Sequence[Logits | PhotoError], named: Mapping[str, Sequence[int]], activation: Activation
) -> Iterator[LabelScore | PhotoError]:
    """Yield the best label of each row of logits and its probability among the labels.

    A label without a class is never the best.
    """
    read = [row for row in rows if not isinstance(row, PhotoError)]
    logits = (
        label_logits(np.stack(read), [*named.values()], activation)
        if read
        else np.empty((0, len(named)))
    )
    best_of = zip(
        logits.argmax(axis=1), to_probabilities(logits, activation).max(axis=1), strict=True
    )
    for row in rows:
        if isinstance(row, PhotoError):
            yield row
        else:
            best, score = next(best_of)
            yield tuple(named)[best], float(score)


def _probe(
    collection: Collection, vectors: Vectors, true_labels: Sequence[str], notes: list[str]
) -> Method | None:
    """Return the cross-validated answers of a probe; None, and a note, for too few examples."""
    count = {name: true_labels.count(name) for name in dict.fromkeys(true_labels)}
    single = [name for name, photos in count.items() if photos == 1]
    used = [i for i, name in enumerate(true_labels) if count[name] > 1]
    if len(count) - len(single) < 2:
        notes.append("there is no probe: it needs two labels or more with two photos or more each")
        return None
    if single:
        notes.append(
            f"the probe leaves out {_listed(single)}: there is one photo "
            "of it, and none to train on"
        )
    truth = [true_labels[i] for i in used]
    model, folds = _folds(collection.config.encoder_fingerprint, vectors[used], truth, notes)
    answers: list[LabelScore | None] = [None] * len(true_labels)
    for held_out, classifier in folds:
        for i, best in zip(held_out, _answers(classifier, vectors[used][held_out]), strict=True):
            answers[used[i]] = best
    seconds = _seconds(folds[0][1], vectors[used])
    return Method("probe", model, tuple(answers), (), len(used), seconds)


def _folds(
    fingerprint: str, vectors: Vectors, truth: list[str], notes: list[str]
) -> tuple[str, Sequence[tuple[Ids, LabelClassifier]]]:
    """Return a logistic regression for each fold; else prototypes, with a note of the reason."""
    try:
        if folds := cross_validated(probe_maker(fingerprint), vectors, truth):
            return "logistic regression", folds
        notes.append(
            "the probe is nearest prototypes: some label has two photos only, and logistic "
            "regression needs three"
        )
    except ClassifierError:
        notes.append(
            "the probe is nearest prototypes: logistic regression needs scikit-learn (pip install "
            "'vitsearch[probe]')"
        )
    make = partial(prototype_classifier, fingerprint=fingerprint)
    return "prototypes", cross_validated(make, vectors, truth)


# -- Measures --------------------------------------------------------------------------------------


def _measured(method: Method, names: Sequence[str], true_labels: Sequence[str]) -> Method:
    """Return the method with its measures."""
    column = {name: i for i, name in enumerate(names)}
    pairs = list(zip(true_labels, method.answers, strict=True))
    predicted = [(truth, prediction) for truth, prediction in pairs if prediction is not None]
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    for truth, (label, _) in predicted:
        confusion[column[truth], column[label]] += 1
    total = {name: 0 for name in names}
    for truth, prediction in pairs:
        total[truth] += prediction is not None or method.name == "supervised"
    right = [truth == label for truth, (label, _) in predicted]
    scores = [score for _, (_, score) in predicted]
    return replace(
        method,
        accuracy=Share(sum(right), method.photo_count),
        per_class={
            name: Share(int(confusion[i, i]), total[name])
            for name, i in column.items()
            if total[name]
        },
        calibration_error=confidence_gap(np.array(scores), np.array(right)) if predicted else None,
        confusion=confusion,
    )


def _agreement(first: Method, second: Method) -> Share | None:
    """Return the share of equal answers among the photos that both answered; None without any."""
    both = [
        (a[0], b[0])
        for a, b in zip(first.answers, second.answers, strict=True)
        if a is not None and b is not None
    ]
    return Share(sum(a == b for a, b in both), len(both)) if both else None


def _disagreements(methods: Sequence[Method], true_labels: Sequence[str] | None) -> tuple[int, ...]:
    """Return the positions of photos with different answers, in order.

    With truth, those with a right answer among them come first.
    """
    labels = [
        {prediction[0] for prediction in predictions if prediction is not None}
        for predictions in zip(*(method.answers for method in methods), strict=True)
    ]
    positions = [i for i, distinct in enumerate(labels) if len(distinct) > 1]
    return tuple(
        sorted(positions, key=lambda i: true_labels is not None and true_labels[i] not in labels[i])
    )
