"""The user's cache folder, paths as bytes, and what file systems lack."""

import errno
import math
import os
import shlex
import subprocess
import sys
import unicodedata
from itertools import product
from pathlib import Path

# what file systems answer to calls that they do not have (locks, shared maps, flushing)
NOT_SUPPORTED = frozenset(
    {errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
)


MAX_FORMS = 32  # of one path, with names composed and others decomposed


def cache_dir() -> Path:
    """Return ``$VITSEARCH_HOME``, or else ``vitsearch`` in the user's cache folder."""
    folder = os.environ.get("VITSEARCH_HOME")
    if folder:
        return Path(folder)
    if sys.platform == "win32":
        parent = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        parent = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(parent) / "vitsearch"


def shell_word(path: str | os.PathLike[str]) -> str:
    """Return a path as a word of a command that is pasted into a shell."""
    text = os.fspath(path)
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)


def composed(text: str) -> str:
    """Return a text in NFC: names that people type are composed, those that a Mac wrote are not."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def caseless(text: str) -> str:
    """Return a text that is the same for all that differ in case or in normal form only (canonical
    caseless matching, Unicode 3.13, D145).
    """
    return composed(unicodedata.normalize("NFD", text).casefold())


def normal_forms(text: str) -> list[str]:
    """Return a text as it is, and as a path with each of its names composed or decomposed (NFC,
    NFD), each once; with more than 5 such names, all of them are in one form.
    """
    if text.isascii():
        return [text]
    wholes = (composed(text), unicodedata.normalize("NFD", text))
    names = [
        dict.fromkeys(both) for both in zip(*(form.split("/") for form in wholes), strict=True)
    ]
    paths = map("/".join, product(*names)) if math.prod(map(len, names)) <= MAX_FORMS else ()
    return list(dict.fromkeys((text, *wholes, *paths)))


def raw_path(path: str) -> bytes:
    """Return the bytes of a path in the file system, by which paths are ordered.

    Surrogates stand for bytes that are not UTF-8.
    """
    return path.encode("utf-8", "surrogateescape")
