"""The facts of stored photos. Single ones of all photos, far quicker to read than the photos
themselves: values of columns, positions, and towns with their numbers of photos. And what changes:
facts and vectors that are read again, names of places, and the text in the photos with the places
of its words.

Those places, and why a text could not be read, are stored by the content of a file, so that they
stay with a photo wherever it moves, and go when the last photo of that content does.
"""

import importlib.metadata
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids
from vitsearch.errors import CollectionError
from vitsearch.filters.tree import Filter, prepare
from vitsearch.photos.columns import METADATA
from vitsearch.photos.formats import is_video
from vitsearch.photos.text import PhotoText
from vitsearch.storage import PhotoReader
from vitsearch.storage.rows import IS_FILE, vector_checksum
from vitsearch.storage.schema import has_text_index
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo, PhotoInfo, Value

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


# -- Changes ---------------------------------------------------------------------------------------


log = logging.getLogger("vitsearch")
_DISTRIBUTION = "reverse-geocode"
_FACT = "places"  # the version of the library that all photos with a position were named by
_BATCH = 4096


def known_content(store: PhotoStore, fingerprint: bytes) -> tuple[PhotoInfo | None, Halves] | None:
    """Return the facts of a photo with this content (None where all that have it have facts from
    sidecars) and its vector, or None; photos that were put aside come last.
    """
    sql = f"{store._rows.select} WHERE fingerprint = ? ORDER BY path"
    with store._errors():
        rows = store._db.execute(sql, (fingerprint,)).fetchall()
    rows = [row for row in rows if store._rows.facts_are_sound(row)]
    if not rows:
        return store.aside.content(fingerprint)
    unmixed = next((row for row in rows if store._rows.has_own_facts(row)), None)
    vector = store.vector(store._rows.identity(rows[0])[0])
    return unmixed and store._rows.photo(unmixed).info, vector


def put_metadata(store: PhotoStore, photo_id: int, values: Mapping[str, Value | None]) -> None:
    """Store metadata columns of a photo by name (inside `writing`); the others stay."""
    names = [name for name in METADATA if name in values]
    assignments = ", ".join(f"{name} = ?" for name in names)
    store._rows.update(store._db, photo_id, assignments, [values[name] for name in names])


def put_vector(store: PhotoStore, path: str, vector: Halves | None) -> bool:
    """Give the photo at a path, whose content is the same, a new vector under the next
    generation, and return whether it differs.
    """
    photo = store.photo_at(path)
    if photo is None or vector is None or not np.isfinite(vector).all():
        return False
    raw, generation = vector.astype("<f2").tobytes(), store.generation() + 1
    if raw == store.vector(photo.photo_id).astype("<f2").tobytes():
        return False
    values = (generation, raw, photo.photo_id)
    sql = "UPDATE vectors SET generation = ?, vector = ? WHERE photo_id = ?"
    store._db.execute(sql, values)
    store._rows.seal(store._db, photo.photo_id, vector_checksum(raw, generation))
    return True


def unnamed_places(store: PhotoStore, after: int, count: int) -> list[Photo]:
    """Return at most so many photos with a position and without a country, by ids beyond
    ``after``.
    """
    condition = "latitude IS NOT NULL AND country IS NULL AND id > ? ORDER BY id LIMIT ?"
    return list(store._select(f"WHERE {condition}", after, count))


class PlaceNames:
    """Gives photos with a position the columns ``city``, ``region`` and ``country``, where the
    extra ``[places]`` is installed; without such a photo nothing of it is loaded.
    """

    def __init__(self, store: PhotoStore) -> None:
        self.store = store

    @cached_property
    def _version(self) -> str | None:
        try:
            return importlib.metadata.version(_DISTRIBUTION)
        except importlib.metadata.PackageNotFoundError:
            return None

    @cached_property
    def _library(self) -> ModuleType | None:
        try:
            from vitsearch.photos import places
        except Exception as error:
            log.warning(f"places get no names ({error}): pip install 'vitsearch[places]'")
            return None
        return places

    def of(self, infos: Sequence[PhotoInfo | None]) -> list[PhotoInfo | None]:
        """Return facts, in this order, with the names of the places of those that have none."""
        named = list(infos)
        unnamed = [n for n, info in enumerate(infos) if info and _lacks_names(info)]
        if unnamed and self._version is not None and self._library is not None:
            facts = self._library.with_places([infos[n] for n in unnamed])
            for n, info in zip(unnamed, facts, strict=True):
                named[n] = info
        return named

    def complete(self) -> None:
        """Name the places of the photos that were stored without the library, once for each
        version of it.
        """
        if self.store.get_meta(_FACT) == self._version:
            return
        batch = unnamed_places(self.store, 0, _BATCH) if self._version is not None else []
        while batch:
            if self._library is None:
                return
            infos = self.of([photo.info for photo in batch])
            with self.store.writing():
                for photo, info in zip(batch, infos, strict=True):
                    if info is not None and info != photo.info:
                        put_metadata(self.store, photo.photo_id, info.metadata)
            batch = unnamed_places(self.store, batch[-1].photo_id, _BATCH)
        with self.store.writing():
            if self._version is None:
                self.store.remove_facts([_FACT])
            else:
                self.store.set_meta(_FACT, self._version)


def _lacks_names(info: PhotoInfo) -> bool:
    return info["latitude"] is not None and info["country"] is None


# -- Text in photos --------------------------------------------------------------------------------


_UNREAD = f"text IS NULL AND {IS_FILE}"
_FAILED = "SELECT fingerprint FROM text_places WHERE problem IS NOT NULL"
_TEXT_BATCH = 500


def check_text_index(store: PhotoStore) -> None:
    """Raise CollectionError where a file open for writing cannot have an index of texts."""
    if not has_text_index(store._db):
        raise CollectionError(
            f"the SQLite {sqlite3.sqlite_version} of this Python has no FTS5, in which text is "
            "searched: use another build of Python"
        )


def without_text(store: PhotoStore, *, retry: bool = False) -> Iterator[Photo]:
    """Yield the photos whose text was not read yet, no videos, in order of id; with ``retry`` also
    those of which it could not be read. Others may be stored meanwhile.
    """
    condition = _UNREAD if retry else f"{_UNREAD} AND fingerprint NOT IN ({_FAILED})"
    last = 0
    while batch := list(
        store._select(f"WHERE {condition} AND id > ? ORDER BY id LIMIT ?", last, _TEXT_BATCH)
    ):
        last = batch[-1].photo_id
        yield from (photo for photo in batch if not is_video(photo.path))


def put_text(store: PhotoStore, fingerprint: bytes, text: PhotoText) -> None:
    """Store the text of all photos with this content (inside `writing`)."""
    _put_places(store, fingerprint, text.packed(), None)
    rows = store._db.execute("SELECT id FROM photos WHERE fingerprint = ?", (fingerprint,))
    for (photo_id,) in rows.fetchall():
        store._rows.update(store._db, photo_id, "text = ?", (text.text,))


def put_text_problem(store: PhotoStore, fingerprint: bytes, reason: str) -> None:
    """Store why the text of photos with this content could not be read (inside `writing`)."""
    _put_places(store, fingerprint, b"", reason)


def text_of(store: PhotoStore, photo: Photo) -> PhotoText | None:
    """Return the text of a photo with the places of its words; None where it has none, or its
    places are not known, as of photos that came by shards.
    """
    text = photo.info["text"]
    if not text or not has_text_index(store._db):
        return None
    sql = "SELECT places FROM text_places WHERE fingerprint = ?"
    with store._errors():
        row = store._db.execute(sql, (photo.fingerprint,)).fetchone()
    with suppress(ValueError, TypeError):
        return PhotoText.unpacked(str(text), row[0])
    return None


def put_places_of(store: PhotoStore, source: PhotoStore, photo: Photo) -> None:
    """Store the places of a photo's words as another collection has them (inside `writing`)."""
    if text := text_of(source, photo):
        _put_places(store, photo.fingerprint, text.packed(), None)


def _put_places(store: PhotoStore, fingerprint: bytes, places: bytes, problem: str | None) -> None:
    sql = "INSERT OR REPLACE INTO text_places VALUES (?, ?, ?)"
    store._db.execute(sql, (fingerprint, places, problem))
