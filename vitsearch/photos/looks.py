"""What a picture looks like in a few numbers: to know copies, and to choose the best of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 256  # pixels, of the longest side at which pictures are compared
FLAT = 4.0  # levels of grey: a picture of less contrast shows nothing
GREY = 0.01  # a picture of less saturation has no colour
_HASHED, _LOW = 32, 8  # pixels and frequencies along each side of the hash
_FREQUENCIES = np.cos(
    np.pi / (2 * _HASHED) * np.outer(np.arange(_LOW), 2 * np.arange(_HASHED) + 1)
)  # the first rows of the discrete cosine transform (DCT-II), but for their lengths


class Looks(NamedTuple):
    """A perceptual hash of 63 bits, the sharpness, the contrast (standard deviation of the grey
    levels, 0 to 127.5) and the saturation (0 to 1).
    """

    hash: int
    sharpness: float
    contrast: float
    saturation: float

    @property
    def is_flat(self) -> bool:
        """Whether the picture is blank."""
        return self.contrast < FLAT

    @property
    def has_colour(self) -> bool:
        """Whether the picture is not grey."""
        return self.saturation >= GREY


def looks_of(image: Image.Image) -> Looks:
    """Return what an RGB picture looks like; it is brought to `SIDE` pixels first, so that copies
    of different sizes can be compared.

    The sharpness is the variance of the Laplacian of the grey levels (Pech-Pacheco et al. 2000,
    "Diatom autofocusing in brightfield microscopy", ICPR).
    """
    scale = SIDE / max(image.size)
    size = (max(3, round(image.width * scale)), max(3, round(image.height * scale)))
    small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    grey = np.asarray(small.convert("L"), dtype=np.float64)
    across = grey[1:-1, :-2] + grey[1:-1, 2:] - 2 * grey[1:-1, 1:-1]
    down = grey[:-2, 1:-1] + grey[2:, 1:-1] - 2 * grey[1:-1, 1:-1]
    channels = np.asarray(small, dtype=np.float64)
    saturation = (channels.max(axis=2) - channels.min(axis=2)).mean() / 255
    return Looks(
        perceptual_hash(small), float((across + down).var()), float(grey.std()), float(saturation)
    )


def perceptual_hash(image: Image.Image) -> int:
    """Return 63 bits: which of the lowest frequencies of a picture, brought to 32 x 32 levels of
    grey, lie above their median.

    Copies that were resized, saved again or turned grey differ in a few bits, other pictures in
    about half of them (Zauner 2010, "Implementation and benchmarking of perceptual image hash
    functions").
    """
    small = image.convert("L").resize((_HASHED, _HASHED), Image.Resampling.LANCZOS)
    grey = np.asarray(small, dtype=np.float64)
    low = (_FREQUENCIES @ grey @ _FREQUENCIES.T).ravel()[1:]  # without the brightness
    return int.from_bytes(np.packbits(np.append(False, low > np.median(low))).tobytes())


def bits_apart(first: int, others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return in how many bits each of ``(n,)`` hashes differs from one."""
    differences = np.ascontiguousarray(others ^ np.uint64(first)).view(np.uint8)
    counts: NDArray[np.int64] = np.unpackbits(differences.reshape(-1, 8), axis=1).sum(
        axis=1, dtype=np.int64
    )
    return counts
