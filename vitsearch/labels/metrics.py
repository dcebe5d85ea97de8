"""How good retrieval and classification are, as plain functions on arrays (numpy only)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def first_right_ranks(scores: Floats, right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each query the rank, from 1, of its best-placed right item.

    Equal scores rank in order of position. ``scores`` is ``(m, n)``, higher is better, and
    ``right`` ``(m, n)`` says which items are right for which query. Raises ValueError for unequal
    shapes, a score that is not a number, or a query without a right item.
    """
    scores, right = np.asarray(scores), np.asarray(right, dtype=np.bool_)
    if scores.ndim != 2 or scores.shape != right.shape:
        raise ValueError(
            f"expected scores and right of one shape (m, n), got {scores.shape} and {right.shape}"
        )
    if np.isnan(scores).any() or not right.any(axis=1).all():
        raise ValueError("every score must be a number and every query needs a right item")
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    position = np.argmax(right & (scores == best), axis=1)[:, None]
    earlier = (scores == best) & (np.arange(scores.shape[1]) < position)
    return np.asarray(1 + (scores > best).sum(axis=1) + earlier.sum(axis=1), dtype=np.int64)


def recall_at_k(ranks: NDArray[np.integer[Any]], k: int) -> float:
    """Return the share of queries with a right item among their first k.

    ``ranks`` is ``(m,)`` from `first_right_ranks`. It is the R@k of image and caption retrieval
    (Karpathy and Fei-Fei, arXiv:1412.2306), where one right item is enough. Raises ValueError for
    no queries or a k below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return float((_ranks(ranks) <= k).mean())


def median_rank(ranks: NDArray[np.integer[Any]]) -> float:
    """Return the median rank of the best-placed right item (1 is best; arXiv:1412.2306)."""
    return float(np.median(_ranks(ranks)))


def top_k_accuracy(scores: Floats, labels: NDArray[np.integer[Any]], k: int = 1) -> float:
    """Return the share of rows whose label is among their k highest scores.

    ``scores`` is ``(n, classes)`` and ``labels`` ``(n,)`` class numbers; equal scores rank in order
    of class. Top-1 and top-5 are those of ImageNet (arXiv:1409.0575).
    """
    scores, labels = _checked(scores, labels)
    return recall_at_k(first_right_ranks(scores, labels[:, None] == np.arange(scores.shape[1])), k)


def mean_per_class_accuracy(
    predicted: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]]
) -> float:
    """Return the mean over classes of the share of a class's rows that were recognised.

    It is also called balanced accuracy and mean per-class recall. Both arguments are ``(n,)`` class
    numbers; a class without rows does not count. Raises ValueError for unequal shapes or no rows.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or predicted.shape != labels.shape:
        raise ValueError(
            f"expected (n,) predictions and labels, n at least 1, got {predicted.shape} and "
            f"{labels.shape}"
        )
    _, class_index = np.unique(labels, return_inverse=True)
    return float(
        (np.bincount(class_index, weights=predicted == labels) / np.bincount(class_index)).mean()
    )


def expected_calibration_error(
    probabilities: Floats, labels: NDArray[np.integer[Any]], *, bins: int = 15
) -> float:
    """Return the mean distance between confidence and accuracy over bins (0 is best).

    The bins are of equal width and weighted by their rows. ``probabilities`` is ``(n, classes)``
    and ``labels`` ``(n,)`` class numbers; a row's confidence is its highest probability, and bin
    ``i`` of ``b`` holds confidences in (i/b, (i+1)/b] (Guo et al., arXiv:1706.04599). Raises
    ValueError for values outside 0 to 1.
    """
    probabilities, labels = _checked(probabilities, labels)
    if bins < 1 or not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise ValueError("probabilities must be from 0 to 1 and bins at least 1")
    return confidence_gap(
        probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins=bins
    )


def confidence_gap(confidence: Floats, right: NDArray[np.bool_], *, bins: int = 15) -> float:
    """Return the expected calibration error of predictions, given their confidence.

    ``confidence`` and ``right`` (whether the prediction was) are ``(n,)`` each.
    """
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    if confidence.ndim != 1 or not len(confidence) or confidence.shape != right.shape:
        raise ValueError(
            f"expected (n,) confidences and answers, n at least 1, got {confidence.shape} and "
            f"{right.shape}"
        )
    bin_index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return float(
        np.abs(np.bincount(bin_index, weights=confidence - right, minlength=bins)).sum()
        / len(confidence)
    )


def accuracy_interval(right: int, total: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``right`` among ``total`` (Wilson 1927).

    Raises ValueError for no trials.
    """
    if total < 1 or not 0 <= right <= total:
        raise ValueError(f"expected 0 <= right <= total and total >= 1, got {right} of {total}")
    share, spread = right / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _ranks(ranks: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    array = np.asarray(ranks)
    if array.ndim != 1 or not len(array) or array.min() < 1:
        raise ValueError("expected one or more ranks, each at least 1")
    return array


def _checked(
    scores: Floats, labels: NDArray[np.integer[Any]]
) -> tuple[Floats, NDArray[np.integer[Any]]]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or not scores.size or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"expected (n, classes) scores and (n,) labels, got {scores.shape} and {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"a label is not one of the {scores.shape[1]} classes")
    return scores, labels


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
