"""Export a collection as a shard set, and import shard sets, which embedding on many machines
writes.

An import works without the photos: it trusts the fingerprint, size, time and metadata in the rows.
"""

import logging
import os
from collections.abc import Iterator
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitsearch.arrays import Halves
from vitsearch.encoders.base import ImageEncoder, golden_vectors
from vitsearch.errors import CollectionError
from vitsearch.interop.base import (
    OUTSIDE,
    Block,
    ExportManifest,
    PathResolver,
    Row,
    Source,
    export_folder,
    import_target,
    known_config,
    manifest_of,
    photo_blocks,
    stored_halves,
    usable,
)
from vitsearch.interop.importer import (
    BAD_VECTOR,
    ImportCounts,
    ImportOptions,
    ImportReport,
    chosen_encoder,
    import_vectors,
)
from vitsearch.photos import MAX_PIXELS
from vitsearch.shards import (
    LAYOUT,
    Manifest,
    ShardRow,
    create_shards,
    is_shard_set,
    open_shards,
    photo_id,
)
from vitsearch.shards.manifest import MANIFEST, is_manifest
from vitsearch.storage import (
    RAW,
    Decoding,
    StoredCollection,
    collection_folder,
    photo_root,
    record_decoding,
    start_database,
    stored_colours,
)
from vitsearch.storage.rows import Outcome
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, OnProgress, Photo, Progress, no_progress
from vitsearch.untrusted import read_bounded

if TYPE_CHECKING:
    from vitsearch.shards.files import ShardSet, ShardWriter

log = logging.getLogger("vitsearch")
SHARD = 10_000
_DEFAULTS = ImportOptions()
_NAMES = frozenset({MANIFEST, "shards"})
_NO_FACTS = "its row has no fingerprint or no size in pixels"
_OLDER = "the collection has a file of this name that was changed later"


def holds_shards(output: str | os.PathLike[str]) -> bool:
    """Return whether a folder or URL holds a shard set; raises CollectionError where a URL cannot
    be reached.
    """
    name = os.fspath(output)
    if "://" in name:
        return is_shard_set(name)
    try:
        return is_manifest(read_bounded(Path(name) / MANIFEST))
    except (OSError, ValueError):
        return False


def export_shards(
    collection: StoredCollection,
    output: str | os.PathLike[str],
    *,
    shard_size: int = SHARD,
    progress: OnProgress = no_progress,
) -> int:
    """Write a collection as a shard set into a folder or at a URL, and return how many photos it
    holds.

    Photos are in order of path with the float16 vectors, labels and metadata of the collection; its
    failures follow. A folder is written under another name and renamed, and replaces an earlier
    export; at a URL nothing may be there. Raises CollectionError.
    """
    if shard_size < 1:
        raise CollectionError("a shard must hold at least 1 photo: give a shard size of 1 or more")
    with collection.store.reading():
        photos = collection.store.count()
        manifest = _manifest(collection, photos + len(collection.store.failures()), shard_size)
        if "://" in os.fspath(output):
            _write(collection, create_shards(output, manifest), photos, progress)
        else:
            with export_folder(Path(output), _NAMES) as aside:
                _write(collection, create_shards(aside, manifest), photos, progress)
    return photos


def _manifest(collection: StoredCollection, rows: int, shard_size: int) -> Manifest:
    exported = manifest_of(collection, LAYOUT, rows)
    is_scaled = collection.store.get_meta("decode") in ("scaled", "mixed")
    return Manifest(
        encoder=exported.encoder,
        encoder_fingerprint=exported.encoder_fingerprint,
        dtype=exported.dtype,
        dim=exported.dim,
        golden=exported.golden,
        source=os.path.abspath(collection.root),
        decoding="scaled" if is_scaled else "exact",
        colours=stored_colours(collection.store),
        shard_size=shard_size,
        rows=rows,
        shards=ceil(rows / shard_size),
    )


def _write(
    collection: StoredCollection, writer: "ShardWriter", photos: int, progress: OnProgress
) -> None:
    manifest, done = writer.manifest, 0
    rows = _rows(collection, photos)
    for number in range(manifest.shards):
        part = list(islice(rows, manifest.shard_size))
        halves = [half for _, half in part if half is not None]
        vectors = np.stack(halves) if halves else np.empty((0, manifest.dim), np.float16)
        writer.write(number, [row for row, _ in part], vectors)
        done += len(part)
        progress(Progress("exporting", done, manifest.rows))
    writer.finish()


def _rows(collection: StoredCollection, photos: int) -> Iterator[tuple[ShardRow, Halves | None]]:
    """Yield the photos with their vectors, then the failures."""
    for block, halves in photo_blocks(
        collection.store, collection.store.photos(moments=True), photos
    ):
        for photo, half in zip(block, halves, strict=True):
            row = ShardRow(
                photo_id=photo_id(photo.path),
                path=photo.path,
                size=photo.size,
                mtime_ns=photo.mtime_ns,
                fingerprint=photo.fingerprint,
                info=photo.info,
                label=photo.label,
                label_score=photo.label_score,
            )
            yield row, half
    reasons = [failure.reason or "cannot be read" for failure in collection.store.failures()]
    stats = collection.store.failure_stats()
    for reason, (path, _, size, mtime_ns, _) in zip(reasons, stats, strict=True):
        yield ShardRow(photo_id(path), path, size, mtime_ns, error=reason), None


def import_shards(
    output: str | os.PathLike[str],
    photos: str | os.PathLike[str] | None = None,
    *,
    collection: str | os.PathLike[str] | None = None,
    encoder: str | ImageEncoder | None = None,
    options: ImportOptions = _DEFAULTS,
    progress: OnProgress = no_progress,
) -> ImportReport:
    """Add the vectors of a shard set to a collection, which is created where there is none; several
    sets of one encoder may follow each other.

    With ``photos`` the rows are matched with the photos in that folder, and some are embedded to
    compare, as `import_clip_retrieval` does. Without, ``collection`` says where the collection is,
    and no photo needs to be there: the metadata in the rows are trusted, and ``options.root`` says
    where the photos are (`source_root`). Of two rows for one path
    the file that was changed last wins. Rows with an error become failures of the collection.

    Raises CollectionError (a shard is missing and ``options.partial`` is not set, damage),
    CollectionLocked, EncoderError or EncoderMismatch, after any of which the collection is as it
    was.
    """
    shards = open_shards(output)
    source = _source(shards, options.partial)
    if photos is not None:
        return import_vectors(
            source,
            photos,
            collection=collection,
            encoder=encoder,
            options=options,
            progress=progress,
        )
    if collection is None:
        raise CollectionError(
            "say where the collection goes: name the folder of the photos, or --collection "
            "DIR to import without them"
        )
    folder = collection_folder(Path(), collection)
    return import_without_photos(
        shards, source, folder, encoder=encoder, options=options, progress=progress
    )


def _source(shards: "ShardSet", partial: bool) -> Source:
    """Return the vectors of the shards that are there; raises CollectionError where some are
    missing, unless ``partial``.
    """
    manifest, missing = shards.manifest, shards.missing()
    if missing and not partial:
        raise CollectionError(
            f"{shards.name} lacks {len(missing):,} of {manifest.shards:,} shards "
            f"(the first is {missing[0]:06d}): run `vitsearch embed` again, or import what is "
            "there with --partial"
        )
    per_shard = {number: shards.counts([number]) for number in shards.finished()}
    with_failures = [number for number, (_, failed) in per_shard.items() if failed]
    count = sum(good for good, _ in per_shard.values())
    exported = ExportManifest(
        layout=LAYOUT,
        photos=count,
        encoder=manifest.encoder,
        encoder_fingerprint=manifest.encoder_fingerprint,
        dtype=manifest.dtype,
        dim=manifest.dim,
        golden=manifest.golden,
    )
    return Source(
        name=shards.name,
        count=count,
        dim=manifest.dim,
        manifest=exported,
        blocks=lambda: _blocks(shards),
        failures=lambda: _failures(shards, with_failures),
    )


def _blocks(shards: "ShardSet") -> Iterator[Block]:
    for rows, halves in shards.blocks():
        yield [Row(row.path, row.fingerprint, row.label, row.label_score) for row in rows], halves


def _failures(shards: "ShardSet", numbers: list[int]) -> Iterator[tuple[Found, str]]:
    for skipped, row in shards.failed_rows(numbers):
        yield Found(row.path, row.size, row.mtime_ns), skipped.reason


# -- An import without photos ----------------------------------------------------------------------


def source_root(shards: "ShardSet", folder: Path, options: ImportOptions) -> Path:
    """Return the photo folder of a collection that is made of a shard set.

    It is the one in ``options``, or else what the set names as its source where that is the set's
    own folder or lies in it, or else that of the collection: a set of somebody else must not decide
    which files of this machine are shown. Raises CollectionError where there is no such folder.
    """
    if options.root is not None:
        return photo_root(options.root)
    source = shards.manifest.source
    if shards.storage.is_local and "\0" not in source and os.path.isabs(source):
        folder_of_set, real = os.path.realpath(shards.name), os.path.realpath(source)
        if os.path.isdir(real) and Path(real).is_relative_to(folder_of_set):
            return Path(source)
    return folder


def import_without_photos(
    shards: "ShardSet",
    source: Source,
    folder: Path,
    *,
    encoder: str | ImageEncoder | None,
    options: ImportOptions,
    progress: OnProgress,
) -> ImportReport:
    """Store the rows of a shard set, whose vectors and failures are also the source's, in the
    collection in ``folder``; all or none.

    Raises CollectionError, CollectionLocked, EncoderError or EncoderMismatch.
    """
    root, named = source_root(shards, folder, options), shards.manifest.source
    config = known_config(folder, root)
    if config is None and root == folder:
        log.warning(
            f"the photos of {shards.name} were in {named!r}: where they are on this machine, "
            "import it with --photos DIR to show them"
        )
    chosen = chosen_encoder(source, folder, config, encoder=encoder, options=options)
    golden, counts = golden_vectors(chosen), ImportCounts()
    with import_target(root, folder, chosen) as store:
        exact, managed = shards.manifest.decoding == "exact", shards.manifest.colours != RAW
        record_decoding(store, Decoding(MAX_PIXELS, exact, managed))
        with store.writing():
            start_database(store, folder, chosen.name, golden)
            running = _Import(store, (os.path.abspath(root), named), counts)
            running.store_photos(shards, source.count, progress)
            running.store_failures(source)
            if not counts["imported"] + counts["unchanged"] + counts["failed"]:
                raise CollectionError(
                    f"none of the {source.count:,} rows of {source.name} could be used: "
                    f"{counts.first_problems() or 'there are none'}"
                )
        total = store.count()
    return counts.report(0, total)


class _Import:
    """One import without photos, inside its transaction."""

    def __init__(self, store: PhotoStore, roots: tuple[str, ...], counts: ImportCounts) -> None:
        self.store, self.counts = store, counts
        self.resolver = PathResolver({}, tuple(filter(None, (r.rstrip("/") for r in roots))))

    def store_photos(self, shards: "ShardSet", count: int, progress: OnProgress) -> None:
        """Store the rows that have a vector, and count them."""
        done = 0
        for rows, vectors in shards.blocks():
            good = usable(vectors)
            halves = stored_halves(np.where(good[:, None], vectors, np.float16(1)))
            for row, half, is_good in zip(rows, halves, good.tolist(), strict=True):
                self._store(row, half if is_good else None)
            done += len(rows)
            progress(Progress("importing", done, count))
        self.store.raise_generation(self.counts["imported"] > 0)

    def store_failures(self, source: Source) -> None:
        """Store what could not be read, unless the collection has the photo."""
        for file, reason in source.failures():
            path = self._path(file.path)
            if path is not None and self.store.photo_at(path) is None:
                self.store.put_failure(file._replace(path=path), "failed", reason)
                self.counts.add("failed")

    def _store(self, row: ShardRow, half: Halves | None) -> None:
        """Store one photo, unless the collection has it or a newer one."""
        path = self._path(row.path)
        if path is None:
            self.counts.add_problem("outside", row.path, OUTSIDE)
        elif half is None:
            self.counts.add_problem("damaged", row.path, BAD_VECTOR)
        elif row.fingerprint is None or row.info is None:
            self.counts.add_problem("damaged", row.path, _NO_FACTS)
        else:
            facts = (row.size, row.mtime_ns, row.fingerprint, row.info, row.label, row.label_score)
            outcome = self.store.keep(Photo(0, path, *facts), half, newest=True)
            if outcome is Outcome.OLDER:
                self.counts.add_problem("changed", row.path, _OLDER)
            else:
                self.counts.add("imported" if outcome.is_stored else "unchanged")

    def _path(self, stored: str) -> str | None:
        """Return a path as the collection stores it; None where it leaves the photo folder, since a
        search must not show files elsewhere.
        """
        relative = None if "\0" in stored else self.resolver.relative(stored)
        return relative if relative is None or stored.startswith("/") else stored
