"""The one way to open the file of a photo that is already in a collection.

Between indexing and showing, anybody who may write into the folder may have put something else in
the place of a photo: a link to another file of this machine, a pipe, a file of passwords. And a
collection that a stranger made may name any path.
"""

import io
import os
import stat
from pathlib import Path, PurePosixPath

from vitsearch.errors import PhotoError
from vitsearch.photos.decode import MAX_BYTES, fingerprint_of_file
from vitsearch.photos.formats import HEAD, container_of, format_of, is_video
from vitsearch.types import Photo

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # a pipe or device that has just taken its place never blocks
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_OUTSIDE = "it lies outside the photo folder"
_CHANGED = "it has changed since it was indexed: run `vitsearch index`"


class PhotoMissing(PhotoError):
    """There is no file at the path of a photo."""


def read_open(file: io.FileIO) -> bytes:
    """Return the rest of an open file; raises PhotoError."""
    try:
        return file.readall()
    except MemoryError:
        raise PhotoError("not enough memory to read the file") from None
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror or error}") from error


def open_photo(root: Path, path: str, indexed: Photo | None = None) -> io.FileIO:
    """Return the file of a photo, opened once, to be read from its beginning and closed by the
    caller; ``path`` is relative to ``root``, with ``/``.

    It is a regular file whose content is of a format that is read here. With ``indexed`` it has the
    size and time that were indexed, or the content. It lies inside the root after links are
    resolved; a link that leads out of it is followed only to the very content that was indexed.
    Raises PhotoMissing where there is no file, PhotoError with a short reason for any other.
    """
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise PhotoError(_OUTSIDE)
    name = os.path.join(root, path)
    try:
        file = io.FileIO(name, "rb", opener=lambda name, _: os.open(name, _FLAGS))
    except FileNotFoundError as error:
        raise PhotoMissing(f"cannot be opened: {error.strerror}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(f"cannot be opened: {reason}") from error
    try:
        _check(file, root, name, indexed)
        file.seek(0)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            raise PhotoError(f"cannot be read: {error.strerror or error}") from error
        raise
    return file


def _check(file: io.FileIO, root: Path, name: str, indexed: Photo | None) -> None:
    facts = os.fstat(file.fileno())
    if not stat.S_ISREG(facts.st_mode):
        raise PhotoError("not a regular file")
    if facts.st_size > MAX_BYTES and not is_video(name):
        raise PhotoError(f"the file has {facts.st_size:,} bytes, over the cap of {MAX_BYTES:,}")
    inside = _is_inside(facts, root, name)
    if indexed is None:
        if not inside:
            raise PhotoError(_OUTSIDE)
    elif not inside or (facts.st_size, facts.st_mtime_ns) != (indexed.size, indexed.mtime_ns):
        if facts.st_size != indexed.size or fingerprint_of_file(file) != indexed.fingerprint:
            raise PhotoError(_CHANGED if inside else _OUTSIDE)
        file.seek(0)
    head = file.read(HEAD)
    if format_of(head) is None and container_of(head) is None:
        raise PhotoError("not a photo: its content is of no picture format that is read here")


def _is_inside(facts: os.stat_result, root: Path, name: str) -> bool:
    """Return whether an open file, reached by a name, lies below a folder."""
    real, folder = os.path.realpath(name), os.path.realpath(root)
    # it is the file that was opened, not one that has taken its place since
    return Path(real).is_relative_to(folder) and os.path.samestat(facts, os.stat(real))
