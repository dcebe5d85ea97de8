import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    recall_score,
    top_k_accuracy_score,
)

from vitsearch.labels.metrics import (
    accuracy_interval,
    confidence_gap,
    expected_calibration_error,
    first_right_ranks,
    mean_per_class_accuracy,
    median_rank,
    recall_at_k,
    top_k_accuracy,
)

SCORES = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.5, 0.5, 0.5]])
RIGHT = np.array([[True, False, False], [True, True, False], [False, False, True]])


def test_ranks_count_the_best_placed_right_item_and_ties_by_position():
    assert first_right_ranks(SCORES, RIGHT).tolist() == [1, 2, 3]


def test_ranks_of_several_right_items_with_one_score_use_the_first():
    assert first_right_ranks(np.zeros((1, 4)), np.array([[False, True, False, True]])).tolist() == [
        2
    ]


def test_recall_and_median_of_known_ranks():
    ranks = np.array([1, 2, 3, 11])
    assert [recall_at_k(ranks, k) for k in (1, 2, 3, 10, 11)] == [0.25, 0.5, 0.75, 0.75, 1.0]
    assert median_rank(ranks) == 2.5


@given(hnp.arrays(np.int8, (4, 6)), hnp.arrays(np.bool_, (4, 6)), st.integers(0, 5))
def test_ranks_agree_with_sorting(scores, right, sure):
    right[:, sure] = True
    order = [sorted(range(6), key=lambda i, row=row: (-int(row[i]), i)) for row in scores]
    expected = [1 + min(order[q].index(i) for i in np.flatnonzero(right[q])) for q in range(4)]
    assert first_right_ranks(scores.astype(np.float32), right).tolist() == expected


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_agrees_with_scikit_learn(k):
    generator = np.random.default_rng(7)
    scores, labels = generator.random((200, 8)), generator.integers(0, 8, 200)
    assert top_k_accuracy(scores, labels, k) == top_k_accuracy_score(
        labels, scores, k=k, labels=range(8)
    )


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.integers(3, 7), st.integers(1, 40), st.integers(0, 10_000))
def test_accuracies_agree_with_scikit_learn(classes, count, seed):
    generator = np.random.default_rng(seed)
    scores, labels = (
        generator.permuted(np.tile(np.arange(classes), (count, 1)), axis=1),
        generator.integers(0, classes, count),
    )
    best, known = scores.argmax(axis=1), np.unique(labels)
    assert top_k_accuracy(scores, labels) == pytest.approx(accuracy_score(labels, best))
    for k in range(1, classes):
        assert top_k_accuracy(scores, labels, k) == pytest.approx(
            top_k_accuracy_score(labels, scores, k=k, labels=range(classes))
        )
    wanted = recall_score(labels, best, labels=known, average="macro", zero_division=0)
    assert mean_per_class_accuracy(best, labels) == pytest.approx(wanted)


@pytest.mark.filterwarnings("ignore:y_pred contains classes", "ignore:A single label was found")
@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_mean_per_class_accuracy_is_balanced_accuracy(pairs):
    predicted, labels = np.array(pairs).T
    assert mean_per_class_accuracy(predicted, labels) == pytest.approx(
        balanced_accuracy_score(labels, predicted)
    )


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    assert mean_per_class_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])) == 0.5
    assert mean_per_class_accuracy(np.array([9, 1]), np.array([7, 1])) == 0.5


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_the_interval_is_that_of_scipy(total, right):
    right %= total + 1
    assert accuracy_interval(right, total) == pytest.approx(
        tuple(binomtest(right, total).proportion_ci(method="wilson")), abs=1e-6
    )


@given(
    hnp.arrays(np.float64, (9, 3), elements=st.floats(0, 1)),
    hnp.arrays(np.int64, 9, elements=st.integers(0, 2)),
)
def test_the_gap_of_answers_is_the_error_of_their_probabilities(probabilities, labels):
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    assert confidence_gap(sure, right) == expected_calibration_error(probabilities, labels)
    alone = [abs(sure[i] - right[i]) for i in range(9)]
    assert confidence_gap(sure[:1], right[:1]) == pytest.approx(alone[0])
    assert confidence_gap(sure, right) <= np.mean(alone) + 1e-12


def test_calibration_error_of_a_known_case():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    # two bins: all confidences fall in (0.5, 1]; their mean is 0.75 and 2 of 4 are right
    assert expected_calibration_error(
        probabilities, np.array([0, 0, 0, 0]), bins=2
    ) == pytest.approx(0.25)
    # ten bins, one row in each: gaps 0.1, 0.2, 0.7, 0.6
    assert expected_calibration_error(
        probabilities, np.array([0, 0, 0, 0]), bins=10
    ) == pytest.approx(0.4)


def test_calibration_error_agrees_with_the_curve_of_scikit_learn():
    generator = np.random.default_rng(3)
    positive = generator.uniform(0.5, 1, 500)
    right = generator.random(500) < positive**2
    probabilities = np.stack([positive, 1 - positive], axis=1)
    shares, means = calibration_curve(right, positive, n_bins=15)
    counts = np.histogram(positive, bins=np.linspace(0, 1, 16))[0]
    expected = (np.abs(shares - means) * counts[counts > 0]).sum() / 500
    assert expected_calibration_error(probabilities, np.where(right, 0, 1)) == pytest.approx(
        expected
    )


def test_a_perfect_and_a_wholly_wrong_classifier():
    sure = np.eye(3)
    assert expected_calibration_error(sure, np.array([0, 1, 2])) == 0.0
    assert expected_calibration_error(sure, np.array([1, 2, 0])) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: first_right_ranks(np.zeros((2, 3)), np.zeros((2, 3), bool)),
        lambda: first_right_ranks(np.zeros((2, 3)), np.ones((3, 2), bool)),
        lambda: first_right_ranks(np.full((1, 2), np.nan), np.ones((1, 2), bool)),
        lambda: recall_at_k(np.array([1]), 0),
        lambda: recall_at_k(np.array([], int), 1),
        lambda: median_rank(np.array([0])),
        lambda: top_k_accuracy(np.zeros((2, 3)), np.array([0, 3])),
        lambda: top_k_accuracy(np.zeros((2, 3)), np.array([0])),
        lambda: expected_calibration_error(np.array([[1.5, 0.0]]), np.array([0])),
        lambda: mean_per_class_accuracy(np.array([], int), np.array([], int)),
        lambda: mean_per_class_accuracy(np.array([0]), np.array([0, 1])),
        lambda: confidence_gap(np.array([0.5]), np.array([True, False])),
        lambda: accuracy_interval(2, 1),
    ],
)
def test_wrong_input_is_refused(call):
    with pytest.raises(ValueError, match=r"\w"):
        call()
