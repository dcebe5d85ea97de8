"""The collection that vectors are imported into: an existing one, or a new one that appears when it
is whole.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.index.recipe import load_recipe
from vitsearch.interop.manifest import PASSPORT
from vitsearch.records import atomic_file, atomic_folder
from vitsearch.storage.config import (
    CollectionConfig,
    check_encoder,
    disk_errors,
    read_collection_config,
    writer_lock,
)
from vitsearch.storage.create import create_collection
from vitsearch.storage.store import PhotoStore

DATABASE = "photos.db"
_ASIDE = "photos.db.new"


def known_settings(folder: Path, root: Path) -> CollectionConfig | None:
    """Return what the collection in a folder says of itself, None where there is none; raises
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
def open_target(root: Path, folder: Path, encoder: ImageEncoder) -> Iterator[PhotoStore]:
    """Yield the database of the collection in ``folder`` under its writer's lock.

    Where there is none, a database is made aside and put in place, with ``collection.json``, when
    the block ends well. Raises CollectionLocked, CollectionError, and EncoderMismatch for a
    collection of another encoder.
    """
    with writer_lock(folder), disk_errors(folder):
        settings = known_settings(folder, root)
        if settings:
            check_encoder(folder, settings, encoder)
            with closing(PhotoStore(folder / DATABASE)) as store:
                yield store
                store.checkpoint()
            return
        _clear(folder)
        try:
            with atomic_file(folder / DATABASE, aside=folder / _ASIDE, sync=False):
                with closing(PhotoStore(folder / _ASIDE)) as store:
                    yield store
                    store.checkpoint()
                # first: a collection without its database is begun anew by any command
                create_collection(folder, root, encoder, load_recipe("auto"))
        finally:
            _clear(folder)


def _clear(folder: Path) -> None:
    """Remove what a killed import left."""
    for ending in ("", "-wal", "-shm"):
        (folder / f"{_ASIDE}{ending}").unlink(missing_ok=True)


# -- Where an export goes: a folder that is written aside and renamed when it is whole ------------


@contextmanager
def written_aside(folder: Path, names: frozenset[str]) -> Iterator[Path]:
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
        raise CollectionError(f"{folder} is there already and no folder: choose another place")
    held = {entry.name for entry in folder.iterdir()}
    if held and (PASSPORT not in held or held - names):
        raise CollectionError(
            f"{folder} holds other files "
            f"({min(held - names, default='no ' + PASSPORT)}): choose a new folder"
        )
