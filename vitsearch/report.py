"""What a collection holds, and whether everything in it still fits together."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vitsearch.collection import Collection
from vitsearch.encoders.golden import check_golden
from vitsearch.errors import EncoderError, IndexDamaged
from vitsearch.index import Shadow, open_shadow, verify_shadow


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked: its name, whether it is sound, and what was found."""

    name: str
    ok: bool
    detail: str


def collection_info(collection: Collection) -> dict[str, Any]:
    """Return counts, encoder, recipe, sizes in bytes (``*_bytes``) and dates (ISO 8601, UTC) of a collection."""
    settings, folder = collection.settings, collection.folder
    states = [failure.state for failure in collection.failures()]
    database = folder / "photos.db"
    return {
        "photos": len(collection),
        "failed": states.count("failed"),
        "skipped": states.count("skipped"),
        "encoder": settings.encoder,
        "encoder_fingerprint": settings.encoder_fingerprint,
        "dtype": settings.dtype,
        "dim": settings.dim,
        "recipe": settings.recipe.get("name"),
        "format": settings.format,
        "folder": str(folder),
        "database_bytes": _size(database) + _size(database.with_name("photos.db-wal")),
        "index_bytes": sum(_size(file) for file in (folder / "index").glob("*")),
        "created_at": settings.created_at,
        "changed_at": datetime.fromtimestamp(database.stat().st_mtime, UTC).isoformat(timespec="seconds"),
    }


def verify_collection(collection: Collection) -> list[Check]:
    """Return the checks of the database, the golden vectors, the index against the vectors, and the files on disk."""
    return [_database(collection), _golden(collection), _index(collection), _files(collection)]


def _database(collection: Collection) -> Check:
    wrong = collection.store.check()
    return Check("database", not wrong, "; ".join(wrong[:3]) or f"{len(collection)} photos, SQLite finds nothing wrong")


def _golden(collection: Collection) -> Check:
    stored = collection.store.fact("golden")
    if not isinstance(stored, bytes) or not stored or len(stored) % (4 * collection.dim):
        return Check("encoder", False, "no golden vectors of this encoder are stored: index into a new collection")
    try:
        check_golden(collection.encoder, np.frombuffer(stored, dtype="<f4").reshape(-1, collection.dim))
    except EncoderError as error:
        return Check("encoder", False, str(error))
    return Check("encoder", True, f"{collection.settings.encoder} gives the golden vectors again")


def _index(collection: Collection) -> Check:
    advice = "searches look at every stored vector until `vitsearch index` rebuilds it"
    try:
        verify_shadow(collection.folder / "index")
        shadow = open_shadow(collection.folder / "index")
    except IndexDamaged as error:
        return Check("index", False, f"{error}; {advice}")
    if shadow.manifest.generation != collection.store.generation():
        return Check("index", False, f"older than the vectors; {advice}")
    if not _same_vectors(collection, shadow):
        return Check("index", False, f"not of the stored vectors; {advice}")
    return Check("index", True, f"{len(shadow.ids)} vectors, the same as in the database")


def _same_vectors(collection: Collection, shadow: Shadow) -> bool:
    place = 0
    for ids, halves in collection.store.vector_batches():
        end = place + len(ids)
        if not (
            np.array_equal(shadow.ids[place:end], ids) and np.array_equal(shadow.vectors[place:end].view(np.uint16), halves.view(np.uint16))
        ):
            return False
        place = end
    return place == len(shadow.ids)


def _files(collection: Collection) -> Check:
    gone, changed = [], []
    for photo in collection.photos():
        try:
            stat = os.stat(os.path.join(collection.root, photo.path))
        except OSError:
            gone.append(photo.path)
            continue
        if (stat.st_size, stat.st_mtime_ns) != (photo.size, photo.mtime_ns):
            changed.append(photo.path)
    if not gone and not changed:
        return Check("files", True, "every photo is where it was, unchanged")
    told = [
        f"{len(paths)} {what} ({', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''})"
        for what, paths in (("gone", gone), ("changed", changed))
        if paths
    ]
    return Check("files", False, f"{' and '.join(told)}: run `vitsearch index`")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
