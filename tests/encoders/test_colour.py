from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from vitsearch.arrays import cosine_scores, top_k
from vitsearch.encoders.colour import DIM, WORDS, ColourEncoder

ENCODER = ColourEncoder()
NAMES = [name for name in WORDS if name != "grey"]  # the same colour as gray
PICTURES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)))


def flat(name: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, WORDS[name])


def turned(degrees: float) -> NDArray[np.float32]:
    """The row of a flat picture of one hue."""
    return ENCODER.encode_images(
        [Image.new("HSV", (4, 4), (round(degrees / 360 * 256) % 256, 255, 255)).convert("RGB")]
    )[0]


@pytest.mark.parametrize("name", WORDS)
def test_a_word_is_the_vector_of_its_colour(name: str) -> None:
    np.testing.assert_allclose(
        ENCODER.encode_texts([name]), ENCODER.encode_images([flat(name)]), atol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_word_ranks_its_picture_first(name: str) -> None:
    scores = cosine_scores(
        ENCODER.encode_images([flat(other) for other in NAMES]),
        ENCODER.encode_texts([f"a {name.upper()}, thing"])[0],
    )
    assert NAMES[top_k(scores, 1)[0]] == name


def test_red_ranks_by_likeness() -> None:
    names = ["blue", "red", "white", "crimson", "green"]
    scores = cosine_scores(
        ENCODER.encode_images([flat(name) for name in names]), ENCODER.encode_texts(["red"])[0]
    )
    assert [names[place] for place in top_k(scores, 2)] == ["red", "crimson"]
    np.testing.assert_allclose(scores[[0, 2, 4]], 0, atol=1e-7)


def test_two_colours_score_by_their_shares() -> None:
    half = Image.new("RGB", (32, 32), WORDS["red"])
    half.paste(WORDS["blue"], (0, 0, 16, 32))
    row = ENCODER.encode_images([half])[0]
    np.testing.assert_allclose(row, ENCODER.encode_texts(["blue next to red"])[0], atol=1e-6)
    np.testing.assert_allclose(
        cosine_scores(ENCODER.encode_texts(["red", "blue", "green"]), row),
        [0.5**0.5, 0.5**0.5, 0],
        atol=1e-6,
    )


def test_near_hues_are_nearer_than_far_ones() -> None:
    scores = cosine_scores(np.stack([turned(degrees) for degrees in (0, 5, 10, 15)]), turned(0))
    assert all(near > far for near, far in pairwise(scores))


def test_greys_have_no_hue() -> None:
    rows = ENCODER.encode_texts(["black", "gray", "white"])
    np.testing.assert_allclose(rows[:, :-3], 0)
    np.testing.assert_allclose(rows[:, -3:], np.eye(3), atol=0.07)
    np.testing.assert_array_equal(ENCODER.encode_texts(["gray"]), ENCODER.encode_texts(["grey"]))


@pytest.mark.parametrize("text", ["", "a dog on a beach", "reddish", "bored", "\udcff", "красный"])
def test_a_text_without_a_colour_is_all_colours_alike(text: str) -> None:
    np.testing.assert_array_equal(
        ENCODER.encode_texts([text]), np.full((1, DIM), DIM**-0.5, dtype=np.float32)
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(PICTURES)
def test_any_picture_is_a_unit_row_of_shares(pixels: NDArray[np.uint8]) -> None:
    row = ENCODER.encode_images([Image.fromarray(pixels)])[0]
    assert np.isfinite(row).all()
    assert (row >= 0).all()
    assert float((row.astype(np.float64) ** 2).sum()) == pytest.approx(1, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(PICTURES, st.sampled_from(list(Image.Transpose)))
def test_a_turned_picture_has_the_same_colours(
    pixels: NDArray[np.uint8], turn: Image.Transpose
) -> None:
    square = Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST)
    np.testing.assert_allclose(
        ENCODER.encode_images([square]), ENCODER.encode_images([square.transpose(turn)]), atol=1e-6
    )


@pytest.mark.parametrize("size", [(1, 1), (4000, 2), (2, 4000), (33, 31)])
def test_the_size_of_a_flat_picture_does_not_count(size: tuple[int, int]) -> None:
    np.testing.assert_array_equal(
        ENCODER.encode_images([flat("teal", size)]), ENCODER.encode_images([flat("teal")])
    )
