"""`colour`: a hue histogram and colour words in one space; no weights, for tests and
for teaching.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.encoders.base import Encoder, Vectors, fingerprint_of
from vitsearch.encoders.language import readable_texts

SIDE = 32
HUES = 24
DIM = HUES + 3  # and black, grey, white

WORDS: dict[str, tuple[int, int, int]] = {
    "red": (220, 20, 20),
    "crimson": (220, 20, 60),
    "orange": (255, 140, 0),
    "gold": (255, 205, 0),
    "yellow": (250, 235, 20),
    "lime": (160, 230, 20),
    "green": (20, 160, 40),
    "teal": (0, 150, 136),
    "turquoise": (64, 224, 208),
    "cyan": (0, 220, 230),
    "blue": (25, 60, 220),
    "navy": (0, 0, 128),
    "indigo": (75, 0, 160),
    "violet": (140, 40, 220),
    "purple": (140, 20, 160),
    "magenta": (230, 0, 200),
    "pink": (255, 105, 180),
    "brown": (139, 80, 30),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "grey": (128, 128, 128),
    "silver": (192, 192, 192),
    "white": (255, 255, 255),
}


class ColourEncoder(Encoder):
    """Pictures and texts as the square root of a histogram of 24 hues, black, grey and white.

    The cosine of two such rows is their Bhattacharyya coefficient: 1 for the same colours in the
    same shares, 0 for none in common. A text is the histogram of its colour words in equal shares;
    a text without one is all colours alike.
    """

    name = "colour"
    languages = ("en",)
    dim = DIM
    decode_at_least = 2 * SIDE
    only_resizes = True
    logit_scale = 20.0
    fingerprint = fingerprint_of(
        {"encoder": "colour", "version": 1, "side": SIDE, "hues": HUES, "words": WORDS}
    )

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the picture shrunk to 32 x 32 x 3 uint8."""
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        """Return ``(n, 27)`` unit rows for ``n`` prepared pictures."""
        if len(batch) == 0:
            return np.empty((0, DIM), dtype=np.float32)
        return np.stack([_histogram(picture.reshape(-1, 3)) for picture in batch])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return ``(n, 27)`` unit rows for ``n`` texts."""
        rows = [_text_row(text) for text in readable_texts(texts)]
        return np.stack(rows) if rows else np.empty((0, DIM), dtype=np.float32)


def _text_row(text: str) -> NDArray[np.float32]:
    colours = [WORDS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in WORDS]
    if not colours:
        return np.full(DIM, DIM**-0.5, dtype=np.float32)
    return _histogram(np.array(colours, dtype=np.uint8))


def _histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the square root of the shares of each colour, a unit row, for ``(n, 3)``
    RGB pixels.
    """
    rgb = pixels.astype(np.float64) / 255
    high, low = rgb.max(axis=1), rgb.min(axis=1)
    chroma = high - low
    colourful = np.clip(
        (chroma - 0.08) / 0.17, 0, 1
    )  # how much of a pixel counts as a hue rather than as a grey
    shares = np.zeros(DIM)
    position = _hue(rgb, high, chroma) * HUES
    lower = np.floor(position).astype(np.int64)
    part = position - lower  # a hue between two bins counts in both, so that near hues stay near
    np.add.at(shares, lower % HUES, colourful * (1 - part))
    np.add.at(shares, (lower + 1) % HUES, colourful * part)
    grey = 1 - colourful
    light = (high + low) / 2
    shares[HUES] = (grey * np.clip(1 - light / 0.5, 0, 1)).sum()
    shares[HUES + 1] = (grey * (1 - np.abs(light - 0.5) / 0.5)).sum()
    shares[HUES + 2] = (grey * np.clip(light / 0.5 - 1, 0, 1)).sum()
    row: NDArray[np.float32] = np.sqrt(shares / shares.sum()).astype(np.float32)
    return row


def _hue(
    rgb: NDArray[np.float64], high: NDArray[np.float64], chroma: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the hue of each pixel from 0 (red) over 1/3 (green) and 2/3 (blue) to below 1."""
    red, green, blue = rgb.T
    safe = np.where(chroma == 0, 1, chroma)
    sixths = np.where(
        high == red,
        (green - blue) / safe % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return sixths / 6 % 1
