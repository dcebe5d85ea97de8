"""What the file system of a collection can do, and what to do where a disk refuses.

A network share, a FUSE mount or a folder of another machine may lack locks, shared memory maps or
a way to flush; SQLite's write-ahead log needs shared memory, which no network has.
"""

import errno
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitsearch.errors import CollectionError
from vitsearch.paths import NOT_SUPPORTED
from vitsearch.records import flush

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
