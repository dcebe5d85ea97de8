"""Resolve the paths in another program's metadata to the photos of a folder."""

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
class PathResolver:
    """Resolves paths: ``files`` are what indexing would find below a photo folder, ``roots`` the
    folders that a path may begin with.
    """

    files: Mapping[str, Found]
    roots: tuple[str, ...]

    def resolve(self, path: str) -> Found | str:
        """Return the file that a path means, or the reason why there is none."""
        relative = self.relative(path)
        if relative is None:
            return OUTSIDE
        file = self.files.get(relative)
        return MISSING if file is None else file.problem or file

    def relative(self, path: str) -> str | None:
        """Return a path relative to the photo folder, without ``..``; None where it leaves the
        folder.
        """
        normal = posixpath.normpath(path) if path else ""
        for root in self.roots:
            if normal.startswith(f"{root}/"):
                return normal[len(root) + 1 :]
        return None if normal.startswith(("/", "../")) or normal in ("", ".", "..") else normal


def path_resolver(root: Path, folder: Path, paths_from: str | None = None) -> PathResolver:
    """Return the resolver of a photo folder, which leaves out its collection in ``folder``.

    ``paths_from`` is what paths begin with in place of the photo folder, as it is written there.
    Raises VitsearchError.
    """
    options = WalkOptions(leave_out=frozenset({folder}))
    walked = walk(root, options, on_unreadable=lambda path, reason: None)
    files = {file.path: file for file in walked}
    roots = [os.path.realpath(root), os.path.abspath(root)]
    if paths_from:
        roots.insert(0, posixpath.normpath(paths_from))
    return PathResolver(files, tuple(dict.fromkeys(root.rstrip("/") for root in roots)))
