"""Facts about a collection on disk, checks that everything in it fits together, and its
maintenance: mends what has rotted, as far as that is possible, and tunes the index on the
collection's own photos and on words.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vitsearch.encoders.base import EncoderIdentity, ImageEncoder, golden_from_bytes
from vitsearch.errors import CollectionError, EncoderError, IndexDamaged, PhotoError
from vitsearch.index.manifest import Manifest, Measured
from vitsearch.index.recall import Trial
from vitsearch.index.recipe import Recipe
from vitsearch.index.snapshot import IndexSnapshot, open_snapshot, verify_snapshot
from vitsearch.photos import prefetch_map
from vitsearch.photos.decode import read_fingerprint
from vitsearch.storage import (
    DELTA_INDEX,
    DTYPE_REASON,
    MAIN_INDEX,
    CollectionConfig,
    write_collection_config,
)
from vitsearch.storage.filesystem import disk_errors, writer_lock
from vitsearch.storage.indexes import choose, refresh_index
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo

GROWN = 0.2  # the share of new rows from which a measured recall is out of date
log = logging.getLogger("vitsearch")
_CHECKED = "checked_at"  # the fact that says when every row was checked, in seconds since 1970
_SMALL = 10_000  # photos that are checked by each run, in a quarter of a second
_DAY = 86_400
_FEW = 20  # damaged rows that may be more than half of all


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, whether it passed, and the details; that of the content also has the
    paths of all photos that differ.
    """

    name: str
    ok: bool
    detail: str
    paths: tuple[str, ...] = ()


def local_info(folder: Path, config: CollectionConfig, store: PhotoStore) -> dict[str, Any]:
    """Return counts, encoder, recipe, sizes in bytes (``*_bytes``) and dates (ISO 8601, UTC)."""
    states = [failure.state for failure in store.failures()]
    database, count = folder / "photos.db", store.count()
    files = store.count_files()
    put_aside, since = store.aside.count()
    return {
        "photos": files,
        "moments": count - files,
        "failed": states.count("failed"),
        "skipped": states.count("skipped"),
        "companions": sum(entry.reason == "companion" for entry in store.walked.left_out()),
        "put_aside": put_aside,
        "put_aside_since": since,
        "encoder": config.encoder,
        "encoder_fingerprint": config.encoder_fingerprint,
        "dtype": config.dtype,
        "dtype_reason": store.get_meta(DTYPE_REASON),
        "dim": config.dim,
        "recipe": config.recipe.get("name"),
        **_index_info(folder, count),
        "format": config.format,
        "folder": str(folder),
        "database_bytes": _size(database) + _size(database.with_name("photos.db-wal")),
        "index_bytes": sum(
            _size(file) for name in (MAIN_INDEX, DELTA_INDEX) for file in (folder / name).glob("*")
        ),
        "created_at": config.created_at,
        "changed_at": datetime.fromtimestamp(database.stat().st_mtime, UTC).isoformat(
            timespec="seconds"
        ),
    }


def _index_info(folder: Path, count: int) -> dict[str, Any]:
    """Return the recipe that the index was built by, its recall@10 if that was measured, and
    whether the measurement is out of date.
    """
    try:
        built = verify_snapshot(folder / MAIN_INDEX, check_content=False)
    except IndexDamaged:
        return {"index": None, "recall": None, "recall_is_old": None}
    measured = built.measured
    recall = 1.0 if built.recipe.is_exact else measured.recall if measured else None
    return {
        "index": built.recipe.name,
        "recall": recall,
        "recall_is_old": is_stale(built, count),
    }


def is_stale(manifest: Manifest, count: int) -> bool:
    """Return whether the index has grown by over a fifth, to ``count``, since it was measured."""
    return manifest.measured is not None and count > (1 + GROWN) * manifest.measured.count


def verify_local(
    root: Path,
    folder: Path,
    config: CollectionConfig,
    store: PhotoStore,
    encoder: Callable[[], ImageEncoder],
    *,
    content: bool = False,
) -> list[Check]:
    """Return the checks of the database, the encoder, the index and the files on disk.

    ``encoder`` loads the collection's encoder. With ``content`` every photo is read, and its
    content compared with the fingerprint that was stored with its vector.
    """
    checks = [
        _database(store),
        _golden(config, store, encoder),
        _index(folder, store),
        _files(root, store),
    ]
    return [*checks, _content(root, store)] if content else checks


def _database(store: PhotoStore) -> Check:
    wrong = store.check()
    return Check(
        "database",
        not wrong,
        "; ".join(wrong[:3]) or f"{store.count_files()} photos, SQLite finds nothing wrong",
    )


def _golden(
    config: CollectionConfig, store: PhotoStore, encoder: Callable[[], ImageEncoder]
) -> Check:
    try:
        stored = store.get_meta("golden")
    except CollectionError as error:
        return Check("encoder", False, str(error))
    if not isinstance(stored, bytes) or not stored or len(stored) % (4 * config.dim):
        return Check(
            "encoder",
            False,
            "no golden vectors of this encoder are stored: index into a new collection",
        )
    try:
        golden = golden_from_bytes(stored, config.dim)
        EncoderIdentity.from_record(config, golden).check_golden(encoder())
    except EncoderError as error:
        return Check("encoder", False, str(error))
    return Check("encoder", True, f"{config.encoder} gives the golden vectors again")


def _index(folder: Path, store: PhotoStore) -> Check:
    advice = "searches look at every stored vector until `vitsearch index` rebuilds it"
    try:
        verify_snapshot(folder / MAIN_INDEX)
        snapshots = [open_snapshot(folder / MAIN_INDEX)]
        newest = store.generation()
        if (folder / DELTA_INDEX).exists() and snapshots[0].generation != newest:
            verify_snapshot(folder / DELTA_INDEX)
            snapshots.append(open_snapshot(folder / DELTA_INDEX))
    except IndexDamaged as error:
        return Check("index", False, f"{error}; {advice}")
    if not all(store.had_state(each.generation, each.manifest.state) for each in snapshots):
        return Check("index", False, f"of another state of photos.db; {advice}")
    if snapshots[-1].generation != newest or (
        snapshots[1:] and snapshots[1].manifest.since != snapshots[0].generation
    ):
        return Check("index", False, f"older than the vectors; {advice}")
    if not _same_vectors(store, snapshots):
        return Check("index", False, f"not of the stored vectors; {advice}")
    changed = f", {len(snapshots[1])} of them in the index of changes" if snapshots[1:] else ""
    return Check("index", True, f"{store.count()} vectors{changed}, the same as in the database")


def _same_vectors(store: PhotoStore, snapshots: Sequence[IndexSnapshot]) -> bool:
    """Return whether each stored vector is equal to that in the newest index that contains it.

    An index without a delta must contain no other vectors either.
    """
    count = 0
    for ids, halves in store.vector_batches():
        missing = np.ones(len(ids), dtype=bool)
        for snapshot in reversed(snapshots):
            if not len(snapshot):
                continue
            rows = np.minimum(np.searchsorted(snapshot.ids, ids), len(snapshot) - 1)
            present = missing & (snapshot.ids[rows] == ids)
            indexed = snapshot.vectors[rows[present]]
            if not np.array_equal(indexed.view(np.uint16), halves[present].view(np.uint16)):
                return False
            missing &= ~present
        if missing.any():
            return False
        count += len(ids)
    return len(snapshots) > 1 or count == len(snapshots[0])


def _files(root: Path, store: PhotoStore) -> Check:
    gone, changed = [], []
    for photo in store.photos():
        try:
            stat = os.stat(os.path.join(root, photo.path))
        except OSError:
            gone.append(photo.path)
            continue
        if (stat.st_size, stat.st_mtime_ns) != (photo.size, photo.mtime_ns):
            changed.append(photo.path)
    if not gone and not changed:
        return Check("files", True, "every photo is where it was, unchanged")
    problems = [
        f"{len(paths)} {what} ({', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''})"
        for what, paths in (("gone", gone), ("changed", changed))
        if paths
    ]
    return Check("files", False, f"{' and '.join(problems)}: run `vitsearch index`")


def _content(root: Path, store: PhotoStore) -> Check:
    """Return which files have other content than what was embedded."""

    def differs(photo: Photo) -> tuple[str, bool | None]:
        try:
            fingerprint, _ = read_fingerprint(root / photo.path)
            return photo.path, fingerprint != photo.fingerprint
        except PhotoError:
            return photo.path, None

    workers = os.cpu_count() or 1
    read = [*prefetch_map(differs, store.photos(), workers=workers, buffer=4 * workers)]
    other = tuple(path for path, differ in read if differ)
    unread = sum(differ is None for _, differ in read)
    left = f"; {unread:,} could not be read" if unread else ""
    if not other:
        equal = f"{len(read) - unread:,} files have the content that was embedded"
        return Check("content", not unread, equal + left)
    advice = "`vitsearch index PHOTOS --reread` reads them again"
    what = f"{len(other):,} of {len(read):,} files have other content than was embedded"
    return Check("content", False, f"{what}{left}: {advice}", other)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


# -- Mending ---------------------------------------------------------------------------------------


def mend(store: PhotoStore) -> None:
    """Check a file that is open for writing, and remove from it what is not what was stored.

    Photos that are removed are new to the run that follows, which embeds them again. More than
    10,000 are checked once a day, and when a reader has met damage since. What cannot be mended
    raises CollectionError: damage to the pages of the file, and of most of its rows.
    """
    if facts := store.damaged_facts():
        log.warning(f"{store.path} was damaged: its facts {', '.join(facts)} are written anew")
        with store.writing():
            store.remove_facts(facts)
    if not _is_due(store):
        return
    if store.page_problems():
        log.warning(f"{store.path} was damaged: its indexes are written anew")
        store.rebuild_indexes()
        if problems := store.page_problems():
            raise store.damage("; ".join(problems[:3]))
    _remove_damaged(store)
    store.mended()
    if store.count() > _SMALL:
        with store.writing():
            store.set_meta(_CHECKED, int(time.time()))


def _is_due(store: PhotoStore) -> bool:
    checked = store.get_meta(_CHECKED)
    return (
        store.count() <= _SMALL
        or store.mending_is_wanted()
        or not isinstance(checked, int)
        or not 0 <= time.time() - checked < _DAY
    )


def _remove_damaged(store: PhotoStore) -> None:
    photos, failures = store.damaged_photos(), store.damaged_failures()
    if len(photos) > max(_FEW, store.count() // 2):
        raise store.damage(f"of {store.count()} rows {len(photos)}")
    if not photos and not failures:
        return
    if photos:
        log.warning(
            f"{store.path} was damaged: {store.named(photos)} removed; what is in the folder is "
            "embedded again, without its stored label"
        )
    with store.writing():
        store.remove_ids(photos)
        store.forget_failures(failures)
        store.raise_generation(bool(photos))


# -- Tuning ----------------------------------------------------------------------------------------


MAX_RECALL = 0.9999  # of a recipe: only an exact one promises all


@dataclass(frozen=True, slots=True)
class TuneReport:
    """The result of tuning: the recipe with its search parameters, and the recall measured.

    ``measured`` is None if the search is exact anyway. ``tried`` is what the recipes that ``auto``
    chooses from did on a sample of the vectors, none where another recipe was requested or there
    are too few photos for an index.
    """

    recipe: Recipe
    measured: Measured | None
    tried: tuple[Trial, ...] = ()


def tune_local(
    folder: Path, config: CollectionConfig, encoder: Callable[[], ImageEncoder], recall: float
) -> TuneReport:
    """Set the search effort of the index in ``folder`` to the least that reaches a recall@10.

    An index that is missing or out of date is built first. The recall is measured on 300 of the
    collection's photos (each left out of its own results) and on the 400 of 1,000 texts
    that fit some of them best, since the vectors of
    words lie elsewhere than those of photos; each kind has to reach it. Raises CollectionError if
    the recall is not from 0 to 1, and CollectionLocked.
    """
    if not 0 < recall <= 1:
        raise CollectionError(f"a recall is above 0 and at most 1, such as 0.95, not {recall}")
    with (
        writer_lock(folder),
        disk_errors(folder),
        closing(PhotoStore(folder / "photos.db", read_only=True)) as store,
    ):
        maintainer = refresh_index(folder, config, store, encoder)
        recipe = replace(maintainer.requested, recall=min(recall, MAX_RECALL))
        maintainer = replace(maintainer, requested=recipe)
        count = store.count()
        choice = choose(recipe, count, config.dim).recipe
        tried = tuple(maintainer.trials(count)) if maintainer.measures(choice) else ()
        built = verify_snapshot(folder / MAIN_INDEX, check_content=False)
        if built.recipe.is_exact:
            return TuneReport(built.recipe, None, tried)
        tuned = maintainer.retune(recall)
        # an index that is built later is tuned for the same recall
        write_collection_config(folder, replace(config, recipe=recipe.to_dict()))
    return TuneReport(tuned.recipe, tuned.measured, tried)
