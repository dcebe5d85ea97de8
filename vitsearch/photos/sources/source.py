"""What a source of photos is: names in a fixed order, their bytes, and the captions that data sets
bring with them (beside them in a tar, or in a column). With the names that sources have, local
paths, URLs, patterns and braces, and the simplest source, a local folder, walked and read as
indexing does.
"""

import itertools
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from vitsearch.errors import CollectionError, PhotoError, VitsearchError
from vitsearch.photos.decode import MAX_BYTES, read_bytes
from vitsearch.photos.exif import MAX_WORDS_LENGTH, one_line
from vitsearch.photos.formats import SUFFIXES, suffix_of
from vitsearch.photos.walk import left_out_by_default, walk
from vitsearch.types import PhotoInfo

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*|\d+\.\.\d+)\}")
MAGIC = re.compile(r"[*?\[]")
_MAX_NAMES = 1_000_000


def protocol_of(name: str) -> str | None:
    """Return the protocol of a URL in lower case, None for a local name."""
    match = _URL.match(name)
    return match[1].lower() if match else None


def absolute(name: str) -> str:
    """Return the absolute name of a local path with ``/``, or a URL without its last ``/``;
    ``file://`` is local.
    """
    if not name:
        raise CollectionError(
            "the name of the photos is empty: name a folder, a URL such as s3://bucket/photos, a "
            ".parquet or a .tar"
        )
    protocol = protocol_of(name)
    if protocol is not None and protocol != "file":
        return name.rstrip("/")
    local = name[len("file://") :] if protocol else name
    return os.path.abspath(os.path.expanduser(local)).replace(os.sep, "/")


def below(folder: str, path: str) -> str:
    """Return the name of what a relative path means below a folder or URL."""
    return f"{folder.rstrip('/')}/{path}"


def relative(folder: str, name: str) -> str:
    """Return a name without the folder that it begins with."""
    return name.removeprefix(folder.rstrip("/") + "/")


def folder_of(name: str) -> str:
    """Return the folder of a file, or of a pattern the last folder before its first wildcard."""
    before = re.split(r"[*?\[{]", name, maxsplit=1)[0]
    return before.rpartition("/")[0] or "/"


def is_photo(name: str) -> bool:
    """Return whether a file of this name may be a photo: by its suffix, and not left out."""
    return suffix_of(name) in SUFFIXES and left_out_by_default(name) is None


def is_pattern(name: str) -> bool:
    """Return whether a name has wildcards or braces."""
    return bool(MAGIC.search(name) or _BRACES.search(name))


def identity(path: str) -> str | None:
    """Return a name given inside a file as a path without ``.`` and ``..``; None where it is empty
    or leads out of its folder.
    """
    normal = posixpath.normpath(path) if path else ""
    outside = (
        normal in ("", ".", "..")
        or normal.startswith(("/", "../"))
        or protocol_of(path) is not None
        or "\0" in normal
    )
    return None if outside else normal


def expanded(name: str) -> Iterator[str]:
    """Yield the names that braces stand for, as a shell does: ``{000..012}`` and ``{a,b}``; raises
    CollectionError for over a million.
    """
    parts = _BRACES.split(name)
    choices = [_choices(part) if position % 2 else [part] for position, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > _MAX_NAMES:
        raise CollectionError(
            f"{name} stands for {count:,} files, over {_MAX_NAMES:,}: name "
            "fewer at once, or a folder"
        )
    return ("".join(chosen) for chosen in itertools.product(*choices))


def _choices(inside: str) -> "list[str] | _Numbers":
    if "," in inside:
        return inside.split(",")
    return _Numbers(*inside.split(".."))


class _Numbers:
    """The numbers of ``{first..last}``, as wide as the wider of the two where one begins with a
    zero.
    """

    def __init__(self, first: str, last: str) -> None:
        self._range = (
            range(int(first), int(last) + 1)
            if int(first) <= int(last)
            else range(int(first), int(last) - 1, -1)
        )
        padded = any(len(text) > 1 and text.startswith("0") for text in (first, last))
        self._width = max(len(first), len(last)) if padded else 1

    def __len__(self) -> int:
        return len(self._range)

    def __iter__(self) -> Iterator[str]:
        return (f"{number:0{self._width}d}" for number in self._range)


CAPTION_COLUMNS = ("caption", "text", "TEXT")  # of Parquet files, the first that is there
CAPTION_SUFFIXES = (
    ".txt",
    ".json",
)  # of members of a tar, the first wins (webdataset, img2dataset)
MAX_CAPTION_BYTES = 64 * 1024


# -- Captions --------------------------------------------------------------------------------------


class SampleTexts:
    """The text and JSON members of a tar by the samples that they belong to.

    A member of the name of the photo, but for the last suffix, is its text; otherwise, as in
    webdataset, where the name ends at its first dot, if one photo and no other has that name.
    """

    def __init__(self) -> None:
        self._by_stem: dict[str, dict[str, bytes]] = {}
        self._by_key: dict[str, list[tuple[str, bytes]]] = {}

    def add(self, member: str, data: bytes) -> None:
        """Add a member."""
        stem, suffix = os.path.splitext(member)
        self._by_stem.setdefault(stem, {})[suffix] = data
        self._by_key.setdefault(key_of(member), []).append((suffix, data))

    def captions(self, photos: Sequence[str]) -> list[str | None]:
        """Return the caption of each photo, by the names of all that the tar holds."""
        counts = Counter(map(key_of, photos))
        return [self._caption(photo, alone=counts[key_of(photo)] == 1) for photo in photos]

    def _caption(self, photo: str, *, alone: bool) -> str | None:
        texts = self._by_stem.get(os.path.splitext(photo)[0])
        if texts is None and alone:
            members = self._by_key.get(key_of(photo), [])
            texts = dict(members) if len(dict(members)) == len(members) else None
        for suffix in CAPTION_SUFFIXES if texts else ():
            if texts and suffix in texts and (caption := _read(suffix, texts[suffix])):
                return caption
        return None


def key_of(member: str) -> str:
    """Return what the members of one sample share: the path up to the first dot of the name."""
    folder, slash, name = member.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _read(suffix: str, data: bytes) -> str | None:
    text: object = data.decode("utf-8", "replace")
    if suffix == ".json":
        try:
            record = json.loads(data)
        except (ValueError, RecursionError):
            return None
        values = [record.get(name) for name in CAPTION_COLUMNS] if isinstance(record, dict) else []
        text = next((value for value in values if isinstance(value, str)), None)
    return readable(text)


def readable(text: object) -> str | None:
    """Return a caption on one line, None for what is not a text or is empty."""
    return one_line(text, MAX_WORDS_LENGTH) or None if isinstance(text, str) else None


def with_caption(info: PhotoInfo, caption: str | None) -> PhotoInfo:
    """Return the facts of a photo with a caption as its description, where it has none itself."""
    if caption is None or info["description"]:
        return info
    return replace(info, metadata={**info.metadata, "description": caption})


# -- Sources ---------------------------------------------------------------------------------------


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
