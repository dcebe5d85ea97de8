"""Photos whose hues are turned, and captions whose colours are turned with them: the same scene in
other colours, so that only the colour tells the two apart.
"""

import colorsys
import random
import re
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitsearch.encoders.mini.network import COLOURS, opponent

ANGLES = tuple(range(30, 360, 30))  # degrees
CLEAR = 1.25  # how much farther the second nearest colour has to be
WORD = re.compile(r"\b(red|orange|yellow|green|blue|purple|pink|brown)\b", re.IGNORECASE)
SPOKEN = {"light green": "green", "light blue": "blue", "navy": "blue"}


def turn_hues(image: Image.Image, angle: int) -> Image.Image:
    """Return the photo with every hue turned by ``angle`` degrees, as bright as before."""
    hue, *others = image.convert("HSV").split()
    turned = (np.asarray(hue, dtype=np.int32) + round(angle * 256 / 360)) % 256
    return Image.merge("HSV", [Image.fromarray(turned.astype(np.uint8)), *others]).convert("RGB")


def turn_colours(line: str, angle: int) -> str:
    """Return a caption with its colours as they are in the turned photo; "" where it names none or
    where one of them would be no clear colour.
    """
    turned = {word: turned_colour(word, angle) for word in colours_of(line)}
    if "" in turned.values() or all(old == new for old, new in turned.items()):
        return ""
    return WORD.sub(lambda match: turned[match[0].lower()], line)


def colours_of(line: str) -> set[str]:
    """Return the colours that a caption names and that a turned hue changes."""
    return {word.lower() for word in WORD.findall(line)}


@cache
def turned_colour(word: str, angle: int) -> str:
    """Return the word for a colour whose hue is turned; "" where it lies between two."""
    hue, full, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in COLOURS[word]))
    turned = [255 * channel for channel in colorsys.hsv_to_rgb(hue + angle / 360, full, value)]
    rows = place([*COLOURS.values(), tuple(turned)])
    distances: dict[str, float] = {}
    for name, distance in zip(COLOURS, (rows[:-1] - rows[-1]).norm(dim=1).tolist(), strict=True):
        spoken = SPOKEN.get(name, name)
        distances[spoken] = min(distance, distances.get(spoken, distance))
    nearest, second = sorted(distances, key=lambda name: distances[name])[:2]
    clear = distances[second] > CLEAR * distances[nearest]
    return nearest if clear and WORD.fullmatch(nearest) else ""


def place(colours: list[tuple[float, ...]]) -> Tensor:
    """Return where colours in sRGB lie in the space of the surface, a row each."""
    return opponent(torch.tensor(colours).T[None, :, :, None] / 127.0 - 1)[0, :, :, 0].T


def choose_turns(captions: list[list[str]], count: int) -> list[tuple[int, int]]:
    """Return the photos of which a caption can be turned, each with up to ``count`` angles: a
    colour is drawn first, then an angle that gives it, or else rare colours would be rarer still.
    """
    chosen = []
    for photo, lines in enumerate(captions):
        gives: dict[str, list[int]] = {}
        for angle in ANGLES:
            for colour in {c for line in lines for c in colours_of(turn_colours(line, angle))}:
                gives.setdefault(colour, []).append(angle)
        rng = random.Random(photo)
        colours = rng.sample(sorted(gives), min(count, len(gives)))
        angles = dict.fromkeys(rng.choice(gives[colour]) for colour in colours)
        chosen += [(photo, angle) for angle in angles]
    return chosen
