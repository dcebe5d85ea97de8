"""The one collection of a server, where it is in Milvus: one connection for all threads, and one model."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vitsearch.collection import MilvusCollection
from vitsearch.encoders.protocol import ImageEncoder
from vitsearch.errors import CollectionError, QueryError
from vitsearch.milvus.rows import OF_PHOTO, photo_of
from vitsearch.milvus.store import MilvusStore
from vitsearch.pipeline import Decoding
from vitsearch.sources import open_source
from vitsearch.types import Photo, SkippedPhoto
from vitsearch.web.fetched import Fetched
from vitsearch.web.source import Source, Stamp, busy_when_unreadable


class MilvusSource(Source):
    """Lends a collection in Milvus to the threads of a server, which use one connection at once.

    What it makes itself, thumbnails and the map, is kept in the cache folder.
    """

    missing = "say with --photos ROOT where the photos are"

    def __init__(self, uri: str, root: str | os.PathLike[str] | None, *, device: str, encoder: ImageEncoder | None) -> None:
        self._uri, self._given_root = uri, root
        self._lent: MilvusCollection | None = None
        self._lending = threading.RLock()
        found = MilvusCollection(uri, root=root, encoder=encoder, device=device)
        with suppress(OSError):  # what is made is made again where it cannot be kept
            found.folder.mkdir(parents=True, exist_ok=True)
        super().__init__(found.root, found.folder, device=device, encoder=encoder)
        self._lent = found
        self._fetched = None if root is not None or "://" not in found.settings.root else _fetched(found)

    def stamp(self) -> Stamp:
        """Return a value that changes when another collection has taken this one's place."""
        with busy_when_unreadable():
            found = self._shared()
            now = found.store.connection.facts()
            if now != found.store.facts:
                self.close()
            return (now,)

    def open(self) -> MilvusCollection:
        """Return the collection, newly opened with the model that all share."""
        found = MilvusCollection(self._uri, root=self._given_root, device=self.device)
        try:
            found.use_encoder(self.encoder_for(found.settings))
        except BaseException:
            found.close()
            raise
        return found

    def encoder(self) -> ImageEncoder:
        """Return the collection's encoder; raises ServiceBusy where Milvus does not answer."""
        if self._encoder is not None:
            return self._encoder
        with busy_when_unreadable():
            return self.encoder_for(self._shared().settings)

    @contextmanager
    def reading(self) -> Iterator[MilvusCollection]:
        """Lend the collection for a block; raises ServiceBusy where Milvus does not answer."""
        with busy_when_unreadable():
            yield self._shared()

    @contextmanager
    def facts(self) -> Iterator[MilvusStore]:
        """Lend what the photos are read from; raises ServiceBusy where Milvus does not answer."""
        with self.reading() as found:
            yield found.store

    def photos_of(self, ids: Sequence[int]) -> list[Photo]:
        """Return the facts of those photos that are in the collection, in the order of the ids."""
        with self.facts() as store:
            rows = {row["id"]: row for row in store.connection.among(ids, ["id", *OF_PHOTO])}
        return [photo_of(rows[one]) for one in ids if one in rows]

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, and a query's photo is to be."""
        with self.reading() as found:
            return found.decoding()

    def file_of(self, photo: Photo) -> Path:
        """Return the file of a photo, fetched where it is in an object store; raises UnknownPhoto where it cannot be had."""
        return super().file_of(photo) if self._fetched is None else self._fetched.file_of(photo)

    def failures(self) -> list[SkippedPhoto]:
        """Raise QueryError: Milvus holds photos only."""
        raise QueryError("Milvus holds photos only: the files that could not be read are listed in the shards that were pushed")

    def info(self) -> dict[str, Any]:
        """Return what the collection holds."""
        with self.reading() as found:
            facts = found.info()
        return facts | {"recall": 1.0 if facts["index"] == "FLAT" else None}

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self._lending:
            if self._lent is not None:
                self._lent.close()
                self._lent = None

    def _shared(self) -> MilvusCollection:
        with self._lending:
            if self._lent is None:
                self._lent = MilvusCollection(self._uri, root=self._given_root, device=self.device)
            if self._encoder is not None and self._lent.settings.encoder_fingerprint == self._encoder.fingerprint:
                self._lent.use_encoder(self._encoder)
            return self._lent


def _fetched(found: MilvusCollection) -> Fetched | None:
    """Return what fetches the photos of an object store, None where that cannot be reached: the page works without pictures."""
    with suppress(CollectionError):
        return Fetched(open_source(found.settings.root, "folder"), found.folder / "fetched")
    return None
