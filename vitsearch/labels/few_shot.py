"""What a few labelled photos give: classifiers without training, from a few examples per class, and
calibration, probabilities fitted so that they mean what they say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from os import PathLike
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Ids, Vectors, sigmoid, to_probabilities, unit_rows
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import QueryError
from vitsearch.labels.classifier import (
    LabelClassifier,
    LinearClassifier,
    VectorClassifier,
    class_probabilities,
    read_classifier,
    write_classifier,
)
from vitsearch.labels.labels import NOTHING
from vitsearch.labels.metrics import expected_calibration_error
from vitsearch.types import Activation

MIN_PHOTOS = 10
# bounds of the scale: photos that are all classified right would drive it to infinity
_MIN_SCALE, _MAX_SCALE = 0.01, 100.0

Logits = NDArray[np.float64]
ClassifierT = TypeVar("ClassifierT", bound=LabelClassifier)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What calibration did: logits become ``scale * logits + shift``.

    The temperature is ``1 / scale``; a softmax has no shift. ``error_before`` and ``error_after``
    are expected calibration errors (15 bins) over the same ``photos``; for the second, each half of
    them is scored with the scale and shift that the other half gave.
    """

    scale: float
    shift: float
    error_before: float
    error_after: float
    photos: int


def calibrate(
    classifier: ClassifierT, vectors: Vectors, truth: Sequence[str]
) -> tuple[ClassifierT, Calibration]:
    """Return the classifier with logits scaled to fit labelled photos best, and what it gained.

    ``vectors`` is ``(n, dim)`` and ``truth`` their ``n`` labels; a label that is not a class counts
    as "none of these" where that is a class. A softmax gets a temperature (Guo et al. 2017,
    arXiv:1706.04599), a sigmoid a scale and a shift (Platt 1999). The most probable label stays the
    same. Raises QueryError for fewer than 10 photos or a label that is not a class.
    """
    right = class_numbers(classifier.classes, truth)
    if len(right) < MIN_PHOTOS:
        raise QueryError(
            f"{len(right)} labelled photos are too few to calibrate with: give at least "
            f"{MIN_PHOTOS}, better 100"
        )
    fit = _fit_temperature if classifier.activation == "softmax" else _fit_sigmoid
    logits = classifier.logits(vectors).astype(np.float64)
    scale, shift = fit(logits, right)
    before, after = (
        expected_calibration_error(to_probabilities(values, classifier.activation), right)
        for values in (logits, _cross_fitted(logits, right, fit))
    )
    return classifier.scaled(scale, shift), Calibration(scale, shift, before, after, len(right))


def class_numbers(classes: Sequence[str], truth: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each label's class; raises QueryError for a label that has none."""
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = sorted(set(truth) - set(numbers))
    if unknown and NOTHING not in numbers:
        named, known = ", ".join(unknown[:5]), ", ".join(classes[:5])
        raise QueryError(
            f"photos are labelled {named}, which the classifier does not have: it has {known}"
        )
    return np.array(
        [numbers[label if label in numbers else NOTHING] for label in truth], dtype=np.int64
    )


def _cross_fitted(
    logits: Logits,
    right: NDArray[np.int64],
    fit: Callable[[Logits, NDArray[np.int64]], tuple[float, float]],
) -> Logits:
    """Return the logits, each half scaled by what fits the other; both halves have every class."""
    order = np.argsort(right, kind="stable")
    out = np.empty_like(logits)
    for half in (0, 1):
        held_out, rest = order[half::2], order[1 - half :: 2]
        scale, shift = fit(logits[rest], right[rest])
        out[held_out] = scale * logits[held_out] + shift
    return out


def _fit_temperature(logits: Logits, right: NDArray[np.int64]) -> tuple[float, float]:
    return fit_softmax(logits, right)[0], 0.0


def fit_softmax(logits: Logits, right: NDArray[np.int64]) -> tuple[float, float]:
    """Return the scale of least cross-entropy, and that cross-entropy in nats.

    It is convex in the scale, so golden-section search finds it.
    """
    centred = logits - logits.max(axis=1, keepdims=True)
    true_logits = centred[np.arange(len(right)), right]

    def loss(log_scale: float) -> float:
        scale = np.exp(log_scale)
        return float((np.log(np.exp(scale * centred).sum(axis=1)) - scale * true_logits).mean())

    low, high, ratio = np.log(_MIN_SCALE), np.log(_MAX_SCALE), (5**0.5 - 1) / 2
    for _ in range(40):
        left, right_end = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right_end):
            high = right_end
        else:
            low = left
    middle = (low + high) / 2
    return float(np.exp(middle)), loss(middle)


def _fit_sigmoid(logits: Logits, right: NDArray[np.int64]) -> tuple[float, float]:
    """Return the scale and shift of least binary cross-entropy over all photos and classes.

    They are reached by damped Newton steps.
    """
    targets = (np.arange(logits.shape[1]) == right[:, None]).astype(np.float64).ravel()
    columns = np.stack([logits.ravel(), np.ones(logits.size)])
    parameters = np.array([1.0, 0.0])

    def loss(candidate: NDArray[np.float64]) -> float:
        z = candidate @ columns
        return float((np.logaddexp(0, z) - targets * z).mean())

    for _ in range(100):
        predicted = sigmoid((parameters @ columns)[None])[0]
        gradient = columns @ (predicted - targets) / len(targets)
        hessian = (columns * (predicted * (1 - predicted))) @ columns.T / len(
            targets
        ) + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while size > 1e-6 and loss(parameters - size * step) > loss(parameters):
            size /= 2
        updated = parameters - size * step
        updated[0] = np.clip(updated[0], _MIN_SCALE, _MAX_SCALE)
        if np.abs(updated - parameters).max() < 1e-9:
            break
        parameters = updated
    return float(parameters[0]), float(parameters[1])


# -- Classifiers -----------------------------------------------------------------------------------


SCALE = 20.0  # of cosines with prototypes, where there are too few examples to fit it
ALPHAS, BETAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0), (1.0, 3.0, 5.5, 10.0, 20.0)


def prototype_classifier(
    vectors: Vectors, truth: Sequence[str], *, fingerprint: str = ""
) -> LinearClassifier:
    """Return the classifier whose weights are the classes' mean vectors.

    ``vectors`` are ``(n, dim)`` unit rows and ``truth`` their labels; classes are in order of name.
    The scores are cosines, not distances (Snell et al. 2017, arXiv:1703.05175); their scale is the
    likeliest one where each example is left out of its own prototype. Raises QueryError for fewer
    than two classes.
    """
    classes = classes_of(truth)
    right = class_numbers(classes, truth)
    sums = np.zeros((len(classes), vectors.shape[1]))
    np.add.at(sums, right, np.asarray(vectors, dtype=np.float64))
    count = np.bincount(right)
    several = np.flatnonzero(count[right] > 1)
    scale = SCALE
    if len(several) >= MIN_PHOTOS:
        cosines = vectors[several] @ unit_rows(sums).T
        without = unit_rows(sums[right[several]] - vectors[several])
        cosines[np.arange(len(several)), right[several]] = (without * vectors[several]).sum(axis=1)
        scale, _ = fit_softmax(cosines.astype(np.float64), right[several])
    bias = np.zeros(len(classes), dtype=np.float32)
    return LinearClassifier(
        classes, unit_rows(sums) * np.float32(scale), bias, fingerprint=fingerprint
    )


def classes_of(truth: Sequence[str]) -> tuple[str, ...]:
    """Return the labels in order of name; raises QueryError for fewer than two."""
    classes = tuple(sorted(set(truth)))
    if len(classes) < 2:
        raise QueryError(
            f"all examples are labelled {classes[0]!r}: give examples of two classes or more"
            if classes
            else "no examples"
        )
    return classes


@dataclass(frozen=True, eq=False)
class TipClassifier(VectorClassifier):
    """Zero-shot logits plus the votes of similar examples: Tip-Adapter without training.

    logits = scale * (zero-shot logits + alpha * sum over examples of exp(-beta * (1 - cosine)) at
    their class) + shift (Zhang et al. 2022, arXiv:2207.09519). ``keys`` are the examples' unit rows
    ``(n, dim)``, ``values`` their class numbers ``(n,)``.
    """

    zero_shot: LinearClassifier
    keys: Vectors
    values: Ids
    alpha: float
    beta: float
    scale: float = 1.0
    shift: float = 0.0

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of the columns."""
        return self.zero_shot.classes

    @property
    def activation(self) -> Activation:
        """That of the zero-shot classifier."""
        return self.zero_shot.activation

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder whose vectors it reads."""
        return self.zero_shot.fingerprint

    @property
    def encoder(self) -> ImageEncoder | None:
        """That encoder itself where it is at hand."""
        return self.zero_shot.encoder

    def logits(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 logits of ``(n, dim)`` unit vectors.

        Raises QueryError for another shape.
        """
        base = self.zero_shot.logits(vectors)
        near = _nearness(np.asarray(vectors, dtype=np.float32) @ self.keys.T, self.beta)
        cache = near @ np.eye(len(self.classes), dtype=np.float32)[self.values]
        result: Vectors = (self.scale * (base + self.alpha * cache) + self.shift).astype(np.float32)
        return result

    def predict_proba(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 probabilities of ``(n, dim)`` unit vectors."""
        return class_probabilities(self, vectors)

    def scaled(self, scale: float, shift: float = 0.0) -> "TipClassifier":
        """Return the classifier whose logits are ``scale * logits + shift``."""
        return replace(self, scale=self.scale * scale, shift=self.shift * scale + shift)

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the classifier to a folder; raises ClassifierError."""
        facts: dict[str, Any] = {
            "kind": "tip",
            "classes": list(self.classes),
            "activation": self.activation,
            "fingerprint": self.fingerprint,
        }
        numbers: dict[str, NDArray[Any]] = {
            "weight": self.zero_shot.weight,
            "bias": self.zero_shot.bias,
            "keys": self.keys,
            "values": self.values,
        }
        extra = {"alpha": self.alpha, "beta": self.beta, "scale": self.scale, "shift": self.shift}
        write_classifier(folder, facts | extra, numbers)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "TipClassifier":
        """Return the classifier of a folder.

        Raises ClassifierError where it is missing or damaged.
        """
        shapes = {
            "weight": ("classes", "dim"),
            "bias": ("classes",),
            "keys": ("n", "dim"),
            "values": ("n",),
        }
        facts, numbers = read_classifier(folder, "tip", shapes)
        zero_shot = LinearClassifier(
            tuple(facts["classes"]),
            numbers["weight"],
            numbers["bias"],
            facts["activation"],
            facts["fingerprint"],
        )
        return cls(
            zero_shot,
            numbers["keys"],
            numbers["values"],
            facts["alpha"],
            facts["beta"],
            facts["scale"],
            facts["shift"],
        )


def tip_classifier(
    zero_shot: LinearClassifier, vectors: Vectors, truth: Sequence[str]
) -> TipClassifier:
    """Return zero-shot with a cache of examples: ``(n, dim)`` unit rows and their labels.

    ``alpha``, ``beta`` and the scale of the logits are the likeliest of a grid where each example
    is classified without itself; with fewer than 10 examples they are the paper's (1 and 5.5). A
    class without an example stays zero-shot. Raises QueryError for a label that is not a class.
    """
    right = class_numbers(zero_shot.classes, truth)
    keys = unit_rows(vectors)
    if len(right) < MIN_PHOTOS or zero_shot.activation != "softmax":
        return TipClassifier(zero_shot, keys, right, 1.0, 5.5)
    base = zero_shot.logits(keys).astype(np.float64)
    cosines = (keys @ keys.T).astype(np.float64)
    one_hot = np.eye(len(zero_shot.classes))[right]
    best = (np.inf, 1.0, 5.5, 1.0)
    for beta, alpha in product(BETAS, ALPHAS):
        near = _nearness(cosines, beta)
        np.fill_diagonal(near, 0.0)
        logits = base + alpha * near @ one_hot
        scale, loss = fit_softmax(logits, right)
        best = min(best, (loss, alpha, beta, scale))
    _, alpha, beta, scale = best
    return TipClassifier(zero_shot, keys, right, alpha, beta, scale)


def _nearness(cosines: NDArray[np.floating], beta: float) -> NDArray[np.floating]:
    result: NDArray[np.floating] = np.exp(-beta * (1 - cosines))
    return result
