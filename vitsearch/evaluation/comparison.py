"""Zero-shot beside a supervised classifier beside a probe, on the same photos."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from vitsearch.errors import ClassifierError, PhotoError, QueryError
from vitsearch.evaluation.accuracy import Share
from vitsearch.evaluation.class_map import ClassMap, derive_class_map, label_called, label_logits
from vitsearch.evaluation.training import cross_validated, probe_maker
from vitsearch.labels import (
    Decision,
    Label,
    LabelClassifier,
    LabelScore,
    parse_labels,
    predict,
    prototype_classifier,
)
from vitsearch.labels.ground_truth import read_labels
from vitsearch.labels.metrics import confidence_gap
from vitsearch.types import Activation

MethodName = Literal["zero-shot", "supervised", "probe"]
_LONG_ENOUGH = (
    0.05  # seconds: a run on a few vectors is shorter than what the clock and the system add to it
)


@dataclass(frozen=True, eq=False)
class Method:
    """One way of labelling and what it said of the photos of a comparison.

    ``answers`` are (label, probability) of each photo in order, None where there is none: of
    ``failed``, (path, reason), which count as wrong, and of those that a probe was not asked for,
    which do not count. ``seconds`` are what the ``asked`` photos take: the supervised way reads and
    computes them, the others label their stored vectors (the mean of warm runs; the probe's by one
    classifier). Without truth the measures are None: ``accuracy``, the accuracy of each class in
    order of label, the expected calibration error (15 bins), and ``confusion``, the counts
    ``(labels, labels)`` of true labels in rows and answers in columns.
    """

    name: MethodName
    model: str
    answers: tuple[LabelScore | None, ...]
    failed: tuple[tuple[str, str], ...]
    asked: int
    seconds: float
    accuracy: Share | None = None
    per_class: Mapping[str, Share] | None = None
    calibration_error: float | None = None
    confusion: Ids | None = None

    @property
    def photos_per_second(self) -> float:
        """How many photos were labelled in a second."""
        return self.asked / max(self.seconds, 1e-9)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the ways said of the same photos, whose paths are in order.

    ``truth`` holds their labels where they are known. ``agreement`` is, for each pair of ways, on
    how many of the photos that both answered they said the same. ``disagreements`` are the places
    of the photos on which ways differ: with truth, first those where one is right and another
    wrong. ``notes`` are lines for the person.
    """

    labels: tuple[str, ...]
    photos: tuple[str, ...]
    truth: tuple[str, ...] | None
    ways: tuple[Method, ...]
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
    progress: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Return what zero-shot, a supervised classifier and, with ``truth``, a probe say of the photos
    of a collection.

    Zero-shot labels the stored vectors by words (``templates``). The supervised ``model`` reads the
    photos, and ``class_map`` (None: `derive_class_map`) says which of its classes are a label:
    their probabilities are summed and divided by the sum of all labels', so that a score is the
    probability among the labels, as in `evaluate_model`; of classes that stand by themselves
    ("sigmoid") the highest counts as it is. The probe is logistic regression on the stored vectors,
    each photo judged by one that was trained on others. ``truth`` is "folders" or a CSV file
    (`read_labels`): photos without a label there are left out. ``progress`` is told how many more
    photos the model has read. Raises QueryError for one label alone, labels of which the model has
    none, a class map of another model, or no photos.
    """
    parsed = parse_labels(labels)
    if len(parsed) < 2:
        raise QueryError(f"there is one label, {parsed[0].name!r}: a comparison needs two or more")
    network = load_classifier(model) if isinstance(model, str) else model
    names, notes = tuple(label.name for label in parsed), list[str]()
    mapped = class_map or derive_class_map(network.classes, parsed)
    columns = _columns(network, mapped, names, notes)
    paths, vectors, known = _photos(collection, parsed, truth, notes)
    ways = [
        _zero_shot(collection.zero_shot(parsed, templates), vectors),
        _supervised(
            network, dict(zip(names, columns, strict=True)), collection.root, paths, progress
        ),
    ]
    if known is not None and (probe := _probe(collection, vectors, known, notes)):
        ways.append(probe)
    if known is not None:
        ways = [_judged(way, names, known) for way in ways]
    return Comparison(
        labels=names,
        photos=paths,
        truth=known,
        ways=tuple(ways),
        agreement={
            (one.name, two.name): share
            for one, two in combinations(ways, 2)
            if (share := _agreement(one, two))
        },
        disagreements=_disagreements(ways, known),
        class_map=mapped,
        notes=tuple(notes),
    )


# -- what is compared ------------------------------------------------------------------------------


def _columns(
    network: ImageClassifier, mapped: ClassMap, names: Sequence[str], notes: list[str]
) -> list[list[int]]:
    """Return the model's classes of each label and note the labels that have none."""
    if mapped.classes != tuple(network.classes):
        raise QueryError(
            f"the class map is of other classes than those of {network.name}: derive it anew"
        )
    columns = mapped.columns(names)
    bare = [name for name, places in zip(names, columns, strict=True) if not places]
    hint = "give them synonyms (label = word | word), or edit the class map"
    if len(bare) == len(names):
        raise QueryError(f"{network.name} has no class of any label ({_listed(bare)}): {hint}")
    if bare:
        notes.append(
            f"{network.name} has no class of {_listed(bare)}, so it never answers so: {hint}"
        )
    return columns


def _photos(
    collection: Collection, labels: Sequence[Label], source: str | None, notes: list[str]
) -> tuple[tuple[str, ...], Vectors, tuple[str, ...] | None]:
    """Return the paths, the vectors and the true labels of the photos to compare on, and note what
    is left out.
    """
    photos, vectors = collection.vectors()
    if not photos:
        raise QueryError("there is no photo in the collection: index a folder of photos")
    paths = [photo.path for photo in photos]
    if source is None:
        return tuple(paths), vectors, None
    given = read_labels(source, paths)
    called = {name: label_called(name, labels) for name in sorted(set(given.values()))}
    other = [name for name, label in called.items() if label is None]
    if len(other) == len(called):
        raise QueryError(
            f"no photo's true label ({_listed(other)}) is one of the labels "
            f"({_listed([label.name for label in labels])})"
        )
    known = {path: label for path, name in given.items() if (label := called[name])}
    if other:
        notes.append(
            f"{len(given) - len(known):,} photos are left out: {_listed(other)} is no label here"
        )
    if len(given) < len(paths):
        notes.append(
            f"{len(paths) - len(given):,} of {len(paths):,} photos have no true label and are left "
            "out"
        )
    kept = [place for place, path in enumerate(paths) if path in known]
    return (
        tuple(paths[place] for place in kept),
        vectors[kept],
        tuple(known[paths[place]] for place in kept),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# -- the ways --------------------------------------------------------------------------------------


def _zero_shot(classifier: LabelClassifier, vectors: Vectors) -> Method:
    answers = _answers(classifier, vectors)
    return Method(
        "zero-shot", "words", tuple(answers), (), len(answers), _seconds(classifier, vectors)
    )


def _answers(classifier: LabelClassifier, vectors: Vectors) -> list[LabelScore]:
    return [best for [best] in predict(classifier, vectors, Decision())]


def _seconds(classifier: LabelClassifier, vectors: Vectors) -> float:
    """Return how long a warm classifier takes to label all the vectors, on average of runs that
    take `_LONG_ENOUGH` together.
    """
    _answers(classifier, vectors)
    start, runs = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < _LONG_ENOUGH or not runs:
        _answers(classifier, vectors)
        runs += 1
    return spent / runs


def _supervised(
    network: ImageClassifier,
    named: Mapping[str, Sequence[int]],
    root: Path,
    paths: Sequence[str],
    progress: Callable[[int], None],
) -> Method:
    """Return what a model says of the files, with its classes of each label."""
    network.logits([Image.new("RGB", (64, 64))])  # the first run of a model is slower
    start = time.perf_counter()
    found: list[LabelScore | PhotoError] = []
    for batch in network.logits_of(root / path for path in paths):
        found.extend(_best_labels([row for _, row in batch], named, network.head.activation))
        progress(len(batch))
    seconds = time.perf_counter() - start
    failed = tuple(
        (path, str(one))
        for path, one in zip(paths, found, strict=True)
        if isinstance(one, PhotoError)
    )
    answers = tuple(None if isinstance(one, PhotoError) else one for one in found)
    return Method("supervised", network.name, answers, failed, len(paths), seconds)


def _best_labels(
    rows: Sequence[Logits | PhotoError], named: Mapping[str, Sequence[int]], activation: Activation
) -> Iterator[LabelScore | PhotoError]:
    """Yield the best label of each row of logits and its probability among the labels; one without
    a class is never the answer.
    """
    read = [row for row in rows if not isinstance(row, PhotoError)]
    logits = (
        label_logits(np.stack(read), [*named.values()], activation)
        if read
        else np.empty((0, len(named)))
    )
    found = zip(
        logits.argmax(axis=1), to_probabilities(logits, activation).max(axis=1), strict=True
    )
    for row in rows:
        if isinstance(row, PhotoError):
            yield row
        else:
            best, score = next(found)
            yield tuple(named)[best], float(score)


def _probe(
    collection: Collection, vectors: Vectors, known: Sequence[str], notes: list[str]
) -> Method | None:
    """Return what classifiers say that were trained on other photos than those they judge; None,
    and a note, where there can be none.
    """
    count = {name: known.count(name) for name in dict.fromkeys(known)}
    single = [name for name, photos in count.items() if photos == 1]
    asked = [place for place, name in enumerate(known) if count[name] > 1]
    if len(count) - len(single) < 2:
        notes.append("there is no probe: it needs two labels or more with two photos or more each")
        return None
    if single:
        notes.append(
            f"the probe leaves out {_listed(single)}: there is one photo of it, and none to train "
            "on"
        )
    truth = [known[place] for place in asked]
    model, folds = _folds(collection.settings.encoder_fingerprint, vectors[asked], truth, notes)
    answers: list[LabelScore | None] = [None] * len(known)
    for here, classifier in folds:
        for place, one in zip(here, _answers(classifier, vectors[asked][here]), strict=True):
            answers[asked[place]] = one
    return Method(
        "probe", model, tuple(answers), (), len(asked), _seconds(folds[0][1], vectors[asked])
    )


def _folds(
    fingerprint: str, vectors: Vectors, truth: list[str], notes: list[str]
) -> tuple[str, Sequence[tuple[Ids, LabelClassifier]]]:
    """Return logistic regression of each fold, or prototypes, and a note, where it
    cannot be had.
    """
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
    return "prototypes", cross_validated(
        partial(prototype_classifier, fingerprint=fingerprint), vectors, truth
    )


# -- measures --------------------------------------------------------------------------------------


def _judged(way: Method, names: Sequence[str], known: Sequence[str]) -> Method:
    """Return the way with what its answers are worth."""
    column = {name: place for place, name in enumerate(names)}
    given = [(truth, one) for truth, one in zip(known, way.answers, strict=True) if one is not None]
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    for truth, (label, _) in given:
        confusion[column[truth], column[label]] += 1
    total = {name: 0 for name in names}
    for truth, one in zip(known, way.answers, strict=True):
        total[truth] += one is not None or way.name == "supervised"
    right = [truth == label for truth, (label, _) in given]
    return replace(
        way,
        accuracy=Share(sum(right), way.asked),
        per_class={
            name: Share(int(confusion[place, place]), total[name])
            for name, place in column.items()
            if total[name]
        },
        calibration_error=confidence_gap(
            np.array([score for _, (_, score) in given]), np.array(right)
        )
        if given
        else None,
        confusion=confusion,
    )


def _agreement(one: Method, two: Method) -> Share | None:
    """Return on how many photos two ways said the same, of those that both answered; None where
    that is none.
    """
    both = [
        (a[0], b[0])
        for a, b in zip(one.answers, two.answers, strict=True)
        if a is not None and b is not None
    ]
    return Share(sum(a == b for a, b in both), len(both)) if both else None


def _disagreements(ways: Sequence[Method], known: Sequence[str] | None) -> tuple[int, ...]:
    """Return the photos of different answers, in order; with truth, first those with a right one
    among them.
    """
    said = [
        {one[0] for one in answers if one is not None}
        for answers in zip(*(way.answers for way in ways), strict=True)
    ]
    places = [place for place, labels in enumerate(said) if len(labels) > 1]
    return tuple(
        sorted(places, key=lambda place: known is not None and known[place] not in said[place])
    )
