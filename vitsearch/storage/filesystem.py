"""What the file system of a collection can do, what to do where a disk refuses, and the lock for a
collection's only writer: the system's where there is one, else a file that the writer keeps fresh.

A network share, a FUSE mount or a folder of another machine may lack locks, shared memory maps or a
way to flush; SQLite's write-ahead log needs shared memory, which no network has.

A server has a run of indexing make room by a sign, a file of the collection that it touches while
it has more to do than there are cores; the run looks at its time between two batches. Both do
without it where the file cannot be written.
"""

import errno
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vitsearch.errors import CollectionError, CollectionLocked
from vitsearch.paths import NOT_SUPPORTED
from vitsearch.records import flush, from_dict, to_json
from vitsearch.untrusted import parse_json, read_bounded

LOCK = "lock"  # the file that a writer locks; also asked what locks the file system has

# kinds of file systems that are another machine's or another program's; with those of "fuse."
# (sshfs, rclone, s3fs, Docker Desktop, virtual machines)
_NOT_LOCAL = frozenset(
    (
        *("9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse", "gfs2"),
        *("glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs"),
        *("pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "webdav"),
    )
)
_NETWORK_DRIVE = 4  # GetDriveTypeW: DRIVE_REMOTE

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FAILING = {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT}


def is_local(folder: Path) -> bool:
    """Return whether a folder lies on a file system of this machine; True where nobody knows."""
    if sys.platform == "win32":
        return _is_local_drive(folder)
    real = os.path.realpath(folder)
    try:
        if sys.platform == "linux":
            mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
            kind = linux_kind(mounts, real)
            return kind not in _NOT_LOCAL and not kind.startswith("fuse.")
        mounts = subprocess.run(
            ["mount"], capture_output=True, text=True, errors="surrogateescape", timeout=5
        ).stdout
        return "local" in mount_flags(mounts, real)
    except (OSError, subprocess.SubprocessError):
        return True


def linux_kind(mounts: str, path: str) -> str:
    """Return the kind of the file system of a real path, such as ext4, from Linux's mountinfo."""
    deepest, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 4 and after:
            raw = fields[4].encode("utf-8", "surrogateescape")
            point = os.fsdecode(raw.decode("unicode_escape").encode("latin-1"))  # \040 is a space
            if len(point) >= len(deepest) and _is_below(path, point):
                deepest, kind = point, after.split(" ")[0]
    return kind


def mount_flags(mounts: str, path: str) -> list[str]:
    """Return the flags of the file system of a real path, from what `mount` prints on macOS or BSD.

    They are the kind and words such as local; ["local"] for a path that no line contains.
    """
    deepest, flags = "", ["local"]
    for line in mounts.splitlines():
        mount, _, words = line.rpartition(" (")
        point = mount.partition(" on ")[2]
        if point and len(point) >= len(deepest) and _is_below(path, point):
            deepest, flags = point, words.rstrip(")").split(", ")
    return flags


def _is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _is_local_drive(folder: Path) -> bool:
    if sys.platform != "win32":
        return True
    import ctypes

    root = os.path.splitdrive(os.path.abspath(folder))[0]
    if root.startswith("\\\\"):
        return False
    return bool(ctypes.windll.kernel32.GetDriveTypeW(root + "\\") != _NETWORK_DRIVE)


def has_locks(folder: Path) -> bool:
    """Return whether SQLite can lock files in a folder; True where no writer left a file to ask.

    It is the file `LOCK` that is asked: closing ``photos.db`` here would drop the locks that a
    connection of this process holds on it.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NOT_SUPPORTED
    finally:
        os.close(handle)
    return True


def can_flush(folder: Path) -> bool:
    """Return whether the file system can write through to its disk; raises OSError."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in NOT_SUPPORTED:
            return False
        raise
    finally:
        os.close(handle)
    return True


def advice(error: OSError) -> str:
    """Return what to do where a disk refused to write."""
    if error.errno in _FULL:
        return "free some space, and run again"
    if error.errno == errno.EROFS:
        return (
            "the disk is mounted read-only: mount it for writing, or put the collection elsewhere "
            "with --collection DIR"
        )
    if error.errno in _FAILING:
        return "check the disk, its cable or its network, and run again"
    if error.errno in NOT_SUPPORTED:
        return (
            "its file system does not have what a collection needs: put the collection elsewhere "
            "with --collection DIR"
        )
    return "check its permissions, or put the collection elsewhere with --collection DIR"


def write_problem(folder: Path) -> OSError | None:
    """Return why no file can be written in a folder now, None if one can."""
    file = folder / f".probe.{secrets.token_hex(4)}.new"
    try:
        with open(file, "wb") as opened:
            opened.write(bytes(4096))
            opened.flush()
            flush(opened.fileno())
    except OSError as error:
        return error
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)
    return None


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raise an OSError of the block as a CollectionError that says what to do."""
    try:
        yield
    except OSError as error:
        raise CollectionError(write_error(folder, error)) from error


def write_error(folder: Path, error: OSError) -> str:
    """Return in one line why a folder cannot be written, and what to do."""
    return (
        f"cannot write to {folder} ({error.strerror or error}): {advice(error)}; what was stored "
        "before is kept"
    )


# -- The lock --------------------------------------------------------------------------------------


HELD = "lock.held"
BEAT, STALE = 10.0, 60.0  # seconds: the writer touches its file; from when it counts as dead
ANSWERING = "answering"
FRESH = 1.0  # seconds for which requests keep a run waiting
SHARE = 16  # a run works a sixteenth of the time, so that it ends all the same
MAX_PAUSE = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that writes to a collection, and a random word that no other holder has."""

    host: str
    process: int
    token: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}" if self.process else "another process"


class LockFile:
    """A file in a collection's folder that says who writes to it.

    It serves where the file system has no locks, or may not share them with other machines. The
    holder touches it every ``beat`` seconds. A holder whose file is older than ``stale`` seconds,
    or whose process has ended on this machine, is dead.
    """

    def __init__(self, folder: Path, *, beat: float = BEAT, stale: float = STALE) -> None:
        self.file = folder / HELD
        self.beat, self.stale = beat, stale
        self.holder = Holder(socket.gethostname(), os.getpid(), secrets.token_hex(8))

    @property
    def process(self) -> tuple[str, int]:
        """The host and number of this process, as a holder has them."""
        return self.holder.host, self.holder.process

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the block; raises CollectionLocked and OSError."""
        self._take()
        ended = threading.Event()
        beating = threading.Thread(target=self._keep_fresh, args=(ended,), daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()
            if self._read() == self.holder:
                with suppress(OSError):
                    self.file.unlink()

    def live_holder(self) -> Holder | None:
        """Return who is writing, None for nobody or a process that has died."""
        holder = self._read()
        if holder is None or (holder.host == self.holder.host and not _is_running(holder.process)):
            return None
        with suppress(OSError):
            if self._now() - self.file.stat().st_mtime <= self.stale:
                return holder
        return None

    def _take(self) -> None:
        if holder := self.live_holder():
            raise locked(self.file.parent, holder)
        dead = self._read()
        if dead is not None:
            aside = self.file.with_name(f".{HELD}.{self.holder.token}.new")
            with suppress(FileNotFoundError):
                os.rename(self.file, aside)
                if _read(aside) != dead:  # another process was quicker: the file is already its own
                    os.rename(aside, self.file)
                aside.unlink(missing_ok=True)
        try:
            handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            raise locked(self.file.parent, self._read()) from None
        with open(handle, "w", encoding="ascii") as opened:
            opened.write(to_json(self.holder))

    def _keep_fresh(self, ended: threading.Event) -> None:
        while not ended.wait(self.beat):
            if self._read() != self.holder:
                return  # taken over while this machine slept
            with suppress(OSError):
                os.utime(self.file)

    def _read(self) -> Holder | None:
        return _read(self.file)

    def _now(self) -> float:
        """Return the time by the clock of the file system, which may be another machine's."""
        file = self.file.with_name(f".{HELD}.{secrets.token_hex(4)}.new")
        try:
            file.touch()
            return file.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _read(file: Path) -> Holder | None:
    try:
        return from_dict(Holder, parse_json(read_bounded(file)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # of a process that died, or is just writing it
        return Holder("", 0, "")


def _is_running(process: int) -> bool:
    if sys.platform == "win32":
        return True  # its age decides: signal 0 would end it there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def locked(folder: Path, holder: Holder | None = None) -> CollectionLocked:
    """Return the error for a collection that somebody writes to."""
    who = f"another vitsearch ({holder})" if holder and holder.process else "another vitsearch"
    return CollectionLocked(
        f"{who} is writing to {folder}: wait until it is done (searching goes on meanwhile)"
    )


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the collection's lock for the block; the system releases it if the process ends.

    On a file system without locks, or of another machine, a `LockFile` is held too. Raises
    CollectionLocked while another process holds it, and CollectionError where the disk refuses.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with disk_errors(folder):
            is_locked = _locked(handle, folder)
        lock_file = LockFile(folder)
        if not is_locked or not is_local(folder):
            with _with_disk_errors(lock_file, folder):
                yield
            return
        if holder := lock_file.live_holder():
            raise locked(folder, holder)
        yield
    finally:
        os.close(handle)


@contextmanager
def _with_disk_errors(lock_file: LockFile, folder: Path) -> Iterator[None]:
    """Hold a lock file; only what taking it raises is an error of the disk."""
    holding = lock_file.held()
    with disk_errors(folder):
        holding.__enter__()
    try:
        yield
    finally:
        holding.__exit__(None, None, None)


def _locked(handle: int, folder: Path) -> bool:
    """Lock a file and return True, or False where the file system has no locks.

    Raises CollectionLocked while another process has it, and OSError.
    """
    try:
        _lock(handle)
    except OSError as error:
        if error.errno in NOT_SUPPORTED:
            return False
        if isinstance(error, BlockingIOError | PermissionError):
            raise locked(folder) from error
        raise
    return True


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- A server beside a run of indexing -------------------------------------------------------------


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
