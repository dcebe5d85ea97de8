"""Shards into Milvus: checked before anything is written, safe to repeat, verified at the end."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from vitsearch.arrays import Halves, cosine_scores
from vitsearch.errors import CollectionError
from vitsearch.milvus import CollectionMetadata, MilvusUri, connect, parse_uri
from vitsearch.milvus.metadata import encode_golden
from vitsearch.milvus.rows import FIELDS, rejection, row_of
from vitsearch.milvus.store import Candidates, build_params
from vitsearch.shards import Manifest, ShardRow, open_shards
from vitsearch.types import OnProgress, Photo, Progress, no_progress

if TYPE_CHECKING:
    from vitsearch.milvus.client import Connection

BATCH = 1000  # rows written at a time
INDEX = "AUTOINDEX"
CHECKED = 16  # stored vectors to search for at the end
LISTED = 5  # photos to name of those that Milvus cannot hold
SAME = 1e-6  # how far below 1 the cosine of equal vectors may be

Block = tuple[Sequence[ShardRow], Halves]


@dataclass(slots=True)
class PushReport:
    """What was pushed: photos ``written``, ``unchanged`` as they were there, and ``left_out``.

    Milvus cannot hold the last (see ``notes``, lines for a person). ``total`` is how many photos
    the collection has now; ``verified`` of ``checked`` stored vectors came back first with a cosine
    of 1; ``missing_shards`` are not embedded yet.
    """

    collection: str
    index: str
    written: int = 0
    unchanged: int = 0
    left_out: int = 0
    missing_shards: int = 0
    total: int = 0
    checked: int = 0
    verified: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as `vitsearch push --json` prints it."""
        names = {
            "collection": "place",
            "left_out": "unheld",
            "missing_shards": "missing",
            "verified": "found",
        }
        return {names.get(key, key): value for key, value in asdict(self).items()}


def push(
    output: str | os.PathLike[str],
    uri: str,
    name: str | None = None,
    *,
    index: str | None = None,
    batch: int = BATCH,
    progress: OnProgress = no_progress,
) -> PushReport:
    """Write the photos of a shard set into a collection of Milvus, and return a report.

    The collection is made if it does not exist. ``uri`` and ``name`` are those of
    `MilvusCollection`; ``index`` is the type of the vectors' index (AUTOINDEX, FLAT, IVF_FLAT,
    IVF_SQ8, HNSW, ...). A row that is there already is compared and not written again, so that a
    push may be repeated and continues after a stop. ``progress`` is called with the number of
    photos done and of all. Raises EncoderMismatch, before anything is written, for a collection of
    another encoder, and CollectionError.
    """
    address = parse_uri(uri, name)
    shards = open_shards(output)
    total, _ = shards.counts()
    with closing(connect(address)) as connection:
        began = time.monotonic()
        report = prepare(connection, shards.manifest, index=index, rows=total)
        report.missing_shards = len(shards.missing())
        blocks = shards.blocks(size=batch)
        push_blocks(
            connection,
            blocks,
            report,
            progress=lambda done: progress(Progress("pushing", done, total)),
        )
        report.seconds = time.monotonic() - began
    return report


def prepare(
    connection: "Connection", manifest: Manifest, *, index: str | None = None, rows: int = 0
) -> PushReport:
    """Return an empty report after making or checking the collection for a shard set.

    Raises EncoderMismatch for a collection with the vectors of another encoder, CollectionError for
    one with an index other than ``index``.
    """
    params = build_params((index or INDEX).upper(), rows)
    metadata = _metadata(manifest)
    report = PushReport(str(connection.uri), (index or INDEX).upper())
    if not connection.exists():
        connection.create(metadata, report.index, params)
    else:
        existing = connection.metadata()
        advice = "push into another --collection NAME"
        existing.identity.check(metadata.identity, connection.uri, advice, of=manifest.source)
        report.notes += _differences(existing, metadata)
        report.index = _same_index(connection, index)
    connection.load()
    return report


def push_blocks(
    connection: "Connection",
    blocks: Iterable[Block],
    report: PushReport,
    *,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Write blocks of rows and their ``(n, dim)`` vectors into a prepared collection.

    Some of the stored vectors are then searched for. The counts are added to ``report``;
    ``progress`` is called with the number of photos done so far. Raises CollectionError.
    """
    before, new, done = connection.count(), 0, 0
    sample: list[tuple[int, Halves]] = []
    for rows, halves in blocks:
        _check_block(rows, halves, connection.uri)
        new += _write(connection, rows, halves, report, sample)
        done += len(rows)
        progress(done)
    if report.written:
        connection.flush()
        connection.raise_generation()
    report.total = connection.count()
    if report.total != before + new:
        raise CollectionError(
            f"{connection.uri} holds {report.total:,} photos, not {before + new:,}: something "
            "else writes to it, push again later"
        )
    _verify(connection, sample, report)


def _differences(existing: CollectionMetadata, metadata: CollectionMetadata) -> list[str]:
    notes = []
    if existing.source != metadata.source:
        notes.append(
            f"the collection's photos are in {existing.source}, these in {metadata.source}: its "
            "paths now belong to several places"
        )
    if existing.decoding != metadata.decoding:
        notes.append(
            "photos decoded whole and at a reduced size are now in one collection: their scores "
            "may differ by 0.005"
        )
    if existing.colours != metadata.colours:
        notes.append(
            "photos whose ICC profiles were applied and others whose were ignored are now in one "
            "collection"
        )
    return notes


def _same_index(connection: "Connection", requested: str | None) -> str:
    existing = str(connection.index().get("index_type"))
    if requested and requested.upper() != existing:
        raise CollectionError(
            f"{connection.uri} has the index {existing}, not {requested.upper()}: leave out "
            "--index, or push into another"
        )
    return existing


def _metadata(manifest: Manifest) -> CollectionMetadata:
    return CollectionMetadata(
        manifest.encoder,
        manifest.encoder_fingerprint,
        manifest.dtype,
        manifest.dim,
        golden=encode_golden(manifest.identity.golden),
        source=manifest.source,
        decoding=manifest.decoding,
        colours=manifest.colours,
    )


def _check_block(rows: Sequence[ShardRow], halves: Halves, collection: MilvusUri) -> None:
    if len(rows) != len(halves) or any(row.info is None or row.fingerprint is None for row in rows):
        raise CollectionError(
            f"a block for {collection} is damaged (a photo without facts or "
            "vector): embed its shard again"
        )
    norms = np.linalg.norm(halves.astype(np.float64), axis=1)
    if not (np.abs(norms - 1) < 0.01).all():
        raise CollectionError(
            f"a block for {collection} is damaged (a vector whose length is not "
            "1): embed its shard again"
        )


def _write(
    connection: "Connection",
    rows: Sequence[ShardRow],
    halves: Halves,
    report: PushReport,
    sample: list[tuple[int, Halves]],
) -> int:  # fmt: skip
    """Write the rows of a block that are new or changed, and return how many ids are new."""
    fields = ["id", *(name for name in FIELDS if name in connection.fields()), "vector"]
    held = {
        photo_id: {name: row[name] for name in fields}
        for photo_id, row in _held(rows, halves, report)
    }
    there = {row["id"]: row for row in connection.among(list(held), fields)}
    for photo_id, row in list(held.items()):
        if photo_id in there and there[photo_id]["path"] != row["path"]:
            _leave_out(report, row["path"], f"its number is that of {there[photo_id]['path']}")
            del held[photo_id]
    changed = [
        row
        for photo_id, row in held.items()
        if photo_id not in there or not _equal(there[photo_id], row)
    ]
    if changed:
        connection.upsert(changed)
    report.written += len(changed)
    report.unchanged += len(held) - len(changed)
    sample += [
        (photo_id, np.asarray(row["vector"], dtype=np.float16))
        for photo_id, row in islice(held.items(), 1)
    ]
    return len(held.keys() - there.keys())


def _held(
    rows: Sequence[ShardRow], halves: Halves, report: PushReport
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the id and the row of each photo that Milvus can hold."""
    seen: dict[int, str] = {}
    for row, vector in zip(rows, halves, strict=True):
        if row.info is None or row.fingerprint is None:
            continue
        photo = Photo(
            row.photo_id,
            row.path,
            row.size,
            row.mtime_ns,
            row.fingerprint,
            row.info,
            row.label,
            row.label_score,
        )
        reason = rejection(photo)
        if reason is None and seen.setdefault(photo.photo_id, photo.path) != photo.path:
            reason = f"its number is that of {seen[photo.photo_id]}"
        if reason is None:
            yield photo.photo_id, row_of(photo, vector)
        else:
            _leave_out(report, photo.path, reason)


def _leave_out(report: PushReport, path: str, reason: str) -> None:
    report.left_out += 1
    if report.left_out <= LISTED:
        report.notes.append(f"Milvus cannot hold {path}: {reason}")


def _equal(there: dict[str, Any], row: dict[str, Any]) -> bool:
    """Return whether a stored row equals the one that would be written."""
    same = np.array_equal(
        np.asarray(there["vector"], dtype=np.float16), np.asarray(row["vector"], dtype=np.float16)
    )
    return same and all(there[name] == row[name] for name in row if name != "vector")


def _verify(
    connection: "Connection", sample: Sequence[tuple[int, Halves]], report: PushReport
) -> None:
    """Search for some of the vectors; raise CollectionError unless each comes first.

    Its cosine must be 1; equal vectors may come beside it.
    """
    chosen = sample[:: max(1, -(-len(sample) // CHECKED))]
    if not chosen:
        return
    vectors = np.stack([vector for _, vector in chosen]).astype(np.float32)
    proposed = Candidates(connection).candidates_for(vectors, 10)
    lost = [
        photo_id
        for (photo_id, vector), (ids, _) in zip(chosen, proposed, strict=True)
        if not _comes_first(connection, photo_id, vector, ids.tolist())
    ]
    report.checked, report.verified = len(chosen), len(chosen) - len(lost)
    if lost:
        raise CollectionError(
            f"{connection.uri}: {len(lost)} of {len(chosen)} stored vectors are not found again "
            f"(the first is that of photo {lost[0]}): "
            "push again, or into another --collection NAME with --index FLAT"
        )


def _comes_first(connection: "Connection", photo_id: int, vector: Halves, ids: list[int]) -> bool:
    rows = connection.among(ids, ["id", "vector"])
    if not rows:
        return False
    scores = cosine_scores(np.array([row["vector"] for row in rows]), vector)
    best = {row["id"] for row, score in zip(rows, scores, strict=True) if score >= 1 - SAME}
    return photo_id in best or (len(best) == len(ids) > 0)
