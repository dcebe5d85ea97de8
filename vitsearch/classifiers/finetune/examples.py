"""The photos that a model learns from: their labels, and which of them validate it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitsearch.errors import PhotoError, QueryError
from vitsearch.labels.ground_truth import read_labels
from vitsearch.photos.decoder import PhotoDecoder, read_photo
from vitsearch.photos.walk import walk


@dataclass(frozen=True, slots=True)
class Example:
    """A photo, its path relative to the folder with ``/``, and the number of its class."""

    path: str
    label: int


@dataclass(frozen=True, slots=True)
class Photos:
    """The photos of a run: those to train on and those held out for validation."""

    root: Path
    training: tuple[Example, ...]
    validation: tuple[Example, ...]


def open_example(
    root: Path, example: Example, decoder: PhotoDecoder, *, at_least: int | None = None
) -> Image.Image:
    """Return an example's picture (see `read_photo`); raises PhotoError that names it."""
    try:
        return read_photo(root / example.path, at_least=at_least, decoder=decoder).image
    except PhotoError as error:
        raise PhotoError(f"{example.path}: {error}") from error


def labelled_photos(root: Path, source: str) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Return the labelled photos below a folder in order of path, and their sorted class names.

    Raises QueryError where fewer than two classes have a photo.
    """
    truth = read_labels(source, [file.path for file in walk(root) if file.problem is None])
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
    """Return the photos to train on and those for validation, each in their original order.

    The share of every class is held out, rounded, but never all of it; the seed selects the photos.
    """
    labels = np.array([example.label for example in examples])
    held_out = np.zeros(len(examples), dtype=bool)
    rng = np.random.default_rng(seed)
    for number in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == number))
        held_out[members[: min(round(share * len(members)), len(members) - 1)]] = True
    pairs = list(zip(examples, held_out, strict=True))
    training = tuple(example for example, is_held_out in pairs if not is_held_out)
    return training, tuple(example for example, is_held_out in pairs if is_held_out)
