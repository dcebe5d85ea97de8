"""Calibration: probabilities fitted to a few labelled photos, so that they mean what they say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Vectors, sigmoid, to_probabilities
from vitsearch.errors import QueryError
from vitsearch.labels.classifier import LabelClassifier
from vitsearch.labels.labels import NOTHING
from vitsearch.labels.metrics import expected_calibration_error

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
