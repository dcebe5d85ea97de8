"""The user's cache folder, paths as bytes, and what file systems lack."""

import errno
import os
import sys
import unicodedata
from pathlib import Path

# what file systems answer to calls that they do not have (locks, shared maps, flushing)
NOT_SUPPORTED = frozenset(
    {errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
)


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


def normal_forms(text: str) -> list[str]:
    """Return a text as it is, composed and decomposed (NFC, NFD), each once: names that people type
    are composed, those that a Mac wrote are decomposed.
    """
    forms = (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD")))
    return list(dict.fromkeys(forms))


def raw_path(path: str) -> bytes:
    """Return the bytes of a path in the file system, by which paths are ordered.

    Surrogates stand for bytes that are not UTF-8.
    """
    return path.encode("utf-8", "surrogateescape")
