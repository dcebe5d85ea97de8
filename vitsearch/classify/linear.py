"""The linear classifier: zero-shot prompts, a linear probe and a fine-tuned head are all one of these."""

from dataclasses import dataclass, replace
from os import PathLike
from typing import Protocol, Self, runtime_checkable

import numpy as np

from vitsearch.errors import QueryError
from vitsearch.types import Activation
from vitsearch.vectors import Vectors, squash

BLOCK = 16_384  # rows scored at once: bounds the memory, not the number of photos


@runtime_checkable
class Classifier(Protocol):
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

    ``weight`` is ``(classes, dim)`` and ``bias`` ``(classes,)`` float32. ``activation`` "softmax" gives probabilities that sum to 1
    over the classes, "sigmoid" one probability for each class by itself. ``fingerprint`` is that of the encoder whose vectors it reads.
    """

    classes: tuple[str, ...]
    weight: Vectors
    bias: Vectors
    activation: Activation = "softmax"
    fingerprint: str = ""

    def logits(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 logits of ``(n, dim)`` vectors; raises QueryError for another shape."""
        rows = np.asarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.weight.shape[1]:
            raise QueryError(f"expected (n, {self.weight.shape[1]}) vectors, got shape {rows.shape}")
        result: Vectors = rows @ self.weight.T + self.bias
        return result

    def predict_proba(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 probabilities of ``(n, dim)`` vectors, columns in the order of ``classes``."""
        return probabilities(self, vectors)

    def scaled(self, scale: float, shift: float = 0.0) -> "LinearClassifier":
        """Return the classifier whose logits are ``scale * logits + shift``: 1 / scale is the temperature."""
        return replace(self, weight=self.weight * np.float32(scale), bias=self.bias * np.float32(scale) + np.float32(shift))

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the classifier to a folder (JSON and safetensors); raises ClassifierError."""
        from vitsearch.classify.saved import write_classifier

        facts = {"kind": "linear", "classes": list(self.classes), "activation": self.activation, "fingerprint": self.fingerprint}
        write_classifier(folder, facts, {"weight": self.weight, "bias": self.bias})

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "LinearClassifier":
        """Return the classifier of a folder; raises ClassifierError where it is missing or damaged."""
        from vitsearch.classify.saved import read_classifier

        facts, numbers = read_classifier(folder, "linear", {"weight": ("classes", "dim"), "bias": ("classes",)})
        return cls(tuple(facts["classes"]), numbers["weight"], numbers["bias"], facts["activation"], facts["fingerprint"])

    def predict(self, vectors: Vectors) -> list[str]:
        """Return the most probable label of each vector; of equal ones the first in ``classes``."""
        rows = np.asarray(vectors)
        best: list[str] = []
        for start in range(0, len(rows), BLOCK):
            best.extend(self.classes[i] for i in self.logits(rows[start : start + BLOCK]).argmax(axis=1))
        return best


def probabilities(classifier: Classifier, vectors: Vectors) -> Vectors:
    """Return ``(n, classes)`` float32 probabilities of ``(n, dim)`` vectors, a block of rows at a time."""
    rows = np.asarray(vectors)
    out = np.empty((len(rows), len(classifier.classes)), dtype=np.float32)
    for start in range(0, len(rows), BLOCK):
        out[start : start + BLOCK] = squash(classifier.logits(rows[start : start + BLOCK]), classifier.activation)
    return out
