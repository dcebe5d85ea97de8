"""Rows of a shard set into a collection without looking at the photos, which may be elsewhere."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitsearch.encoders.golden import golden_vectors
from vitsearch.encoders.protocol import ImageEncoder
from vitsearch.errors import CollectionError
from vitsearch.exchange.encoder import chosen_encoder
from vitsearch.exchange.intake import BAD_VECTOR, ImportOptions, ImportReport, OnProgress, Tally
from vitsearch.exchange.places import OUTSIDE, Places
from vitsearch.exchange.rows import Source, stored_halves, usable
from vitsearch.exchange.target import known_settings, open_target, put_golden
from vitsearch.photos import MAX_PIXELS
from vitsearch.pipeline.decoding import Decoding, record_decoding
from vitsearch.shards import Manifest, ShardRow
from vitsearch.store import Half, PhotoStore
from vitsearch.types import Found

if TYPE_CHECKING:
    from vitsearch.shards.shard_set import ShardSet

_NO_FACTS = "its row has no fingerprint or no size in pixels"
_OLDER = "the collection has a file of this name that was changed later"


def photo_place(manifest: Manifest, folder: Path) -> Path:
    """Return the folder that the paths of a shard set are relative to where it is on this machine, else that of the collection."""
    source = manifest.source
    if "\0" not in source and os.path.isabs(source):
        if os.path.isdir(source):
            return Path(source)
        if os.path.isfile(source):  # a list of photos, beside them
            return Path(source).parent
    return folder


def take_at_word(
    shards: "ShardSet",
    source: Source,
    folder: Path,
    *,
    encoder: str | ImageEncoder | None,
    options: ImportOptions,
    progress: OnProgress,
) -> ImportReport:
    """Store the rows of a shard set, whose vectors and failures are also the source's, in the collection in ``folder``; all or none.

    Raises CollectionError, CollectionLocked, EncoderError or EncoderMismatch.
    """
    root = photo_place(shards.manifest, folder)
    chosen = chosen_encoder(source, folder, known_settings(folder, root), encoder=encoder, device=options.device)
    golden, tally = golden_vectors(chosen), Tally()
    with open_target(root, folder, chosen) as store:
        record_decoding(store, Decoding(MAX_PIXELS, shards.manifest.decoding == "exact"))
        with store.writing():
            put_golden(store, folder, golden)
            taking = _Taking(store, root, tally)
            _take_rows(shards, source.count, taking, progress)
            taking.take_failures(source)
            if not sum(tally.counts[kind] for kind in ("imported", "unchanged", "failed")):
                reason = ", ".join(f"{path!r} {reason}" for path, reason in tally.problems[:2]) or "there are none"
                raise CollectionError(f"none of the {source.count:,} rows of {source.name} could be used: {reason}")
        total = store.count()
    return tally.report(0, total)


def _take_rows(shards: "ShardSet", count: int, taking: "_Taking", progress: OnProgress) -> None:
    done = 0
    for rows, vectors in shards.blocks():
        good = usable(vectors)
        halves = stored_halves(np.where(good[:, None], vectors, np.float16(1)))
        for row, half, is_good in zip(rows, halves, good.tolist(), strict=True):
            taking.take(row, half if is_good else None)
        done += len(rows)
        progress(done, count)
    taking.end()


class _Taking:
    """One import, inside its transaction."""

    def __init__(self, store: PhotoStore, root: Path, tally: Tally) -> None:
        self.store, self.tally = store, tally
        self.places = Places({}, (os.path.abspath(root),))
        self.generation = store.generation() + 1
        self.labels: list[tuple[int, str, float]] = []

    def take(self, row: ShardRow, half: Half | None) -> None:
        """Store one photo, unless the collection has it or a newer one."""
        path = self._path(row.path)
        if path is None:
            self.tally.problem("outside", row.path, OUTSIDE)
        elif half is None:
            self.tally.problem("damaged", row.path, BAD_VECTOR)
        elif row.fingerprint is None or row.info is None:
            self.tally.problem("damaged", row.path, _NO_FACTS)
        else:
            self._keep(row, Found(path, row.size, row.mtime_ns), half)

    def _keep(self, row: ShardRow, found: Found, half: Half) -> None:
        assert row.fingerprint is not None
        assert row.info is not None
        here = self.store.photo_at(found.path)
        if here and here.fingerprint == row.fingerprint:
            self.tally.counts["unchanged"] += 1
            if here.label is None:
                self._label(here.photo_id, row)
        elif here and here.mtime_ns > row.mtime_ns:
            self.tally.problem("changed", row.path, _OLDER)
        else:
            self.tally.counts["imported"] += 1
            self._label(self.store.put_photo(found, row.fingerprint, row.info, vector=half, generation=self.generation), row)

    def end(self) -> None:
        """Store the labels, and count the change."""
        self.store.put_labels(self.labels)
        self.store.raise_generation(self.tally.counts["imported"] > 0)

    def take_failures(self, source: Source) -> None:
        """Store what could not be read, but where the collection has the photo."""
        for found, reason in source.failures():
            path = self._path(found.path)
            if path is not None and self.store.photo_at(path) is None:
                self.store.put_failure(found._replace(path=path), "failed", reason)
                self.tally.counts["failed"] += 1

    def _label(self, photo_id: int, row: ShardRow) -> None:
        if row.label is not None and row.label_score is not None:
            self.labels.append((photo_id, row.label, row.label_score))

    def _path(self, given: str) -> str | None:
        """Return a path as the collection has it; None where it leads out of the photo folder, to files that nobody meant to show."""
        inside = None if "\0" in given else self.places.relative(given)
        return inside if inside is None or given.startswith("/") else given
