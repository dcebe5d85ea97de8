"""What lets threads and forked processes share an open collection: SQLite connections of their own,
and locks.
"""

import os
import sqlite3
import sys
import threading
from collections.abc import Callable

from vitsearch.storage.opening import FileConnection


class ProcessLock:
    """A lock that a thread may take again; a forked process has its own, since the thread that
    holds its parent's is not there to release it.
    """

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    def __enter__(self) -> None:
        self._locks.setdefault(os.getpid(), threading.RLock()).acquire()

    def __exit__(self, *_: object) -> None:
        self._locks[os.getpid()].release()


class ThreadConnections:
    """A connection to one file for each thread that asks for it, opened by ``connect`` when it
    first does; with ``shared`` one for all threads.

    A transaction belongs to a connection: threads that shared one would be in each other's. A
    forked process opens its own, since SQLite forbids to use, or to close, one of its parent.
    """

    def __init__(self, connect: Callable[[], FileConnection], *, shared: bool = False) -> None:
        self._connect, self._shared = connect, shared
        self._closed = False
        self._open: dict[tuple[int, int], FileConnection] = {}  # by process and thread

    def get(self) -> FileConnection:
        """Return this thread's connection; raises sqlite3.Error where it cannot be opened, or after
        `close`.
        """
        process = os.getpid()
        key = process, 0 if self._shared else threading.get_ident()
        db = self._open.get(key)
        if db is None:
            if self._closed:
                raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
            self._close({of for of in self._open if of[0] == process} - self._living(process))
            db = self._open[key] = self._connect()
        return db

    def close(self) -> None:
        """Close the connections of this process for good; a second call does nothing."""
        self._closed = True
        self._close({key for key in self._open if key[0] == os.getpid()})

    def _living(self, process: int) -> set[tuple[int, int]]:
        return {(process, thread) for thread in (0, *sys._current_frames())}

    def _close(self, keys: set[tuple[int, int]]) -> None:
        for key in keys:
            if db := self._open.pop(key, None):
                db.close()
