"""Where stored photos were taken: their positions, and their towns with numbers of photos."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Ids
from vitsearch.filters.tree import Filter, prepare
from vitsearch.storage.reader import PhotoReader
from vitsearch.storage.rows import IS_FILE
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo

_KNOWN = f"latitude IS NOT NULL AND longitude IS NOT NULL AND {IS_FILE}"
_ROW = np.dtype([("id", np.int64), ("latitude", np.float64), ("longitude", np.float64)])
Town = tuple[str, str]  # country and city, "" where they are not known


class Towns(NamedTuple):
    """Towns with their numbers of photos, in order of country and city; ``sample`` is of how many
    photos these are, None where of all.
    """

    counts: list[tuple[Town, int]]
    sample: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """The photos with a position in ascending order of id: ``(n,)`` ids, latitudes and longitudes
    in degrees, north and east positive. ``total`` is of how many photos they are a sample, None
    where they are all.
    """

    ids: Ids
    latitudes: NDArray[np.float64]
    longitudes: NDArray[np.float64]
    total: int | None = None

    def at(self, indices: NDArray[np.int64]) -> "Positions":
        """Return those at some indices."""
        parts = (self.ids[indices], self.latitudes[indices], self.longitudes[indices])
        return Positions(*parts, self.total)


def positions(store: PhotoReader, where: Filter) -> Positions:
    """Return the positions of the photos that match a filter, of a video that of its file."""
    if isinstance(store, PhotoStore):
        condition, values = where.sql()
        sql = f"SELECT id, latitude, longitude FROM photo_facts WHERE {condition} AND {_KNOWN}"
        with store._errors():
            prepare(store._db)
            rows = np.fromiter(store._db.execute(sql, values), _ROW)
    else:
        located = (
            (photo.photo_id, photo.info["latitude"], photo.info["longitude"])
            for photo in _located(store, where)
        )
        rows = np.fromiter(located, _ROW)
    rows = rows[np.argsort(rows["id"])]
    ids, latitudes, longitudes = (np.ascontiguousarray(rows[name]) for name in _ROW.names or ())
    return Positions(ids, latitudes, longitudes)


def towns(store: PhotoReader, where: Filter) -> Towns:
    """Return the towns of the photos that match a filter and have a position."""
    if isinstance(store, PhotoStore):
        condition, values = where.sql()
        sql = (
            "SELECT COALESCE(country, ''), COALESCE(city, ''), count(*) FROM photo_facts "
            f"WHERE {condition} AND {_KNOWN} GROUP BY 1, 2"
        )
        with store._errors():
            prepare(store._db)
            rows = store._db.execute(sql, values).fetchall()
        counts = {(country, city): count for country, city, count in rows}
    else:
        counts = Counter(
            (str(photo.info["country"] or ""), str(photo.info["city"] or ""))
            for photo in _located(store, where)
        )
    return Towns(sorted(counts.items()))


def _located(store: PhotoReader, where: Filter) -> Iterator[Photo]:
    ids = set(store.ids_where(where).tolist())
    for photo in store.photos():
        known = None not in (photo.info["latitude"], photo.info["longitude"])
        if known and photo.photo_id in ids:
            yield photo
