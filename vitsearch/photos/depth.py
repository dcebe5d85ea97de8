"""Pictures of more than 8 bits, of floats or of a high dynamic range, as 8 bits; and the pixels
that the bytes of a TIFF mean.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.photos.tiff import CHANNELS, FLOAT, SIGNED, UNSIGNED, Layout, Plane

Samples = NDArray[Any]
_BLOCK = 1 << 20  # samples whose bits are taken apart at a time
_ASSOCIATED, _UNASSOCIATED = 1, 2  # of a TIFF's extra channels: alpha, multiplied into colours


def eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture of one channel in 8 bits, of one in 16 or 32 bits or of floats; with its
    transparency where it names a value that is transparent.
    """
    grey = Image.fromarray(_scaled(image))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        opaque = np.asarray(image) != transparent
        grey.putalpha(Image.fromarray(opaque.astype(np.uint8) * np.uint8(255)))
    return grey


def _scaled(image: Image.Image) -> NDArray[np.uint8]:
    # 65535 = 255 x 257 becomes 255: Pillow's own conversion clips, which turns most 16-bit photos
    # white
    values: Samples = np.asarray(image)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return _of_range(values, 65535)
    if image.format == "PPM" or (image.mode == "I" and image.format == "PNG"):
        return _stretched(values, 0.0, 65535.0)  # PGM uses the range of 16 bits
    return _of_any_range(values)


def _of_range(values: Samples, white: int) -> NDArray[np.uint8]:
    """Return whole numbers from 0 to ``white`` in 8 bits, rounded."""
    if white == 255:
        return np.asarray(values, dtype=np.uint8)
    if white == 65535:
        return np.asarray((values.astype(np.uint32) + 128) // 257, dtype=np.uint8)
    return np.asarray(np.rint(values * (255 / white)), dtype=np.uint8)


def _of_any_range(values: Samples) -> NDArray[np.uint8]:
    """Return signed numbers and floats in 8 bits: floats are mostly 0 to 1 or 0 to 255, other
    numbers have no agreed range and are stretched.
    """
    numbers = values.astype(np.float64 if values.dtype.itemsize == 8 else np.float32)
    numbers = np.nan_to_num(numbers, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    return _stretched(numbers, low, high)


def _stretched(values: Samples, low: float, high: float) -> NDArray[np.uint8]:
    numbers = values if values.dtype.kind == "f" else values.astype(np.float32)
    scaled = (numbers - low) * (255 / (high - low) if high > low else 0)
    return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)


# -- The pixels of a TIFF --------------------------------------------------------------------------


def picture_of(layout: Layout, planes: Sequence[Plane], colours: Sequence[int]) -> Image.Image:
    """Return the picture, in 8 bits, whose bytes these are; ``colours`` is its palette.

    Raises ValueError for bytes that are not such a picture.
    """
    samples = np.concatenate([_samples(layout, plane) for plane in planes], axis=2)
    base = CHANNELS[layout.photometric]
    if layout.photometric == 3:
        return Image.fromarray(_looked_up(samples[:, :, 0], layout.bits[0], colours))
    if layout.photometric == 6:
        return _ycbcr(layout, samples)
    if layout.photometric in (8, 9):
        return _lab(layout, samples)
    shown = _eight_bits(layout, samples[:, :, :base])
    if layout.photometric == 0:
        shown = np.uint8(255) - shown
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[base]
    picture = Image.merge(mode, [Image.fromarray(shown[:, :, index]) for index in range(base)])
    extra = layout.extra or (_UNASSOCIATED,) * (samples.shape[2] > base)
    alphas = [index for index, kind in enumerate(extra) if kind in (_ASSOCIATED, _UNASSOCIATED)]
    if not alphas or base == 4 or base + alphas[0] >= samples.shape[2]:
        return picture
    alpha = Image.fromarray(_eight_bits(layout, samples[:, :, base + alphas[0]]))
    if extra[alphas[0]] == _UNASSOCIATED:
        picture.putalpha(alpha)
        return picture
    return _divided(picture.convert("RGB").split(), alpha)


def _divided(bands: Sequence[Image.Image], alpha: Image.Image) -> Image.Image:
    """Return a picture in RGBA whose colours were multiplied with its alpha."""
    share = np.maximum(np.asarray(alpha, dtype=np.float32), 1) / 255
    colours = [
        Image.fromarray(np.minimum(np.rint(np.asarray(band) / share), 255).astype(np.uint8))
        for band in bands
    ]
    return Image.merge("RGBA", [*colours, alpha])


def _eight_bits(layout: Layout, samples: Samples) -> NDArray[np.uint8]:
    """Return samples in 8 bits, all by one rule."""
    bits = layout.bits[0]
    if layout.format != UNSIGNED:
        return _of_any_range(samples)
    if bits <= 16:
        return _of_range(samples, 2**bits - 1)
    # who writes small numbers in 32 bits does not mean that they are all black
    if samples.max() >> (bits - 8):
        return np.asarray(samples >> (bits - 8), dtype=np.uint8)
    return _of_any_range(samples)


def _looked_up(indices: Samples, bits: int, colours: Sequence[int]) -> NDArray[np.uint8]:
    table = np.array(colours, dtype=np.uint32)
    if len(table) != 3 << bits:
        raise ValueError("a palette of another length than its picture needs")
    # some writers give 8 bits where the standard has 16
    white = 255 if table.max() <= 255 else 65535
    return _of_range(table.reshape(3, -1).T, white)[indices]


def _ycbcr(layout: Layout, samples: Samples) -> Image.Image:
    """Return a picture in YCbCr, whose Cb and Cr each belong to a unit of pixels."""
    across, down = layout.unit
    rows, columns, count = samples.shape
    light = samples[:, :, : count - 2].reshape(rows, columns, down, across)
    bands = [light.transpose(0, 2, 1, 3).reshape(rows * down, columns * across)]
    bands += [samples[:, :, count - 2 + i].repeat(down, 0).repeat(across, 1) for i in (0, 1)]
    cut = [Image.fromarray(np.array(band[: layout.height, : layout.width])) for band in bands]
    return Image.merge("YCbCr", cut)


def _lab(layout: Layout, samples: Samples) -> Image.Image:
    """Return a picture in Pillow's LAB, whose a* and b* are signed, from CIELab (a* and b* signed)
    or ICCLab (128 or 32768 is 0; white is 0xff00 in 16 bits).
    """
    if layout.format == FLOAT:  # L* from 0 to 100
        light, low, high = samples[:, :, 0] * 2.55, (0, -128, -128), (255, 127, 127)
        samples = np.dstack([light, samples[:, :, 1:]])
        samples = np.rint(np.clip(np.nan_to_num(samples), low, high)).astype(np.int16)
    elif layout.bits[0] == 16:
        white = 0xFF00 if layout.photometric == 9 else 0xFFFF
        light = np.minimum(np.rint(samples[:, :, 0] * (255 / white)), 255)
        chroma = samples[:, :, 1:].astype(np.uint16) + np.uint16(128)  # to the nearest
        samples = np.dstack([light.astype(np.uint16), chroma >> 8])
    offset = 128 if layout.photometric == 8 else 0
    bands = [samples[:, :, 0], *((samples[:, :, index] + offset) & 255 for index in (1, 2))]
    return Image.merge("LAB", [Image.fromarray(band.astype(np.uint8)) for band in bands])


def _samples(layout: Layout, plane: Plane) -> Samples:
    """Return the samples of a plane, ``(height, width, channels)``, as the numbers that they are.

    Raises ValueError where the bytes are fewer.
    """
    data = np.frombuffer(plane.data, dtype=np.uint8).reshape(plane.rows, plane.across, plane.size)
    bits, count = layout.bits[0], plane.width * plane.channels
    if layout.predictor == 3:
        values = _undone_floats(data, bits // 8, plane.channels)
    elif bits in (8, 16, 32, 64):
        kind = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[layout.format]
        values = data.view(f"{layout.order}{kind}{bits // 8}")
    else:
        values = _taken_apart(data, bits, count)
    values = values.reshape(plane.rows, plane.across, plane.width, plane.channels)
    if layout.predictor == 2:
        whole_numbers = values.astype(f"=u{bits // 8}")
        values = np.cumsum(whole_numbers, axis=2, dtype=whole_numbers.dtype)
        if layout.format != UNSIGNED:
            values = values.view("if"[layout.format == FLOAT] + str(bits // 8))
    values = values.reshape(plane.rows, plane.across * plane.width, plane.channels)
    return values[:, : layout.width].astype(values.dtype.newbyteorder("="), copy=False)


def _undone_floats(data: NDArray[np.uint8], size: int, channels: int) -> Samples:
    """Undo predictor 3 (Adobe Photoshop TIFF Technical Note 3): differences of bytes, the highest
    bytes of all numbers of a row first.
    """
    rows, across, length = data.shape
    steps = data.reshape(rows, across, length // channels, channels)
    sums = np.cumsum(steps, axis=2, dtype=np.uint8).reshape(rows, across, size, length // size)
    return np.ascontiguousarray(sums.transpose(0, 1, 3, 2)).view(f">f{size}")


def _taken_apart(data: NDArray[np.uint8], bits: int, count: int) -> Samples:
    """Return numbers of another length than whole bytes, the highest bit first, ``count`` a row."""
    rows = data.reshape(-1, data.shape[-1])
    numbers = np.zeros((len(rows), count), dtype=np.uint16)
    step = max(1, _BLOCK // count)
    for start in range(0, len(rows), step):
        flags = np.unpackbits(rows[start : start + step], axis=1)[:, : count * bits]
        flags = flags.reshape(-1, count, bits)
        for bit in range(bits):
            numbers[start : start + step] |= flags[:, :, bit].astype(np.uint16) << (bits - 1 - bit)
    return numbers


# -- Video of BT.2020 ------------------------------------------------------------------------------

PQ, HLG = 16, 18  # transfer characteristics by their numbers in ITU-T H.273
_WHITE_NITS, _PEAK_NITS = 203, 1000  # reference white and nominal peak (ITU-R BT.2408)
_KNEE = 0.7  # of linear light, above which highlights are rolled off
# linear BT.2020 to linear sRGB, from the chromaticities of their primaries
_TO_SRGB = np.array(
    [
        [1.660491, -0.587641, -0.07285],
        [-0.12455, 1.1329, -0.00835],
        [-0.018151, -0.100579, 1.11873],
    ],
    dtype=np.float32,
)


def standard_range(pixels: NDArray[np.uint16], transfer: int | None) -> NDArray[np.uint8]:
    """Return ``(h, w, 3)`` pixels of BT.2020 as sRGB: PQ (SMPTE ST 2084) and HLG (ARIB STD-B67)
    with reference white as white and highlights rolled off, any other transfer as that of BT.709.
    """
    light = _light(transfer)[pixels]
    if transfer == HLG:  # the display's part of HLG, of gamma 1.2 (ITU-R BT.2100)
        luminance = light @ np.array([0.2627, 0.678, 0.0593], dtype=np.float32)
        light *= np.maximum(luminance, 1e-6)[..., None] ** 0.2 * (_PEAK_NITS / _WHITE_NITS)
    if transfer in (PQ, HLG):
        over = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
        light = np.minimum(light, _KNEE) + (1 - _KNEE) * (1 - np.exp(-over))
    linear = np.clip(light @ _TO_SRGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * encoded), dtype=np.uint8)


@lru_cache(maxsize=3)
def _light(transfer: int | None) -> NDArray[np.float32]:
    """Return the linear light of each 16-bit value; of PQ in parts of reference white."""
    value = np.linspace(0, 1, 65536)
    if transfer == PQ:
        power = value ** (32 / 2523)
        ratio = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
        light = 10_000 / _WHITE_NITS * ratio ** (16384 / 2610)
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
    else:
        light = np.where(value < 0.081, value / 4.5, ((value + 0.099) / 1.099) ** (1 / 0.45))
    return np.asarray(light, dtype=np.float32)
