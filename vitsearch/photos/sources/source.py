"""What a source of photos is, names in a fixed order and their bytes; and the simplest one, a local
folder, walked and read as indexing does.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from vitsearch.errors import CollectionError, PhotoError, VitsearchError
from vitsearch.photos.decode import MAX_BYTES, read_bytes
from vitsearch.photos.walk import walk

SourceFormat = Literal["auto", "folder", "parquet", "tar"]
Urls = Literal["none", "public", "private"]  # of the web, from which photos may be fetched
FORMATS: tuple[SourceFormat, ...] = ("auto", "folder", "parquet", "tar")
CUT = "the tar ends before it does"
EMPTY = "the file is empty (0 bytes)"


@dataclass(frozen=True, slots=True)
class Entry:
    """One photo of a source.

    ``path`` is its identity. ``container`` names the tar or Parquet file that holds it, at the byte
    or in the row ``position``; both are None for a file of its own. ``size`` is in bytes, 0 where
    only reading tells it (Parquet). ``mtime_ns`` is that of the file, of the member of a tar, or of
    the Parquet file; 0 where nothing says it. ``problem`` is a reason not to read it, else None;
    ``caption`` is what the data set says of it.
    """

    path: str
    size: int
    mtime_ns: int
    container: str | None = None
    position: int | None = None
    problem: str | None = None
    caption: str | None = None


class Source(Protocol):
    """Photos in one location; plain data, so that it can be sent to another process, which opens
    files for itself.
    """

    @property
    def name(self) -> str:
        """The absolute name or URL; `open_source` gives the same source for it."""

    def entries(self) -> Iterator[Entry]:
        """Yield every photo in an order that is the same each time; no path comes twice.

        Raises CollectionError where the location is gone, cannot be listed, or has a path twice.
        """

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        """Yield the bytes of each entry, or why it has none, in their order; nothing is raised.

        What lies together is read together, ahead of the consumer by at most 64 MB, or one photo,
        or one row group: many entries are better given at once than one by one.
        """


def rejection(entry: Entry) -> PhotoError | None:
    """Return why an entry is not to be read, None where it may be."""
    if entry.problem is not None:
        return PhotoError(entry.problem)
    return over_cap(entry.size)


def over_cap(size: int) -> PhotoError | None:
    """Return the rejection of a photo of so many bytes, None where it is not too large."""
    return (
        PhotoError(f"the file has {size:,} bytes, over the cap of {MAX_BYTES:,}")
        if size > MAX_BYTES
        else None
    )


def checked(data: bytes) -> bytes | PhotoError:
    """Return the bytes of a photo, or why they cannot be one."""
    return over_cap(len(data)) or data or PhotoError(EMPTY)


def read_error(error: BaseException) -> PhotoError:
    """Return in a few words why bytes could not be read."""
    if isinstance(error, FileNotFoundError):
        return PhotoError("cannot be opened: No such file or directory")
    if isinstance(error, PermissionError):
        return PhotoError("cannot be opened: Permission denied")
    if isinstance(error, MemoryError):
        return PhotoError("not enough memory to read the file")
    return PhotoError(f"cannot be read: {error_text(error)}")


def error_text(error: BaseException) -> str:
    """Return what an error says, in one short line that is UTF-8."""
    text = (
        str(getattr(error, "strerror", None) or error)
        .encode("utf-8", "backslashreplace")
        .decode("utf-8")
    )
    return " ".join(text.split())[:160] or type(error).__name__


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """The photos below a folder of this machine, in the order of the bytes of their paths; a folder
    that cannot be read is an entry.
    """

    name: str

    def entries(self) -> Iterator[Entry]:
        unreadable: list[Entry] = []

        def on_unreadable(path: str, reason: str) -> None:
            unreadable.append(Entry(path, 0, 0, problem=f"cannot be read: {reason}"))

        try:
            for file in walk(Path(self.name), on_unreadable=on_unreadable):
                yield from unreadable
                unreadable.clear()
                yield Entry(file.path, file.size, file.mtime_ns, problem=file.problem)
        except CollectionError:
            raise
        except VitsearchError as error:
            raise CollectionError(str(error)) from error
        yield from unreadable

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        return (read_local(entry, os.path.join(self.name, entry.path)) for entry in entries)


def read_local(entry: Entry, file: str) -> bytes | PhotoError:
    """Return the bytes of an entry that is a file of its own, or why it has none."""
    try:
        return rejection(entry) or read_bytes(file)
    except PhotoError as error:
        return error
