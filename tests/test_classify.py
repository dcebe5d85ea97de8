from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from vitsearch.classify import PLAIN, LinearClassifier, check_labels, check_templates, zero_shot_classifier
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import QueryError
from vitsearch.vectors import unit_rows

DIM, CLASSES = 3, ("a", "b", "c", "d")
Activation = Literal["softmax", "sigmoid"]
NUMBERS = st.floats(-8, 8, width=32)
ROWS = hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(DIM)), elements=NUMBERS)
WEIGHTS = hnp.arrays(np.float32, (len(CLASSES), DIM), elements=NUMBERS)
BIASES = hnp.arrays(np.float32, len(CLASSES), elements=NUMBERS)
ENCODER = ColourEncoder()


class SigmoidColour(ColourEncoder):
    """A SigLIP-like encoder: the same vectors, other scale and a bias."""

    logit_scale = 10.0
    logit_bias = -5.0


class BlindColour:
    """An encoder of pictures only."""

    name, dim, fingerprint = "blind", ENCODER.dim, "0" * 32
    prepare, encode_prepared, encode_images = ENCODER.prepare, ENCODER.encode_prepared, ENCODER.encode_images


@settings(max_examples=80, deadline=None)
@given(ROWS, WEIGHTS, BIASES, st.floats(-30, 30, width=32))
def test_softmax_rows_sum_to_one_and_a_shift_changes_nothing(
    rows: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32], shift: float
) -> None:
    classifier = LinearClassifier(CLASSES, weight, bias)
    chances = classifier.predict_proba(rows)
    assert (chances.dtype, chances.shape) == (np.float32, (len(rows), len(CLASSES)))
    assert ((chances >= 0) & (chances <= 1)).all()
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    shifted = LinearClassifier(CLASSES, weight, bias + np.float32(shift)).predict_proba(rows)
    np.testing.assert_allclose(shifted, chances, atol=2e-4)


@settings(max_examples=80, deadline=None)
@given(ROWS, WEIGHTS.map(lambda weight: weight / 24), BIASES)
def test_sigmoid_is_one_probability_for_each_class_by_itself(
    rows: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> None:
    classifier = LinearClassifier(CLASSES, weight, bias, "sigmoid")
    chances = classifier.predict_proba(rows)
    assert (chances.dtype, chances.shape) == (np.float32, (len(rows), len(CLASSES)))
    assert ((chances > 0) & (chances < 1)).all()
    np.testing.assert_allclose(np.log(chances / (1 - chances.astype(np.float64))), classifier.logits(rows), atol=0.05)
    alone = LinearClassifier(CLASSES[1:2], weight[1:2], bias[1:2], "sigmoid").predict_proba(rows)
    np.testing.assert_allclose(alone, chances[:, 1:2], rtol=1e-4)


@settings(max_examples=80, deadline=None)
@given(ROWS, WEIGHTS, BIASES, st.sampled_from(["softmax", "sigmoid"]))
def test_predict_is_the_class_of_the_largest_logit(
    rows: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32], activation: Activation
) -> None:
    classifier = LinearClassifier(CLASSES, weight, bias, activation)
    logits = classifier.logits(rows)
    np.testing.assert_allclose(logits, rows.astype(np.float64) @ weight.astype(np.float64).T + bias, atol=1e-3)
    assert classifier.predict(rows) == [CLASSES[row.argmax()] for row in logits]
    chances = classifier.predict_proba(rows)
    chosen = [CLASSES.index(label) for label in classifier.predict(rows)]
    np.testing.assert_array_equal(chances[np.arange(len(rows)), chosen], chances.max(axis=1, initial=0))


def test_large_logits_do_not_overflow() -> None:
    weight = np.array([[1], [-1]], dtype=np.float32)
    rows = np.array([[1e4], [-1e4], [0]], dtype=np.float32)
    bias = np.zeros(2, dtype=np.float32)
    with np.errstate(all="raise", under="ignore"):
        softmax = LinearClassifier(("a", "b"), weight, bias).predict_proba(rows)
        sigmoid = LinearClassifier(("a", "b"), weight, bias, "sigmoid").predict_proba(rows)
    np.testing.assert_array_equal(softmax, [[1, 0], [0, 1], [0.5, 0.5]])
    np.testing.assert_array_equal(sigmoid, [[1, 0], [0, 1], [0.5, 0.5]])


def test_equal_classes_give_the_first() -> None:
    classifier = LinearClassifier(("b", "a"), np.ones((2, 3), dtype=np.float32), np.zeros(2, dtype=np.float32))
    assert classifier.predict(np.ones((2, 3), dtype=np.float32)) == ["b", "b"]


def test_many_rows_are_scored_as_few_are() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40_000, DIM)).astype(np.float32)
    classifier = LinearClassifier(CLASSES, rng.standard_normal((4, DIM)).astype(np.float32), np.zeros(4, dtype=np.float32))
    few = [rows[start : start + 1000] for start in range(0, len(rows), 1000)]
    np.testing.assert_allclose(classifier.predict_proba(rows), np.concatenate([classifier.predict_proba(part) for part in few]), atol=1e-6)
    assert classifier.predict(rows) == [label for part in few for label in classifier.predict(part)]


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2, 3)])
def test_vectors_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    classifier = LinearClassifier(CLASSES, np.ones((4, 3), dtype=np.float32), np.zeros(4, dtype=np.float32))
    for method in (classifier.logits, classifier.predict_proba, classifier.predict):
        with pytest.raises(QueryError, match=r"expected \(n, 3\) vectors"):
            method(np.ones(shape, dtype=np.float32))


def test_zero_shot_weights_are_the_mean_of_the_prompts_normalised_again() -> None:
    templates = ("a red {}", "{} and black", "{}")
    classifier = zero_shot_classifier(ENCODER, ["blue ", "white"], templates=templates)
    rows = [
        unit_rows(ENCODER.encode_texts([f"a red {name}", f"{name} and black", name]).mean(axis=0)[None])[0] for name in ("blue", "white")
    ]
    assert (classifier.classes, classifier.activation) == (("blue", "white"), "softmax")
    np.testing.assert_allclose(classifier.weight, 20 * np.stack(rows), rtol=1e-6)
    np.testing.assert_array_equal(classifier.bias, [0, 0])
    assert (classifier.weight.dtype, classifier.bias.dtype) == (np.float32, np.float32)


def test_an_encoder_with_a_bias_gets_a_sigmoid() -> None:
    classifier = zero_shot_classifier(SigmoidColour(), ["red", "blue"])
    assert (classifier.activation, classifier.bias.tolist()) == ("sigmoid", [-5, -5])
    red = ENCODER.encode_texts(["red"])
    cosines = (red @ ENCODER.encode_texts(["red", "blue"]).T)[0].astype(np.float64)
    np.testing.assert_allclose(classifier.predict_proba(red)[0], 1 / (1 + np.exp(5 - 10 * cosines)), rtol=1e-5)


@pytest.mark.parametrize("templates", ["plain", "simple", "imagenet", "a {} thing", ["{}", "one {}"]])
def test_flat_pictures_get_the_name_of_their_colour(templates: str | list[str]) -> None:
    labels = ["red", "green", "blue", "yellow", "black", "white"]
    pictures = ENCODER.encode_images([Image.new("RGB", (20, 10), label) for label in labels])
    assert zero_shot_classifier(ENCODER, labels, templates=templates).predict(pictures) == labels


def test_braces_in_a_label_are_words() -> None:
    encoder = ColourEncoder()
    asked: list[str] = []
    original = encoder.encode_texts
    encoder.encode_texts = lambda texts: (asked.extend(texts), original(texts))[1]  # type: ignore[method-assign]
    zero_shot_classifier(encoder, ["{0} {}", "{name}"], templates=["a {} of {}"])
    assert asked == ["a {0} {} of {0} {}", "a {name} of {name}"]


def test_an_encoder_of_pictures_only_cannot_label() -> None:
    with pytest.raises(QueryError, match="encoder blind reads no text"):
        zero_shot_classifier(BlindColour(), ["red"])  # type: ignore[arg-type]


def test_check_labels() -> None:
    assert check_labels([" cat", "dog\n", "Cat"]) == ("cat", "dog", "Cat")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("cat,dog", "labels are a list of strings, not one string"),
        ([], "there is no label"),
        (["cat", " "], "a label is empty"),
        (["cat", "dog", "cat "], "a label is given twice: cat: give each once"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels: list[str], words: str) -> None:
    with pytest.raises(QueryError, match=words):
        zero_shot_classifier(ENCODER, labels)


def test_check_templates() -> None:
    assert check_templates("plain") == PLAIN == ("a photo of a {}.",)
    simple, imagenet = check_templates("simple"), check_templates("imagenet")
    assert (len(simple), len(set(simple)), len(imagenet), len(set(imagenet))) == (7, 7, 80, 80)
    assert all(template.count("{}") == 1 for template in simple + imagenet)
    assert set(simple) <= set(imagenet)
    assert check_templates("my {}") == ("my {}",)
    assert check_templates(["{}", "{}s"]) == ("{}", "{}s")


@pytest.mark.parametrize("templates", ["imagnet", "", [], ["a {}", "a photo"], ["a {name}"]])
def test_a_template_without_a_place_for_the_label_is_refused(templates: str | list[str]) -> None:
    with pytest.raises(QueryError, match=r"has no \{\} for the label"):
        check_templates(templates)
