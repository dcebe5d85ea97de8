"""Photos that are there twice: the same file, and files that show the same."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Vectors, cosine_scores
from vitsearch.types import OnProgress, Photo, Progress, no_progress

BLOCK = 16_777_216  # cosines held at a time, 64 MiB
MAX_ROWS = 2048  # rows compared with the others at a time
# what a product of matrices may be off by: nearer to the threshold than this, the rows are compared
# one by one
SLACK = 1e-4


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """A photo and those that look like it, best first, equal scores in order of path, with their
    cosines.
    """

    photo: Photo
    others: tuple[tuple[Photo, float], ...]


def same_files(photos: Iterable[Photo]) -> list[list[Photo]]:
    """Return the groups of photos with equal fingerprints; photos come in order of path."""
    groups: dict[bytes, list[Photo]] = {}
    for photo in photos:
        groups.setdefault(photo.fingerprint, []).append(photo)
    return [group for group in groups.values() if len(group) > 1]


def look_alikes(
    photos: Sequence[Photo],
    vectors: Vectors,
    threshold: float,
    *,
    progress: OnProgress = no_progress,
) -> list[LookAlikes]:
    """Return the groups of look-alikes among photos in order of path and their ``(n, dim)`` unit
    rows.

    In that order each photo that no earlier one has taken takes all later ones within the
    threshold, so that no chain of small differences brings two different photos together. A copy
    byte for byte of an earlier file is left out: it is in another list. ``progress`` is called as
    photos are compared.
    """
    single = first_places([photo.fingerprint for photo in photos])
    copies = len(photos) - len(single)
    members = taken(
        vectors[single],
        threshold,
        on_compared=lambda done: progress(Progress("comparing", copies + done, len(photos))),
    )
    return [
        LookAlikes(
            photos[single[first]],
            tuple(_ordered([(photos[single[place]], score) for place, score in others])),
        )
        for first, others in enumerate(members)
        if others
    ]


def collapsed(rows: Vectors, fingerprints: Sequence[bytes], threshold: float) -> list[int]:
    """Return the places of the ``(n, dim)`` unit rows that are no copy and no look-alike of a row
    kept before, in order.
    """
    single = first_places(fingerprints)
    return [
        single[place]
        for place, others in enumerate(taken(rows[single], threshold))
        if others is not None
    ]


def first_places(fingerprints: Sequence[bytes]) -> list[int]:
    """Return the place where each fingerprint comes first, in order."""
    first: dict[bytes, int] = {}
    for place, fingerprint in enumerate(fingerprints):
        first.setdefault(fingerprint, place)
    return list(first.values())


def taken(
    rows: Vectors, threshold: float, *, on_compared: Callable[[int], object] = lambda _: None
) -> list[list[tuple[int, float]] | None]:
    """Return for each of the ``(n, dim)`` unit rows the places and cosines of the later rows that
    it takes, None for a row that is taken.

    A row takes those that reach the threshold and that no earlier row has taken. Time grows with
    n^2, memory with n.
    """
    members: list[list[tuple[int, float]] | None] = [[] for _ in rows]
    gone = np.zeros(len(rows), dtype=bool)
    step = max(1, min(MAX_ROWS, BLOCK // max(1, len(rows))))
    for start in range(0, len(rows), step):
        left = start + np.flatnonzero(~gone[start : start + step])
        rough = rows[left] @ rows[start:].T
        for first, likeness in zip(left.tolist(), rough, strict=True):
            if not gone[first]:
                members[first] = _takes(
                    rows, first, likeness[first - start + 1 :], threshold, gone=gone
                )
        on_compared(min(start + step, len(rows)))
    return [None if lost else others for lost, others in zip(gone, members, strict=True)]


def _takes(
    rows: Vectors,
    first: int,
    rough: NDArray[np.float32],
    threshold: float,
    *,
    gone: NDArray[np.bool_],
) -> list[tuple[int, float]]:
    near = first + 1 + np.flatnonzero(rough >= threshold - SLACK)
    near = near[~gone[near]]
    scores = likeness_to(rows[first], rows[near])
    inside = scores >= np.float32(threshold)
    gone[near[inside]] = True
    return list(zip(near[inside].tolist(), scores[inside].tolist(), strict=True))


def likeness_to(row: Vectors, rows: Vectors) -> NDArray[np.float32]:
    """Return the cosine of each row with one, rounded to float32 so that equal rows
    have exactly 1.
    """
    return cosine_scores(rows, row).astype(np.float32)


def _ordered(found: list[tuple[Photo, float]]) -> list[tuple[Photo, float]]:
    return sorted(found, key=lambda one: (-one[1], one[0].path))
