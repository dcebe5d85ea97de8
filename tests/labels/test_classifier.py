import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from vitsearch.arrays import unit_rows
from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import QueryError
from vitsearch.labels import (
    CLEAR,
    NOTHING,
    PLAIN,
    THINGS,
    Decision,
    Label,
    LinearClassifier,
    calibrate,
    check_templates,
    parse_labels,
    predict,
    zero_shot_classifier,
)

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


class BlindColour(ImageEncoder):
    """An encoder of pictures only."""

    name, dim, fingerprint = "blind", ENCODER.dim, "0" * 32
    prepare, encode_prepared, encode_images = (
        ENCODER.prepare,
        ENCODER.encode_prepared,
        ENCODER.encode_images,
    )


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
    # not the logits of the chances: at a logit of 16 the nearest float32 is 3e-8 from a chance that
    # is 1e-7 below 1, which is 0.3 in the logit
    logits = classifier.logits(rows).astype(np.float64)
    np.testing.assert_allclose(chances, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    alone = LinearClassifier(CLASSES[1:2], weight[1:2], bias[1:2], "sigmoid").predict_proba(rows)
    np.testing.assert_allclose(alone, chances[:, 1:2], rtol=1e-4)


@settings(max_examples=80, deadline=None)
@given(ROWS, WEIGHTS, BIASES, st.sampled_from(["softmax", "sigmoid"]))
def test_predict_is_the_class_of_the_largest_logit(
    rows: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    activation: Activation,
) -> None:
    classifier = LinearClassifier(CLASSES, weight, bias, activation)
    logits = classifier.logits(rows)
    np.testing.assert_allclose(
        logits, rows.astype(np.float64) @ weight.astype(np.float64).T + bias, atol=1e-3
    )
    assert classifier.predict(rows) == [CLASSES[row.argmax()] for row in logits]
    chances = classifier.predict_proba(rows)
    chosen = [CLASSES.index(label) for label in classifier.predict(rows)]
    np.testing.assert_array_equal(
        chances[np.arange(len(rows)), chosen], chances.max(axis=1, initial=0)
    )


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
    classifier = LinearClassifier(
        ("b", "a"), np.ones((2, 3), dtype=np.float32), np.zeros(2, dtype=np.float32)
    )
    assert classifier.predict(np.ones((2, 3), dtype=np.float32)) == ["b", "b"]


def test_many_rows_are_scored_as_few_are() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40_000, DIM)).astype(np.float32)
    classifier = LinearClassifier(
        CLASSES, rng.standard_normal((4, DIM)).astype(np.float32), np.zeros(4, dtype=np.float32)
    )
    few = [rows[start : start + 1000] for start in range(0, len(rows), 1000)]
    np.testing.assert_allclose(
        classifier.predict_proba(rows),
        np.concatenate([classifier.predict_proba(part) for part in few]),
        atol=1e-6,
    )
    assert classifier.predict(rows) == [label for part in few for label in classifier.predict(part)]


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2, 3)])
def test_vectors_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    classifier = LinearClassifier(
        CLASSES, np.ones((4, 3), dtype=np.float32), np.zeros(4, dtype=np.float32)
    )
    for method in (classifier.logits, classifier.predict_proba, classifier.predict):
        with pytest.raises(QueryError, match=r"expected \(n, 3\) vectors"):
            method(np.ones(shape, dtype=np.float32))


def test_zero_shot_weights_are_the_mean_of_the_prompts_normalised_again() -> None:
    templates = ("a red {}", "{} and black", "{}")
    classifier = zero_shot_classifier(ENCODER, ["blue ", "white"], templates=templates)
    rows = [
        unit_rows(
            ENCODER.encode_texts([f"a red {name}", f"{name} and black", name]).mean(axis=0)[None]
        )[0]
        for name in ("blue", "white")
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
    np.testing.assert_allclose(
        classifier.predict_proba(red)[0], 1 / (1 + np.exp(5 - 10 * cosines)), rtol=1e-5
    )


@pytest.mark.parametrize(
    "templates", ["plain", "simple", "imagenet", "a {} thing", ["{}", "one {}"]]
)
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


def test_labels_are_names_with_synonyms_and_levels() -> None:
    written = [
        " cat",
        "dog\n",
        "Cat = kitten | tabby",
        "keep := a sharp photo|a good photo",
        "animal > horse = foal",
        "E=mc2",
    ]
    assert parse_labels(written) == (
        Label("cat", ("cat",)),
        Label("dog", ("dog",)),
        Label("Cat", ("Cat", "kitten", "tabby")),
        Label("keep", ("a sharp photo", "a good photo")),
        Label("animal > horse", ("horse", "foal")),
        Label("E=mc2", ("E=mc2",)),
    )


def test_ten_thousand_labels() -> None:
    names = [f"thing {i}" for i in range(10_000)]
    assert zero_shot_classifier(ENCODER, names).classes == tuple(names)
    with pytest.raises(QueryError, match="a label is given twice: thing 7"):
        parse_labels([*names, "thing 7"])


def test_labels_that_read_alike_name_their_parents() -> None:
    assert parse_labels(["bird > crane", "machine > crane", "bird > owl"]) == (
        Label("bird > crane", ("crane, a kind of bird",)),
        Label("machine > crane", ("crane, a kind of machine",)),
        Label("bird > owl", ("owl",)),
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("cat,dog", "labels are a list of strings, not one string"),
        ([], "there is no label"),
        (["cat", " "], "a label is empty"),
        (["cat", "dog", "cat "], "a label is given twice: cat: give each once"),
        (["cat", "dog = puppy |"], "the label 'dog = puppy |' has an empty part"),
        (["cat", "animal > > dog"], "the label 'animal > > dog' has an empty part"),
        (["cat", "none of these"], "the label 'none of these' is kept for the background class"),
        (["cat"], "one label alone, 'cat', would fit every photo: give at least two"),
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


def test_synonyms_are_averaged_and_replacements_replace() -> None:
    classifier = zero_shot_classifier(
        ENCODER, ["warm = red | yellow", "cold := blue", "x"], templates=["{}"]
    )
    warm = unit_rows(ENCODER.encode_texts(["warm", "red", "yellow"]).sum(axis=0)[None])[0]
    np.testing.assert_allclose(
        classifier.weight[:2],
        20 * np.stack([warm, ENCODER.encode_texts(["blue"])[0]]),
        rtol=1e-5,
        atol=1e-6,
    )
    assert (classifier.classes, classifier.fingerprint) == (
        ("warm", "cold", "x"),
        ENCODER.fingerprint,
    )


@pytest.mark.slow
def test_many_prompts_give_what_few_give() -> None:
    """More prompts than are encoded at once: each label's vector is that of the label by itself."""
    words = ["red", "green", "blue", "yellow", "black", "white"]
    labels = [f"{words[i % 6]} {i}" for i in range(60)]
    many = zero_shot_classifier(ENCODER, labels, templates="imagenet")
    few = [
        zero_shot_classifier(ENCODER, [label, "x"], templates="imagenet").weight[0]
        for label in labels
    ]
    np.testing.assert_allclose(many.weight, np.stack(few), rtol=1e-6)


def test_background_and_single_probabilities() -> None:
    red = ENCODER.encode_images([Image.new("RGB", (8, 8), "red")])
    with_background = zero_shot_classifier(ENCODER, ["red", "blue"], background=True)
    assert with_background.classes == ("red", "blue", NOTHING)
    assert with_background.predict(red) == ["red"]
    alone = zero_shot_classifier(ENCODER, ["red"], background=True).predict_proba(red)[0]
    single = zero_shot_classifier(ENCODER, ["red", "blue"], multi=True)
    assert (single.classes, single.activation) == (("red", "blue"), "sigmoid")
    np.testing.assert_allclose(
        single.predict_proba(red)[0, 0], alone[0], rtol=1e-4
    )  # against the background alone
    sigmoid = zero_shot_classifier(SigmoidColour(), ["red"], multi=True)
    assert (sigmoid.activation, sigmoid.bias.tolist()) == ("sigmoid", [-5])
    for encoder in (ENCODER, SigmoidColour()):
        with pytest.raises(
            QueryError,
            match="^multi judges each label against the background already: leave out background$",
        ):
            zero_shot_classifier(encoder, ["red", "blue"], multi=True, background=True)


def test_none_of_these_is_measured_in_the_spread_of_common_words() -> None:
    """A label fits where it is clearly above what any words get, on these photos, by this encoder;
    which label is best stays the same.
    """
    rng = np.random.default_rng(5)
    words = unit_rows(rng.normal(size=(300, 16)) + 0.8)

    class Words(ColourEncoder):
        dim = 16

        def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.stack([words[zlib.crc32(text.encode()) % 300] for text in texts])

    encoder, photos = Words(), unit_rows(rng.normal(size=(400, 16)) + 0.4)
    common = encoder.encode_texts([PLAIN[0].format(thing) for thing in THINGS.split(", ")])
    mean = common.mean(axis=0)
    clear = CLEAR * np.std(photos @ (common - mean).T)
    labels = ["red", "blue", "green"]
    plain = zero_shot_classifier(encoder, labels)
    above = photos @ plain.weight.T / 20 - (photos @ mean)[:, None]
    best = plain.predict(photos)
    with_nothing = zero_shot_classifier(encoder, labels, background=True, photos=photos)
    assert with_nothing.predict(photos) == [
        name if row.max() > clear else NOTHING for name, row in zip(best, above, strict=True)
    ]
    assert 0 < with_nothing.predict(photos).count(NOTHING) < len(photos)
    several = zero_shot_classifier(encoder, labels, multi=True, photos=photos)
    np.testing.assert_array_equal(several.predict_proba(photos) > 0.5, above > clear)


def classifier_of(
    logits: list[list[float]], classes: tuple[str, ...], activation: Activation = "softmax"
) -> tuple[LinearClassifier, NDArray[np.float32]]:
    """A classifier and vectors that have these logits."""
    rows = np.asarray(logits, dtype=np.float32)
    return LinearClassifier(
        classes,
        np.eye(rows.shape[1], dtype=np.float32),
        np.zeros(rows.shape[1], dtype=np.float32),
        activation,
    ), rows


def test_answers_are_the_best_that_reach_the_threshold() -> None:
    classifier, rows = classifier_of([[2, 1, 0], [0, 0, 0]], ("a", "b", "c"))
    chances = classifier.predict_proba(rows).astype(np.float64).round(6)
    named = [
        [(name, round(score, 6)) for name, score in found]
        for found in predict(classifier, rows, Decision(top=2))
    ]
    assert named == [
        [("a", chances[0, 0]), ("b", chances[0, 1])],
        [("a", chances[1, 0]), ("b", chances[1, 1])],
    ]
    assert [
        [name for name, _ in found] for found in predict(classifier, rows, Decision(threshold=0.5))
    ] == [["a"], []]
    several, rows = classifier_of([[3, 1, -1], [-2, -1, -3]], ("a", "b", "c"), "sigmoid")
    assert [
        [name for name, _ in found] for found in predict(several, rows, Decision(top=None))
    ] == [
        ["a", "b"],
        [],
    ]
    low = predict(several, rows, Decision(top=None, threshold=0.1))
    assert [[name for name, _ in found] for found in low] == [["a", "b", "c"], ["b", "a"]]


def test_sigmoid_answers_are_ranked_by_logit_where_probabilities_tie() -> None:
    classifier, rows = classifier_of([[40, 41, 0]], ("a", "b", "c"), "sigmoid")
    assert predict(classifier, rows, Decision(top=2)) == [[("b", 1.0), ("a", 1.0)]]


def test_a_threshold_on_levels_answers_with_the_deepest_that_reaches_it() -> None:
    names = ("animal > dog > poodle", "animal > dog > pug", "animal > cat", "car", "animal")
    logits = np.log(
        [
            [0.45, 0.25, 0.1, 0.1, 0.1],
            [0.2, 0.2, 0.2, 0.3, 0.1],
            [0.1, 0.1, 0.1, 0.1, 0.6],
            [0.02, 0.02, 0.3, 0.31, 0.35],
        ]
    )
    classifier, rows = classifier_of(logits.tolist(), names)

    def best(threshold: float) -> list[list[tuple[str, float]]]:
        return [
            [(name, round(score, 2)) for name, score in found]
            for found in predict(classifier, rows, Decision(threshold=threshold))
        ]

    assert best(0.5) == [
        [("animal > dog", 0.7)],
        [("animal", 0.7)],
        [("animal", 0.6)],
        [("animal", 0.69)],
    ]
    assert best(0.39) == [
        [("animal > dog > poodle", 0.45)],
        [("animal > dog", 0.4)],
        [("animal", 0.6)],
        [("animal", 0.69)],
    ]
    assert best(0.95) == [[], [], [], []]


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(QueryError, match="a threshold is a probability from 0 to 1"):
        Decision(threshold=threshold)


def drawn_logits(
    count: int, classes: int, scale: float
) -> tuple[np.ndarray, list[str], tuple[str, ...]]:
    """Logits that are ``scale`` times too steep, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(0)
    names = tuple("abcdefgh"[:classes])
    true = rng.normal(size=(count, classes)) * 2
    chances = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    truth = [names[rng.choice(classes, p=row)] for row in chances]
    return (true * scale).astype(np.float32), truth, names


@pytest.mark.parametrize("scale", [0.25, 1.0, 5.0])
def test_calibration_finds_the_temperature_that_was_hidden(scale: float) -> None:
    rows, truth, names = drawn_logits(2000, 4, scale)
    classifier = LinearClassifier(names, np.eye(4, dtype=np.float32), np.ones(4, dtype=np.float32))
    better, report = calibrate(classifier, rows, truth)
    assert report.scale * scale == pytest.approx(1, abs=0.1)
    assert (report.shift, report.photos) == (0.0, 2000)
    assert report.error_after < 0.03
    assert report.error_before > 3 * report.error_after or scale == 1
    np.testing.assert_allclose(
        better.logits(rows), report.scale * classifier.logits(rows), rtol=1e-4, atol=1e-4
    )
    assert better.predict(rows) == classifier.predict(rows)


def test_calibration_of_a_sigmoid_finds_scale_and_shift() -> None:
    rng = np.random.default_rng(1)
    true = np.where(np.arange(3) == np.arange(3000)[:, None] % 3, 2.0, -2.0) + rng.normal(
        size=(3000, 3)
    )
    classifier = LinearClassifier(
        ("a", "b", "c"), np.eye(3, dtype=np.float32), np.full(3, -9, dtype=np.float32), "sigmoid"
    )
    truth = [("a", "b", "c")[i % 3] for i in range(3000)]
    better, report = calibrate(classifier, (true * 0.5).astype(np.float32), truth)
    assert report.error_after < 0.1 < report.error_before
    chances = better.predict_proba((true * 0.5).astype(np.float32))
    assert float(chances.sum(axis=1).mean()) == pytest.approx(1, abs=0.01)  # as many as there are


def test_calibration_on_photos_that_are_all_right_stays_finite() -> None:
    classifier, rows = classifier_of([[9, 0], [0, 9]] * 6, ("a", "b"))
    better, report = calibrate(classifier, rows, ["a", "b"] * 6)
    assert np.isfinite(better.weight).all()
    assert report.error_after <= report.error_before
    single, rows = classifier_of([[9, -9], [-9, 9]] * 6, ("a", "b"), "sigmoid")
    assert np.isfinite(calibrate(single, rows, ["a", "b"] * 6)[0].weight).all()


def test_calibration_refuses_few_photos_and_foreign_labels() -> None:
    classifier, rows = classifier_of([[1, 0]] * 12, ("a", "b"))
    with pytest.raises(
        QueryError, match="5 labelled photos are too few to calibrate with: give at least 10"
    ):
        calibrate(classifier, rows[:5], ["a"] * 5)
    with pytest.raises(
        QueryError, match="photos are labelled c, which the classifier does not have: it has a, b"
    ):
        calibrate(classifier, rows, ["a"] * 11 + ["c"])
    with_nothing, rows = classifier_of([[1, 0]] * 12, ("a", NOTHING))
    assert calibrate(with_nothing, rows, ["a"] * 6 + ["c"] * 6)[1].photos == 12
