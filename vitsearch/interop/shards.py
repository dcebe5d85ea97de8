"""Shard sets: the vectors that embedding on many machines writes, into a collection and out of one.

An import needs no photos: rows are taken at their word, with the fingerprint, size, time and facts
that they hold.
"""

import os
from collections.abc import Iterator
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitsearch.arrays import Halves
from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.identity import golden_vectors
from vitsearch.errors import CollectionError
from vitsearch.interop.importer import (
    BAD_VECTOR,
    ImportCounts,
    ImportOptions,
    ImportReport,
    chosen_encoder,
    import_vectors,
)
from vitsearch.interop.manifest import PASSPORT, ExportManifest, passport_of
from vitsearch.interop.matching import OUTSIDE, Places
from vitsearch.interop.rows import Block, Row, Source, photo_blocks, stored_halves, usable
from vitsearch.interop.target import known_settings, open_target, written_aside
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
from vitsearch.shards.manifest import is_manifest
from vitsearch.storage.config import collection_folder
from vitsearch.storage.create import start_database
from vitsearch.storage.decoding import Decoding, record_decoding
from vitsearch.storage.reader import StoredCollection
from vitsearch.storage.store import Outcome, PhotoStore
from vitsearch.types import Found, OnProgress, Photo, Progress, no_progress

# -- Rows of a shard set into a collection without looking at the photos, which may be elsewhere ---

if TYPE_CHECKING:
    from vitsearch.shards.files import ShardSet

_NO_FACTS = "its row has no fingerprint or no size in pixels"
_OLDER = "the collection has a file of this name that was changed later"


def photo_place(manifest: Manifest, folder: Path) -> Path:
    """Return the folder that the paths of a shard set are relative to where it is on this machine,
    else that of the collection.
    """
    source = manifest.source
    if "\0" not in source and os.path.isabs(source):
        if os.path.isdir(source):
            return Path(source)
        if os.path.isfile(source):  # a list of photos, beside them
            return Path(source).parent
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
    root = photo_place(shards.manifest, folder)
    chosen = chosen_encoder(
        source, folder, known_settings(folder, root), encoder=encoder, device=options.device
    )
    golden, tally = golden_vectors(chosen), ImportCounts()
    with open_target(root, folder, chosen) as store:
        record_decoding(store, Decoding(MAX_PIXELS, shards.manifest.decoding == "exact"))
        with store.writing():
            start_database(store, folder, chosen.name, golden)
            taking = _Import(store, root, tally)
            _take_rows(shards, source.count, taking, progress)
            taking.take_failures(source)
            if not sum(tally.counts[kind] for kind in ("imported", "unchanged", "failed")):
                reason = (
                    ", ".join(f"{path!r} {reason}" for path, reason in tally.problems[:2])
                    or "there are none"
                )
                raise CollectionError(
                    f"none of the {source.count:,} rows of {source.name} could be used: {reason}"
                )
        total = store.count()
    return tally.report(0, total)


def _take_rows(shards: "ShardSet", count: int, taking: "_Import", progress: OnProgress) -> None:
    done = 0
    for rows, vectors in shards.blocks():
        good = usable(vectors)
        halves = stored_halves(np.where(good[:, None], vectors, np.float16(1)))
        for row, half, is_good in zip(rows, halves, good.tolist(), strict=True):
            taking.take(row, half if is_good else None)
        done += len(rows)
        progress(Progress("importing", done, count))
    taking.end()


class _Import:
    """One import, inside its transaction."""

    def __init__(self, store: PhotoStore, root: Path, tally: ImportCounts) -> None:
        self.store, self.tally = store, tally
        self.places = Places({}, (os.path.abspath(root),))

    def take(self, row: ShardRow, half: Halves | None) -> None:
        """Store one photo, unless the collection has it or a newer one."""
        path = self._path(row.path)
        if path is None:
            self.tally.problem("outside", row.path, OUTSIDE)
        elif half is None:
            self.tally.problem("damaged", row.path, BAD_VECTOR)
        elif row.fingerprint is None or row.info is None:
            self.tally.problem("damaged", row.path, _NO_FACTS)
        else:
            facts = (row.size, row.mtime_ns, row.fingerprint, row.info, row.label, row.label_score)
            outcome = self.store.keep(Photo(0, path, *facts), half, newest=True)
            if outcome is Outcome.OLDER:
                self.tally.problem("changed", row.path, _OLDER)
            else:
                self.tally.counts["imported" if outcome.is_stored else "unchanged"] += 1

    def end(self) -> None:
        """Count the change."""
        self.store.raise_generation(self.tally.counts["imported"] > 0)

    def take_failures(self, source: Source) -> None:
        """Store what could not be read, but where the collection has the photo."""
        for found, reason in source.failures():
            path = self._path(found.path)
            if path is not None and self.store.photo_at(path) is None:
                self.store.put_failure(found._replace(path=path), "failed", reason)
                self.tally.counts["failed"] += 1

    def _path(self, given: str) -> str | None:
        """Return a path as the collection has it; None where it leads out of the photo folder, to
        files that nobody meant to show.
        """
        inside = None if "\0" in given else self.places.relative(given)
        return inside if inside is None or given.startswith("/") else given


# -- Shard sets ------------------------------------------------------------------------------------

if TYPE_CHECKING:
    from vitsearch.shards.files import ShardSet, ShardWriter

SHARD = 10_000
_DEFAULTS = ImportOptions()
_NAMES = frozenset({PASSPORT, "shards"})


def holds_shards(place: str | os.PathLike[str]) -> bool:
    """Return whether a folder or URL holds a shard set; raises CollectionError where a URL cannot
    be reached.
    """
    name = os.fspath(place)
    if "://" in name:
        return is_shard_set(name)
    try:
        return is_manifest((Path(name) / PASSPORT).read_bytes())
    except OSError:
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

    Photos are in order of path with the halves, labels and facts of the collection; its failures
    follow. A folder is written aside and renamed, over an earlier export; at a URL nothing may be
    there. Raises CollectionError.
    """
    if shard_size < 1:
        raise CollectionError("a shard must hold at least 1 photo: give a shard size of 1 or more")
    with collection.store.reading():
        photos = collection.store.count()
        manifest = _manifest(collection, photos + len(collection.store.failures()), shard_size)
        if "://" in os.fspath(output):
            _write(collection, create_shards(output, manifest), photos, progress)
        else:
            with written_aside(Path(output), _NAMES) as aside:
                _write(collection, create_shards(aside, manifest), photos, progress)
    return photos


def _manifest(collection: StoredCollection, rows: int, shard_size: int) -> Manifest:
    manifest = passport_of(collection, LAYOUT, rows)
    return Manifest(
        encoder=manifest.encoder,
        encoder_fingerprint=manifest.encoder_fingerprint,
        dtype=manifest.dtype,
        dim=manifest.dim,
        golden=manifest.golden,
        source=os.path.abspath(collection.root),
        decoding="scaled"
        if collection.store.get_meta("decode") in ("scaled", "mixed")
        else "exact",
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
        writer.write(
            number,
            [row for row, _ in part],
            np.stack(halves) if halves else np.empty((0, manifest.dim), np.float16),
        )
        done += len(part)
        progress(Progress("exporting", done, manifest.rows))
    writer.finish()


def _rows(collection: StoredCollection, photos: int) -> Iterator[tuple[ShardRow, Halves | None]]:
    """Yield the photos with their vectors, then the failures."""
    for block, halves in photo_blocks(collection.store, collection.store.photos(), photos):
        for one, half in zip(block, halves, strict=True):
            facts = (one.size, one.mtime_ns, one.fingerprint, one.info, one.label, one.label_score)
            yield ShardRow(photo_id(one.path), one.path, *facts), half
    for skipped, (path, _, size, mtime_ns) in zip(
        collection.store.failures(), collection.store.failure_stats(), strict=True
    ):
        yield (
            ShardRow(
                photo_id(path), path, size, mtime_ns, error=skipped.reason or "cannot be read"
            ),
            None,
        )


def import_shards(
    output: str | os.PathLike[str],
    photos: str | os.PathLike[str] | None = None,
    *,
    collection: str | os.PathLike[str] | None = None,
    encoder: str | ImageEncoder | None = None,
    options: ImportOptions = _DEFAULTS,
    progress: OnProgress = no_progress,
) -> ImportReport:
    """Add the vectors of a shard set to a collection, which is made where there is none; several
    sets of one encoder may follow each other.

    With ``photos`` the rows are matched with the photos in that folder, and some are embedded to
    compare, as `import_clip_retrieval` does. Without, ``collection`` says where the collection is,
    and no photo needs to be there: rows keep the facts that they hold. Of two rows for one path the
    file that was changed last wins. Rows with an error become failures of the collection.

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
    """Return the vectors of the shards that are there; raises CollectionError where some are not,
    unless asked for these.
    """
    manifest, missing = shards.manifest, shards.missing()
    if missing and not partial:
        raise CollectionError(
            f"{shards.name} lacks {len(missing):,} of {manifest.shards:,} shards (the first is "
            f"{missing[0]:06d}): "
            "run `vitsearch embed` again, or import what is there with --partial"
        )
    per_shard = {number: shards.counts([number]) for number in shards.finished()}
    with_failures = [number for number, (_, failed) in per_shard.items() if failed]
    count = sum(good for good, _ in per_shard.values())
    exported = ExportManifest(
        LAYOUT,
        count,
        manifest.encoder,
        manifest.encoder_fingerprint,
        manifest.dtype,
        manifest.dim,
        golden=manifest.golden,
    )
    return Source(
        shards.name,
        count,
        manifest.dim,
        exported,
        lambda: _blocks(shards),
        lambda: _failures(shards, with_failures),
    )


def _blocks(shards: "ShardSet") -> Iterator[Block]:
    for rows, halves in shards.blocks():
        yield [Row(row.path, row.fingerprint, row.label, row.label_score) for row in rows], halves


def _failures(shards: "ShardSet", numbers: list[int]) -> Iterator[tuple[Found, str]]:
    for skipped, row in shards.failed_rows(numbers):
        yield Found(row.path, row.size, row.mtime_ns), skipped.reason
