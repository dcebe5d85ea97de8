"""Classifiers of vectors: what they share, the linear one, and how one is saved.

Zero-shot prompts, prototypes, a linear probe and a fine-tuned head are all a `LinearClassifier`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from vitsearch.arrays import Vectors, to_probabilities, unit_rows
from vitsearch.arrays import top_k as best_positions
from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import ImageEncoder, check_classifier
from vitsearch.encoders.batching import Picture, files_below
from vitsearch.errors import ClassifierError, QueryError
from vitsearch.labels.labels import Tree
from vitsearch.records import atomic_file, atomic_write, parse_record
from vitsearch.types import Activation, Prediction
from vitsearch.untrusted import parse_json, read_bounded, reason

Classified = Picture | Sequence[Picture] | Vectors

# -- A trained classifier in a folder --------------------------------------------------------------

FORMAT = 1
FACTS, NUMBERS = "classifier.json", "classifier.safetensors"


def write_classifier(
    folder: str | os.PathLike[str], facts: Mapping[str, Any], numbers: Mapping[str, NDArray[Any]]
) -> None:
    """Write both files of a classifier, each aside and then renamed, the facts last.

    Raises ClassifierError.
    """
    target = Path(folder)
    arrays = {name: np.ascontiguousarray(array) for name, array in numbers.items()}
    try:
        target.mkdir(parents=True, exist_ok=True)
        with atomic_file(target / NUMBERS) as aside:
            save_file(arrays, aside)
        text = json.dumps({"format": FORMAT, **facts}, indent=2) + "\n"
        atomic_write(target / FACTS, text)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClassifierError(
            f"cannot write the classifier to {target} ({reason}): choose another place"
        ) from error


def read_classifier(
    folder: str | os.PathLike[str], kind: str, shapes: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts and the numbers of a saved classifier of a kind.

    ``shapes`` names the axes of each array; axes of the same name have the same length, and
    "classes" is the number of classes. Raises ClassifierError where the files are missing, damaged
    or of another kind.
    """
    source = Path(folder)
    what, repair = f"the classifier in {source}", "train it again"
    try:
        data = read_bounded(source / FACTS)
        numbers = load_file(source / NUMBERS)
    except FileNotFoundError as error:
        _refuse_model(source)
        raise ClassifierError(
            f"there is no classifier in {source}: train one with `vitsearch train`"
        ) from error
    except Exception as error:  # of safetensors, its formats of numbers, and the disk
        raise ClassifierError(f"{what} is damaged ({reason(error)}): {repair}") from error
    facts = parse_record(_Facts, data, what, error=ClassifierError, repair=repair)
    if fault := _wrong(facts, numbers, kind, shapes):
        raise ClassifierError(f"{what} is damaged ({fault}): {repair}")
    return parse_json(data), numbers


def classifier_kind(folder: str | os.PathLike[str]) -> str:
    """Return the kind of the classifier in a folder, "" where it does not say.

    Raises ClassifierError where there is none.
    """
    try:
        facts = parse_json(read_bounded(Path(folder) / FACTS))
    except (OSError, ValueError) as error:
        _refuse_model(Path(folder))
        raise ClassifierError(
            f"there is no classifier in {folder} ({FACTS} cannot be read): train one with "
            "`vitsearch train`"
        ) from error
    return str(facts.get("kind", "")) if isinstance(facts, dict) else ""


def _refuse_model(folder: Path) -> None:
    """Raise ClassifierError where the folder holds a model of photos instead."""
    if (folder / "config.json").is_file() and not (folder / FACTS).exists():
        raise ClassifierError(
            f"{folder} holds a model of photos, not a classifier of vectors: vitsearch classify "
            f"PHOTOS --model local-dir:{folder} uses it"
        )


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the file of every kind of classifier says."""

    kind: str
    classes: list[str]
    activation: Activation
    fingerprint: str
    format: int = FORMAT


def _wrong(
    facts: _Facts,
    numbers: Mapping[str, NDArray[Any]],
    kind: str,
    shapes: Mapping[str, Sequence[str]],
) -> str | None:
    """Return what is wrong with what was read, or None."""
    if facts.kind != kind:
        return f"it is of kind {facts.kind!r}, not {kind!r}"
    if not facts.classes:
        return "it has no classes"
    lengths = {"classes": len(facts.classes)}
    for name, axes in shapes.items():
        array = numbers.get(name)
        if (
            array is None
            or array.ndim != len(axes)
            or any(
                lengths.setdefault(axis, length) != length
                for axis, length in zip(axes, array.shape, strict=True)
            )
        ):
            return f"its numbers {name!r} have another shape than {', '.join(axes)}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"its numbers {name!r} are not all finite"
    return None


# -- The linear classifier -------------------------------------------------------------------------

BLOCK = 16_384  # rows scored at once: bounds the memory, not the number of photos


@runtime_checkable
class LabelClassifier(Protocol):
    """Anything that turns vectors into logits of classes: what all classifiers share."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of the columns."""
        ...

    @property
    def activation(self) -> Activation:
        """Whether the probabilities of a row sum to 1 or are independent of each other."""
        ...

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder whose vectors it reads, "" where it is not known."""
        ...

    def logits(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 logits of ``(n, dim)`` vectors."""
        ...

    def predict_proba(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 probabilities of ``(n, dim)`` vectors."""
        ...

    def __call__(
        self,
        images: Classified,
        top_k: int = 5,
        *,
        batch_size: int = 32,
        encoder: ImageEncoder | str | None = None,
    ) -> list[list[Prediction]]:
        """Return the ``top_k`` labels of every picture or vector (see `VectorClassifier`)."""
        ...

    def scaled(self, scale: float, shift: float = 0.0) -> Self:
        """Return the classifier whose logits are ``scale * logits + shift``."""
        ...


class VectorClassifier:
    """The call that classifiers of vectors share with `vitsearch.ImageClassifier`."""

    def __call__(
        self: Any,
        images: Classified,
        top_k: int = 5,
        *,
        batch_size: int = 32,
        encoder: ImageEncoder | str | None = None,
    ) -> list[list[Prediction]]:
        """Return the ``top_k`` labels of every picture or vector, best first, equal ones in order
        of class.

        ``images`` is a single item or a list: paths, PIL pictures, folders (all photos below, in
        order of path), or vectors ``(n, dim)`` of its encoder. Paths and pictures are encoded by
        ``encoder``, an object or a name, None: that with whose words it was made. Scores are
        probabilities. Raises PhotoError for the first picture that cannot be read, EncoderMismatch
        for another encoder, and QueryError without one.
        """
        if top_k < 1 or batch_size < 1:
            raise QueryError(
                f"top_k and batch_size must be at least 1, not {top_k} and {batch_size}"
            )
        if isinstance(images, np.ndarray):
            vectors = unit_rows(np.atleast_2d(images))
            paths = [""] * len(vectors)
        else:
            pictures = list(files_below(images))
            paths = ["" if isinstance(each, Image) else os.fspath(each) for each in pictures]
            vectors = _encoder_of(self, encoder).embed(pictures, batch_size=batch_size)
        rows = predict(self, vectors, Decision(min(top_k, len(self.classes))))
        return [
            [Prediction(path, label, score) for label, score in row]
            for path, row in zip(paths, rows, strict=True)
        ]


def _encoder_of(classifier: Any, encoder: ImageEncoder | str | None) -> ImageEncoder:
    """Return the encoder whose vectors a classifier reads; raises QueryError, EncoderMismatch."""
    chosen = load_encoder(encoder) if isinstance(encoder, str) else encoder or classifier.encoder
    if chosen is None:
        raise QueryError(
            "this classifier reads vectors: give photos together with encoder=, the one that it "
            "was made with"
        )
    check_classifier(chosen, classifier.fingerprint, "give that one as encoder=")
    return chosen


@dataclass(frozen=True, eq=False)
class LinearClassifier(VectorClassifier):
    """Scores of classes as a linear function of a vector.

    ``weight`` is ``(classes, dim)`` and ``bias`` ``(classes,)`` float32. With the ``activation``
    "softmax" the probabilities sum to 1 over the classes, with "sigmoid" they are independent.
    ``fingerprint`` is that of the encoder whose vectors it reads, ``encoder`` that itself where it
    is at hand.
    """

    classes: tuple[str, ...]
    weight: Vectors
    bias: Vectors
    activation: Activation = "softmax"
    fingerprint: str = ""
    encoder: ImageEncoder | None = field(default=None, repr=False)

    def logits(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 logits of ``(n, dim)`` vectors.

        Raises QueryError for another shape.
        """
        rows = np.asarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.weight.shape[1]:
            raise QueryError(
                f"expected (n, {self.weight.shape[1]}) vectors, got shape {rows.shape}"
            )
        result: Vectors = rows @ self.weight.T + self.bias
        return result

    def predict_proba(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 probabilities of ``(n, dim)`` vectors."""
        return class_probabilities(self, vectors)

    def scaled(self, scale: float, shift: float = 0.0) -> "LinearClassifier":
        """Return the classifier whose logits are ``scale * logits + shift``.

        ``1 / scale`` is the temperature.
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
        """Return the classifier of a folder.

        Raises ClassifierError where it is missing or damaged.
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
        positions: list[str] = []
        for start in range(0, len(rows), BLOCK):
            positions.extend(
                self.classes[i] for i in self.logits(rows[start : start + BLOCK]).argmax(axis=1)
            )
        return positions


def class_probabilities(classifier: LabelClassifier, vectors: Vectors) -> Vectors:
    """Return ``(n, classes)`` float32 probabilities of ``(n, dim)`` vectors.

    They are computed a block of rows at a time.
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
DEFAULT_THRESHOLD = 0.5  # of independent probabilities, where no threshold is set


@dataclass(frozen=True, slots=True)
class Decision:
    """Which labels a photo gets.

    ``top`` is how many at most (None: as many as reach the threshold), ``threshold`` the least
    probability. Where labels have levels and their probabilities sum to 1, a threshold selects the
    deepest name that reaches it, one per photo.
    """

    top: int | None = 1
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise QueryError(f"a threshold is a probability from 0 to 1, not {self.threshold}")


def predict(
    classifier: LabelClassifier, vectors: Vectors, decision: Decision
) -> list[list[LabelScore]]:
    """Return the labels of each of ``(n, dim)`` vectors, with their probabilities.

    The best label comes first, equal ones in the order of the classes.
    """
    logits = classifier.logits(vectors)
    probabilities = to_probabilities(logits, classifier.activation)
    if decision.threshold is not None and classifier.activation == "softmax":
        tree = Tree(classifier.classes)
        if not tree.is_flat:
            deepest = [tree.descend(row, decision.threshold) for row in probabilities]
            return [[label] if label else [] for label in deepest]
    count = len(classifier.classes) if decision.top is None else decision.top
    best = (
        logits.argmax(axis=1)[:, None]
        if count == 1
        else [best_positions(row, count) for row in logits]
    )
    minimum = decision.threshold
    if minimum is None:
        minimum = DEFAULT_THRESHOLD if decision.top is None else 0.0
    return [
        [(classifier.classes[i], float(row[i])) for i in positions if row[i] >= minimum]
        for row, positions in zip(probabilities, best, strict=True)
    ]
