"""Which photo of a folder a path in somebody else's metadata means."""

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitsearch.photos import WalkOptions
from vitsearch.photos.walk import walk
from vitsearch.types import Found

OUTSIDE = "lies outside the photo folder"
MISSING = "is not among the photos of the folder"


@dataclass(frozen=True, slots=True)
class Places:
    """The files that indexing would find below a photo folder, and the folders that paths may begin
    with.
    """

    files: Mapping[str, Found]
    roots: tuple[str, ...]

    def find(self, path: str) -> Found | str:
        """Return the file that a path means, or in words why there is none."""
        relative = self.relative(path)
        if relative is None:
            return OUTSIDE
        found = self.files.get(relative)
        return MISSING if found is None else found.problem or found

    def relative(self, path: str) -> str | None:
        """Return a path relative to the photo folder, without ``..``; None where it leaves the
        folder.
        """
        normal = posixpath.normpath(path) if path else ""
        for root in self.roots:
            if normal.startswith(f"{root}/"):
                return normal[len(root) + 1 :]
        return None if normal.startswith(("/", "../")) or normal in ("", ".", "..") else normal


def places_in(root: Path, folder: Path, paths_from: str | None = None) -> Places:
    """Return the places of a photo folder, without its collection in ``folder``.

    ``paths_from`` is what paths begin with in place of the photo folder, as it is written there.
    Raises VitsearchError.
    """
    options = WalkOptions(leave_out=frozenset({folder}))
    files = {
        found.path: found for found in walk(root, options, on_unreadable=lambda path, reason: None)
    }
    starts = [
        os.path.abspath(root),
        os.path.realpath(root),
        *([posixpath.normpath(paths_from)] if paths_from else []),
    ]
    return Places(files, tuple(dict.fromkeys(start.rstrip("/") for start in reversed(starts))))
