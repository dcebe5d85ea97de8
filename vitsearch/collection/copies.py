"""Copies of photos by two opinions, that of their vectors and that of their pictures, and which of
them is the best.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitsearch.collection.collection import Collection
from vitsearch.collection.duplicates import LookAlikes, first_indices, look_alikes, rows_with_others
from vitsearch.collection.looks import LooksByContent, find_looks, without_looks
from vitsearch.collection.search import as_where
from vitsearch.errors import QueryError
from vitsearch.filters.tree import Filter
from vitsearch.options import SearchOptions
from vitsearch.photos.looks import Looks, bits_apart
from vitsearch.types import OnProgress, Photo, no_progress

# The least cosine from which pictures are compared: of mini, a copy at a quarter of the size has
# 0.72 and a grey one 0.77 at the least among scikit-image's photos, where two different ones have
# up to 0.55.
NEAR = 0.65
MAX_BITS = 6  # of 63: their resized, grey and recompressed copies differ in 4, other photos in 20


@dataclass(frozen=True, slots=True)
class Copies:
    """Groups of photos that look alike, how many blank pictures were left out, and what the
    pictures look like by their fingerprints.
    """

    groups: list[LookAlikes]
    blank: int
    looks: LooksByContent


def find_copies(
    collection: Collection,
    threshold: float | None = None,
    *,
    where: str | Filter | None = None,
    max_unknown: int | None = None,
    progress: OnProgress = no_progress,
) -> Copies:
    """Return the groups of photos that look alike by their vectors (as `Collection.lookalikes`), or
    whose vectors are near and whose perceptual hashes are nearly the same; blank pictures are left
    out.

    Photos with a near neighbour are decoded once, and what they look like is stored. Raises
    QueryError where more than ``max_unknown`` would have to be, and as `Collection.lookalikes`.
    """
    least = collection.lookalike_threshold if threshold is None else threshold
    SearchOptions(collapse=least)  # raises for a threshold outside its range
    photos, vectors = collection.vectors_where(as_where(where))
    distinct = first_indices([photo.fingerprint for photo in photos])
    near = rows_with_others(vectors[distinct], min(NEAR, least), progress=progress)
    compared = [photos[distinct[row]] for row in near.tolist()]
    if max_unknown is not None:
        unknown = without_looks(collection.folder, compared)
        if unknown > max_unknown:
            raise QueryError(
                f"{unknown:,} pictures have to be looked at, too many while a page waits: run "
                "`vitsearch dupes` once, which stores what they look like"
            )
    looks = find_looks(collection.root, collection.folder, compared, progress=progress)
    shown = [
        row
        for row, photo in enumerate(photos)
        if photo.fingerprint not in looks or not looks[photo.fingerprint].is_flat
    ]
    photos, vectors = [photos[row] for row in shown], vectors[shown]
    groups = look_alikes(photos, vectors, least, opinion=_opinion(photos, looks), progress=progress)
    return Copies(groups, sum(each.is_flat for each in looks.values()), looks)


def _opinion(
    photos: Sequence[Photo], looks: LooksByContent
) -> tuple[float, Callable[[int, NDArray[np.int64]], NDArray[np.bool_]]]:
    """Return the cosine from which pictures are compared, and whether one picture looks like each
    of others, by their positions among the distinct photos.
    """
    distinct = first_indices([photo.fingerprint for photo in photos])
    seen = [looks.get(photos[row].fingerprint) for row in distinct]
    hashes = np.array([each.hash if each else 0 for each in seen], dtype=np.uint64)
    is_known = np.array([each is not None for each in seen], dtype=bool)

    def same(first: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        near = bits_apart(int(hashes[first]), hashes[others]) <= MAX_BITS
        result: NDArray[np.bool_] = near & is_known[others] & is_known[first]
        return result

    return NEAR, same


# -- The best of several copies --------------------------------------------------------------------


class Proposal(NamedTuple):
    """The photo of a group that is proposed to be the one that stays, and why."""

    photo: Photo
    reason: str


Measure = Callable[[Photo, Looks | None], float]
# what is better, in order of weight, and from which factor on: blocks of a strongly compressed JPEG
# count as sharpness too
MEASURES: tuple[tuple[str, Measure, float], ...] = (
    ("more pixels", lambda photo, _: photo.info.width * photo.info.height, 1.05),
    ("in colour", lambda _, looks: float(looks is None or looks.has_colour), 1.0),
    ("sharper", lambda _, looks: looks.sharpness if looks else 0.0, 1.5),
    ("the larger file", lambda photo, _: photo.size, 1.05),
)


def best_copy(photos: Sequence[Photo], looks: LooksByContent) -> Proposal:
    """Return the best of photos that are copies of each other.

    One with more pixels, then in colour, then sharper, then with the larger file is better; of
    equal ones that with the shortest path.
    """
    left, reasons = list(photos), []
    for reason, measure, factor in MEASURES:
        values = [measure(photo, looks.get(photo.fingerprint)) for photo in left]
        better = [
            photo
            for photo, value in zip(left, values, strict=True)
            if value * factor >= max(values)
        ]
        if len(better) < len(left):
            left = better
            reasons.append(reason)
    best = min(left, key=lambda photo: (photo.path.count("/"), len(photo.path), photo.path))
    return Proposal(best, ", ".join(reasons) or "the shortest path")
