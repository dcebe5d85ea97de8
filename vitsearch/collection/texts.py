"""Reading the text in the photos of a collection, after they were indexed."""

import importlib.util
import logging
import os
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path

from vitsearch.errors import CollectionError, PhotoError, UnreadablePhoto
from vitsearch.photos.decode import open_photo, read_open
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.photos.prefetch import prefetch_map
from vitsearch.photos.text import PhotoText
from vitsearch.storage.filesystem import make_room
from vitsearch.storage.metadata import (
    check_text_index,
    put_text,
    put_text_problem,
    without_text,
)
from vitsearch.storage.reader import PhotoReader
from vitsearch.storage.schema import forget_texts
from vitsearch.storage.store import PhotoStore
from vitsearch.types import OnProgress, Photo, Progress

log = logging.getLogger("vitsearch")
MAX_PROCESSES = 4  # that read text: each takes some 400 MB
MAX_NAMED = 20  # photos whose text could not be read
_MISSING = "the text in photos is read with RapidOCR: pip install 'vitsearch[ocr]'"
_OCR = "ocr"  # the fact that a collection's runs read the text of photos


def check_text_reader() -> None:
    """Raise CollectionError where the library that reads text is not installed."""
    if not _has_reader():
        raise CollectionError(_MISSING)


def _has_reader() -> bool:
    return importlib.util.find_spec("rapidocr") is not None


def reads_texts(store: PhotoStore, requested: bool | None) -> bool:
    """Return whether a run of indexing reads the text of photos: as ``requested``, which is stored,
    or None: as runs before. Raises CollectionError where it is requested and cannot be done.
    """
    before = store.get_meta(_OCR) == 1
    if requested is None:
        return before
    if requested:
        check_text_index(store)
    if requested != before:
        with store.writing():
            store.set_meta(_OCR, int(requested))
    return requested


def are_texts_read(store: PhotoReader) -> bool:
    """Return whether a run of indexing was ever told to read the text of photos."""
    return store.get_meta(_OCR) is not None


class TextRun:
    """Reads the text of the photos that have none yet, each in a child process within a limit of
    time, and stores it photo by photo: a run that is stopped has lost nothing.
    """

    def __init__(
        self, store: PhotoStore, root: Path, folder: Path, *, max_pixels: int, workers: int
    ) -> None:
        self._store, self._root, self._folder = store, root, folder
        self._max_pixels = max_pixels
        self._processes = min(workers, MAX_PROCESSES)
        self._threads = max(1, (os.cpu_count() or 1) // self._processes)
        self.read = self.failed = 0

    def run(self, progress: OnProgress, *, seconds: float | None, retry: bool) -> None:
        """Read all; ``seconds`` is the limit for a photo, and ``retry`` tries those again that
        failed.
        """
        # one of each content
        photos = {p.fingerprint: p for p in without_text(self._store, retry=retry)}.values()
        if not photos:
            return
        if not _has_reader():
            log.warning(f"{_MISSING} (--no-ocr goes on without)")
            return
        progress(Progress("reading text", 0, len(photos)))
        with PhotoDecoder(seconds) as decoder, closing(self._texts(decoder, photos)) as each:
            for photo, text in each:
                self._put(photo, text)
                progress(
                    Progress("reading text", self.read + self.failed, len(photos), self.failed)
                )
        with self._store.writing():
            forget_texts(self._store._db)
        if self.failed > MAX_NAMED:
            log.warning(f"the text of {self.failed:,} photos in all could not be read")

    def _texts(
        self, decoder: PhotoDecoder, photos: Iterable[Photo]
    ) -> Generator[tuple[Photo, PhotoText | PhotoError], None, None]:
        def read(photo: Photo) -> tuple[Photo, PhotoText | PhotoError]:
            started = time.perf_counter()
            try:
                return photo, self._text(decoder, photo)
            except PhotoError as error:
                return photo, error
            finally:
                make_room(self._folder, time.perf_counter() - started)

        processes = self._processes
        return prefetch_map(
            read, photos, workers=processes, buffer=2 * processes, on_stop=decoder.close
        )

    def _text(self, decoder: PhotoDecoder, photo: Photo) -> PhotoText:
        try:
            with open_photo(self._root, photo.file, photo) as file:
                data = read_open(file)
        except PhotoError as error:
            raise UnreadablePhoto(str(error)) from error
        return decoder.text(data, max_pixels=self._max_pixels, threads=self._threads)

    def _put(self, photo: Photo, text: PhotoText | PhotoError) -> None:
        if isinstance(text, PhotoText):
            self.read += 1
            with self._store.writing():
                put_text(self._store, photo.fingerprint, text)
            return
        self.failed += 1
        if self.failed <= MAX_NAMED:
            log.warning(f"{photo.path}: its text was not read: {text}")
        if not isinstance(text, UnreadablePhoto):  # which may pass: the next run tries again
            with self._store.writing():
                put_text_problem(self._store, photo.fingerprint, str(text))
