"""The one collection of a server: opened where it lies, opened again when it was replaced, its
model loaded once.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from vitsearch.collection import Collection
from vitsearch.collection.local import LocalBackend
from vitsearch.collection.milvus import MilvusBackend
from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionError, PhotoError, QueryError
from vitsearch.milvus.rows import photo_of
from vitsearch.milvus.store import MilvusStore
from vitsearch.photos.sources import Entry, Source, open_source
from vitsearch.records import atomic_write
from vitsearch.storage.config import (
    CollectionConfig,
    collection_folder,
    disk_errors,
    photo_root,
    read_collection_config,
)
from vitsearch.storage.decoding import Decoding, choose_decoding
from vitsearch.storage.reader import PhotoReader
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo, SkippedPhoto
from vitsearch.web.errors import ServiceBusy, UnknownPhoto
from vitsearch.web.settings import MEGABYTE

BUSY = "the photos cannot be read just now: try again in a moment"
Stamp = tuple[object, ...]


class CollectionSource:
    """Opens a collection for the threads of a server, which share its model and take turns at it.

    What an indexing run adds is seen by every open Collection; they must be opened again only when
    the database itself was replaced.
    """

    missing = "run `vitsearch index`"  # what to do where a photo's file is gone

    def __init__(
        self, root: Path, folder: Path, *, device: str = "auto", encoder: ImageEncoder | None = None
    ) -> None:
        self.root, self.folder, self.device = root, folder, device
        self.encoding = threading.RLock()  # held while the model computes, see `computing`
        self._encoder = encoder
        self._facts: tuple[Stamp, PhotoStore] | None = None
        self._facts_lock = threading.RLock()

    @classmethod
    def of(
        cls,
        photos: str | os.PathLike[str],
        collection: str | os.PathLike[str] | None,
        device: str,
        encoder: ImageEncoder | None,
    ) -> "CollectionSource":
        """Return the source of a photo folder's collection; raises CollectionNotFound,
        CollectionError or EncoderError.
        """
        root = photo_root(photos)
        source = cls(root, collection_folder(root, collection), device=device, encoder=encoder)
        source.open().close()
        return source

    def file_of(self, photo: Photo) -> Path:
        """Return the file of a photo; raises UnknownPhoto where it is gone."""
        path = PurePosixPath(photo.path)
        file = self.root / path
        if (
            path.is_absolute() or ".." in path.parts or not file.is_file()
        ):  # nor from a collection that a stranger made
            raise UnknownPhoto(
                f"the file of photo {photo.photo_id} is not there any more: {self.missing}"
            )
        return file

    def stamp(self) -> Stamp:
        """Return a value that changes when the collection's database or settings are replaced."""
        return (
            _stamp(self.folder / "collection.json", True),
            _stamp(self.folder / "photos.db", False),
        )

    def open(self) -> Collection:
        """Return the collection, newly opened with the model that all share; raises what
        `Collection.open` does.
        """
        settings = read_collection_config(self.folder, self.root)
        backend = LocalBackend(self.root, self.folder, settings, device=self.device)
        try:
            return Collection(backend, encoder=self.encoder_for(settings), device=self.device)
        except BaseException:
            backend.close()
            raise

    def encoder(self) -> ImageEncoder:
        """Return the collection's encoder; raises ServiceBusy where the collection cannot be read
        just now.
        """
        if self._encoder is not None:
            return self._encoder
        with busy_when_unreadable():
            return self.encoder_for(read_collection_config(self.folder, self.root))

    def encoder_for(self, settings: CollectionConfig) -> ImageEncoder:
        """Return the collection's encoder, loaded at first use and when another collection has
        taken the first one's place.
        """
        with self.encoding:
            if self._encoder is None or self._encoder.fingerprint != settings.encoder_fingerprint:
                self._encoder = None  # let it go before the next is loaded
                # for many at once: with one thread for each call two batches share the cores better
                # than two threads share one batch
                self._encoder = load_encoder(
                    settings.encoder, self.device, settings.dtype, throughput=True
                )
            return self._encoder

    @contextmanager
    def computing(self, encoder: ImageEncoder) -> Iterator[None]:
        """Let a model compute in the block: at once where it may be called from several threads,
        else when its turn has come.
        """
        with nullcontext() if encoder.parallel_calls > 1 else self.encoding:
            yield

    @contextmanager
    def reading(self) -> Iterator[Collection]:
        """Open the collection for a block that reads much; raises ServiceBusy where it cannot be
        read just now.
        """
        with busy_when_unreadable():
            collection = self.open()
            try:
                yield collection
            finally:
                collection.close()

    @contextmanager
    def facts(self) -> Iterator[PhotoReader]:
        """Lend the database for a short look-up, to one thread at a time; raises ServiceBusy where
        it cannot be read just now.
        """
        with self._database() as store:
            yield store

    @contextmanager
    def _database(self) -> Iterator[PhotoStore]:
        with self._facts_lock, busy_when_unreadable():
            now = self.stamp()
            if self._facts is None or self._facts[0] != now:
                self._forget_facts()
                self._facts = (now, PhotoStore(self.folder / "photos.db", read_only=True))
            try:
                yield self._facts[1]
            except CollectionError:
                self._forget_facts()
                raise

    def photos_of(self, ids: Sequence[int]) -> list[Photo]:
        """Return the facts of those photos that are in the collection, in the order of the ids."""
        with self.facts() as store:
            paths = {row[0]: row[1] for row in store.rows(ids)}
            found = [store.photo_at(paths[one]) for one in ids if one in paths]
        return [photo for photo in found if photo]

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, and a query's photo is to be."""
        with self._database() as store:
            return choose_decoding(store)

    def failures(self) -> list[SkippedPhoto]:
        """Return the files that are not in the collection, in order of path; raises QueryError
        where nobody knows them.
        """
        with self.facts() as store:
            return store.failures()

    def info(self) -> dict[str, Any]:
        """Return what the collection holds."""
        with busy_when_unreadable(), Collection.open(self.root, collection=self.folder) as found:
            return found.info()

    def close(self) -> None:
        """Close the database; what was lent is not touched."""
        with self._facts_lock:
            self._forget_facts()

    def _forget_facts(self) -> None:
        if self._facts is not None:
            self._facts[1].close()
            self._facts = None


@contextmanager
def busy_when_unreadable() -> Iterator[None]:
    """Turn the failure to read a collection into ServiceBusy, whose text names no place on the
    server's disk.
    """
    try:
        yield
    except CollectionError as error:
        raise ServiceBusy(BUSY) from error


def _stamp(file: Path, content: bool) -> tuple[int, ...] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    whole = (status.st_size, status.st_mtime_ns) if content else ()
    return (status.st_dev, status.st_ino, *whole)


# -- Photos of an object store, fetched when somebody looks at them --------------------------------

MAX_BYTES = 500 * MEGABYTE


class RemotePhotoCache:
    """Copies of the photos below a URL in a folder, at most about ``most`` bytes of them: those
    looked at last.
    """

    def __init__(self, source: Source, folder: Path, most: int = MAX_BYTES) -> None:
        self._source, self._folder, self._most = source, folder, most
        self._lock = threading.Lock()

    def file_of(self, photo: Photo) -> Path:
        """Return the file of a photo; raises UnknownPhoto where the store does not give it, or the
        disk takes no copy.
        """
        kept = self._folder / photo.fingerprint.hex()
        with suppress(OSError):
            os.utime(kept)  # the order of use outlives the process
            return kept
        data = next(self._source.read([Entry(photo.path, photo.size, photo.mtime_ns)]))
        if isinstance(data, PhotoError):
            raise UnknownPhoto(
                f"photo {photo.photo_id} cannot be fetched from {self._source.name}: {data}"
            )
        self._keep(kept, data)
        return kept

    def _keep(self, kept: Path, data: bytes) -> None:
        try:
            with disk_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                atomic_write(kept, data, sync=False)
        except CollectionError as error:
            raise UnknownPhoto(str(error)) from error
        with self._lock:
            self._trim(kept)

    def _trim(self, newest: Path) -> None:
        """Remove the copies looked at longest ago until the rest fits; the newest stays, however
        large it is.
        """
        known = sorted(
            (file.stat().st_mtime_ns, file.stat().st_size, file)
            for file in self._folder.iterdir()
            if file.is_file()
        )
        total = sum(size for _, size, _ in known)
        for _, size, file in known:
            if total <= self._most:
                return
            if file != newest:
                file.unlink(missing_ok=True)
                total -= size


# -- The one collection of a server ----------------------------------------------------------------


class MilvusSource(CollectionSource):
    """Lends a collection in Milvus to the threads of a server, which use one connection at once.

    What it makes itself, thumbnails and the map, is kept in the cache folder.
    """

    missing = "say with --photos ROOT where the photos are"

    def __init__(
        self,
        uri: str,
        root: str | os.PathLike[str] | None,
        *,
        device: str,
        encoder: ImageEncoder | None,
    ) -> None:
        self._uri, self._given_root = uri, root
        self._lent: Collection | None = None
        self._lending = threading.RLock()
        found = Collection.open(uri, root=root, encoder=encoder, device=device)
        with suppress(OSError):  # what is made is made again where it cannot be kept
            found.folder.mkdir(parents=True, exist_ok=True)
        super().__init__(found.root, found.folder, device=device, encoder=encoder)
        self._lent = found
        self._fetched = (
            None if root is not None or "://" not in found.config.root else _fetched(found)
        )

    def stamp(self) -> Stamp:
        """Return a value that changes when another collection has taken this one's place."""
        with busy_when_unreadable():
            found = self._shared()
            store = _milvus_store(found)
            now = store.connection.facts()
            if now != store.facts:
                self.close()
            return (now,)

    def open(self) -> Collection:
        """Return the collection, newly opened with the model that all share."""
        found = Collection.open(self._uri, root=self._given_root, device=self.device)
        try:
            found.use_encoder(self.encoder_for(found.config))
        except BaseException:
            found.close()
            raise
        return found

    def encoder(self) -> ImageEncoder:
        """Return the collection's encoder; raises ServiceBusy where Milvus does not answer."""
        if self._encoder is not None:
            return self._encoder
        with busy_when_unreadable():
            return self.encoder_for(self._shared().config)

    @contextmanager
    def reading(self) -> Iterator[Collection]:
        """Lend the collection for a block; raises ServiceBusy where Milvus does not answer."""
        with busy_when_unreadable():
            yield self._shared()

    @contextmanager
    def facts(self) -> Iterator[MilvusStore]:
        """Lend what the photos are read from; raises ServiceBusy where Milvus does not answer."""
        with self.reading() as found:
            yield _milvus_store(found)

    def photos_of(self, ids: Sequence[int]) -> list[Photo]:
        """Return the facts of those photos that are in the collection, in the order of the ids."""
        with self.facts() as store:
            rows = {row["id"]: row for row in store.connection.among(ids, store.photo_fields)}
        return [photo_of(rows[one]) for one in ids if one in rows]

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, and a query's photo is to be."""
        with self.reading() as found:
            return found.decoding()

    def file_of(self, photo: Photo) -> Path:
        """Return the file of a photo, fetched where it is in an object store; raises UnknownPhoto
        where it cannot be had.
        """
        return super().file_of(photo) if self._fetched is None else self._fetched.file_of(photo)

    def failures(self) -> list[SkippedPhoto]:
        """Raise QueryError: Milvus holds photos only."""
        raise QueryError(
            "Milvus holds photos only: the files that could not be read are listed in "
            "the shards that were pushed"
        )

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

    def _shared(self) -> Collection:
        with self._lending:
            if self._lent is None:
                self._lent = Collection.open(self._uri, root=self._given_root, device=self.device)
            if (
                self._encoder is not None
                and self._lent.config.encoder_fingerprint == self._encoder.fingerprint
            ):
                self._lent.use_encoder(self._encoder)
            return self._lent


def _milvus_store(found: Collection) -> MilvusStore:
    assert isinstance(found.backend, MilvusBackend)
    return found.backend.store


def _fetched(found: Collection) -> RemotePhotoCache | None:
    """Return what fetches the photos of an object store, None where that cannot be reached: the
    page works without pictures.
    """
    with suppress(CollectionError):
        return RemotePhotoCache(open_source(found.config.root, "folder"), found.folder / "fetched")
    return None
