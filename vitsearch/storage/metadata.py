"""What changes of stored photos: facts and vectors that are read again, names of places."""

import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import ModuleType

import numpy as np

from vitsearch.arrays import Halves
from vitsearch.photos.columns import METADATA
from vitsearch.storage.rows import vector_checksum
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo, PhotoInfo, Value

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
