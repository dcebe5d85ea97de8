"""The names of the places where photos were taken, for new photos and for those of before."""

import importlib.metadata
import logging
from collections.abc import Sequence
from functools import cached_property
from types import ModuleType

from vitsearch.storage.metadata import put_metadata, unnamed_places
from vitsearch.storage.store import PhotoStore
from vitsearch.types import PhotoInfo

log = logging.getLogger("vitsearch")
_DISTRIBUTION = "reverse-geocode"
_FACT = "places"  # the version of the library that all photos with a position were named by
_BATCH = 4096


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
