"""Pictures of more than 8 bits, or of floats, as 8 bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture of one channel in 8 bits, of one in 16 or 32 bits or of floats."""
    return Image.fromarray(_scaled(image))


def _scaled(image: Image.Image) -> NDArray[np.uint8]:
    # 65535 = 255 x 257 becomes 255: Pillow's own conversion clips, which turns most 16-bit photos
    # white
    values: NDArray[Any] = np.asarray(image)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return np.asarray((values.astype(np.uint32) + 128) // 257, dtype=np.uint8)
    numbers = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = _range(image, numbers)
    scaled = (numbers - low) * (255 / (high - low) if high > low else 0)
    return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)


def _range(image: Image.Image, numbers: NDArray[np.float32]) -> tuple[float, float]:
    # PGM uses the range of 16 bits, floats are mostly 0 to 1 or 0 to 255; other numbers have no
    # agreed range and are stretched
    low, high = float(numbers.min()), float(numbers.max())
    if image.format == "PPM" or (image.mode == "I" and image.format == "PNG"):
        return 0.0, 65535.0
    if image.mode == "F" and low >= 0 and high <= 255:
        return 0.0, 1.0 if high <= 1 else 255.0
    return low, high
