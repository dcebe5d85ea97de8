"""The pipeline of indexing.

read, hash, decode, prepare (prefetched, in threads) -> batch -> encode (prefetched, in as many
threads as the encoder can use) -> one transaction for each batch
"""

import logging
import os
import time
from collections import deque
from collections.abc import Container, Iterator, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves
from vitsearch.collection.diff import FolderDiff
from vitsearch.collection.run_facts import StageTimer
from vitsearch.encoders.base import ImageEncoder, Vectors
from vitsearch.encoders.batching import NOT_FINITE, TOO_LARGE, OomSafeEncoder
from vitsearch.encoders.device_decoder import DeviceDecoder
from vitsearch.errors import PhotoError, UnreadablePhoto
from vitsearch.photos import prefetch_map, read_bytes_and_fingerprint
from vitsearch.photos.dates import with_date_of_name
from vitsearch.photos.decoder import PhotoDecoder, need_children
from vitsearch.photos.formats import NOTE
from vitsearch.photos.sidecars import Metadata, read_sidecars, with_sidecars
from vitsearch.storage import Decoding
from vitsearch.storage.filesystem import make_room
from vitsearch.storage.metadata import PlaceNames, known_content, put_vector
from vitsearch.storage.rows import Outcome
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, LeftOut, Photo, PhotoInfo

log = logging.getLogger("vitsearch")
_GLANCE = 10_000  # files whose names tell whether processes that decode will be needed
PATIENCE = 2.0  # seconds for a photo, after which those behind it are embedded before it


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A file that was read; ``prepared`` is its picture for the encoder, None for known content;
    ``info`` has the facts of its sidecars, where these say something.
    """

    file: Found
    fingerprint: bytes
    info: PhotoInfo | None = None
    prepared: NDArray[Any] | None = None
    vector: Halves | None = None
    has_sidecars: bool = False

    @property
    def signature(self) -> str:
        """The signature of its sidecars as it is stored."""
        signature = self.file.sidecars
        return signature if self.has_sidecars or not signature else f"/{signature}"


@dataclass(frozen=True, slots=True)
class _Broken:
    file: Found
    reason: str
    transient: bool = False


_Batch = Sequence[_Loaded | _Broken]


class Pipeline:
    """Embeds the files of a folder's difference into a store, and counts the outcomes.

    ``counts`` has the keys ``indexed``, ``unchanged``, ``moved``, ``restored`` and ``failed``;
    ``clock`` times the stages. The attribute ``decoder`` may be replaced.
    """

    def __init__(
        self,
        root: Path,
        store: PhotoStore,
        diff: FolderDiff,
        *,
        counts: MutableMapping[str, int],
        decoding: Decoding,
        clock: StageTimer | None = None,
    ) -> None:
        self.root, self.store, self.diff = root, store, diff
        self.counts, self.decoding = counts, decoding
        self.clock = clock or StageTimer()
        self.decoder = PhotoDecoder()
        self._device_decoder: DeviceDecoder | None = None
        self.place_names = PlaceNames(store)
        self._encoding: deque[tuple[_Batch, Future[list[Vectors | None]]]] = deque()
        self._done = 0

    def store_refused(self) -> None:
        """Record the files that were not opened, and remove the photos that had their paths."""
        if self.diff.refused:
            with self.store.writing():
                removed = sum(
                    self.store.put_failure(file, "skipped", file.problem or "")
                    for file in self.diff.refused
                )
                self.store.raise_generation(removed > 0)

    def start_children(self, workers: int, seconds: float | None) -> None:
        """Have the processes that decode start while the model loads, where some will be needed, as
        all are with a limit of ``seconds``.
        """
        first = (file.path for file in islice(self.diff.todo, _GLANCE))
        if seconds is not None or need_children(first):
            self.decoder.start(min(workers, len(self.diff.todo)))
        elif self.diff.videos:
            self.decoder.start(1)

    def decode_on_device(self, encoder: ImageEncoder, *, seconds: float | None) -> None:
        """Have `run` decode JPEGs on the encoder's device, within ``seconds``; raises EncoderError
        where that cannot be.
        """
        if encoder.device == "cpu":
            log.warning("the model runs on the CPU: --decode device gains nothing here")
        self._device_decoder = DeviceDecoder(encoder, seconds=seconds)

    def run(self, encoder: ImageEncoder, *, batch_size: int, workers: int) -> Iterator[int]:
        """Embed and store the files to do, in a transaction for each batch, and yield after each
        batch how many are done.

        As many threads encode as the encoder can use (its ``parallel_calls``), a batch each, and
        one more batch waits: a crash loses those. Meanwhile the calling thread, which SQLite's
        connection belongs to, stores each batch as soon as it is encoded.
        """
        known = frozenset[bytes]() if self.decoding.again else self.store.fingerprints()
        done, callers = 0, encoder.parallel_calls
        size = min(batch_size, encoder.pictures_per_call or batch_size)
        safe_encoder = OomSafeEncoder(encoder)
        loaded = prefetch_map(
            lambda file: self._load(file, encoder, known),
            self.diff.todo,
            workers=workers,
            buffer=batch_size + workers,
            on_stop=self._stop_decoding,
            meanwhile=self._store_encoded,
            patience=PATIENCE,
        )
        sizes = batch_sizes(len(self.diff.todo), size, callers)
        pool = ThreadPoolExecutor(callers, thread_name_prefix="encoder")
        try:
            for items in _batches(loaded, sizes):
                batch = [self._with_vector(item, encoder) for item in items]
                rows = pool.submit(self._encode, batch, safe_encoder)
                self._encoding.append((batch, rows))
                # all but the last, so that the model has work meanwhile
                while len(self._encoding) > callers or self._is_encoded(len(self._encoding) - 1):
                    self._store_first()
                if self._done > done:
                    yield (done := self._done)
            deque(loaded, maxlen=0)  # it is at its end, not stopped: the decoder goes on
            while self._encoding:
                self._store_first()
                yield self._done
        finally:
            loaded.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _stop_decoding(self) -> None:
        self.decoder.close()
        self.close()

    def close(self) -> None:
        """End what `decode_on_device` began; photos that still wait are left to the decoder."""
        if self._device_decoder:
            self._device_decoder.close()

    def _is_encoded(self, count: int) -> bool:
        """Return whether the first of at least so many batches is encoded."""
        return count > 0 and self._encoding[0][1].done()

    def _store_encoded(self) -> None:
        """Store what is encoded, while the next photo is waited for: it may crash its decoder."""
        while self._is_encoded(len(self._encoding)):
            self._store_first()

    def _store_first(self) -> None:
        batch, rows = self._encoding.popleft()
        encoded = rows.result()
        with self.clock.stage("store", f"{len(batch)} photos"):
            self._store_batch(batch, encoded)
        self._done += len(batch)

    def _encode(self, batch: _Batch, encoder: OomSafeEncoder) -> list[Vectors | None]:
        pictures = [
            item.prepared
            for item in batch
            if isinstance(item, _Loaded) and item.prepared is not None
        ]
        if not pictures:
            return []
        began = time.perf_counter()
        with self.clock.stage("encode", f"{len(pictures)} photos"):
            rows = encoder.encode(pictures)
        make_room(self.store.path.parent, time.perf_counter() - began)
        return rows

    def _load(
        self,
        file: Found,
        encoder: ImageEncoder,
        known: Container[bytes],
        *,
        facts: bool = False,
    ) -> _Loaded | _Broken:
        """Read a file and, unless its content is known, decode and prepare it (in any thread); of a
        known one the ``facts`` are read where they are needed.
        """
        clock, decoding = self.clock, self.decoding
        try:
            with clock.stage("read", file.path):
                data, fingerprint = read_bytes_and_fingerprint(os.path.join(self.root, file.path))
                file, sidecar_facts = self._with_sidecars(file)
            if fingerprint in known and not sidecar_facts and not facts:
                return _Loaded(file, fingerprint)
            if fingerprint not in known and (ready := self._decoded_on_device(file, data)):
                info = with_sidecars(ready[1], sidecar_facts)
                return _Loaded(file, fingerprint, info, ready[0], has_sidecars=bool(sidecar_facts))
            with clock.stage("decode", file.path):
                image, info = self.decoder.decode(
                    data,
                    name=file.path,
                    fingerprint=fingerprint,
                    max_pixels=decoding.max_pixels,
                    at_least=1 if fingerprint in known else decoding.at_least(encoder),
                    colours=decoding.colours,
                )
            if note := image.info.get(NOTE):
                log.warning("%s: %s", file.path, note)
            info = with_sidecars(info, sidecar_facts)
            if fingerprint in known:  # only its facts are needed
                return _Loaded(file, fingerprint, info, has_sidecars=bool(sidecar_facts))
            with clock.stage("prepare", file.path):
                prepared = decoding.prepare(encoder, image)
            return _Loaded(file, fingerprint, info, prepared, has_sidecars=bool(sidecar_facts))
        except PhotoError as error:
            return _Broken(file, str(error), transient=isinstance(error, UnreadablePhoto))
        except MemoryError:
            return _Broken(file, "not enough memory to decode it")

    def _decoded_on_device(self, file: Found, data: bytes) -> tuple[NDArray[Any], PhotoInfo] | None:
        """Return the encoder's input and the facts of a JPEG; None where the CPU decodes it."""
        if self._device_decoder is None:
            return None
        with self.clock.stage("decode", file.path):
            return self._device_decoder.prepare(
                data, max_pixels=self.decoding.max_pixels, colours=self.decoding.colours
            )

    def _with_sidecars(self, file: Found) -> tuple[Found, list[Metadata]]:
        """Return what the sidecars of a file say, and the file: without them where one cannot be
        read now, so that the next run tries again.
        """
        try:
            folder = os.path.dirname(os.path.join(self.root, file.path))
            return file, read_sidecars(folder, file.sidecars)
        except OSError:
            return file._replace(sidecars=""), []

    def _store_batch(self, batch: _Batch, rows: Sequence[Vectors | None]) -> None:
        """Store the photos and failures of an encoded batch in one transaction."""
        encoded = iter(rows)
        batch = self._with_places(batch)
        with self.store.writing():
            changed = False
            for item in batch:
                if isinstance(item, _Broken):
                    changed |= self.fail(item.file, item.reason, transient=item.transient)
                    continue
                row = next(encoded) if item.prepared is not None else None
                if item.prepared is not None and row is None:
                    changed |= self.fail(item.file, TOO_LARGE)
                    continue
                vector = item.vector if row is None else row.astype(np.float16)
                changed |= self._keep(item, vector)
            self.store.raise_generation(changed)

    def _with_vector(self, item: _Loaded | _Broken, encoder: ImageEncoder) -> _Loaded | _Broken:
        """Return a file of known content with the vector that the collection has for it.

        The vector is fetched before anything of the batch is written, since two files may swap
        their contents. If the photo with that content was replaced earlier in this run, the file is
        decoded after all. Runs in the thread of the store.
        """
        if isinstance(item, _Broken) or item.prepared is not None:
            return item
        known = known_content(self.store, item.fingerprint)
        if known is None:
            return self._load(item.file, encoder, frozenset())
        info, vector = item.info or known[0], known[1]
        if info is not None:
            return replace(item, info=info, vector=vector)
        again = self._load(item.file, encoder, frozenset({item.fingerprint}), facts=True)
        if isinstance(again, _Broken) or again.prepared is not None:
            return again  # the file is another now
        return replace(again, vector=vector)

    def _with_places(self, batch: _Batch) -> _Batch:
        """Return a batch in which the photos with a position have the names of the place."""
        placed = [item.info if isinstance(item, _Loaded) else None for item in batch]
        named = self.place_names.of(placed)
        return [
            replace(item, info=info) if isinstance(item, _Loaded) else item
            for item, info in zip(batch, named, strict=True)
        ]

    def _keep(self, item: _Loaded, vector: Halves | None) -> bool:
        """Store a readable file as unchanged, moved or new; return whether a vector was written."""
        file, info = item.file, item.info or PhotoInfo(0, 0)
        info = with_date_of_name(info, file.path)
        photo = Photo(0, file.path, file.size, file.mtime_ns, item.fingerprint, info)
        outcome = self.store.keep(photo, vector, gone=self.diff.missing, sidecars=item.signature)
        if outcome is Outcome.UNUSABLE:
            return self.fail(file, NOT_FINITE)
        again = self.decoding.again and outcome not in (Outcome.NEW, Outcome.REPLACED)
        changed = again and put_vector(self.store, file.path, vector)
        self.count(Outcome.REPLACED if changed else outcome)
        return outcome.is_stored or changed

    def count(self, outcome: Outcome) -> None:
        """Count a photo or a video that was stored."""
        new = outcome in (Outcome.NEW, Outcome.REPLACED)
        self.counts["indexed" if new else outcome.value] += 1

    def read_photo(self, file: Found) -> bytes:
        """Return the content of a file; raises PhotoError."""
        return read_bytes_and_fingerprint(os.path.join(self.root, file.path))[0]

    def fail(self, file: Found, reason: str, *, transient: bool = False) -> bool:
        """Store a failure and return whether it took a photo out of the collection.

        A photo whose file cannot be read just now stays as it was.
        """
        self.counts["failed"] += 1
        if transient and self.store.photo_at(file.path):
            self.diff.left_out.append(LeftOut(file.path, "unreadable", reason))
            return False
        return self.store.put_failure(file, "failed", reason, transient=transient) > 0


def batch_sizes(count: int, max_size: int, callers: int) -> Iterator[int]:
    """Yield the sizes of the batches of ``count`` photos.

    They are ``max_size``, but smaller towards the end so that all callers finish together; two at
    least, for one photo alone may take as long (see `pad_single`).
    """
    while count > 0:
        share = count if callers == 1 else max(2, -(-count // (2 * callers)))
        size = min(max_size, share, count)
        yield size
        count -= size


def _batches(items: Iterator[Any], sizes: Iterator[int]) -> Iterator[list[Any]]:
    return (batch for size in sizes if (batch := list(islice(items, size))))
