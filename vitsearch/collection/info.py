"""What a collection holds, and whether everything in it still fits together."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vitsearch.collection import Collection
from vitsearch.collection.maintain import is_stale
from vitsearch.encoders.identity import EncoderIdentity, golden_from_bytes
from vitsearch.errors import EncoderError, IndexDamaged
from vitsearch.index import IndexSnapshot, open_snapshot, verify_snapshot
from vitsearch.storage.config import DELTA_INDEX, MAIN_INDEX


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked: its name, whether it is sound, and what was found."""

    name: str
    ok: bool
    detail: str


def collection_info(collection: Collection) -> dict[str, Any]:
    """Return counts, encoder, recipe, sizes in bytes (``*_bytes``) and dates (ISO 8601, UTC) of a
    collection.
    """
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
        **_index_facts(collection),
        "format": settings.format,
        "folder": str(folder),
        "database_bytes": _size(database) + _size(database.with_name("photos.db-wal")),
        "index_bytes": sum(
            _size(file) for name in (MAIN_INDEX, DELTA_INDEX) for file in (folder / name).glob("*")
        ),
        "created_at": settings.created_at,
        "changed_at": datetime.fromtimestamp(database.stat().st_mtime, UTC).isoformat(
            timespec="seconds"
        ),
    }


def _index_facts(collection: Collection) -> dict[str, Any]:
    """Return the recipe that the index was built by, and its recall@10 where that was measured
    (``recall``) and may still be trusted.
    """
    try:
        built = verify_snapshot(collection.folder / MAIN_INDEX, check_content=False)
    except IndexDamaged:
        return {"index": None, "recall": None, "recall_is_old": None}
    measured = built.measured
    recall = 1.0 if built.recipe.is_exact else measured.recall if measured else None
    return {
        "index": built.recipe.name,
        "recall": recall,
        "recall_is_old": is_stale(built, len(collection)),
    }


def verify_collection(collection: Collection) -> list[Check]:
    """Return the checks of the database, the golden vectors, the index against the vectors, and the
    files on disk.
    """
    return [_database(collection), _golden(collection), _index(collection), _files(collection)]


def _database(collection: Collection) -> Check:
    wrong = collection.store.check()
    return Check(
        "database",
        not wrong,
        "; ".join(wrong[:3]) or f"{len(collection)} photos, SQLite finds nothing wrong",
    )


def _golden(collection: Collection) -> Check:
    stored = collection.store.get_meta("golden")
    if not isinstance(stored, bytes) or not stored or len(stored) % (4 * collection.dim):
        return Check(
            "encoder",
            False,
            "no golden vectors of this encoder are stored: index into a new collection",
        )
    try:
        golden = golden_from_bytes(stored, collection.dim)
        EncoderIdentity.from_record(collection.settings, golden).check_golden(collection.encoder)
    except EncoderError as error:
        return Check("encoder", False, str(error))
    return Check("encoder", True, f"{collection.settings.encoder} gives the golden vectors again")


def _index(collection: Collection) -> Check:
    advice = "searches look at every stored vector until `vitsearch index` rebuilds it"
    try:
        verify_snapshot(collection.folder / MAIN_INDEX)
        snapshots = [open_snapshot(collection.folder / MAIN_INDEX)]
        if (collection.folder / DELTA_INDEX).exists() and snapshots[
            0
        ].generation != collection.store.generation():
            verify_snapshot(collection.folder / DELTA_INDEX)
            snapshots.append(open_snapshot(collection.folder / DELTA_INDEX))
    except IndexDamaged as error:
        return Check("index", False, f"{error}; {advice}")
    if snapshots[-1].generation != collection.store.generation() or (
        snapshots[1:] and snapshots[1].manifest.since != snapshots[0].generation
    ):
        return Check("index", False, f"older than the vectors; {advice}")
    if not _same_vectors(collection, snapshots):
        return Check("index", False, f"not of the stored vectors; {advice}")
    changed = f", {len(snapshots[1])} of them in the index of changes" if snapshots[1:] else ""
    return Check("index", True, f"{len(collection)} vectors{changed}, the same as in the database")


def _same_vectors(collection: Collection, snapshots: Sequence[IndexSnapshot]) -> bool:
    """Return whether each stored vector is what the newest index that has it says; without a delta
    there are no others either.
    """
    count = 0
    for ids, halves in collection.store.vector_batches():
        missing = np.ones(len(ids), dtype=bool)
        for snapshot in reversed(snapshots):
            at = np.minimum(np.searchsorted(snapshot.ids, ids), max(0, len(snapshot) - 1))
            here = (
                missing & (np.asarray(snapshot.ids)[at] == ids)
                if len(snapshot)
                else np.zeros(len(ids), dtype=bool)
            )
            if not np.array_equal(
                snapshot.vectors[at[here]].view(np.uint16), halves[here].view(np.uint16)
            ):
                return False
            missing &= ~here
        if missing.any():
            return False
        count += len(ids)
    return len(snapshots) > 1 or count == len(snapshots[0])


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
