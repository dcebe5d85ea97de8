"""The one collection of a server: opened where it lies, opened again when it was replaced, its model loaded once."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from vitsearch.collection import Collection, SearchableCollection
from vitsearch.collection.reader import PhotoReader
from vitsearch.encoders import load_encoder
from vitsearch.encoders.protocol import ImageEncoder, pace
from vitsearch.errors import CollectionError
from vitsearch.layout import Settings, collection_folder, photo_root, read_settings
from vitsearch.pipeline import Decoding, choose_decoding
from vitsearch.report import collection_info
from vitsearch.store import PhotoStore
from vitsearch.types import Photo, SkippedPhoto
from vitsearch.web.errors import ServiceBusy, UnknownPhoto

BUSY = "the photos cannot be read just now: try again in a moment"
Stamp = tuple[object, ...]


class Source:
    """Opens a collection for the threads of a server, which share its model and take turns at it.

    What an indexing run adds is seen by every open Collection; they must be opened again only when the database itself was replaced.
    """

    missing = "run `vitsearch index`"  # what to do where a photo's file is gone

    def __init__(self, root: Path, folder: Path, *, device: str = "auto", encoder: ImageEncoder | None = None) -> None:
        self.root, self.folder, self.device = root, folder, device
        self.encoding = threading.RLock()  # held while the model computes, see `computing`
        self._encoder = encoder
        self._facts: tuple[Stamp, PhotoStore] | None = None
        self._facts_lock = threading.RLock()

    @classmethod
    def of(
        cls, photos: str | os.PathLike[str], collection: str | os.PathLike[str] | None, device: str, encoder: ImageEncoder | None
    ) -> "Source":
        """Return the source of a photo folder's collection; raises CollectionNotFound, CollectionError or EncoderError."""
        root = photo_root(photos)
        source = cls(root, collection_folder(root, collection), device=device, encoder=encoder)
        source.open().close()
        return source

    def file_of(self, photo: Photo) -> Path:
        """Return the file of a photo; raises UnknownPhoto where it is gone."""
        path = PurePosixPath(photo.path)
        file = self.root / path
        if path.is_absolute() or ".." in path.parts or not file.is_file():  # nor from a collection that a stranger made
            raise UnknownPhoto(f"the file of photo {photo.photo_id} is not there any more: {self.missing}")
        return file

    def stamp(self) -> Stamp:
        """Return a value that changes when the collection's database or settings are replaced."""
        return (_stamp(self.folder / "collection.json", True), _stamp(self.folder / "photos.db", False))

    def open(self) -> SearchableCollection:
        """Return the collection, newly opened with the model that all share; raises what `Collection.open` does."""
        settings = read_settings(self.folder, self.root)
        return Collection(self.root, self.folder, settings, encoder=self.encoder_for(settings), device=self.device)

    def encoder(self) -> ImageEncoder:
        """Return the collection's encoder; raises ServiceBusy where the collection cannot be read just now."""
        if self._encoder is not None:
            return self._encoder
        with busy_when_unreadable():
            return self.encoder_for(read_settings(self.folder, self.root))

    def encoder_for(self, settings: Settings) -> ImageEncoder:
        """Return the collection's encoder, loaded at first use and when another collection has taken the first one's place."""
        with self.encoding:
            if self._encoder is None or self._encoder.fingerprint != settings.encoder_fingerprint:
                self._encoder = None  # let it go before the next is loaded
                # for many at once: with one thread for each call two batches share the cores better than two threads share one batch
                self._encoder = load_encoder(settings.encoder, self.device, settings.dtype, bulk=True)
            return self._encoder

    @contextmanager
    def computing(self, encoder: ImageEncoder) -> Iterator[None]:
        """Let a model compute in the block: at once where it may be called from several threads, else when its turn has come."""
        with nullcontext() if pace(encoder)[0] > 1 else self.encoding:
            yield

    @contextmanager
    def reading(self) -> Iterator[SearchableCollection]:
        """Open the collection for a block that reads much; raises ServiceBusy where it cannot be read just now."""
        with busy_when_unreadable():
            collection = self.open()
            try:
                yield collection
            finally:
                collection.close()

    @contextmanager
    def facts(self) -> Iterator[PhotoReader]:
        """Lend the database for a short look-up, to one thread at a time; raises ServiceBusy where it cannot be read just now."""
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
        """Return the files that are not in the collection, in order of path; raises QueryError where nobody knows them."""
        with self.facts() as store:
            return store.failures()

    def info(self) -> dict[str, Any]:
        """Return what the collection holds."""
        with busy_when_unreadable(), Collection.open(self.root, collection=self.folder) as found:
            return collection_info(found)

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
    """Turn the failure to read a collection into ServiceBusy, whose text names no place on the server's disk."""
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
