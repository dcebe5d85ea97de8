"""How sure a classifier is, made true on a few labelled photos."""

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

FEWEST = 10
_STEEPEST, _FLATTEST = (
    100.0,
    0.01,
)  # of what the logits may be multiplied by: photos that are all right would ask for infinity

Logits = NDArray[np.float64]
AnyClassifier = TypeVar("AnyClassifier", bound=LabelClassifier)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What calibration did: logits become ``scale * logits + shift`` (the temperature is ``1 /
    scale``; no shift for softmax).

    ``error_before`` and ``error_after`` are expected calibration errors (15 bins) over the same
    ``photos``; for the second each half of them is judged with numbers that the other half gave.
    """

    scale: float
    shift: float
    error_before: float
    error_after: float
    photos: int


def calibrate(
    classifier: AnyClassifier, vectors: Vectors, truth: Sequence[str]
) -> tuple[AnyClassifier, Calibration]:
    """Return the classifier with logits scaled to fit labelled photos best, and what it gained (Guo
    et al. 2017, arXiv:1706.04599).

    ``vectors`` is ``(n, dim)`` and ``truth`` their ``n`` labels; a label that is no class counts as
    "none of these" where that is one. A softmax gets a temperature, a sigmoid a scale and a shift
    (Platt 1999). The most probable label stays the same. Raises QueryError for fewer than 10 photos
    or a label that is no class.
    """
    right = class_numbers(classifier.classes, truth)
    if len(right) < FEWEST:
        raise QueryError(
            f"{len(right)} labelled photos are too few to calibrate with: give at least {FEWEST}, "
            "better 100"
        )
    fit = _fit_temperature if classifier.activation == "softmax" else _fit_sigmoid
    logits = classifier.logits(vectors).astype(np.float64)
    scale, shift = fit(logits, right)
    error_before = expected_calibration_error(
        to_probabilities(logits, classifier.activation), right
    )
    error_after = expected_calibration_error(
        to_probabilities(_crossed(logits, right, fit), classifier.activation), right
    )
    return classifier.scaled(scale, shift), Calibration(
        scale, shift, error_before, error_after, len(right)
    )


def class_numbers(classes: Sequence[str], truth: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each label among the classes; raises QueryError for one that is none of
    them.
    """
    places = {name: place for place, name in enumerate(classes)}
    unknown = sorted(set(truth) - set(places))
    if unknown and NOTHING not in places:
        named, known = ", ".join(unknown[:5]), ", ".join(classes[:5])
        raise QueryError(
            f"photos are labelled {named}, which the classifier does not have: it has {known}"
        )
    return np.array(
        [places[label] if label in places else places[NOTHING] for label in truth], dtype=np.int64
    )


def _crossed(
    logits: Logits,
    right: NDArray[np.int64],
    fit: Callable[[Logits, NDArray[np.int64]], tuple[float, float]],
) -> Logits:
    """Return logits scaled in each half by what fits the other; every class is spread over both."""
    order = np.argsort(right, kind="stable")
    out = np.empty_like(logits)
    for half in (0, 1):
        here, there = order[half::2], order[1 - half :: 2]
        scale, shift = fit(logits[there], right[there])
        out[here] = scale * logits[here] + shift
    return out


def _fit_temperature(logits: Logits, right: NDArray[np.int64]) -> tuple[float, float]:
    return fit_softmax(logits, right)[0], 0.0


def fit_softmax(logits: Logits, right: NDArray[np.int64]) -> tuple[float, float]:
    """Return the scale of least cross-entropy, found by golden section (it is convex in the scale),
    and that cross-entropy in nats.
    """
    centred = logits - logits.max(axis=1, keepdims=True)
    own = centred[np.arange(len(right)), right]

    def loss(log_scale: float) -> float:
        scale = np.exp(log_scale)
        return float((np.log(np.exp(scale * centred).sum(axis=1)) - scale * own).mean())

    low, high, ratio = np.log(_FLATTEST), np.log(_STEEPEST), (5**0.5 - 1) / 2
    for _ in range(40):
        left, right_end = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right_end):
            high = right_end
        else:
            low = left
    middle = (low + high) / 2
    return float(np.exp(middle)), loss(middle)


def _fit_sigmoid(logits: Logits, right: NDArray[np.int64]) -> tuple[float, float]:
    """Return scale and shift of least binary cross-entropy over every photo and class, by damped
    Newton steps.
    """
    wanted = (np.arange(logits.shape[1]) == right[:, None]).astype(np.float64).ravel()
    columns = np.stack([logits.ravel(), np.ones(logits.size)])
    chosen = np.array([1.0, 0.0])

    def loss(at: NDArray[np.float64]) -> float:
        z = at @ columns
        return float((np.logaddexp(0, z) - wanted * z).mean())

    for _ in range(100):
        chance = sigmoid((chosen @ columns)[None])[0]
        slope = columns @ (chance - wanted) / len(wanted)
        curve = (columns * (chance * (1 - chance))) @ columns.T / len(wanted) + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(curve, slope), 1.0
        while size > 1e-6 and loss(chosen - size * step) > loss(chosen):
            size /= 2
        after = chosen - size * step
        after[0] = np.clip(after[0], _FLATTEST, _STEEPEST)
        if np.abs(after - chosen).max() < 1e-9:
            break
        chosen = after
    return float(chosen[0]), float(chosen[1])
