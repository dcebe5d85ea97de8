"""Small pictures of plain colours."""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image

from vitsearch.encoders.colour import WORDS

COLOURS = ("red", "green", "blue", "yellow")


def paint(
    path: Path, *colours: str | tuple[int, int, int], size: tuple[int, int] = (24, 16)
) -> Path:
    """Write a lossless picture of vertical stripes of these colours (words of the encoder, or RGB)
    and return its path.
    """
    stripes = [WORDS[colour] if isinstance(colour, str) else colour for colour in colours]
    columns = np.array(
        [stripes[x * len(stripes) // size[0]] for x in range(size[0])], dtype=np.uint8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(columns, (size[1], size[0], 3)).copy()).save(path, "PNG")
    return path


def shade(number: int) -> tuple[int, int, int]:
    """Return one of many colours that all look different to the encoder."""
    red, green, blue = colorsys.hsv_to_rgb(
        number * 0.618034 % 1, 0.6 + 0.4 * (number * 0.37 % 1), 0.5 + 0.5 * (number * 0.71 % 1)
    )
    return round(red * 255), round(green * 255), round(blue * 255)
