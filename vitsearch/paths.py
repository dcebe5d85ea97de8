"""Paths: the user's cache folder, and a path as the file system has it."""

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for what vitsearch keeps between runs: ``$VITSEARCH_HOME``, or
    ``vitsearch`` in the user's cache folder.
    """
    chosen = os.environ.get("VITSEARCH_HOME")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "vitsearch"
        )
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitsearch"


def raw_path(path: str) -> bytes:
    """Return the bytes of a path as the file system has them; paths are in order by these, and
    surrogates are bytes that are no UTF-8.
    """
    return path.encode("utf-8", "surrogateescape")
