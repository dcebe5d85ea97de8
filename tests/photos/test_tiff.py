"""Kinds of TIFF: the pixels are those that were written, whichever way they are stored."""

import io
import subprocess
import zlib
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.profiles import Tags, tiff
from vitsearch.errors import PhotoError
from vitsearch.photos.decode import decode

H, W = 32, 48
_Y, _X = np.mgrid[0:H, 0:W]
COLOURS = np.dstack([_X * 5, _Y * 7, (_X + _Y) * 3]).astype(np.uint8)
GREY = COLOURS[..., 0]
ALPHA = np.full((H, W), 255, np.uint8)


def page(bits: tuple[int, ...], photometric: int, **more: int) -> dict[int, Any]:
    """The tags of a page of 48 x 32 pixels."""
    tags = {256: (4, [W]), 257: (4, [H]), 258: (3, bits), 262: (3, [photometric])}
    tags |= {277: (3, [len(bits)]), 278: (4, [H])}
    return tags | {int(tag[1:]): (3, [value]) for tag, value in more.items()}


def shown(data: bytes) -> np.ndarray:
    image, info = decode(data)
    assert (image.mode, image.size) == ("RGB", (info.width, info.height))
    return np.asarray(image).astype(int)


def written(array: np.ndarray, **options: Any) -> bytes:
    """A TIFF by another library than ours."""
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, software=False, **options)
    return buffer.getvalue()


NUMBERS = {
    "u1": (lambda a: a),
    "u2": (lambda a: a.astype("u2") * 257),
    "u4": (lambda a: a.astype("u4") * 0x01010101),
    "u8": (lambda a: a.astype("u8") * np.uint64(0x0101010101010101)),
    "f2": (lambda a: (a / 255).astype("f2")),
    "f4": (lambda a: (a / 255).astype("f4")),
    "f8": (lambda a: a / 255),
}
CHANNELS: dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]] = {
    "grey": (GREY, GREY, {"photometric": "minisblack"}),
    "white is zero": (255 - GREY, GREY, {"photometric": "miniswhite"}),
    "rgb": (COLOURS, COLOURS, {"photometric": "rgb"}),
    "planes": (
        COLOURS.transpose(2, 0, 1),
        COLOURS,
        {"photometric": "rgb", "planarconfig": "separate"},
    ),
    "grey and alpha": (
        np.dstack([GREY, ALPHA]),
        GREY,
        {"photometric": "minisblack", "extrasamples": ["unassalpha"]},
    ),
    "rgb and alpha": (
        np.dstack([COLOURS, ALPHA]),
        COLOURS,
        {"photometric": "rgb", "extrasamples": ["assocalpha"]},
    ),
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_numbers_of_every_kind(kind: str, channels: str) -> None:
    stored, right, options = CHANNELS[channels]
    ways: list[dict[str, Any]] = [{}, {"compression": "zlib", "predictor": True}]
    ways += [{"tile": (16, 16)}, {"tile": (16, 32), "compression": "zlib", "predictor": True}]
    ways += [{"rowsperstrip": 5}, {"rowsperstrip": 7, "compression": "zlib"}, {"bigtiff": True}]
    for way in ways:
        for order in "<>":
            if (way.get("bigtiff") and order == ">") or (
                kind in ("f2", "u8") and "predictor" in way
            ):
                continue
            array = NUMBERS[kind](stored)
            got = shown(written(array, byteorder=order, **options, **way))
            off = np.abs(got - (right if right.ndim == 3 else right[..., None])).max()
            assert off <= 1, (way, order)


@pytest.mark.parametrize("bits", range(1, 16))
@pytest.mark.parametrize("white", [0, 1])
@pytest.mark.parametrize("compression", [1, 8])
def test_grey_of_any_number_of_bits(bits: int, white: int, compression: int) -> None:
    values = GREY.astype(int) * (2**bits - 1) // 255
    stored = values if white else 2**bits - 1 - values
    flags = ((stored[..., None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(H, -1)
    data = np.packbits(flags.astype(np.uint8), axis=1).tobytes()
    strip = zlib.compress(data) if compression == 8 else data
    got = shown(tiff((page((bits,), white, _259=compression), [strip])))
    right = np.rint(values * 255 / (2**bits - 1))
    assert np.abs(got - right[..., None]).max() <= 1


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_signed_numbers_are_stretched(kind: str, order: str, compression: str | None) -> None:
    values = COLOURS.astype("i8") * (3 if kind != "i1" else 1) - 100 * (kind != "i1") - 128
    right = np.rint((values - values.min()) * 255 / (values.max() - values.min()))
    data = written(values.astype(kind), photometric="rgb", byteorder=order, compression=compression)
    assert np.abs(shown(data) - right).max() <= 1


def test_small_numbers_in_32_bits_are_stretched_and_large_ones_are_not() -> None:
    small = written(GREY.astype("u4"), photometric="minisblack")
    assert np.abs(shown(small)[..., 0] - np.rint(GREY * (255 / GREY.max()))).max() <= 1
    large = written((GREY.astype("u4") // 2) << 24, photometric="minisblack")
    np.testing.assert_array_equal(shown(large)[..., 0], GREY // 2)


@pytest.mark.parametrize("white", [255, 65535])
@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_of_8_and_of_16_bits(white: int, bits: int) -> None:
    count = 2**bits
    ramp = np.arange(count) * white // (count - 1)
    values = GREY.astype(int) * (count - 1) // 255
    strip = values.astype(f"<u{bits // 8}").tobytes()
    colours = [*ramp.tolist(), *ramp[::-1].tolist(), *[0] * count]
    got = shown(tiff((page((bits,), 3) | {320: (3, colours)}, [strip])))
    right = np.dstack([GREY, 255 - GREY, 0 * GREY])
    assert np.abs(got - right).max() <= 1


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_cmyk(kind: str, planar: str) -> None:
    inks = np.dstack([COLOURS, GREY // 3])
    right = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")).astype(int)
    stored = NUMBERS[kind](inks if planar == "contig" else inks.transpose(2, 0, 1))
    got = shown(written(stored, photometric="separated", planarconfig=planar))
    assert np.abs(got - right).max() <= 2


# L*, a*, b* and what they are in sRGB (lcms 2.19, from D50)
LAB = [((50, 0, 0), (119, 119, 119)), ((60, 50, 30), (230, 103, 95)), ((40, -40, 20), (0, 110, 61))]


@pytest.mark.parametrize(("lab", "rgb"), LAB)
@pytest.mark.parametrize(
    "kind", ["cielab", "cielab planes", "cielab 16", "float", "icclab", "icclab 16"]
)
def test_lab(lab: tuple[int, int, int], rgb: tuple[int, int, int], kind: str) -> None:
    light, a, b = lab
    photometric = "icclab" if kind.startswith("icc") else "cielab"
    one: np.ndarray = {
        "cielab": np.array([round(light * 2.55), a & 255, b & 255], "u1"),
        "cielab planes": np.array([round(light * 2.55), a & 255, b & 255], "u1"),
        "cielab 16": np.array([round(light * 655.35), a * 256 & 65535, b * 256 & 65535], "u2"),
        "float": np.array(lab, "f4"),
        "icclab": np.array([round(light * 2.55), a + 128, b + 128], "u1"),
        "icclab 16": np.array([light * 652.8, (a + 128) * 256, (b + 128) * 256], "u2"),
    }[kind]
    if kind == "cielab planes":
        planes = np.tile(one[:, None, None], (1, 16, 16))
        data = written(planes, photometric=photometric, planarconfig="separate")
    else:
        data = written(np.tile(one, (16, 16, 1)), photometric=photometric)
    assert np.abs(shown(data) - rgb).max() <= 3


@pytest.mark.parametrize("unit", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (4, 4)])
def test_ycbcr_with_shared_colours(unit: tuple[int, int]) -> None:
    across, down = unit
    colours = np.full((H, W, 3), (180, 90, 60), np.uint8)
    colours[:, 24:] = (30, 140, 200)
    ycc = np.asarray(Image.fromarray(colours).convert("YCbCr"))
    light = ycc[..., 0].reshape(H // down, down, W // across, across).transpose(0, 2, 1, 3)
    chroma = ycc[::down, ::across, 1:]
    units = np.concatenate([light.reshape(H // down, W // across, -1), chroma], axis=2)
    tags = page((8, 8, 8), 6) | {530: (3, list(unit))}
    assert np.abs(shown(tiff((tags, [units.tobytes()]))) - colours).max() <= 3


def test_the_alpha_is_applied_multiplied_in_or_not() -> None:
    half = np.full((H, W), 128, np.uint8)
    grey = np.full((H, W), 100, np.uint8)
    right = {2: round(100 * 128 / 255 + 127), 1: 100 + 127, 0: 100}
    for kind, value in right.items():
        for order in "<>":
            for size in (1, 2):
                both = np.dstack([grey, half]).astype(f"{order}u{size}") * (257 if size == 2 else 1)
                tags = page((8 * size,) * 2, 1, _338=kind)
                got = shown(tiff((tags, [both.astype(f"{order}u{size}").tobytes()]), order=order))
                assert np.abs(got - value).max() <= 1, (kind, order, size)


def test_the_photo_is_the_first_page_that_is_not_reduced() -> None:
    small: Tags = page((8, 8, 8), 2, _254=1) | {256: (4, [12]), 257: (4, [8])}
    old: Tags = page((8, 8, 8), 2, _255=2) | {256: (4, [12]), 257: (4, [8])}
    mask: Tags = page((8,), 1, _254=4)
    photo = page((8, 8, 8), 2), [COLOURS.tobytes()]
    thumbnail = COLOURS[::4, ::4].tobytes()
    for pages in (
        [(small, [thumbnail]), photo],
        [(old, [thumbnail]), (mask, [GREY.tobytes()]), photo],
        [photo, (small, [thumbnail])],
    ):
        for order in "<>":
            np.testing.assert_array_equal(shown(tiff(*pages, order=order)), COLOURS)
    only = shown(tiff((small, [thumbnail])))
    np.testing.assert_array_equal(only, COLOURS[::4, ::4])


def test_the_photo_may_be_a_page_below_a_reduced_one() -> None:
    small = page((8, 8, 8), 2, _254=1) | {256: (4, [12]), 257: (4, [8])}
    data = tiff(
        (small | {330: (4, [0])}, [COLOURS[::4, ::4].tobytes()]),
        (page((8, 8, 8), 2), [COLOURS.tobytes()]),
    )
    first = int.from_bytes(data[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    second = data[end : end + 4]
    entry = data.find((330).to_bytes(2, "little"), first)
    below = data[: entry + 8] + second + data[entry + 12 : end] + bytes(4) + data[end + 4 :]
    np.testing.assert_array_equal(shown(below), COLOURS)


@pytest.mark.parametrize("bits", [8, 16])
def test_orientation_and_columns_of_a_kind_that_pillow_does_not_know(bits: int) -> None:
    stored = (COLOURS.astype("<u2") * 257) if bits == 16 else COLOURS
    strips = [np.ascontiguousarray(stored[..., channel]).tobytes() for channel in range(3)]
    tags = page((bits,) * 3, 2, _284=2, _274=6) | {271: (1, list(b"Maker\0"))}
    np.testing.assert_array_equal(shown(tiff((tags, strips))), np.rot90(COLOURS, -1))
    tags[271] = (1, list(b"Maker\0"))
    assert decode(tiff((tags, strips)))[1].width == H


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (page((8, 8, 8), 32845), "8-bit LogLuv in 3 channels"),
        (page((5, 6, 5), 2), "5/6-bit RGB in 3 channels"),
        (page((8,) * 5, 1), "8-bit grey in 5 channels is not read here: it is not known"),
        (page((16,) * 5, 1), "16-bit grey in 5 channels is not read here: it is not known"),
        (page((24,), 1), "24-bit grey in 1 channels"),
        (page((16, 16, 16), 6), "16-bit YCbCr in 3 channels"),
        (page((32, 32), 1, _339=6), "32-bit complex grey"),
        (page((16, 16, 16), 2, _259=7), "16-bit RGB in 3 channels"),
        (page((8, 8, 8), 2, _259=34712), "compressed by JPEG 2000"),
        (page((8, 8, 8), 2, _259=50002), "compressed by JPEG XL"),
        (page((8, 8, 8), 2, _259=60000), "compressed by way 60000"),
        (page((8,) * 6, 5, _332=2, _284=2), "6 channels"),
    ],
)
def test_other_kinds_are_refused_by_name(tags: Tags, reason: str) -> None:
    with pytest.raises(PhotoError, match=reason):
        decode(tiff((tags, [COLOURS.tobytes() * 4])))


@pytest.mark.skipif(which("tiff2rgba") is None, reason="the tools of libtiff are not installed")
@pytest.mark.parametrize("compression", ["jpeg", "jpeg planes", "lzw tiles"])
def test_libtiff_reads_the_same(compression: str, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs", reason="it writes JPEG and LZW")
    options: dict[str, Any] = {
        "jpeg": {"compression": "jpeg", "photometric": "ycbcr"},
        "jpeg planes": {"compression": "jpeg", "photometric": "rgb", "planarconfig": "separate"},
        "lzw tiles": {"compression": "lzw", "photometric": "rgb", "tile": (16, 16)},
    }[compression]
    stored = COLOURS.transpose(2, 0, 1) if "planes" in compression else COLOURS
    source, target = tmp_path / "a.tif", tmp_path / "b.tif"
    source.write_bytes(written(stored, **options))
    subprocess.run(["tiff2rgba", "-c", "none", source, target], check=True, capture_output=True)
    right = np.asarray(Image.open(target).convert("RGB")).astype(int)
    assert np.abs(shown(source.read_bytes()) - right).max() <= 1
