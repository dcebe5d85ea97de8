"""Shard sets: the vectors that embedding on many machines writes, into a collection and out of one.

An import needs no photos: rows are taken at their word, with the fingerprint, size, time and facts that they hold.
"""

import os
from collections.abc import Iterator
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitsearch.collection import Collection
from vitsearch.encoders.protocol import ImageEncoder
from vitsearch.errors import CollectionError
from vitsearch.exchange.intake import ImportOptions, ImportReport, OnProgress, take_in
from vitsearch.exchange.output import written_aside
from vitsearch.exchange.passport import PASSPORT, Passport, passport_of
from vitsearch.exchange.rows import Block, Row, Source, photo_blocks
from vitsearch.exchange.trusted import take_at_word
from vitsearch.layout import collection_folder
from vitsearch.shards import LAYOUT, Manifest, ShardRow, create_shards, is_shard_set, open_shards, photo_id
from vitsearch.shards.manifest import is_manifest
from vitsearch.store import Half
from vitsearch.types import Found

if TYPE_CHECKING:
    from vitsearch.shards.shard_set import ShardSet
    from vitsearch.shards.writer import ShardWriter

SHARD = 10_000
_DEFAULTS = ImportOptions()
_NAMES = frozenset({PASSPORT, "shards"})


def holds_shards(place: str | os.PathLike[str]) -> bool:
    """Return whether a folder or URL holds a shard set; raises CollectionError where a URL cannot be reached."""
    name = os.fspath(place)
    if "://" in name:
        return is_shard_set(name)
    try:
        return is_manifest((Path(name) / PASSPORT).read_bytes())
    except OSError:
        return False


def export_shards(
    collection: Collection,
    output: str | os.PathLike[str],
    *,
    shard_size: int = SHARD,
    progress: OnProgress = lambda done, total: None,
) -> int:
    """Write a collection as a shard set into a folder or at a URL, and return how many photos it holds.

    Photos are in order of path with the halves, labels and facts of the collection; its failures follow. A folder is written aside and
    renamed, over an earlier export; at a URL nothing may be there. Raises CollectionError.
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


def _manifest(collection: Collection, rows: int, shard_size: int) -> Manifest:
    passport = passport_of(collection, LAYOUT, rows)
    return Manifest(
        encoder=passport.encoder,
        encoder_fingerprint=passport.encoder_fingerprint,
        dtype=passport.dtype,
        dim=passport.dim,
        golden=passport.golden,
        source=os.path.abspath(collection.root),
        decoding="scaled" if collection.store.fact("decode") in ("scaled", "mixed") else "exact",
        shard_size=shard_size,
        rows=rows,
        shards=ceil(rows / shard_size),
    )


def _write(collection: Collection, writer: "ShardWriter", photos: int, progress: OnProgress) -> None:
    manifest, done = writer.manifest, 0
    rows = _rows(collection, photos)
    for number in range(manifest.shards):
        part = list(islice(rows, manifest.shard_size))
        halves = [half for _, half in part if half is not None]
        writer.write(number, [row for row, _ in part], np.stack(halves) if halves else np.empty((0, manifest.dim), np.float16))
        done += len(part)
        progress(done, manifest.rows)
    writer.finish()


def _rows(collection: Collection, photos: int) -> Iterator[tuple[ShardRow, Half | None]]:
    """Yield the photos with their vectors, then the failures."""
    for block, halves in photo_blocks(collection.store, collection.photos(), photos):
        for one, half in zip(block, halves, strict=True):
            facts = (one.size, one.mtime_ns, one.fingerprint, one.info, one.label, one.label_score)
            yield ShardRow(photo_id(one.path), one.path, *facts), half
    for skipped, (path, _, size, mtime_ns) in zip(collection.store.failures(), collection.store.failure_stats(), strict=True):
        yield ShardRow(photo_id(path), path, size, mtime_ns, error=skipped.reason or "cannot be read"), None


def import_shards(
    output: str | os.PathLike[str],
    photos: str | os.PathLike[str] | None = None,
    *,
    collection: str | os.PathLike[str] | None = None,
    encoder: str | ImageEncoder | None = None,
    options: ImportOptions = _DEFAULTS,
    progress: OnProgress = lambda done, total: None,
) -> ImportReport:
    """Add the vectors of a shard set to a collection, which is made where there is none; several sets of one encoder may follow each other.

    With ``photos`` the rows are matched with the photos in that folder, and some are embedded to compare, as `import_clip_retrieval` does.
    Without, ``collection`` says where the collection is, and no photo needs to be there: rows keep the facts that they hold. Of two rows
    for one path the file that was changed last wins. Rows with an error become failures of the collection.

    Raises CollectionError (a shard is missing and ``options.partial`` is not set, damage), CollectionLocked, EncoderError or
    EncoderMismatch, after any of which the collection is as it was.
    """
    shards = open_shards(output)
    source = _source(shards, options.partial)
    if photos is not None:
        return take_in(source, photos, collection=collection, encoder=encoder, options=options, progress=progress)
    if collection is None:
        raise CollectionError("say where the collection goes: name the folder of the photos, or --collection DIR to import without them")
    folder = collection_folder(Path(), collection)
    return take_at_word(shards, source, folder, encoder=encoder, options=options, progress=progress)


def _source(shards: "ShardSet", partial: bool) -> Source:
    """Return the vectors of the shards that are there; raises CollectionError where some are not, unless asked for these."""
    manifest, missing = shards.manifest, shards.missing()
    if missing and not partial:
        raise CollectionError(
            f"{shards.name} lacks {len(missing):,} of {manifest.shards:,} shards (the first is {missing[0]:06d}): "
            "run `vitsearch embed` again, or import what is there with --partial"
        )
    per_shard = {number: shards.counts([number]) for number in shards.finished()}
    with_failures = [number for number, (_, failed) in per_shard.items() if failed]
    count = sum(good for good, _ in per_shard.values())
    passport = Passport(LAYOUT, count, manifest.encoder, manifest.encoder_fingerprint, manifest.dtype, manifest.dim, golden=manifest.golden)
    return Source(shards.name, count, manifest.dim, passport, lambda: _blocks(shards), lambda: _failures(shards, with_failures))


def _blocks(shards: "ShardSet") -> Iterator[Block]:
    for rows, halves in shards.blocks():
        yield [Row(row.path, row.fingerprint, row.label, row.label_score) for row in rows], halves


def _failures(shards: "ShardSet", numbers: list[int]) -> Iterator[tuple[Found, str]]:
    for skipped, row in shards.failed_rows(numbers):
        yield Found(row.path, row.size, row.mtime_ns), skipped.reason
