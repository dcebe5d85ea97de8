"""The later passes of a run of indexing, after the photos: videos are embedded one after the other,
their moments in batches as of photos, and the text in the photos is read.
"""

import importlib.util
import logging
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves
from vitsearch.collection.duplicates import likeness_to
from vitsearch.collection.pipeline import Pipeline
from vitsearch.encoders.base import ImageEncoder, Vectors
from vitsearch.encoders.batching import NOT_FINITE, OomSafeEncoder
from vitsearch.errors import CollectionError, PhotoError, UnreadablePhoto
from vitsearch.photos import prefetch_map
from vitsearch.photos.dates import with_date_of_name
from vitsearch.photos.decode import open_photo, read_fingerprint, read_open
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.photos.formats import format_of
from vitsearch.photos.isolated import Decoded
from vitsearch.photos.text import PhotoText
from vitsearch.storage import PhotoReader, stored_lookalike_threshold
from vitsearch.storage.filesystem import make_room
from vitsearch.storage.metadata import (
    check_text_index,
    put_text,
    put_text_problem,
    without_text,
)
from vitsearch.storage.rows import Outcome
from vitsearch.storage.schema import forget_texts
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, OnProgress, Photo, PhotoInfo, Progress, moment_path

log = logging.getLogger("vitsearch")


@dataclass(slots=True)
class _Video:
    """A video that is being read: its moments so far, and how many pictures are not yet encoded."""

    file: Found
    fingerprint: bytes = b""
    moments: list[tuple[PhotoInfo, Halves]] = field(default_factory=list)
    waiting: int = 0
    has_ended: bool = False
    problem: PhotoError | None = None


_Batch = list[tuple[_Video, PhotoInfo, NDArray[Any]]]


class VideoPipeline:
    """Embeds the videos of a folder's difference, after its photos and with what they used.

    ``every`` is the least time in seconds between two moments. A moment is dropped where its cosine
    with the one before, of the same video, reaches the threshold of look-alikes.
    """

    def __init__(self, photos: Pipeline, encoder: ImageEncoder, *, every: float, size: int) -> None:
        self._photos, self._store = photos, photos.store
        self._encoder, self._safe_encoder = encoder, OomSafeEncoder(encoder)
        self._every = every
        self._size = min(size, encoder.pictures_per_call or size)
        self._alike = stored_lookalike_threshold(self._store, encoder.name)
        self._reading: deque[_Video] = deque()
        self._encoding: deque[tuple[_Batch, Future[list[Vectors | None]]]] = deque()

    def run(self) -> Iterator[int]:
        """Embed and store the videos to do, and yield after each how many files are done, the
        photos before them too.
        """
        callers, done = self._encoder.parallel_calls, len(self._photos.diff.todo)
        pool = ThreadPoolExecutor(callers, thread_name_prefix="encoder")
        try:
            batch: _Batch = []
            for picture in self._pictures():
                batch.append(picture)
                if len(batch) == self._size:
                    self._encoding.append((batch, pool.submit(self._encode, batch)))
                    batch = []
                while len(self._encoding) > callers:
                    self._finish_batch()
                while self._store_first():
                    yield (done := done + 1)
            if batch:
                self._encoding.append((batch, pool.submit(self._encode, batch)))
            while self._encoding:
                self._finish_batch()
            while self._store_first():
                yield (done := done + 1)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pictures(self) -> Iterator[tuple[_Video, PhotoInfo, NDArray[Any]]]:
        """Yield the prepared pictures of all videos in order."""
        clock = self._photos.clock
        for file in self._photos.diff.videos:
            video = _Video(file)
            self._reading.append(video)
            try:
                for image, info in self._decoded(video):
                    with clock.stage("prepare", file.path):
                        prepared = self._photos.decoding.prepare(self._encoder, image)
                    video.waiting += 1
                    yield video, info, prepared
            except PhotoError as error:
                video.problem = error
            except MemoryError:
                video.problem = PhotoError("not enough memory to decode it")
            video.has_ended = True

    def _decoded(self, video: _Video) -> Iterator[Decoded]:
        """Yield the pictures of a video, none where its content is stored already."""
        file, photos = video.file, self._photos
        path = os.path.join(photos.root, file.path)
        with photos.clock.stage("read", file.path):
            video.fingerprint, head = read_fingerprint(path)
        if self._take_over(video):
            return
        limits: dict[str, Any] = {
            "fingerprint": video.fingerprint,
            "max_pixels": photos.decoding.max_pixels,
            "at_least": photos.decoding.at_least(self._encoder),
        }
        if format_of(head) is not None:  # a photo under the name of a video
            data = photos.read_photo(file)
            colours = photos.decoding.colours
            yield photos.decoder.decode(data, name=file.path, colours=colours, **limits)
            return
        moments = photos.decoder.moments(path, every=self._every, **limits)
        while True:
            try:
                with photos.clock.stage("decode", file.path):
                    moment = next(moments)
            except StopIteration as end:
                if end.value:
                    log.warning(f"{file.path}: {end.value}")
                return
            yield moment

    def _take_over(self, video: _Video) -> bool:
        """Return whether the content is stored, with its moments where it is so at another path."""
        rows = self._store.photos_with(video.fingerprint)
        if not rows:
            before = self._store.aside.content(video.fingerprint)
            return before is not None  # `_keep_moments` brings it back
        if not any(row.path == video.file.path for row in rows):
            of_file = [row for row in rows if row.file == rows[0].file]
            video.moments = [(row.info, self._store.vector(row.photo_id)) for row in of_file]
        return True

    def _encode(self, batch: _Batch) -> list[Vectors | None]:
        with self._photos.clock.stage("encode", f"{len(batch)} moments"):
            return self._safe_encoder.encode([prepared for _, _, prepared in batch])

    def _finish_batch(self) -> None:
        """Give the vectors of the first batch to its videos."""
        batch, rows = self._encoding.popleft()
        for (video, info, _), row in zip(batch, rows.result(), strict=True):
            video.waiting -= 1
            if row is None or not np.isfinite(row).all():
                continue
            vector = row.astype(np.float16)
            if not video.moments or not self._is_alike(video.moments[-1][1], vector):
                video.moments.append((info, vector))

    def _is_alike(self, before: Halves, vector: Halves) -> bool:
        rows = np.stack([before, vector]).astype(np.float32)
        return bool(likeness_to(rows[0], rows[1:])[0] >= np.float32(self._alike))

    def _store_first(self) -> bool:
        """Store the video that was begun first, if all of it is encoded, and return whether."""
        if not self._reading or not self._reading[0].has_ended or self._reading[0].waiting:
            return False
        video = self._reading.popleft()
        with self._photos.clock.stage("store", video.file.path), self._store.writing():
            self._store.raise_generation(self._keep(video))
        return True

    def _keep(self, video: _Video) -> bool:
        """Store a video or why it cannot be read, and return whether a vector was written."""
        file, photos = video.file, self._photos
        if video.problem is not None:
            transient = isinstance(video.problem, UnreadablePhoto)
            return photos.fail(file, str(video.problem), transient=transient)
        infos = [with_date_of_name(info, file.path) for info, _ in video.moments]
        named = photos.place_names.of(infos)
        moments = [
            (info or infos[0], row) for info, (_, row) in zip(named, video.moments, strict=True)
        ]
        first = moments[0][0] if moments else PhotoInfo(0, 0)
        photo = Photo(0, file.path, file.size, file.mtime_ns, video.fingerprint, first)
        outcome = self._keep_moments(photo, moments)
        if outcome is Outcome.UNUSABLE:
            return photos.fail(file, NOT_FINITE)
        photos.count(outcome)
        return outcome.is_stored

    def _keep_moments(self, photo: Photo, moments: Sequence[tuple[PhotoInfo, Halves]]) -> Outcome:
        """Store a video like `PhotoStore.keep`, with facts and vectors of its moments, none where
        its content is known.
        """
        store, first = self._store, moments[0][1] if moments else None
        outcome = store.keep(photo, first, gone=self._photos.diff.missing)
        if outcome in (Outcome.NEW, Outcome.REPLACED):
            generation = store.generation() + 1
            for info, vector in moments[1:]:
                path = moment_path(photo.path, float(info["time"] or 0))
                file = Found(path, photo.size, photo.mtime_ns)
                store.put_photo(file, photo.fingerprint, info, vector=vector, generation=generation)
        return outcome


# -- Text in photos --------------------------------------------------------------------------------


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
