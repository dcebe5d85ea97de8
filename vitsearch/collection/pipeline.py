"""One run of the pipeline.

read, hash, decode, prepare (ahead, in threads) -> batch -> encode (ahead, in as many threads as
help) -> one transaction a batch
"""

import os
from collections.abc import Container, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves
from vitsearch.collection.diff import FolderDiff
from vitsearch.collection.profile import StageTimer
from vitsearch.encoders.base import ImageEncoder, Vectors
from vitsearch.encoders.batching import NOT_FINITE, TOO_LARGE, OomSafeEncoder
from vitsearch.errors import PhotoError
from vitsearch.photos import InlineDecoder, PhotoDecoder, prefetch_map, read_bytes_and_fingerprint
from vitsearch.storage.decoding import Decoding
from vitsearch.storage.store import Outcome, PhotoStore
from vitsearch.types import Found, Photo, PhotoInfo


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A file that was read: its picture ready for the encoder, or None where its content is known
    already.
    """

    found: Found
    fingerprint: bytes
    info: PhotoInfo | None = None
    prepared: NDArray[Any] | None = None
    vector: Halves | None = None


@dataclass(frozen=True, slots=True)
class _Broken:
    found: Found
    reason: str


_Batch = Sequence[_Loaded | _Broken]


class Pipeline:
    """Carries out a plan: embeds its files into a store and counts what became of them.

    ``counts`` gains under ``indexed``, ``unchanged``, ``moved`` and ``failed``; ``clock`` is told
    of each piece of work. The attribute ``decoder`` decodes, in threads unless another is put
    there.
    """

    def __init__(
        self,
        root: Path,
        store: PhotoStore,
        plan: FolderDiff,
        *,
        counts: MutableMapping[str, int],
        decoding: Decoding,
        clock: StageTimer | None = None,
    ) -> None:
        self.root, self.store, self.plan, self.counts, self.decoding = (
            root,
            store,
            plan,
            counts,
            decoding,
        )
        self.clock = clock or StageTimer()
        self.decoder: PhotoDecoder = InlineDecoder()

    def store_refused(self) -> None:
        """Record the files that were not opened; a photo that had such a file's path before leaves
        the collection.
        """
        if self.plan.refused:
            with self.store.writing():
                gone = sum(
                    self.store.put_failure(found, "skipped", found.problem or "")
                    for found in self.plan.refused
                )
                self.store.raise_generation(gone > 0)

    def run(self, encoder: ImageEncoder, *, batch_size: int, workers: int) -> Iterator[int]:
        """Embed and store the files to do, one transaction for each batch, and yield after each how
        many are done.

        As many threads encode as the encoder can use (its ``parallel_calls``), a batch each, and
        one more batch waits: a crash loses those. A batch is stored meanwhile in the thread that
        SQLite's connection belongs to.
        """
        known, done = self.store.fingerprints(), 0
        callers, most = encoder.parallel_calls, encoder.pictures_per_call
        patient = OomSafeEncoder(encoder)
        sizes = batch_sizes(len(self.plan.todo), min(batch_size, most or batch_size), callers)
        loaded = prefetch_map(
            lambda found: self._load(found, encoder, known),
            self.plan.todo,
            workers=workers,
            buffer=batch_size + workers,
            on_stop=self.decoder.close,
        )
        batches = (
            [self._with_vector(item, encoder) for item in batch]
            for batch in _batches(loaded, sizes)
        )
        encoded = prefetch_map(
            lambda batch: (batch, self._encode(batch, patient)),
            batches,
            workers=callers,
            buffer=callers + 1,
            name="encoder",
        )
        for batch, rows in encoded:
            with self.clock.stage("store", f"{len(batch)} photos"):
                self._store_batch(batch, rows)
            done += len(batch)
            yield done

    def _encode(self, batch: _Batch, encoder: OomSafeEncoder) -> list[Vectors | None]:
        pictures = [
            item.prepared
            for item in batch
            if isinstance(item, _Loaded) and item.prepared is not None
        ]
        if not pictures:
            return []
        with self.clock.stage("encode", f"{len(pictures)} photos"):
            return encoder.encode(pictures)

    def _load(
        self, found: Found, encoder: ImageEncoder, known: Container[bytes]
    ) -> _Loaded | _Broken:
        """Read one file and, unless its content is known, decode and prepare it; runs in any
        thread.
        """
        clock, decoding = self.clock, self.decoding
        try:
            with clock.stage("read", found.path):
                data, fingerprint = read_bytes_and_fingerprint(os.path.join(self.root, found.path))
            if fingerprint in known:
                return _Loaded(found, fingerprint)
            with clock.stage("decode", found.path):
                image, info = self.decoder.decode(
                    data, max_pixels=decoding.max_pixels, at_least=decoding.at_least(encoder)
                )
            with clock.stage("prepare", found.path):
                return _Loaded(found, fingerprint, info, encoder.prepare(image))
        except PhotoError as error:
            return _Broken(found, str(error))
        except MemoryError:
            return _Broken(found, "not enough memory to decode it")

    def _store_batch(self, batch: _Batch, rows: Sequence[Vectors | None]) -> None:
        """Store the photos and failures of an encoded batch in one transaction."""
        fresh = iter(rows)
        with self.store.writing():
            changed = False
            for item in batch:
                if isinstance(item, _Broken):
                    changed |= self._fail(item.found, item.reason)
                    continue
                row = next(fresh) if item.prepared is not None else None
                if item.prepared is not None and row is None:
                    changed |= self._fail(item.found, TOO_LARGE)
                    continue
                vector = item.vector if row is None else row.astype(np.float16)
                changed |= self._keep(item, vector)
            self.store.raise_generation(changed)

    def _with_vector(self, item: _Loaded | _Broken, encoder: ImageEncoder) -> _Loaded | _Broken:
        """Give a file of known content the vector that the collection has for it.

        It is fetched before anything of the batch is written, since two files may swap their
        contents; where the holder was already replaced in this run, the file is decoded after all.
        Runs in the thread of the store.
        """
        if isinstance(item, _Broken) or item.prepared is not None:
            return item
        same = self.store.photos_with(item.fingerprint)
        if not same:
            return self._load(item.found, encoder, frozenset())
        return replace(item, info=same[0].info, vector=self.store.vector(same[0].photo_id))

    def _keep(self, item: _Loaded, vector: Halves | None) -> bool:
        """Store one readable file as unchanged, moved, or new, and return whether a vector was
        written.
        """
        found, info = item.found, item.info or PhotoInfo(0, 0)
        photo = Photo(0, found.path, found.size, found.mtime_ns, item.fingerprint, info)
        outcome = self.store.keep(photo, vector, gone=self.plan.missing)
        if outcome is Outcome.UNUSABLE:
            return self._fail(found, NOT_FINITE)
        self.counts[outcome.value if not outcome.is_stored else "indexed"] += 1
        return outcome.is_stored

    def _fail(self, found: Found, reason: str) -> bool:
        """Store a failure and return whether it took a photo out of the collection."""
        self.counts["failed"] += 1
        return self.store.put_failure(found, "failed", reason) > 0


def batch_sizes(count: int, most: int, callers: int) -> Iterator[int]:
    """Yield the sizes of the batches of ``count`` photos: ``most``, and towards the end smaller
    ones, so that all callers end together.
    """
    while count > 0:
        size = min(most, count if callers == 1 else -(-count // (2 * callers)))
        yield size
        count -= size


def _batches(items: Iterator[Any], sizes: Iterator[int]) -> Iterator[list[Any]]:
    return (batch for size in sizes if (batch := list(islice(items, size))))
