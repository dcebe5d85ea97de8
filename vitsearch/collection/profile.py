"""Where the time of a run goes: seconds of work by stage, and a trace of it for
`chrome://tracing`.
"""

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
from vitsearch.types import STAGES, Bound, Stages

MAX_EVENTS = 100_000


def trace_file(name: str | os.PathLike[str] | None) -> Path | None:
    """Return the file for a trace; raises CollectionError where it cannot lie there: said before
    long work, not after it.
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
    """Adds up the time of the stages, from any thread; with ``traces`` it also keeps the first
    ``most_events`` pieces of work.
    """

    def __init__(self, *, traces: bool = False, most_events: int = MAX_EVENTS) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.dropped = 0
        self._most = most_events if traces else 0
        self._traces = traces
        self._events: list[tuple[str, str, float, float, int]] = []
        self._threads: dict[int, str] = {}
        self._lock = threading.Lock()
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str, what: str = "") -> Iterator[None]:
        """Count the block under a stage; ``what`` names the photo or the batch."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._add(name, what, started, time.perf_counter() - started)

    def _add(self, name: str, what: str, started: float, seconds: float) -> None:
        with self._lock:
            self.seconds[name] += seconds
            if len(self._events) < self._most:
                thread = threading.get_ident()
                self._threads.setdefault(thread, threading.current_thread().name)
                self._events.append((name, what, started - self._started, seconds, thread))
            elif self._traces:
                self.dropped += 1

    def report(
        self, *, wall: float, workers: int, callers: int = 1, trace: Path | None = None
    ) -> Stages:
        """Return the times of a run of ``wall`` seconds, in which ``workers`` threads decoded and
        ``callers`` encoded.

        ``trace`` is the file for `write_trace`.
        """
        if trace:
            self.write_trace(trace)
        return Stages(**self.seconds, wall=wall, bound=_bound(self.seconds, workers, callers))

    def write_trace(self, file: Path) -> None:
        """Write the events in Chrome's trace format, aside and then renamed; raises
        CollectionError.

        One complete event (``ph`` X) for each piece of work, times in microseconds since the run
        began, ``tid`` a number for each thread. The format is the Trace Event Format of Google's
        catapult.
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
        facts = {
            "traceEvents": [*names, *events],
            "displayTimeUnit": "ms",
            "otherData": {"events_left_out": self.dropped},
        }
        try:
            atomic_write(file, json.dumps(facts, ensure_ascii=True), sync=False)
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


def _bound(seconds: dict[str, float], workers: int, callers: int) -> Bound:
    """Return what a run waited for: of the threads that decode, those that encode and the one that
    stores, the busiest.
    """
    decoding = seconds["decode"] + seconds["prepare"]
    busy: dict[Bound, float] = {
        "disk": (seconds["read"] + decoding) / workers if seconds["read"] > decoding else 0.0,
        "decoding": (seconds["read"] + decoding) / workers if seconds["read"] <= decoding else 0.0,
        "model": seconds["encode"] / callers,
        "storing": seconds["store"] + seconds["build"],
        "looking": seconds["walk"],
    }
    return max(busy, key=lambda name: busy[name])
