"""What is settled before a run of indexing and told after it: which files the last one took, for a
run that only tries again; whether a new collection computes in int8 (``dtype="auto"``, tried on the
user's own photos); and where the time of a run goes, the seconds of each stage and a trace.
"""

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Vectors, top_k
from vitsearch.encoders import load_encoder, needs_preparation
from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.devices import device_names
from vitsearch.errors import CollectionError, EncoderError, PhotoError
from vitsearch.options import IndexOptions
from vitsearch.photos import prefetch_map, read_bytes_and_fingerprint
from vitsearch.photos.decoder import journalled_decoder
from vitsearch.records import atomic_write
from vitsearch.storage import Decoding, PhotoReader
from vitsearch.storage.store import PhotoStore
from vitsearch.types import STAGES, Bottleneck, Found, Stages

WALK_SETTINGS = ("exclude", "include_hidden", "follow_symlinks", "video_every")
_FACT = "walk"


def walk_settings(store: PhotoReader) -> dict[str, Any]:
    """Return the `WALK_SETTINGS` of the last run, as keywords of `index_folder`; nothing where all
    runs had the usual ones.
    """
    text = store.get_meta(_FACT)
    return json.loads(text) if isinstance(text, str) else {}


def record_walk_settings(store: PhotoStore, options: IndexOptions) -> None:
    """Store the `WALK_SETTINGS` of a run where they are new."""
    settings = _of(options)
    if settings != (walk_settings(store) or _of(IndexOptions())):
        with store.writing():
            store.set_meta(_FACT, json.dumps(settings))


def _of(options: IndexOptions) -> dict[str, Any]:
    settings = {name: getattr(options, name) for name in WALK_SETTINGS}
    return settings | {"exclude": [*options.exclude]}


# -- The number format -----------------------------------------------------------------------------


MIN_PHOTOS = 1_000  # below, the trial takes longer than int8 saves
SAMPLE = 64  # photos that are compared
NEIGHBOURS = 10
MIN_COSINE = 0.99
MIN_AGREEMENT = 0.95
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Int8Trial:
    """How near the vectors of ``photos`` in int8 are to those in float32.

    ``cosine`` is the least of a photo to itself, ``agreement`` the share of each photo's
    `NEIGHBOURS` nearest among the others that are the same.
    """

    photos: int
    cosine: float
    agreement: float

    @property
    def passed(self) -> bool:
        """Whether int8 finds what float32 finds."""
        return self.cosine >= MIN_COSINE and self.agreement >= MIN_AGREEMENT

    def __str__(self) -> str:
        return (
            f"on {self.photos} of these photos the least cosine of int8 to float32 is "
            f"{self.cosine:.4f} (asked: {MIN_COSINE}), and {self.agreement:.1%} of the "
            f"{NEIGHBOURS} nearest are the same (asked: {MIN_AGREEMENT:.0%})"
        )


def compare_vectors(full: Vectors, small: Vectors) -> Int8Trial:
    """Return how near the unit rows ``(n, dim)`` of the same photos are, n above `NEIGHBOURS`."""
    shared = [
        len(np.intersect1d(expected, other))
        for expected, other in zip(_nearest(full), _nearest(small), strict=True)
    ]
    cosine = float((full * small).sum(axis=1).min())
    return Int8Trial(len(full), min(cosine, 1.0), sum(shared) / (NEIGHBOURS * len(full)))


def _nearest(rows: Vectors) -> list[NDArray[np.int64]]:
    scores = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    return [top_k(line, NEIGHBOURS) for line in scores]


@dataclass(frozen=True, slots=True)
class Sample:
    """The photos of a folder that a trial may take, of which the collection will be in ``folder``,
    how they are decoded, and in how many threads.
    """

    root: Path
    folder: Path
    files: Sequence[Found]
    decoding: Decoding
    workers: int

    def prepared(self, encoder: ImageEncoder, seconds: float | None) -> list[NDArray[Any]]:
        """Return the encoder's input for the first `SAMPLE` photos of different content that can
        be read; ``seconds`` is a limit of time as for `journalled_decoder`.
        """
        inputs: dict[bytes, NDArray[Any]] = {}
        with journalled_decoder(self.folder, seconds) as decoder:

            def load(file: Found) -> tuple[bytes, NDArray[Any] | None]:
                try:
                    data, fingerprint = read_bytes_and_fingerprint(self.root / file.path)
                    image, _ = decoder.decode(
                        data,
                        name=file.path,
                        fingerprint=fingerprint,
                        max_pixels=self.decoding.max_pixels,
                        at_least=self.decoding.at_least(encoder),
                        colours=self.decoding.colours,
                    )
                    return fingerprint, self.decoding.prepare(encoder, image)
                except (PhotoError, MemoryError):
                    return b"", None

            loaded = prefetch_map(
                load,
                self.files,
                workers=self.workers,
                buffer=2 * self.workers,
                on_stop=decoder.close,
            )
            with closing(loaded):
                for fingerprint, array in loaded:
                    if array is not None:
                        inputs.setdefault(fingerprint, array)
                    if len(inputs) == SAMPLE:
                        break
        return list(inputs.values())


def choose_number_format(
    encoder: ImageEncoder, options: IndexOptions, sample: Sample, *, min_photos: int = MIN_PHOTOS
) -> tuple[ImageEncoder, str]:
    """Return the encoder in int8 where that finds the same photos, else as it is, and a line that
    says why.

    ``encoder`` was loaded by a name. int8 is tried on a CPU for at least ``min_photos`` files.
    """
    if reason := _against(encoder, options, len(sample.files), min_photos):
        return encoder, f"dtype auto: {encoder.dtype} ({reason})"
    inputs = sample.prepared(encoder, options.decode_timeout)
    if len(inputs) <= NEIGHBOURS:
        reason = f"only {len(inputs)} different photos of the first {len(sample.files):,} are read"
        return encoder, f"dtype auto: {encoder.dtype} ({reason})"
    try:
        small = load_encoder(
            encoder.name,
            encoder.device,
            "int8",
            runtime=options.runtime,
            export=True,
            throughput=True,
        )
        trial = compare_vectors(*_encoded(inputs, [encoder, small]))
    except EncoderError as error:
        return encoder, f"dtype auto: {encoder.dtype} ({error})"
    chosen, other = (small, encoder) if trial.passed else (encoder, small)
    other.free_image_tower()
    hint = "; --dtype float32 forces float32" if trial.passed else ""
    return chosen, f"dtype auto: {chosen.dtype}: {trial}{hint}"


def _against(
    encoder: ImageEncoder, options: IndexOptions, count: int, min_photos: int
) -> str | None:
    """Return why int8 is not tried, or None."""
    if not needs_preparation(encoder.name):
        return f"{encoder.name} has no int8"
    if {*device_names(encoder.device)} != {"cpu"}:
        return f"int8 is for a CPU, and this runs on {encoder.device}"
    if options.runtime == "torch":
        return "int8 needs ONNX Runtime, and runtime torch was named"
    if count < min_photos:
        return f"int8 is tried for {min_photos:,} photos or more, and here are {count:,}"
    return None


def _encoded(inputs: Sequence[Any], encoders: Iterable[ImageEncoder]) -> list[Vectors]:
    """Return the rows of all inputs by each encoder, the encoders beside each other."""

    def rows(encoder: ImageEncoder) -> Vectors:
        parts = range(0, len(inputs), _BATCH)
        return np.concatenate(
            [encoder.encode_prepared(inputs[start : start + _BATCH]) for start in parts]
        )

    with ThreadPoolExecutor() as pool:
        return list(pool.map(rows, encoders))


# -- Stages ----------------------------------------------------------------------------------------


MAX_EVENTS = 100_000


def trace_file(name: str | os.PathLike[str] | None) -> Path | None:
    """Return the path of a trace to write; raises CollectionError, before any long work, if its
    folder does not exist.
    """
    if name is None:
        return None
    file = Path(name)
    if file.is_dir() or not file.parent.is_dir():
        raise CollectionError(
            f"cannot write the profile {file}: name a file in a folder that is there"
        )
    return file


class StageTimer:
    """Adds up the time of the stages, from any thread.

    With ``traces`` it also records the first ``max_events`` pieces of work.
    """

    def __init__(self, *, traces: bool = False, max_events: int = MAX_EVENTS) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.dropped = 0
        self._max_events = max_events if traces else 0
        self._traces = traces
        self._events: list[tuple[str, str, float, float, int]] = []
        self._threads: dict[int, str] = {}
        self._lock = threading.Lock()
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str, what: str = "") -> Iterator[None]:
        """Add the time of the block to a stage; ``what`` names the photo or the batch."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._add(name, what, started, time.perf_counter() - started)

    def _add(self, name: str, what: str, started: float, seconds: float) -> None:
        with self._lock:
            self.seconds[name] += seconds
            if len(self._events) < self._max_events:
                thread = threading.get_ident()
                self._threads.setdefault(thread, threading.current_thread().name)
                self._events.append((name, what, started - self._started, seconds, thread))
            elif self._traces:
                self.dropped += 1

    def report(
        self, *, wall: float, workers: int, callers: int = 1, trace: Path | None = None
    ) -> Stages:
        """Return the times of a run of ``wall`` seconds.

        ``workers`` threads decoded and ``callers`` encoded; ``trace`` is a file for `write_trace`.
        """
        if trace:
            self.write_trace(trace)
        bottleneck = _bottleneck(self.seconds, workers, callers)
        return Stages(**self.seconds, wall=wall, bound=bottleneck)

    def write_trace(self, file: Path) -> None:
        """Write the events in the Trace Event Format of Google's catapult, atomically.

        Each piece of work is a complete event (``ph`` X) with times in microseconds since the run
        began and a number for its thread (``tid``). Raises CollectionError.
        """
        numbers = {thread: number for number, thread in enumerate(self._threads)}
        names = [
            {
                "name": "thread_name",
                "ph": "M",
                "pid": 1,
                "tid": numbers[thread],
                "args": {"name": name},
            }
            for thread, name in self._threads.items()
        ]
        events = [
            _event(name, what, start, seconds, numbers[thread])
            for name, what, start, seconds, thread in self._events
        ]
        trace = {
            "traceEvents": [*names, *events],
            "displayTimeUnit": "ms",
            "otherData": {"events_left_out": self.dropped},
        }
        try:
            atomic_write(file, json.dumps(trace, ensure_ascii=True), sync=False)
        except OSError as error:
            raise CollectionError(
                f"cannot write the profile {file} ({error.strerror}): choose another "
                "place; the photos are indexed"
            ) from error


def _event(name: str, what: str, start: float, seconds: float, thread: int) -> dict[str, Any]:
    times = {"ts": round(start * 1e6, 1), "dur": round(seconds * 1e6, 1)}
    return {
        "name": name,
        "cat": "photo",
        "ph": "X",
        **times,
        "pid": 1,
        "tid": thread,
        "args": {"what": what},
    }


def _bottleneck(seconds: dict[str, float], workers: int, callers: int) -> Bottleneck:
    """Return what a run waited for: the busiest of the threads that decode, encode and store."""
    decoding = seconds["decode"] + seconds["prepare"]
    loading = (seconds["read"] + decoding) / workers
    busy: dict[Bottleneck, float] = {
        "disk": loading if seconds["read"] > decoding else 0.0,
        "decoding": loading if seconds["read"] <= decoding else 0.0,
        "model": seconds["encode"] / callers,
        "storing": seconds["store"] + seconds["build"],
        "looking": seconds["walk"],
    }
    return max(busy, key=lambda name: busy[name])
