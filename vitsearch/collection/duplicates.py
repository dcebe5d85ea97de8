"""Photos that are there twice: the same file, and files that show the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vitsearch.types import Photo
from vitsearch.vectors import Vectors

BLOCK = 2048  # rows compared with all others at a time: bounds the memory
# The least cosine of two views that a person takes for one picture: resized, saved again, a little cropped.
THRESHOLDS = {"mini": 0.97, "colour": 0.999}
THRESHOLD = 0.96  # of CLIP-like models


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """A photo and those that look like it, best first, equal scores in order of path, with their cosines."""

    photo: Photo
    others: tuple[tuple[Photo, float], ...]


def lookalike_threshold(encoder: str) -> float:
    """Return the cosine from which an encoder of this name takes two photos for the same view."""
    return THRESHOLDS.get(encoder, THRESHOLD)


def same_files(photos: Iterable[Photo]) -> list[list[Photo]]:
    """Return the groups of photos with equal fingerprints; photos come in order of path."""
    groups: dict[bytes, list[Photo]] = {}
    for photo in photos:
        groups.setdefault(photo.fingerprint, []).append(photo)
    return [group for group in groups.values() if len(group) > 1]


def look_alikes(photos: Sequence[Photo], vectors: Vectors, threshold: float) -> list[LookAlikes]:
    """Return the groups of look-alikes among photos in order of path and their ``(n, dim)`` unit rows.

    In that order each photo that no earlier one has taken takes all later ones within the threshold, so that no chain of small differences
    brings two different photos together. A copy byte for byte of an earlier file is left out: it is in another list.
    """
    single = sorted({photo.fingerprint: place for place, photo in reversed(list(enumerate(photos)))}.values())
    members: dict[int, list[tuple[int, float]]] = {}
    taken = np.zeros(len(single), dtype=bool)
    rows = vectors[single]
    for start in range(0, len(single), BLOCK):
        likeness = rows[start : start + BLOCK] @ rows.T
        _gather(likeness, start, threshold, taken=taken, members=members)
    return [
        LookAlikes(photos[single[first]], tuple(_ordered([(photos[single[place]], score) for place, score in found])))
        for first, found in sorted(members.items())
    ]


def _gather(likeness: Vectors, start: int, threshold: float, *, taken: np.ndarray, members: dict[int, list[tuple[int, float]]]) -> None:
    """Give each row of a block that no earlier one has taken its look-alikes among the later rows."""
    for offset, row in enumerate(likeness):
        first = start + offset
        if taken[first]:
            continue
        later = first + 1 + np.flatnonzero(row[first + 1 :] >= threshold)
        later = later[~taken[later]]
        if len(later):
            taken[later] = True
            members[first] = [(int(place), min(1.0, float(row[place]))) for place in later]


def _ordered(found: list[tuple[Photo, float]]) -> list[tuple[Photo, float]]:
    return sorted(found, key=lambda one: (-one[1], one[0].path))
