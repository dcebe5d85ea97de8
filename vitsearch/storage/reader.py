"""Reading a collection: protocols for that, wherever its photos and vectors are stored, and single
facts of all photos, far quicker to read than the photos themselves: values of columns, positions,
and towns with their numbers of photos.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids
from vitsearch.filters.tree import Filter, prepare
from vitsearch.storage import CollectionConfig
from vitsearch.storage.rows import IS_FILE
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo, SkippedPhoto


class StoredRows(Protocol):
    """Reads stored vectors: `PhotoStore` or `MilvusStore`."""

    def rows(self, ids: Sequence[int]) -> list[tuple[int, str, bytes, bytes]]:
        """Return (id, path, raw vector, fingerprint) of the photos with these ids."""

    def halves(self, raw: Sequence[bytes]) -> Halves:
        """Return ``(n, dim)`` float16 rows of raw vectors."""


class PhotoReader(StoredRows, Protocol):
    """The reading half of `PhotoStore`, where the methods are documented."""

    def close(self) -> None: ...
    def reading(self) -> AbstractContextManager[None]: ...
    def get_meta(self, name: str) -> bytes | int | str | None: ...
    def generation(self) -> int: ...
    def state(self) -> str: ...
    def count(self) -> int: ...
    def count_files(self) -> int: ...
    def moments(self) -> dict[int, int]: ...
    def failures(self) -> list[SkippedPhoto]: ...
    def photos(self, *, moments: bool = False) -> Iterator[Photo]: ...
    def photo_at(self, path: str) -> Photo | None: ...
    def photos_with(self, fingerprint: bytes) -> list[Photo]: ...
    def vector(self, photo_id: int) -> Halves: ...
    def ids_where(self, where: Filter, *, order: str = "id") -> Ids: ...
    def count_where(self, where: Filter) -> int: ...
    def months_where(self, where: Filter) -> list[tuple[str, int]]: ...
    def distinct(self, columns: Sequence[str]) -> dict[str, list[str]]: ...
    def vector_batches(self) -> Iterator[tuple[Ids, Halves]]: ...


class StoredCollection(Protocol):
    """An open collection on disk: its photo folder, its own folder, and its contents."""

    @property
    def root(self) -> Path: ...
    @property
    def folder(self) -> Path: ...
    @property
    def config(self) -> CollectionConfig: ...
    @property
    def store(self) -> PhotoStore: ...


# -- Values ----------------------------------------------------------------------------------------


def values_of(
    store: PhotoReader, columns: Sequence[str], photos: Iterable[Photo] | None = None
) -> list[tuple[Any, ...]]:
    """Return the values of some columns of each photo, in any order, of a video those of its first
    moment; outside SQLite those of ``photos`` where they are given.
    """
    if isinstance(store, PhotoStore):
        sql = f"SELECT {', '.join(columns)} FROM photo_facts WHERE {IS_FILE}"
        with store._errors():
            prepare(store._db)
            return store._db.execute(sql).fetchall()
    rows = []
    for photo in store.photos() if photos is None else photos:
        facts: dict[str, Any] = {"id": photo.photo_id, "path": photo.path}
        facts |= {"label": photo.label, "score": photo.label_score}
        rows.append(tuple(facts[name] if name in facts else photo.info[name] for name in columns))
    return rows


# -- Positions -------------------------------------------------------------------------------------


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
