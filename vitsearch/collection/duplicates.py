"""Duplicate photos: files with the same content, and files that look alike; and results that are
unlike each other.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Vectors, cosine_scores
from vitsearch.types import OnProgress, Photo, Progress, no_progress

BLOCK = 16_777_216  # cosines in memory at a time, 64 MiB
MAX_ROWS = 2048  # rows compared with the others at a time
# a cosine below the threshold, and whether rows from it on look like the first all the same
Opinion = tuple[float, Callable[[int, NDArray[np.int64]], NDArray[np.bool_]]]
LENGTHS = 0.02, 1.0  # the share and the seconds by which videos of one content differ in length
STILL = -10.0  # the length of a photo, which is no copy of a video
# the most alike photos that are put in order of marginal relevance at a time, so that pages fit
# together
WINDOW = 200
TOLERANCE = 1e-4  # of a matrix product; cosines this near to the threshold are computed again


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """A photo, and those that look like it with their cosines, best first, then by path."""

    photo: Photo
    others: tuple[tuple[Photo, float], ...]


def same_files(photos: Iterable[Photo]) -> list[list[Photo]]:
    """Return the groups of photos with equal fingerprints; ``photos`` are in order of path."""
    groups: dict[bytes, list[Photo]] = {}
    for photo in photos:
        groups.setdefault(photo.fingerprint, []).append(photo)
    return [group for group in groups.values() if len(group) > 1]


def look_alikes(
    photos: Sequence[Photo],
    vectors: Vectors,
    threshold: float,
    *,
    opinion: Opinion | None = None,
    progress: OnProgress = no_progress,
) -> list[LookAlikes]:
    """Return the groups of photos that look alike.

    ``photos`` are in order of path, ``vectors`` are their ``(n, dim)`` unit rows. In that order,
    each photo that is not in a group yet begins one, with all later ungrouped photos that reach the
    threshold, so that no chain of small differences joins two different photos. Exact copies of an
    earlier file are left out: `same_files` lists them. A video looks like others of its length
    only. ``opinion`` is a second one, of the positions of distinct photos. ``progress`` is called
    as photos are compared.
    """
    distinct = first_indices([photo.fingerprint for photo in photos])
    copies = len(photos) - len(distinct)
    groups = group_similar(
        vectors[distinct],
        threshold,
        opinion=opinion,
        lengths=_lengths([photos[index] for index in distinct]),
        on_compared=lambda done: progress(Progress("comparing", copies + done, len(photos))),
    )
    result = []
    for first, members in enumerate(groups):
        if members:
            others = [(photos[distinct[index]], score) for index, score in members]
            others.sort(key=lambda member: (-member[1], member[0].path))
            result.append(LookAlikes(photos[distinct[first]], tuple(others)))
    return result


def _lengths(photos: Sequence[Photo]) -> NDArray[np.float64] | None:
    """Return the seconds that each video lasts, `STILL` for a photo; None where all are photos."""
    lengths = [photo.info["duration"] for photo in photos]
    if not any(length is not None for length in lengths):
        return None
    return np.array([STILL if length is None else float(length) for length in lengths])


def collapse(rows: Vectors, fingerprints: Sequence[bytes], threshold: float) -> list[int]:
    """Return the indices of the ``(n, dim)`` unit rows that are neither a copy nor a look-alike of
    an earlier row in the result, in order.
    """
    distinct = first_indices(fingerprints)
    groups = group_similar(rows[distinct], threshold)
    return [index for index, members in zip(distinct, groups, strict=True) if members is not None]


def first_indices(fingerprints: Sequence[Hashable]) -> list[int]:
    """Return the index of the first occurrence of each fingerprint, in order."""
    first: dict[Hashable, int] = {}
    for index, fingerprint in enumerate(fingerprints):
        first.setdefault(fingerprint, index)
    return list(first.values())


def group_similar(
    rows: Vectors,
    threshold: float,
    *,
    opinion: Opinion | None = None,
    lengths: NDArray[np.float64] | None = None,
    on_compared: Callable[[int], object] = lambda _: None,
) -> list[list[tuple[int, float]] | None]:
    """Return for each of the ``(n, dim)`` unit rows the members of its group, None for a member.

    A row that is not a member of an earlier group has one of its own: the later rows (index,
    cosine) that reach the threshold, or what the second ``opinion`` wants, and are not in an
    earlier group; where there are ``lengths``, those of about the same one only. Time grows with
    n^2, memory with n.
    """
    groups: list[list[tuple[int, float]]] = [[] for _ in rows]
    grouped = np.zeros(len(rows), dtype=bool)
    step = max(1, min(MAX_ROWS, BLOCK // max(1, len(rows))))
    for start in range(0, len(rows), step):
        candidates = start + np.flatnonzero(~grouped[start : start + step])
        products = rows[candidates] @ rows[start:].T
        for first, cosines in zip(candidates.tolist(), products, strict=True):
            if not grouped[first]:
                later = cosines[first - start + 1 :]
                if lengths is not None:
                    apart = np.abs(lengths[first + 1 :] - lengths[first])
                    share, seconds = LENGTHS
                    later = np.where(apart > max(seconds, share * lengths[first]), -2, later)
                groups[first] = _members(
                    rows, first, later, threshold, grouped=grouped, opinion=opinion
                )
        on_compared(min(start + step, len(rows)))
    return [
        None if is_member else members for is_member, members in zip(grouped, groups, strict=True)
    ]


def rows_with_others(
    rows: Vectors, threshold: float, *, progress: OnProgress = no_progress
) -> NDArray[np.int64]:
    """Return the indices of the ``(n, dim)`` unit rows that have another one within a cosine."""
    has_other = np.zeros(len(rows), dtype=bool)
    step = max(1, min(MAX_ROWS, BLOCK // max(1, len(rows))))
    for start in range(0, len(rows), step):
        products = rows[start : start + step] @ rows[start:].T
        near = np.triu(products >= threshold - TOLERANCE, 1)
        has_other[start : start + len(near)] |= near.any(axis=1)
        has_other[start:] |= near.any(axis=0)
        progress(Progress("comparing", min(start + step, len(rows)), len(rows)))
    return np.flatnonzero(has_other)


def _members(
    rows: Vectors,
    first: int,
    cosines: NDArray[np.float32],
    threshold: float,
    *,
    grouped: NDArray[np.bool_],
    opinion: Opinion | None,
) -> list[tuple[int, float]]:
    least = threshold if opinion is None else min(threshold, opinion[0])
    near = first + 1 + np.flatnonzero(cosines >= least - TOLERANCE)
    near = near[~grouped[near]]
    scores = likeness_to(rows[first], rows[near])
    inside = scores >= np.float32(threshold)
    if opinion is not None:
        inside |= (scores >= np.float32(least)) & opinion[1](first, near)
    grouped[near[inside]] = True
    return list(zip(near[inside].tolist(), scores[inside].tolist(), strict=True))


def likeness_to(row: Vectors, rows: Vectors) -> NDArray[np.float32]:
    """Return the cosine of each row with ``row``, in float32 so that equal rows have exactly 1."""
    return cosine_scores(rows, row).astype(np.float32)


# -- Results unlike each other ---------------------------------------------------------------------


def marginal_order(rows: Vectors, scores: NDArray[np.float64], diverse: float) -> list[int]:
    """Return the places of the ``(n, dim)`` unit rows in order of marginal relevance, window by
    window, equal ones as they came.

    Next comes the row with the highest ``(1 - diverse) * fit - diverse * likeness``, the likeness
    to the most alike row before it. The fit is the score as a share of its window's range, 0 for
    the lowest and 1 for the best: the scores of words lie so near to each other that by themselves
    they would weigh next to nothing against likeness.
    """
    order: list[int] = []
    wide = rows.astype(np.float64)
    for start in range(0, len(rows), WINDOW):
        window = slice(start, start + WINDOW)
        # rounded, so that equal rows are equally alike
        nearest = (wide[window] @ wide[:start].T).max(axis=1).astype(np.float32) if start else None
        chosen = _marginal_window(rows[window], scores[window], nearest, diverse)
        order += [start + index for index in chosen]
    return order


def _marginal_window(
    rows: Vectors, scores: NDArray[np.float64], nearest: NDArray[np.float32] | None, diverse: float
) -> list[int]:
    chosen: list[int] = []
    lowest, highest = float(scores.min()), float(scores.max())
    fit = (scores - lowest) / ((highest - lowest) or 1.0)
    while len(chosen) < len(rows):
        value = (1 - diverse) * fit - (
            0 if nearest is None else diverse * nearest.astype(np.float64)
        )
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
        likeness = likeness_to(rows[chosen[-1]], rows)
        nearest = likeness if nearest is None else np.maximum(nearest, likeness)
    return chosen
