"""The linear classifier: zero-shot prompts, a linear probe and a fine-tuned head are all one of
these.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from vitsearch.arrays import Vectors, to_probabilities, top_k
from vitsearch.errors import ClassifierError, QueryError
from vitsearch.labels.labels import Tree
from vitsearch.types import Activation

# -- A trained classifier in a folder --------------------------------------------------------------

FORMAT = 1
FACTS, NUMBERS = "classifier.json", "classifier.safetensors"


def write_classifier(
    folder: str | os.PathLike[str], facts: Mapping[str, Any], numbers: Mapping[str, NDArray[Any]]
) -> None:
    """Write both files, each aside and then renamed, the facts last; raises ClassifierError."""
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: np.ascontiguousarray(array) for name, array in numbers.items()},
            place / f"{NUMBERS}.new",
        )
        (place / f"{FACTS}.new").write_text(
            json.dumps({"format": FORMAT, **facts}, indent=2) + "\n", encoding="utf-8"
        )
        for name in (NUMBERS, FACTS):
            os.replace(place / f"{name}.new", place / name)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClassifierError(
            f"cannot write the classifier to {place} ({reason}): choose another place"
        ) from error


def read_classifier(
    folder: str | os.PathLike[str], kind: str, shapes: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts and the numbers of a classifier of a kind; raises ClassifierError where they
    are missing, damaged or of another.

    ``shapes`` names the axes of each array; axes of one name have one length, and "classes" is the
    number of classes.
    """
    place = Path(folder)
    try:
        facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
        numbers = load_file(place / NUMBERS)
    except FileNotFoundError as error:
        _refuse_model(place)
        raise ClassifierError(
            f"there is no classifier in {place}: train one with `vitsearch train`"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise ClassifierError(
            f"the classifier in {place} is damaged ({' '.join(str(error).split())[:120]}): train "
            "it again"
        ) from error
    wrong = _wrong(facts, numbers, kind, shapes)
    if wrong:
        raise ClassifierError(f"the classifier in {place} is damaged ({wrong}): train it again")
    return facts, numbers


def classifier_kind(folder: str | os.PathLike[str]) -> str:
    """Return the kind of the classifier in a folder, "" where it does not say; raises
    ClassifierError where there is none.
    """
    try:
        facts = json.loads((Path(folder) / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _refuse_model(Path(folder))
        raise ClassifierError(
            f"there is no classifier in {folder} ({FACTS} cannot be read): train one with "
            "`vitsearch train`"
        ) from error
    return str(facts.get("kind", "")) if isinstance(facts, dict) else ""


def _refuse_model(place: Path) -> None:
    """Raise ClassifierError where the folder holds a model of photos instead."""
    if (place / "config.json").is_file() and not (place / FACTS).exists():
        raise ClassifierError(
            f"{place} holds a model of photos, not a classifier of vectors: vitsearch classify "
            f"PHOTOS --model local-dir:{place} uses it"
        )


def _wrong(
    facts: Any, numbers: Mapping[str, NDArray[Any]], kind: str, shapes: Mapping[str, Sequence[str]]
) -> str | None:
    """Return what is wrong with what was read, or None."""
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        return f"{FACTS} is not of format {FORMAT}"
    classes = facts.get("classes")
    if facts.get("kind") != kind:
        return f"it is of kind {facts.get('kind')!r}, not {kind!r}"
    if (
        not isinstance(classes, list)
        or not classes
        or not all(isinstance(name, str) for name in classes)
    ):
        return "its classes are no list of names"
    if facts.get("activation") not in ("softmax", "sigmoid") or not isinstance(
        facts.get("fingerprint"), str
    ):
        return f"{FACTS} lacks the activation or the encoder's fingerprint"
    lengths = {"classes": len(classes)}
    for name, axes in shapes.items():
        array = numbers.get(name)
        if (
            array is None
            or array.ndim != len(axes)
            or any(lengths.setdefault(a, n) != n for a, n in zip(axes, array.shape, strict=True))
        ):
            return f"its numbers {name!r} have another shape than {', '.join(axes)}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"its numbers {name!r} are not all finite"
    return None


# -- The linear classifier -------------------------------------------------------------------------

BLOCK = 16_384  # rows scored at once: bounds the memory, not the number of photos


@runtime_checkable
class LabelClassifier(Protocol):
    """Anything that gives the classes of a vector as logits."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of the columns."""
        ...

    @property
    def activation(self) -> Activation:
        """Whether the probabilities of a row sum to 1, or each stands by itself."""
        ...

    @property
    def fingerprint(self) -> str:
        """The encoder whose vectors it reads, "" where it does not say."""
        ...

    def logits(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 logits of ``(n, dim)`` vectors."""
        ...

    def predict_proba(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 probabilities of ``(n, dim)`` vectors."""
        ...

    def scaled(self, scale: float, shift: float = 0.0) -> Self:
        """Return the classifier whose logits are ``scale * logits + shift``."""
        ...


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """Scores of classes as a linear function of a vector.

    ``weight`` is ``(classes, dim)`` and ``bias`` ``(classes,)`` float32. ``activation`` "softmax"
    gives probabilities that sum to 1 over the classes, "sigmoid" one probability for each class by
    itself. ``fingerprint`` is that of the encoder whose vectors it reads.
    """

    classes: tuple[str, ...]
    weight: Vectors
    bias: Vectors
    activation: Activation = "softmax"
    fingerprint: str = ""

    def logits(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 logits of ``(n, dim)`` vectors; raises QueryError for
        another shape.
        """
        rows = np.asarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.weight.shape[1]:
            raise QueryError(
                f"expected (n, {self.weight.shape[1]}) vectors, got shape {rows.shape}"
            )
        result: Vectors = rows @ self.weight.T + self.bias
        return result

    def predict_proba(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 probabilities of ``(n, dim)`` vectors, columns in the
        order of ``classes``.
        """
        return probabilities(self, vectors)

    def scaled(self, scale: float, shift: float = 0.0) -> "LinearClassifier":
        """Return the classifier whose logits are ``scale * logits + shift``: 1 / scale is the
        temperature.
        """
        return replace(
            self,
            weight=self.weight * np.float32(scale),
            bias=self.bias * np.float32(scale) + np.float32(shift),
        )

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the classifier to a folder (JSON and safetensors); raises ClassifierError."""
        facts = {
            "kind": "linear",
            "classes": list(self.classes),
            "activation": self.activation,
            "fingerprint": self.fingerprint,
        }
        write_classifier(folder, facts, {"weight": self.weight, "bias": self.bias})

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "LinearClassifier":
        """Return the classifier of a folder; raises ClassifierError where it is
        missing or damaged.
        """
        facts, numbers = read_classifier(
            folder, "linear", {"weight": ("classes", "dim"), "bias": ("classes",)}
        )
        return cls(
            tuple(facts["classes"]),
            numbers["weight"],
            numbers["bias"],
            facts["activation"],
            facts["fingerprint"],
        )

    def predict(self, vectors: Vectors) -> list[str]:
        """Return the most probable label of each vector; of equal ones the first in ``classes``."""
        rows = np.asarray(vectors)
        best: list[str] = []
        for start in range(0, len(rows), BLOCK):
            best.extend(
                self.classes[i] for i in self.logits(rows[start : start + BLOCK]).argmax(axis=1)
            )
        return best


def probabilities(classifier: LabelClassifier, vectors: Vectors) -> Vectors:
    """Return ``(n, classes)`` float32 probabilities of ``(n, dim)`` vectors, a block of rows at a
    time.
    """
    rows = np.asarray(vectors)
    out = np.empty((len(rows), len(classifier.classes)), dtype=np.float32)
    for start in range(0, len(rows), BLOCK):
        out[start : start + BLOCK] = to_probabilities(
            classifier.logits(rows[start : start + BLOCK]), classifier.activation
        )
    return out


# -- From the probabilities of classes to the labels that a photo gets -----------------------------

LabelScore = tuple[str, float]
SURE = 0.5  # the threshold of labels that stand by themselves, where none is given


@dataclass(frozen=True, slots=True)
class Decision:
    """Which labels a photo gets.

    ``top`` is how many at most (None: as many as reach the threshold), ``threshold`` the least
    probability. Where labels lie below others and their probabilities sum to 1, a threshold asks
    for the deepest name that reaches it, one a photo.
    """

    top: int | None = 1
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise QueryError(f"a threshold is a probability from 0 to 1, not {self.threshold}")


def predict(
    classifier: LabelClassifier, vectors: Vectors, decision: Decision
) -> list[list[LabelScore]]:
    """Return for each of ``(n, dim)`` vectors its labels with their probabilities, best first,
    equal ones in order of class.
    """
    logits = classifier.logits(vectors)
    chances = to_probabilities(logits, classifier.activation)
    if decision.threshold is not None and classifier.activation == "softmax":
        tree = Tree(classifier.classes)
        if not tree.is_flat:
            found = [tree.descend(row, decision.threshold) for row in chances]
            return [[one] if one else [] for one in found]
    count = len(classifier.classes) if decision.top is None else decision.top
    places = logits.argmax(axis=1)[:, None] if count == 1 else [top_k(row, count) for row in logits]
    least = (
        decision.threshold
        if decision.threshold is not None
        else SURE
        if decision.top is None
        else 0.0
    )
    return [
        [(classifier.classes[place], float(row[place])) for place in best if row[place] >= least]
        for row, best in zip(chances, places, strict=True)
    ]
