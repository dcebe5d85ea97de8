import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.odd_files import picture
from vitsearch.encoders import Encoder, ImageEncoder, load_encoder
from vitsearch.encoders.base import (
    CLOSE,
    TEXT,
    EncoderIdentity,
    fingerprint_of,
    golden_picture,
    golden_vectors,
)
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import EncoderError, EncoderMismatch

SIZES = [(96, 64), (1, 1), (64, 200), (33, 31), (400, 2)]
PICTURES = [picture(seed, size) for seed, size in enumerate(SIZES)] + [
    Image.new("RGB", (50, 40), "red"),
    Image.new("RGB", (50, 40), "black"),
]
TEXTS = [
    "a dog on a beach",
    "red",
    "",
    "a photo of a cat\non a chair",
    "RED and blue " * 60,
    "\U0001f415 \udcff",
    "red",
]


@cache
def loaded(name: str) -> Encoder:
    if name == "mini" and not files("vitsearch").joinpath("encoders/mini/image.onnx").is_file():
        pytest.skip("the weights of mini are not in this checkout")
    return load_encoder(name)


@pytest.fixture(params=["colour", "mini"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return loaded(request.param)


# -- what every encoder keeps to -------------------------------------------------------------------


def test_says_what_it_is(encoder: Encoder) -> None:
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, ImageEncoder)
    assert encoder.name in ("colour", "mini")
    assert isinstance(encoder.dim, int)
    assert encoder.dim > 0
    assert isinstance(encoder.logit_scale, float)
    assert 1 <= encoder.logit_scale <= 1000
    assert encoder.logit_bias is None or isinstance(encoder.logit_bias, float)
    assert re.fullmatch("[0-9a-f]{32}", encoder.fingerprint)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_vectors_are_float32_unit_rows(encoder: Encoder, kind: str) -> None:
    rows = encoder.encode_images(PICTURES) if kind == "images" else encoder.encode_texts(TEXTS)
    assert (rows.dtype, rows.shape) == (np.float32, (7, encoder.dim))
    np.testing.assert_allclose((rows.astype(np.float64) ** 2).sum(axis=1), 1, atol=1e-5)


def test_none_gives_no_row(encoder: Encoder) -> None:
    for rows in (encoder.encode_images([]), encoder.encode_prepared([]), encoder.encode_texts([])):
        assert (rows.dtype, rows.shape) == (np.float32, (0, encoder.dim))


@pytest.mark.slow
def test_one_at_a_time_is_as_all_at_once(encoder: Encoder) -> None:
    images, texts = encoder.encode_images(PICTURES), encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(
        np.concatenate([encoder.encode_images([image]) for image in PICTURES]), images, atol=2e-5
    )
    np.testing.assert_allclose(
        np.concatenate([encoder.encode_texts([text]) for text in TEXTS]), texts, atol=2e-5
    )
    np.testing.assert_allclose(encoder.encode_images(PICTURES[::-1])[::-1], images, atol=2e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS[::-1])[::-1], texts, atol=2e-5)


def test_different_things_have_different_vectors(encoder: Encoder) -> None:
    red, blue, green = (
        encoder.encode_images([Image.new("RGB", (64, 64), name)])[0]
        for name in ("red", "blue", "green")
    )
    assert max(red @ blue, red @ green, blue @ green) < 0.99
    words = encoder.encode_texts(["red", "blue", "green"])
    assert (words @ words.T - 2 * np.eye(3)).max() < 0.99


@pytest.mark.slow
def test_prepare_and_encode_prepared_make_encode_images(encoder: Encoder) -> None:
    prepared = [encoder.prepare(image) for image in PICTURES]
    assert len({(array.shape, array.dtype) for array in prepared}) == 1
    np.testing.assert_array_equal(
        encoder.encode_prepared(prepared), encoder.encode_images(PICTURES)
    )


@pytest.mark.slow
def test_the_same_again(encoder: Encoder) -> None:
    before = [image.tobytes() for image in PICTURES]
    np.testing.assert_array_equal(encoder.encode_images(PICTURES), encoder.encode_images(PICTURES))
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), encoder.encode_texts(TEXTS))
    assert [image.tobytes() for image in PICTURES] == before


def test_loaded_again_it_is_the_same_encoder(encoder: Encoder) -> None:
    again = load_encoder(encoder.name)
    facts = ("name", "dim", "logit_scale", "logit_bias", "fingerprint")
    assert [getattr(again, fact) for fact in facts] == [getattr(encoder, fact) for fact in facts]
    check_golden(again, golden_vectors(encoder))


@pytest.mark.slow
def test_the_fingerprint_is_the_same_in_another_process(encoder: Encoder) -> None:
    code = (
        "from vitsearch.encoders import load_encoder; "
        f"print(load_encoder({encoder.name!r}).fingerprint)"
    )
    assert run(code) == encoder.fingerprint


# -- names -----------------------------------------------------------------------------------------


def run(code: str) -> str:
    """What a new Python prints."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ViT-B-32",
        "openai/clip-vit-base-patch32",
        "colours",
        "Colour",
        "clip:ViT-B-32",
        "mini:large",
        "colour:2",
        "open_clip",
        "hf",
        "hf:",
        ":",
        "local-dir:",
    ],
)
def test_an_unknown_or_bare_name_is_refused_with_the_spellings(name: str) -> None:
    with pytest.raises(EncoderError) as error:
        load_encoder(name)
    start = f"unknown encoder {name!r}: try one of mini, colour, open_clip:ARCH/TAG "
    assert str(error.value).startswith(start)
    assert "hf:ORG/NAME" in str(error.value)
    assert "local-dir:/path" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("open_clip:ViT-B-32/openai", "torch"),
        ("open_clip:ViT-B-32/openai", "open_clip"),
        ("hf:openai/clip-vit-base-patch32", "torch"),
        ("local-dir:open_clip_config.json", "open_clip"),
        ("local-dir:config.json", "torch"),
    ],
)
def test_a_missing_extra_is_named(name: str, missing: str, tmp_path: Path) -> None:
    if name.startswith("local-dir:"):
        (tmp_path / name.removeprefix("local-dir:")).write_text('{"model_type": "clip"}')
        name = f"local-dir:{tmp_path}"
    code = f"""
import sys
sys.modules[{missing!r}] = None
from vitsearch.encoders import load_encoder
from vitsearch.errors import EncoderError
try:
    load_encoder({name!r})
except EncoderError as error:
    print(error)
"""
    assert (
        run(code) == f"encoder {name!r} needs the package {missing}: pip install 'vitsearch[clip]'"
    )


def test_colour_needs_no_package_of_an_extra() -> None:
    code = """
import sys
heavy = ("torch", "torchvision", "transformers", "open_clip", "faiss", "onnxruntime")
sys.modules.update(dict.fromkeys(heavy))
from vitsearch.encoders import load_encoder
print(load_encoder("colour").encode_texts(["red"]).shape)
"""
    assert run(code) == "(1, 27)"


def check_golden(encoder: ImageEncoder, golden: np.ndarray) -> None:
    EncoderIdentity("stored", "", "float32", golden.shape[1], golden).check_golden(encoder)


# -- golden vectors and fingerprints ---------------------------------------------------------------


class Changed(ColourEncoder):
    """The colour encoder with one change to what it gives."""

    def __init__(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self._change = change

    def encode_images(self, images):  # type: ignore[no-untyped-def]
        return self._change(super().encode_images(images))


class PicturesOnly(ImageEncoder):
    name, dim, fingerprint = "pictures", 27, "0" * 32
    prepare, encode_prepared, encode_images = (
        ColourEncoder().prepare,
        ColourEncoder().encode_prepared,
        ColourEncoder().encode_images,
    )


def test_the_golden_picture_is_the_same_everywhere() -> None:
    golden = golden_picture()
    assert (golden.size, golden.mode) == ((320, 240), "RGB")
    assert [golden.getpixel(place) for place in ((0, 0), (319, 0), (0, 239), (100, 50))] == [
        (0, 0, 0),
        (255, 0, 2233 % 256),
        (0, 255, 3107 % 256),
        (79, 53, 1350 % 256),
    ]


def test_golden_vectors_are_of_the_picture_and_the_sentence() -> None:
    colour = ColourEncoder()
    rows = golden_vectors(colour)
    np.testing.assert_array_equal(
        rows,
        np.concatenate([colour.encode_images([golden_picture()]), colour.encode_texts([TEXT])]),
    )
    check_golden(colour, rows)
    assert golden_vectors(PicturesOnly()).shape == (1, 27)
    check_golden(PicturesOnly(), rows[:1])


def test_a_small_difference_of_precision_is_let_pass() -> None:
    check_golden(
        ColourEncoder(), golden_vectors(ColourEncoder()).astype(np.float16).astype(np.float32)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: -rows,
        lambda rows: np.roll(rows, 1, axis=1),
        lambda rows: rows * np.nan,
        lambda rows: rows * np.float32(0.99),
    ],
)
def test_other_vectors_are_told(change: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(
        EncoderMismatch, match="gives other vectors than when the collection was made"
    ) as error:
        check_golden(Changed(change), golden_vectors(ColourEncoder()))
    assert "\n" not in str(error.value)


def test_a_vector_just_too_far_is_told() -> None:
    stored = golden_vectors(ColourEncoder())
    across = np.zeros_like(stored[1])
    across[np.argmin(stored[1])] = 1  # the sentence says red only, so most places are zero
    for cosine, passes in ((CLOSE + 1e-4, True), (CLOSE - 1e-4, False)):
        turned = np.stack([stored[0], cosine * stored[1] + (1 - cosine**2) ** 0.5 * across]).astype(
            np.float32
        )
        if passes:
            check_golden(ColourEncoder(), turned)
        else:
            with pytest.raises(EncoderMismatch):
                check_golden(ColourEncoder(), turned)


def test_vectors_of_another_length_are_told() -> None:
    with pytest.raises(
        EncoderMismatch, match="encoder colour gives 27 numbers, the collection holds 512"
    ):
        check_golden(ColourEncoder(), np.ones((2, 512), dtype=np.float32))


def test_a_fingerprint_changes_with_any_fact_and_not_with_their_order() -> None:
    facts = {"weights": "abc", "size": 224, "mean": [0.5, 0.5], "name": "é"}
    first = fingerprint_of(facts)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert fingerprint_of(dict(reversed(facts.items()))) == first
    others = [
        {**facts, "size": 225},
        {**facts, "mean": [0.5, 0.25]},
        {**facts, "more": None},
        {**facts, "size": "224"},
        {},
    ]
    assert len({first, *map(fingerprint_of, others)}) == 6
