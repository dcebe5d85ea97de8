"""Names of sources: local paths and URLs, patterns and braces."""

import itertools
import os
import posixpath
import re
from collections.abc import Iterator

from vitsearch.errors import CollectionError
from vitsearch.photos.formats import SUFFIXES, suffix_of
from vitsearch.photos.walk import left_out_by_default

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
