"""Where the time of a run of indexing goes: the seconds of each stage, and a trace of its work."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitsearch.errors import CollectionError
from vitsearch.records import atomic_write
from vitsearch.types import STAGES, Bottleneck, Stages

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
