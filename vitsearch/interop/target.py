"""Where vectors go: the collection of an import, and the folder of an export. Each appears when it
is complete, or not at all.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.index.recipe import load_recipe
from vitsearch.records import atomic_file, atomic_folder
from vitsearch.shards.manifest import MANIFEST
from vitsearch.storage.config import CollectionConfig, check_encoder, read_collection_config
from vitsearch.storage.conventions import create_collection
from vitsearch.storage.filesystem import disk_errors, writer_lock
from vitsearch.storage.indexes import refresh_index
from vitsearch.storage.store import PhotoStore

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
