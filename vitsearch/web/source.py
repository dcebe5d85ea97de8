"""The collection of a server: opened once for each thread that needs it, opened again after it was
replaced, its encoder loaded once.
"""

import io
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from vitsearch.collection import Collection
from vitsearch.encoders import load_named_encoder
from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.devices import ensure_single
from vitsearch.errors import (
    CollectionError,
    CollectionLocked,
    PhotoError,
    QueryError,
    ServiceBusy,
    UnknownPhoto,
)
from vitsearch.milvus.schema import photo_of
from vitsearch.milvus.store import MilvusStore
from vitsearch.photos.decode import PhotoMissing, fingerprint_of, open_photo
from vitsearch.photos.sources import Entry, Source, open_source
from vitsearch.records import atomic_write
from vitsearch.storage import (
    CollectionConfig,
    Decoding,
    PhotoReader,
    choose_decoding,
    locate,
    read_collection_config,
)
from vitsearch.storage.filesystem import disk_errors
from vitsearch.storage.store import PhotoStore
from vitsearch.types import LeftOut, Photo, SkippedPhoto
from vitsearch.web import MEGABYTE

BUSY = "the photos cannot be read just now: try again in a moment"
MAX_FETCHED_BYTES = 500 * MEGABYTE  # of photos fetched from an object store

Version = tuple[object, ...]


class CollectionSource:
    """The collection of a photo folder, for the threads of a server, which share its encoder.

    What an indexing run adds is seen by every open Collection; they must be opened again only after
    the database itself was replaced.
    """

    missing = "run `vitsearch index`"  # what to do where a photo's file is gone

    def __init__(
        self, root: Path, folder: Path, *, device: str = "auto", encoder: ImageEncoder | None = None
    ) -> None:
        ensure_single(device)
        self.root, self.folder, self.device = root, folder, device
        self.encoding = threading.RLock()  # held while the encoder computes, see `computing`
        self._encoder = encoder
        self._store: tuple[Version, PhotoStore] | None = None
        self._store_lock = threading.RLock()

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
        source = cls(*locate(photos, collection), device=device, encoder=encoder)
        source.open().close()
        return source

    def version(self) -> Version:
        """Return a value that changes when the collection's database or settings are replaced."""
        return (
            _file_version(self.folder / "collection.json", rewritten=True),
            _file_version(self.folder / "photos.db", rewritten=False),
        )

    def close(self) -> None:
        """Close the database; what was lent is not touched."""
        with self._store_lock:
            self._close_store()

    # -- the encoder -------------------------------------------------------------------------------

    def encoder(self) -> ImageEncoder:
        """Return the collection's encoder; raises ServiceBusy where the collection cannot be read
        just now.
        """
        if self._encoder is not None:
            return self._encoder
        with busy_when_unreadable():
            return self._encoder_for(self._config())

    def _encoder_for(self, config: CollectionConfig) -> ImageEncoder:
        """Return the encoder of a collection, loaded at first use and after another collection has
        replaced the first.
        """
        with self.encoding:
            if self._encoder is None or self._encoder.fingerprint != config.encoder_fingerprint:
                self._encoder = None  # frees its memory before the next is loaded
                # loaded for throughput: two batches on one thread each share the cores better than
                # two threads share one batch
                self._encoder = load_named_encoder(
                    config.encoder, self.folder, self.device, config.dtype, throughput=True
                )
            return self._encoder

    @contextmanager
    def computing(self, encoder: ImageEncoder) -> Iterator[None]:
        """Run the block while the encoder may compute: at once where it takes parallel calls, else
        when no other thread uses it.
        """
        with nullcontext() if encoder.parallel_calls > 1 else self.encoding:
            yield

    # -- reading -----------------------------------------------------------------------------------

    def open(self) -> Collection:
        """Return the collection, newly opened with the shared encoder; raises what
        `Collection.open` does.
        """
        collection = self._connect()
        try:
            collection.use_encoder(self._encoder_for(collection.config))
        except BaseException:
            collection.close()
            raise
        return collection

    @contextmanager
    def reading(self) -> Iterator[Collection]:
        """Open the collection for a block that reads much; raises ServiceBusy where it cannot be
        read just now.
        """
        with busy_when_unreadable(), self.open() as collection:
            yield collection

    @contextmanager
    def facts(self) -> Iterator[PhotoReader]:
        """Lend the database for a short look-up, to one thread at a time; raises ServiceBusy where
        it cannot be read just now.
        """
        with self._opened_store() as store:
            yield store

    def photos_of(self, ids: Sequence[int]) -> list[Photo]:
        """Return those photos that are in the collection, in the order of the ids."""
        with self._opened_store() as store:
            photos = {photo.photo_id: photo for photo in store.photos_of(ids)}
        return [photos[photo_id] for photo_id in ids if photo_id in photos]

    def open_photo(self, photo: Photo) -> io.FileIO:
        """Return the open file of a photo, as it was indexed (see `vitsearch.photos.decode`);
        raises UnknownPhoto where it is gone or something else is in its place.
        """
        try:
            return open_photo(self.root, photo.file, photo)
        except PhotoMissing:
            raise UnknownPhoto(
                f"the file of photo {photo.photo_id} is not there any more: {self.missing}"
            ) from None
        except PhotoError as error:
            raise UnknownPhoto(
                f"the file of photo {photo.photo_id} cannot be shown: {error}"
            ) from error

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, as a query's photo must be."""
        with self._opened_store() as store:
            return choose_decoding(store)

    def failures(self) -> list[SkippedPhoto]:
        """Return the files that are not in the collection, in order of path; raises QueryError
        where they are not recorded.
        """
        with self.facts() as store:
            return store.failures()

    def companions(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Return the other files of photos (see `Collection.companions`)."""
        with self.reading() as collection:
            return collection.companions(paths)

    def open_companion(self, path: str) -> io.FileIO:
        """Return the open file beside a photo that belongs to it; raises PhotoError."""
        return open_photo(self.root, path)

    def left_out(self) -> list[LeftOut]:
        """Return what the last run met in the folder and did not take, in order of path."""
        with self.reading() as collection:
            return collection.left_out()

    def info(self) -> dict[str, Any]:
        """Return what the collection holds (see `Collection.info`)."""
        with busy_when_unreadable(), self._connect() as collection:
            return collection.info()

    def _connect(self) -> Collection:
        return Collection.open(self.root, collection=self.folder, device=self.device)

    def _config(self) -> CollectionConfig:
        return read_collection_config(self.folder, self.root)

    @contextmanager
    def _opened_store(self) -> Iterator[PhotoStore]:
        with self._store_lock, busy_when_unreadable():
            version = self.version()
            if self._store is None or self._store[0] != version:
                self._close_store()
                self._store = (version, PhotoStore(self.folder / "photos.db", read_only=True))
            try:
                yield self._store[1]
            except CollectionError:
                self._close_store()
                raise

    def _close_store(self) -> None:
        if self._store is not None:
            self._store[1].close()
            self._store = None


class MilvusSource(CollectionSource):
    """A collection in Milvus, whose threads share one connection.

    What the server itself makes, thumbnails and the map, is stored in the cache folder.
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
        self._uri, self._root = uri, root
        self._shared_lock = threading.RLock()
        collection = Collection.open(uri, root=root, encoder=encoder, device=device)
        with suppress(OSError):  # without the folder, what is made is made again each time
            collection.folder.mkdir(parents=True, exist_ok=True)
        super().__init__(collection.root, collection.folder, device=device, encoder=encoder)
        self._collection: Collection | None = collection
        remote = root is None and "://" in collection.config.root
        self._remote_photos = _remote_photos(collection) if remote else None

    def version(self) -> Version:
        """Return a value that changes when another collection has replaced this one."""
        with self.facts() as store:
            metadata = store.connection.metadata()
            if metadata != store.metadata:
                self.close()
            return (metadata,)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self._shared_lock:
            if self._collection is not None:
                self._collection.close()
                self._collection = None

    @contextmanager
    def reading(self) -> Iterator[Collection]:
        """Lend the shared collection for a block; raises ServiceBusy where Milvus does not
        answer.
        """
        with busy_when_unreadable():
            yield self._shared()

    @contextmanager
    def facts(self) -> Iterator[MilvusStore]:
        """Lend what the photos are read from; raises ServiceBusy where Milvus does not answer."""
        with self.reading() as collection:
            assert isinstance(collection.store, MilvusStore)
            yield collection.store

    def photos_of(self, ids: Sequence[int]) -> list[Photo]:
        """Return those photos that are in the collection, in the order of the ids."""
        with self.facts() as store:
            rows = {row["id"]: row for row in store.connection.among(ids, store.photo_fields)}
        return [photo_of(rows[photo_id]) for photo_id in ids if photo_id in rows]

    def open_photo(self, photo: Photo) -> io.FileIO:
        """Return the open file of a photo, fetched where it is in an object store; raises
        UnknownPhoto where it cannot be read, or is not as it was indexed.
        """
        if self._remote_photos is None:
            return super().open_photo(photo)
        return self._remote_photos.open_photo(photo)

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, as a query's photo must be."""
        with self.reading() as collection:
            return collection.decoding()

    def failures(self) -> list[SkippedPhoto]:
        """Raise QueryError: Milvus holds photos only."""
        raise QueryError(
            "Milvus holds photos only: the files that could not be read are listed in the shards "
            "that were pushed"
        )

    def left_out(self) -> list[LeftOut]:
        """Return nothing: Milvus holds photos only."""
        return []

    def info(self) -> dict[str, Any]:
        """Return what the collection holds, and the recall of its index where it is known."""
        with self.reading() as collection:
            info = collection.info()
        return info | {"recall": 1.0 if info["index"] == "FLAT" else None}

    def _connect(self) -> Collection:
        return Collection.open(self._uri, root=self._root, device=self.device)

    def _config(self) -> CollectionConfig:
        return self._shared().config

    def _shared(self) -> Collection:
        with self._shared_lock:
            if self._collection is None:
                self._collection = self._connect()
            encoder, config = self._encoder, self._collection.config
            if encoder is not None and config.encoder_fingerprint == encoder.fingerprint:
                self._collection.use_encoder(encoder)
            return self._collection


@contextmanager
def busy_when_unreadable() -> Iterator[None]:
    """Turn the failure to read a collection into ServiceBusy, whose text names no path on the
    server's disk.
    """
    try:
        yield
    except CollectionError as error:
        raise ServiceBusy(BUSY) from error


@contextmanager
def busy_when_locked() -> Iterator[None]:
    """Turn the failure to write to a collection that another process writes to into ServiceBusy."""
    try:
        yield
    except CollectionLocked as error:
        raise ServiceBusy("photos are being indexed just now: try again when it is done") from error


def _file_version(file: Path, *, rewritten: bool) -> tuple[int, ...] | None:
    """Return a value that changes when a file is replaced, and also when it is ``rewritten``."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    content = (status.st_size, status.st_mtime_ns) if rewritten else ()
    return (status.st_dev, status.st_ino, *content)


class RemotePhotoCache:
    """Copies of the photos of an object store in a folder of about ``max_bytes`` at most; those
    used least recently are removed.
    """

    def __init__(self, source: Source, folder: Path, max_bytes: int = MAX_FETCHED_BYTES) -> None:
        self._source, self._folder, self._max_bytes = source, folder, max_bytes
        self._lock = threading.Lock()

    def open_photo(self, photo: Photo) -> io.FileIO:
        """Return the open copy of a photo; raises UnknownPhoto where it cannot be fetched, no copy
        can be written, or its content is not what was indexed.
        """
        copy = self._folder / photo.fingerprint.hex()
        with suppress(OSError):
            _note_use(copy)
            return open_photo(self._folder, copy.name)
        data = next(self._source.read([Entry(photo.file, photo.size, photo.mtime_ns)]))
        if isinstance(data, PhotoError):
            raise UnknownPhoto(
                f"photo {photo.photo_id} cannot be fetched from {self._source.name}: {data}"
            )
        if fingerprint_of(data) != photo.fingerprint:
            raise UnknownPhoto(
                f"photo {photo.photo_id} in {self._source.name} has changed since it was indexed"
            )
        self._write(copy, data)
        return open_photo(self._folder, copy.name)

    def _write(self, copy: Path, data: bytes) -> None:
        try:
            with disk_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                atomic_write(copy, data, sync=False)
                _note_use(copy)
        except CollectionError as error:
            raise UnknownPhoto(str(error)) from error
        with self._lock:
            self._trim(copy)

    def _trim(self, newest: Path) -> None:
        """Remove the least recently used copies until the rest fits; the newest stays, however
        large it is.
        """
        copies = sorted(
            (file.stat().st_mtime_ns, file.stat().st_size, file)
            for file in self._folder.iterdir()
            if file.is_file()
        )
        total = sum(size for _, size, _ in copies)
        for _, size, file in copies:
            if total <= self._max_bytes:
                return
            if file != newest:
                file.unlink(missing_ok=True)
                total -= size


def _note_use(copy: Path) -> None:
    """Mark a copy as the last one used: the order of use outlives the process."""
    now = time.time_ns()  # the clock of file systems is too coarse for two that follow each other
    os.utime(copy, ns=(now, now))


def _remote_photos(collection: Collection) -> RemotePhotoCache | None:
    """Return the photos of an object store, None where it cannot be reached: the page then works
    without pictures.
    """
    with suppress(CollectionError):
        photos = open_source(collection.config.root, "folder")
        return RemotePhotoCache(photos, collection.folder / "fetched")
    return None
