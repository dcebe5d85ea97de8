"""Our preprocessing against the transforms that the models were trained and published with."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitsearch.encoders.preprocess import Preprocess, ResizeMode, normalise, prepare

SIZES = [
    (640, 480),
    (480, 640),
    (224, 224),
    (225, 226),
    (100, 37),
    (37, 100),
    (1, 1),
    (3, 1),
    (2000, 90),
    (227, 224),
    (999, 1001),
]


def drawn(width: int, height: int) -> Image.Image:
    """Return the picture of the golden values: red grows to the right, green downwards, blue is a
    fine pattern.
    """
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    red = x * 255 // max(width - 1, 1)
    green = y * 255 // max(height - 1, 1)
    return Image.fromarray(np.stack([red, green, (7 * x + 13 * y) % 256], axis=-1).astype(np.uint8))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def ours(image: Image.Image, how: Preprocess) -> np.ndarray:
    return normalise([prepare(image, how)], how)[0]


def test_golden_values_of_a_drawn_picture() -> None:
    result = ours(drawn(640, 480), Preprocess())
    assert result.shape == (3, 224, 224)
    np.testing.assert_allclose(result[:, 0, 0], [-1.3397113, -1.7520971, -0.6838961], atol=1e-6)
    np.testing.assert_allclose(result[:, 111, 111], [0.0471392, 0.1388817, 1.5059941], atol=1e-6)
    assert float(result.mean(dtype=np.float64)) == pytest.approx(0.1828341, abs=1e-6)
    assert float(result.std(dtype=np.float64, ddof=1)) == pytest.approx(0.9695872, abs=1e-6)


def open_clip_transform(how: Preprocess) -> Any:
    transform = pytest.importorskip("open_clip.transform", reason="needs the extra vitsearch[clip]")
    return transform.image_transform_v2(
        transform.PreprocessCfg(
            size=how.size, mean=how.mean, std=how.std, interpolation=how.interpolation,
            resize_mode=how.resize_mode, fill_color=how.fill_color,
        ),
        is_train=False,
    )  # fmt: skip


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.slow  # which loads open_clip
def test_bit_equal_to_open_clip(resize_mode: ResizeMode, interpolation: Any) -> None:
    how = Preprocess(interpolation=interpolation, resize_mode=resize_mode, fill_color=17)
    transform = open_clip_transform(how)
    for size in SIZES:
        np.testing.assert_array_equal(
            ours(noise(*size), how), transform(noise(*size)).numpy(), err_msg=str(size)
        )


@pytest.mark.parametrize("size", [(224, 288), (50, 31)])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.slow  # which loads open_clip
def test_bit_equal_to_open_clip_for_oblong_inputs(
    resize_mode: ResizeMode, size: tuple[int, int]
) -> None:
    how = Preprocess(size=size, interpolation="bilinear", resize_mode=resize_mode)
    transform = open_clip_transform(how)
    for shape in [(640, 480), (480, 640), (33, 99)]:
        np.testing.assert_array_equal(
            ours(noise(*shape), how), transform(noise(*shape)).numpy(), err_msg=str(shape)
        )


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), seed=st.integers(0, 9))
@pytest.mark.slow  # which loads open_clip
def test_bit_equal_to_open_clip_for_any_size(width: int, height: int, seed: int) -> None:
    how = Preprocess(size=(32, 32))
    image = noise(width, height, seed)
    if max(width, height) <= 32 * min(width, height):
        np.testing.assert_array_equal(ours(image, how), open_clip_transform(how)(image).numpy())
    else:
        assert ours(image, how).shape == (3, 32, 32)


@pytest.mark.parametrize(("shortest", "crop"), [(224, 224), (256, 224)])
def test_bit_equal_to_transformers_pillow_processor_and_one_level_from_the_torchvision_one(
    shortest: int, crop: int
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")
    options = {"size": {"shortest_edge": shortest}, "crop_size": {"height": crop, "width": crop}}
    pillow = transformers.CLIPImageProcessorPil(**options)
    torchvision = transformers.CLIPImageProcessor(**options)
    how = Preprocess(size=(crop, crop), resize_to=shortest, half_pixel="down")
    for size in SIZES:
        mine = ours(noise(*size), how)
        np.testing.assert_array_equal(
            mine, pillow(noise(*size), return_tensors="np")["pixel_values"][0], err_msg=str(size)
        )
        assert_one_level_apart(
            mine, torchvision(noise(*size), return_tensors="np")["pixel_values"][0], how, size
        )


def assert_one_level_apart(
    mine: np.ndarray, theirs: np.ndarray, how: Preprocess, size: tuple[int, int]
) -> None:
    """torchvision rounds its filter's weights otherwise than Pillow; an enlarged edge may then fall
    two levels apart in a lone pixel.
    """
    levels = np.abs(mine - theirs) * np.array(how.std).reshape(3, 1, 1) * 255
    enlarged = min(size) < 224
    assert levels.max() <= (2.01 if enlarged else 1.01), size
    assert (levels > 1.01).mean() <= 1e-4, size


def test_one_level_from_the_siglip_processor() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")
    processor = transformers.SiglipImageProcessor()
    how = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize_mode="squash")
    for size in SIZES:
        theirs = processor(noise(*size), return_tensors="np")["pixel_values"][0]
        assert_one_level_apart(ours(noise(*size), how), theirs, how, size)


@pytest.mark.parametrize("size", [(1, 1), (4000, 2), (2, 4000), (60_000, 1)])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_odd_shapes_are_good_photos(size: tuple[int, int], resize_mode: ResizeMode) -> None:
    image = Image.new("RGB", size, (10, 200, 30))
    result = prepare(image, Preprocess(resize_mode=resize_mode))
    assert result.shape == (224, 224, 3)
    assert result.dtype == np.uint8
    assert (10, 200, 30) in {
        tuple(pixel) for pixel in result[111:113, 111:113].reshape(4, 3).tolist()
    }


def test_a_long_strip_is_cropped_before_it_is_enlarged_with_the_same_result() -> None:
    how = Preprocess(size=(8, 8))
    strip = noise(330, 10)
    whole = strip.resize((264, 8), Image.Resampling.BICUBIC).crop((128, 0, 136, 8))
    assert np.abs(prepare(strip, how).astype(int) - np.asarray(whole, dtype=int)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert prepare(noise(30, 20).convert(mode), Preprocess()).shape == (224, 224, 3)


def test_a_batch_is_normalised_picture_by_picture() -> None:
    how = Preprocess(size=(16, 16))
    pictures = [prepare(noise(20, 30, seed), how) for seed in range(3)]
    batch = normalise(pictures, how)
    np.testing.assert_array_equal(
        batch, np.concatenate([normalise([picture], how) for picture in pictures])
    )
    assert normalise([], how).shape == (0, 3, 16, 16)


def test_every_field_is_a_fact_of_the_fingerprint() -> None:
    naflex = Preprocess(size=(16, 16), resize_mode="patches", max_patches=256)
    assert set(naflex.facts()) == set(Preprocess.__slots__)
    # later than the collections that were made without it
    assert set(naflex.facts()) - set(Preprocess().facts()) == {"max_patches"}
