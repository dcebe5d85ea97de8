"""Connections to ``photos.db`` as its file system allows: with a write-ahead log on a local one,
with a rollback journal elsewhere, without SQLite's locks where there are none. Threads and
forked processes that share an open collection have connections of their own.
"""

import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from vitsearch.arrays import Ids
from vitsearch.errors import CollectionError, CollectionLocked
from vitsearch.storage.filesystem import LockFile, can_flush, has_locks, is_local
from vitsearch.storage.schema import NO_PERMISSION

log = logging.getLogger("vitsearch")
_NO_LOCKS = "win32-none" if sys.platform == "win32" else "unix-none"  # of SQLite's file layers
_NO_SHARED_MEMORY = {
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMLOCK,
}
_PATIENCE = 30  # seconds to wait for another process
_READ_CACHE_KB = 256  # of the database that a reader remembers
_READ = "SELECT count(*) FROM sqlite_master"


def _nothing(_: bool) -> None:
    pass


class FileConnection(sqlite3.Connection):
    """A connection, and a check to call when a block begins and, before its commit, when it ends.

    The check raises CollectionError where SQLite's locks do not keep other processes away, and one
    of them is at work.
    """

    check: Callable[[bool], None] = staticmethod(_nothing)  # whether the block begins
    filtered: Mapping[object, Ids] = MappingProxyType(
        {}
    )  # what the last filters left in a state of the file
    filtered_state: object = None


def connect(path: Path, read_only: bool) -> FileConnection:
    """Return an open connection to a file; raises sqlite3.Error, CollectionError and OSError."""
    return _reader(path) if read_only else _writer(path)


def _writer(path: Path) -> FileConnection:
    folder = path.parent
    locks, local = has_locks(folder), is_local(folder)
    layer = "" if locks else _NO_LOCKS
    flushes = can_flush(folder)
    if not flushes:
        log.warning(
            f"the file system of {folder} cannot write through to its disk: a power cut may damage "
            "the collection"
        )
    try:
        db = _with_journal(path, "WAL" if locks and local else "DELETE", layer, flushes)
    except sqlite3.OperationalError as error:
        if not _lacks_shared_memory(error, path):
            raise
        _leave_wal(path, layer, flushes)
        db = _with_journal(path, "DELETE", layer, flushes)
    if not (locks and local):
        db.check = lambda _: _check_own(folder)
    return db


def _with_journal(path: Path, mode: str, layer: str, flushes: bool) -> FileConnection:
    db = _opened(path, f"PRAGMA synchronous = {'FULL' if flushes else 'OFF'}", layer)
    try:
        current = db.execute("PRAGMA journal_mode").fetchone()[0]
        if current != mode.lower():
            current = _changed_journal(db, mode)
        db.execute(_READ).fetchone()
        if flushes and current == "wal":
            db.execute("PRAGMA synchronous = NORMAL")
    except (sqlite3.Error, UnicodeDecodeError):
        db.close()
        raise
    return db


def _changed_journal(db: FileConnection, mode: str) -> str:
    """Set the kind of journal and return the one that the file then has.

    A write-ahead log cannot be left while somebody reads by it.
    """
    db.execute(f"PRAGMA busy_timeout = {1000 if mode == 'DELETE' else _PATIENCE * 1000}")
    try:
        return str(db.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or mode == "WAL":
            raise
        return "wal"
    finally:
        db.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000}")


def _leave_wal(path: Path, layer: str, flushes: bool) -> None:
    """Move a write-ahead log into its file, and give the file a rollback journal.

    In exclusive mode SQLite needs no shared memory for that.
    """
    db = _opened(path, "PRAGMA locking_mode = EXCLUSIVE", layer)
    try:
        db.execute(f"PRAGMA synchronous = {'FULL' if flushes else 'OFF'}")
        db.execute("PRAGMA journal_mode = DELETE").fetchone()
    finally:
        db.close()
    with suppress(OSError):
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)  # left by the first attempt


def _reader(path: Path) -> FileConnection:
    locks = has_locks(path.parent)
    check = _nothing if locks else _Reading(path, follows=True).check
    check(True)
    layer = "" if locks else _NO_LOCKS
    try:
        return _checked(_opened(path, _READ, layer, read_only=True), check)
    except sqlite3.OperationalError as error:
        if not path.exists() or not (
            _lacks_shared_memory(error, path) or error.sqlite_errorcode & 0xFF in NO_PERMISSION
        ):
            raise
    if _has_content(path, "-journal"):
        _roll_back(path, layer)
        return _checked(_opened(path, _READ, layer, read_only=True), check)
    # the folder is read-only, or has no shared memory: in exclusive mode the index of the log is
    # in this process's memory, and nothing is written; where there is no log SQLite would make one
    check = _Reading(path, follows=False).check
    alone = not _has_content(path, "-wal")
    first = "PRAGMA locking_mode = EXCLUSIVE"
    db = _opened(path, first, _NO_LOCKS, read_only=True, immutable=alone)
    try:
        db.execute(_READ).fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return _checked(db, check)


def _checked(db: FileConnection, check: Callable[[bool], None]) -> FileConnection:
    db.check = check
    return db


def _roll_back(path: Path, layer: str) -> None:
    """Take back what a killed writer had not committed; raises CollectionError."""
    try:
        _opened(path, _READ, layer).close()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in NO_PERMISSION:
            raise
        raise CollectionError(
            f"{path} has an unfinished change of a stopped run, which cannot be taken back here: "
            "run `vitsearch index` where the folder can be written, or copy the folder to a disk "
            "that can"
        ) from error


def _opened(
    path: Path, first: str, layer: str = "", *, read_only: bool = False, immutable: bool = False
) -> FileConnection:
    """Return a connection after a first statement, which finds out whether the file can be used.

    SQLite opens an ``immutable`` file without a log; the caller looks whether it changes.
    """
    options = [f"vfs={layer}"] if layer else []
    options += ["mode=ro"] if read_only else []
    options += ["immutable=1"] if immutable else []
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?{'&'.join(options)}",
        uri=True,
        isolation_level=None,
        timeout=_PATIENCE,
        check_same_thread=False,
        factory=FileConnection,
    )
    try:
        db.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        db.execute(first).fetchone()
        db.execute("PRAGMA foreign_keys = ON")
        if read_only:  # each of a server's threads has a connection, and memory of its own for it
            db.execute(f"PRAGMA cache_size = -{_READ_CACHE_KB}")
    except (sqlite3.Error, UnicodeDecodeError):
        db.close()
        raise
    return db


def _lacks_shared_memory(error: sqlite3.OperationalError, path: Path) -> bool:
    """Return whether a connection failed for want of the memory that a log is shared by.

    Without locks SQLite does not try, and says that it cannot open the file.
    """
    return error.sqlite_errorcode in _NO_SHARED_MEMORY or (
        error.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN and path.exists()
    )


def _has_content(path: Path, suffix: str) -> bool:
    try:
        return path.with_name(path.name + suffix).stat().st_size > 0
    except OSError:
        return False


# -- where SQLite's locks do not serve -------------------------------------------------------------


def _check_own(folder: Path) -> None:
    """Raise CollectionLocked unless this process holds the lock file of a folder."""
    lock_file = LockFile(folder)
    holder = lock_file.live_holder()
    if holder and (holder.host, holder.process) != lock_file.process:
        raise CollectionLocked(
            f"{holder} has taken over {folder} while this process stood still: run again when it "
            "is done; what was stored before is kept"
        )


class _Reading:
    """Checks that nobody writes to a file beside a reader.

    A connection that ``follows`` the file sees in each block what was written before it, another
    one only what there was when it was opened.
    """

    def __init__(self, path: Path, *, follows: bool) -> None:
        self.folder, self.follows = path.parent, follows
        self._files = [path, path.with_name(f"{path.name}-wal")]
        self._lock_file = LockFile(self.folder)
        self._versions = [_version_of(file) for file in self._files]

    def check(self, begins: bool) -> None:
        """Raise CollectionLocked while a process writes, CollectionError after it has."""
        if holder := self._lock_file.live_holder():
            raise CollectionLocked(
                f"{holder} is writing to {self.folder}, whose file system has no locks to read "
                "beside it: wait until it is done, or put the collection elsewhere with "
                "--collection DIR"
            )
        versions = [_version_of(file) for file in self._files]
        if begins and self.follows:
            self._versions = versions
        if versions != self._versions:
            advice = "try again" if self.follows else "open the collection again"
            raise CollectionError(
                f"{self._files[0]} was changed by another process meanwhile: {advice}"
            )


def _version_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    # SQLite itself makes an empty log
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status.st_size else None


# -- Threads and forked processes ------------------------------------------------------------------


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
