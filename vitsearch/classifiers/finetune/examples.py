"""The photos that a model learns from: their labels, and which of them are left out to judge it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitsearch.errors import PhotoError, QueryError
from vitsearch.labels.ground_truth import read_labels
from vitsearch.photos import read_photo, walk


@dataclass(frozen=True, slots=True)
class Example:
    """A photo, its path relative to the folder with ``/``, and the number of its class."""

    path: str
    label: int


@dataclass(frozen=True, slots=True)
class Photos:
    """The photos of a run: those to train on and those left out to judge by."""

    root: Path
    training: tuple[Example, ...]
    judging: tuple[Example, ...]


def open_example(root: Path, example: Example, *, at_least: int | None = None) -> Image.Image:
    """Return an example's picture (see `read_photo`); raises PhotoError that names it."""
    try:
        return read_photo(root / example.path, at_least=at_least).image
    except PhotoError as error:
        raise PhotoError(f"{example.path}: {error}") from error


def labelled_photos(root: Path, source: str) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Return the labelled photos below a folder in order of path, and the names of their classes in
    order.

    Raises QueryError where fewer than two classes have a photo.
    """
    truth = read_labels(source, [found.path for found in walk(root) if found.problem is None])
    classes = tuple(sorted(set(truth.values())))
    if len(classes) < 2:
        raise QueryError(
            f"all labelled photos are {classes[0]!r}: give photos of at least two classes"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return tuple(Example(path, numbers[label]) for path, label in truth.items()), classes


def split(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return the photos to train on and those to judge by, each in the order given.

    Of every class the share is left out, rounded, but never all; which ones, the seed says.
    """
    labels = np.array([example.label for example in examples])
    left_out = np.zeros(len(examples), dtype=bool)
    rng = np.random.default_rng(seed)
    for number in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == number))
        left_out[places[: min(round(share * len(places)), len(places) - 1)]] = True
    pairs = list(zip(examples, left_out, strict=True))
    return tuple(example for example, out in pairs if not out), tuple(
        example for example, out in pairs if out
    )
