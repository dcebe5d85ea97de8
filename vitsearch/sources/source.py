"""What a source of photos is: names in a fixed order, and their bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from vitsearch.errors import PhotoError
from vitsearch.photos.decode import MAX_BYTES

SourceFormat = Literal["auto", "folder", "parquet", "tar"]
FORMATS: tuple[SourceFormat, ...] = ("auto", "folder", "parquet", "tar")
CUT = "the tar ends before it does"


@dataclass(frozen=True, slots=True)
class Entry:
    """One photo of a source.

    ``path`` is its identity. ``container`` names the tar or Parquet file that holds it, at the byte or in the row ``place``; both are None
    for a file of its own. ``size`` is in bytes, 0 where only reading tells it (Parquet). ``mtime_ns`` is that of the file, of the member of
    a tar, or of the Parquet file; 0 where nobody says it. ``problem`` is a reason not to read it, else None.
    """

    path: str
    size: int
    mtime_ns: int
    container: str | None = None
    place: int | None = None
    problem: str | None = None


class Source(Protocol):
    """Photos at one place; plain data, so that it can be sent to another process, which opens files for itself."""

    @property
    def name(self) -> str:
        """The absolute name or URL of the place; `open_source` gives the same source for it."""

    def entries(self) -> Iterator[Entry]:
        """Yield every photo in an order that is the same each time; no path comes twice.

        Raises CollectionError where the place is gone, cannot be listed, or has a path twice.
        """

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        """Yield the bytes of each entry, or why it has none, in their order; nothing is raised.

        What lies together is read together, ahead of the consumer by at most 64 MB, or one photo, or one row group: many entries are better
        given at once than one by one.
        """


def refusal(entry: Entry) -> PhotoError | None:
    """Return why an entry is not to be read, None where it may be."""
    if entry.problem is not None:
        return PhotoError(entry.problem)
    return over_cap(entry.size)


def over_cap(size: int) -> PhotoError | None:
    """Return the refusal of a photo of so many bytes, None where it is not too large."""
    return PhotoError(f"the file has {size:,} bytes, over the cap of {MAX_BYTES:,}") if size > MAX_BYTES else None


def content(data: bytes) -> bytes | PhotoError:
    """Return the bytes of a photo, or why they are none."""
    return over_cap(len(data)) or data or PhotoError("the file is empty (0 bytes)")


def why(error: BaseException) -> PhotoError:
    """Return in a few words why bytes could not be read."""
    if isinstance(error, FileNotFoundError):
        return PhotoError("cannot be opened: No such file or directory")
    if isinstance(error, PermissionError):
        return PhotoError("cannot be opened: Permission denied")
    if isinstance(error, MemoryError):
        return PhotoError("not enough memory to read the file")
    return PhotoError(f"cannot be read: {words(error)}")


def words(error: BaseException) -> str:
    """Return what an error says, in one short line that is UTF-8."""
    said = str(getattr(error, "strerror", None) or error).encode("utf-8", "backslashreplace").decode("utf-8")
    return " ".join(said.split())[:160] or type(error).__name__
