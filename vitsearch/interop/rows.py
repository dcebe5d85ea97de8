"""A source of vectors to import, the photos that its paths mean, and the photos of a collection
block by block.
"""

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves
from vitsearch.errors import CollectionError
from vitsearch.interop.manifest import ExportManifest
from vitsearch.photos import WalkOptions
from vitsearch.photos.walk import walk
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, Photo

BLOCK = 4096  # rows held at a time
OUTSIDE = "lies outside the photo folder"
MISSING = "is not among the photos of the folder"


@dataclass(frozen=True, slots=True)
class Row:
    """What a source records about one vector: the photo's path as it is written there, and what
    only an export of vitsearch has.
    """

    path: str
    fingerprint: bytes | None = None
    label: str | None = None
    score: float | None = None


Block = tuple[list[Row], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """Vectors to import: ``count`` of ``dim`` numbers, in blocks of rows and their ``(n, dim)``
    floats, which can be read again.

    ``failures`` are files that could not be read, with the reason.
    """

    name: str
    count: int
    dim: int
    manifest: ExportManifest | None
    blocks: Callable[[], Iterator[Block]]
    failures: Callable[[], Iterator[tuple[Found, str]]] = lambda: iter(())


def photo_blocks(
    store: PhotoStore, photos: Iterator[Photo], count: int
) -> Iterator[tuple[list[Photo], Halves]]:
    """Yield the next ``count`` photos with their ``(n, dim)`` float16 vectors, a block at a time;
    raises CollectionError.
    """
    while count > 0:
        block = list(islice(photos, min(BLOCK, count)))
        raw = {
            photo_id: vector
            for photo_id, _, vector, _ in store.rows([photo.photo_id for photo in block])
        }
        if not block or len(raw) < len(block):
            raise CollectionError(
                f"{store.path}: a photo has no vector, or is damaged: run `vitsearch index` first"
            )
        yield block, store.halves([raw[photo.photo_id] for photo in block])
        count -= len(block)


def usable(vectors: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of ``(n, dim)`` rows are finite and not zero."""
    lengths = _lengths(vectors)
    return np.isfinite(lengths) & (lengths > 0)


def stored_halves(vectors: NDArray[Any]) -> Halves:
    """Return usable ``(n, dim)`` rows as float16 rows of unit length.

    Rows that have unit length already are only rounded, so that float16 rows stay the same bits.
    """
    lengths = _lengths(vectors)
    # rounding to float16 changes a length of 1 by less than this
    scale = np.where(np.abs(lengths - 1) < 2e-3, 1.0, lengths)
    return (vectors / scale[:, None]).astype(np.float16)


def _lengths(vectors: NDArray[Any]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt((wide * wide).sum(axis=1))


# -- The photos that paths mean --------------------------------------------------------------------


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
