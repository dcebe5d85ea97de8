"""Run a program to its end and say what it cost: its last line of JSON, wall time, and the memory
of all its processes.
"""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

EVERY = 0.5  # seconds between two looks at the memory; a look takes some milliseconds


@dataclass(frozen=True)
class Run:
    """One run: what it printed, seconds from start to end, and bytes: of its largest process, and
    at most of all together.
    """

    report: dict[str, Any]
    total: float
    largest: int
    together: int


class Failed(Exception):
    """A program ended with an error or took too long; the message is its last line."""


@dataclass
class Watch:
    """The highest memory of a process and those that it started, each shared page counted once."""

    process: int
    peak: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Look until it has ended."""
        while not self.ended.wait(EVERY):
            self.peak = max(self.peak, sum(map(proportional, family(self.process))))


def run(command: list[str | Path], *, env: dict[str, str], limit: float) -> Run:
    """Run a command; raises Failed with its last line of error, also where it takes more than
    ``limit`` seconds.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, env=env, start_new_session=True
        )
        watch = Watch(process.pid)
        timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        threads = [timer, threading.Thread(target=watch.run)]
        for thread in threads:
            thread.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            total = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            watch.ended.set()
            for thread in threads:
                thread.join()
            with suppress(
                ProcessLookupError
            ):  # nobody outlives it, and it does not outlive an interrupt
                os.killpg(process.pid, signal.SIGKILL)
        printed, wrong = whole_text(output), whole_text(errors)
    if process.returncode:
        late = (
            f"not done after {limit:.0f} s" if total >= limit else f"exit code {process.returncode}"
        )
        raise Failed((wrong.strip() or late).splitlines()[-1])
    largest = usage.ru_maxrss * 1024
    return Run(last_json(printed), total, largest, max(largest, watch.peak))


def whole_text(file: IO[str]) -> str:
    """Return all that was written to a file."""
    file.seek(0)
    return file.read()


def last_json(text: str) -> dict[str, Any]:
    """Return the object in the last line; raises Failed where there is none."""
    try:
        report = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise Failed("it ended without saying what it did") from error
    if not isinstance(report, dict):
        raise Failed("it ended without saying what it did")
    return report


def family(process: int) -> list[int]:
    """Return a process and all that it started and that still run."""
    children: list[str] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            children += (thread / "children").read_text().split()
    return [process, *(member for child in children for member in family(int(child)))]


def proportional(process: int) -> int:
    """Return the bytes of a process, pages shared with others in parts; 0 for one that is gone."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
