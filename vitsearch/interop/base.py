"""What all layouts share: ``vitsearch.json``, which says which encoder made the vectors of an
exported folder; a source of vectors to import, the photos that its paths mean, and the photos of a
collection to export; and where vectors go, the collection of an import and the folder of an export,
each of which appears when it is complete.
"""

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves
from vitsearch.encoders.base import (
    MAX_DIM,
    EncoderIdentity,
    ImageEncoder,
    golden_from_bytes,
    golden_from_lists,
)
from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.index.recipe import load_recipe
from vitsearch.photos import WalkOptions
from vitsearch.photos.walk import walk
from vitsearch.records import atomic_file, atomic_folder, read_record, to_json
from vitsearch.shards.manifest import MANIFEST
from vitsearch.storage import (
    CollectionConfig,
    StoredCollection,
    check_encoder,
    create_collection,
    read_collection_config,
)
from vitsearch.storage.filesystem import disk_errors, writer_lock
from vitsearch.storage.indexes import refresh_index
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, Photo

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ExportManifest:
    """Which encoder made the vectors of a folder.

    ``golden`` holds its vectors of the golden picture and, where it reads text, of the golden
    sentence.
    """

    layout: str
    photos: int
    encoder: str
    encoder_fingerprint: str
    dtype: str
    dim: int
    golden: list[list[float]]
    format: int = FORMAT

    def __post_init__(self) -> None:
        if min(self.dim, self.format) < 1 or self.photos < 0:
            raise ValueError("a number below 1")
        if self.dim > MAX_DIM:
            raise ValueError(f"vectors of more than {MAX_DIM:,} numbers")
        golden_from_lists(self.golden, self.dim)  # raises for rows of another length

    @property
    def identity(self) -> EncoderIdentity:
        """Which encoder made the vectors."""
        return EncoderIdentity.from_record(self, golden_from_lists(self.golden, self.dim))


def manifest_of(collection: StoredCollection, layout: str, photos: int) -> ExportManifest:
    """Return the manifest of an export of ``photos`` vectors of this collection."""
    config = collection.config
    golden = golden_from_bytes(collection.store.get_meta("golden"), config.dim)
    return ExportManifest(
        layout=layout,
        photos=photos,
        encoder=config.encoder,
        encoder_fingerprint=config.encoder_fingerprint,
        dtype=config.dtype,
        dim=config.dim,
        golden=golden.tolist(),
    )


def write_manifest(folder: Path, manifest: ExportManifest) -> None:
    """Write ``vitsearch.json`` into the folder of an export."""
    (folder / MANIFEST).write_text(to_json(manifest), encoding="ascii")


def read_manifest(folder: Path) -> ExportManifest | None:
    """Return the manifest of a folder, None where it has none; raises CollectionError for a damaged
    or newer one.
    """
    try:
        return read_record(
            ExportManifest,
            folder / MANIFEST,
            error=CollectionError,
            repair="export again, or delete it and name the encoder",
        )
    except FileNotFoundError:
        return None


# -- Rows ------------------------------------------------------------------------------------------


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


# -- Targets ---------------------------------------------------------------------------------------


DATABASE = "photos.db"
_ASIDE = "photos.db.new"


def known_config(folder: Path, root: Path) -> CollectionConfig | None:
    """Return the configuration of the collection in a folder, None where there is none; raises
    CollectionError for a damaged one.
    """
    try:
        return read_collection_config(folder, root)
    except CollectionNotFound:
        if (folder / DATABASE).exists():
            raise CollectionError(
                f"{folder} holds photos but no collection.json: restore that "
                "file, or delete the folder"
            ) from None
        return None


@contextmanager
def import_target(root: Path, folder: Path, encoder: ImageEncoder) -> Iterator[PhotoStore]:
    """Yield the database of the collection in ``folder`` under its writer's lock.

    Where there is none, a database is written beside its final name, and renamed together with
    ``collection.json`` when the block ends well. Then the index is built, as by
    indexing. Raises CollectionLocked, CollectionError, and EncoderMismatch for a collection of
    another encoder.
    """
    with writer_lock(folder), disk_errors(folder):
        config = known_config(folder, root)
        if config:
            check_encoder(folder, config, encoder)
            with closing(PhotoStore(folder / DATABASE)) as store:
                yield store
                refresh_index(folder, config, store, lambda: encoder)
                store.checkpoint()
            return
        _clear(folder)
        try:
            with atomic_file(folder / DATABASE, aside=folder / _ASIDE, sync=False):
                with closing(PhotoStore(folder / _ASIDE)) as store:
                    yield store
                    store.checkpoint()
                # before the rename: any command starts a collection without a database anew
                config = create_collection(folder, root, encoder, load_recipe("auto"))
            with closing(PhotoStore(folder / DATABASE)) as store:
                refresh_index(folder, config, store, lambda: encoder)
                store.checkpoint()
        finally:
            _clear(folder)


def _clear(folder: Path) -> None:
    """Remove what a killed import left."""
    for ending in ("", "-wal", "-shm"):
        (folder / f"{_ASIDE}{ending}").unlink(missing_ok=True)


@contextmanager
def export_folder(folder: Path, names: frozenset[str]) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that takes its place when the block ends well, and is
    removed when it does not.

    ``names`` are those of the files and folders of an export: only a folder of nothing else is
    replaced, and only if it has a ``vitsearch.json``. Raises CollectionError for another folder,
    and where the disk refuses.
    """
    _check_replaceable(folder, names)
    with _disk_errors(folder), atomic_folder(folder, prefix=f".{folder.name}.") as aside:
        yield aside


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CollectionError(
            f"cannot write {folder} ({error.strerror or error}): free some space or choose "
            "another place"
        ) from error


def _check_replaceable(folder: Path, names: frozenset[str]) -> None:
    if not folder.name:
        raise CollectionError(f"cannot write to {folder}: name a new folder")
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise CollectionError(
            f"{folder} is there already and is not a folder: choose another place"
        )
    present = {entry.name for entry in folder.iterdir()}
    if present and (MANIFEST not in present or present - names):
        raise CollectionError(
            f"{folder} holds other files "
            f"({min(present - names, default='no ' + MANIFEST)}): choose a new folder"
        )
