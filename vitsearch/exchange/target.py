"""The collection that vectors are imported into: an existing one, or a new one that appears when it is whole."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from vitsearch.encoders.protocol import ImageEncoder
from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.index import remove_shadow
from vitsearch.layout import DELTA, MAIN, Settings, check_fingerprint, disk_errors, read_settings, write_settings, writer_lock
from vitsearch.recipes import load_recipe
from vitsearch.store import PhotoStore
from vitsearch.vectors import Vectors

DATABASE = "photos.db"
_ASIDE = "photos.db.new"


def known_settings(folder: Path, root: Path) -> Settings | None:
    """Return what the collection in a folder says of itself, None where there is none; raises CollectionError for a damaged one."""
    try:
        return read_settings(folder, root)
    except CollectionNotFound:
        if (folder / DATABASE).exists():
            raise CollectionError(f"{folder} holds photos but no collection.json: restore that file, or delete the folder") from None
        return None


@contextmanager
def open_target(root: Path, folder: Path, encoder: ImageEncoder) -> Iterator[PhotoStore]:
    """Yield the database of the collection in ``folder`` under its writer's lock.

    Where there is none, a database is made aside and put in place, with ``collection.json``, when the block ends well.
    Raises CollectionLocked, CollectionError, and EncoderMismatch for a collection of another encoder.
    """
    with writer_lock(folder), disk_errors(folder):
        settings = known_settings(folder, root)
        if settings:
            check_fingerprint(folder, settings, encoder)
            with closing(PhotoStore(folder / DATABASE)) as store:
                yield store
                store.checkpoint()
            return
        _clear(folder)
        try:
            with closing(PhotoStore(folder / _ASIDE)) as store:
                yield store
                store.checkpoint()
            write_settings(folder, _settings(root, encoder))  # first: a collection without its database is begun anew by any command
            os.replace(folder / _ASIDE, folder / DATABASE)
        finally:
            _clear(folder)


def put_golden(store: PhotoStore, folder: Path, golden: Vectors) -> None:
    """Store the golden vectors of its encoder in a new database, and remove an index beside it, which counts the changes of another."""
    if store.fact("golden") is None:
        remove_shadow(folder / MAIN)
        remove_shadow(folder / DELTA)
        store.put_fact("golden", golden.astype("<f4").tobytes())


def _clear(folder: Path) -> None:
    """Remove what a killed import left."""
    for ending in ("", "-wal", "-shm"):
        (folder / f"{_ASIDE}{ending}").unlink(missing_ok=True)


def _settings(root: Path, encoder: ImageEncoder) -> Settings:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    dtype = str(getattr(encoder, "dtype", "float32"))
    place = os.path.abspath(root).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Settings(encoder.name, encoder.fingerprint, dtype, encoder.dim, load_recipe("auto").to_dict(), now, place)
