"""The linear probe: logistic regression on the vectors (scikit-learn).

Its regularisation is chosen by cross-validation.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from vitsearch.arrays import Vectors
from vitsearch.errors import QueryError
from vitsearch.labels.classifier import LinearClassifier
from vitsearch.labels.few_shot import class_numbers, classes_of, fit_softmax

MIN_PER_CLASS = 2
FOLDS = 5
# scikit-learn's C, the inverse of the regularisation
STRENGTHS = tuple(float(10.0**power) for power in np.arange(-1, 4.01, 0.5))


def probe_classifier(
    vectors: Vectors, truth: Sequence[str], *, fingerprint: str = "", seed: int = 0
) -> LinearClassifier:
    """Return logistic regression on ``(n, dim)`` unit rows and their labels.

    Classes are in order of name (Radford et al. 2021, section 3.2). The regularisation is that of
    least log loss in at most 5 stratified folds; the scale of the logits is the likeliest on the
    same left-out folds. Raises QueryError for fewer than two
    classes, or a class with fewer than two examples.
    """
    classes = classes_of(truth)
    right = class_numbers(classes, truth)
    count = np.bincount(right)
    if count.min() < MIN_PER_CLASS:
        raise QueryError(
            f"the class {classes[int(count.argmin())]!r} has one example: a probe needs two of "
            "each; use --method prototype or tip"
        )
    folds = StratifiedKFold(min(FOLDS, int(count.min())), shuffle=True, random_state=seed)
    splits = list(folds.split(vectors, right))
    tried = []
    for strength in STRENGTHS:
        logits = np.empty((len(right), len(classes)))
        for training, held_out in splits:
            weight, bias = _fit(vectors[training], right[training], strength)
            logits[held_out] = vectors[held_out] @ weight.T + bias
        scale, loss = fit_softmax(logits, right)
        tried.append((loss, strength, scale))
    _, strength, scale = min(tried)
    weight, bias = _fit(vectors, right, strength)
    return LinearClassifier(
        classes, weight.astype(np.float32), bias.astype(np.float32), fingerprint=fingerprint
    ).scaled(scale)


def _fit(
    vectors: Vectors, right: NDArray[np.int64], strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight ``(classes, dim)`` and bias ``(classes,)``.

    For two classes scikit-learn returns a single row, which is split between them.
    """
    model = LogisticRegression(C=strength, max_iter=1000, tol=1e-5)
    with warnings.catch_warnings():
        # the strongest settings need not converge to be compared
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(np.asarray(vectors, dtype=np.float64), right)
    if len(model.coef_) == 1:
        weight = np.concatenate([-model.coef_, model.coef_]) / 2
        return weight, np.concatenate([-model.intercept_, model.intercept_]) / 2
    return model.coef_, model.intercept_
