"""A server that answers many requests, and a run of indexing beside it that makes room.

The server touches a file of the collection while it has more to do than there are cores; the run
looks at its time between two batches. Both do without it where the file cannot be written.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

ANSWERING = "answering"
FRESH = 1.0  # seconds for which requests keep a run waiting
SHARE = 16  # a run works a sixteenth of the time, so that it ends all the same
MAX_PAUSE = 3.0  # seconds


class AnsweringNote:
    """The note of a server that it has much to do, written twice a second at most."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / ANSWERING
        self._written = -FRESH

    def touch(self) -> None:
        """Note that there is much to do."""
        now = time.monotonic()
        if now - self._written > FRESH / 2:
            self._written = now
            with suppress(OSError):
                os.close(os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o666))
                os.utime(self._file)


def make_room(folder: Path, seconds: float) -> None:
    """Wait after ``seconds`` of work where a server of the collection has much to do just now."""
    end = time.monotonic() + min(SHARE * seconds, MAX_PAUSE)
    while time.monotonic() < end and is_answering(folder):
        time.sleep(min(0.1, max(0.0, end - time.monotonic())))


def is_answering(folder: Path) -> bool:
    """Return whether a server of the collection has had much to do within the last second."""
    try:
        return abs(time.time() - os.stat(folder / ANSWERING).st_mtime) < FRESH
    except OSError:
        return False
