"""Shards into Milvus: checked before anything is written, safe to repeat, verified at the end."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from vitsearch.arrays import Halves, cosine_scores
from vitsearch.errors import CollectionError
from vitsearch.milvus import CollectionMetadata, MilvusUri, connect, parse_uri
from vitsearch.milvus.schema import DIGEST, FIELDS, encode_golden, rejection, row_of
from vitsearch.milvus.store import Candidates, build_params
from vitsearch.shards import Manifest, ShardRow, open_shards
from vitsearch.types import OnProgress, Photo, Progress, no_progress

if TYPE_CHECKING:
    from vitsearch.milvus.client import Connection
    from vitsearch.shards.files import ShardSet

BATCH = 1000  # rows written at a time
COMPARED = 8000  # rows compared at a time with what is there: each comparison waits for the server
WRITING = 4  # batches on their way at a time
INDEX = "AUTOINDEX"
CHECKED = 16  # stored vectors to search for at the end
LISTED = 5  # photos to name of those that Milvus cannot hold
SAME = 1e-6  # how far below 1 the cosine of equal vectors may be

Block = tuple[Sequence[ShardRow], Halves]
Stored = tuple[int, Halves]  # the id of a row and its vector


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

    def add(self, part: "PushReport") -> None:
        """Add the counts and notes of a part of the work."""
        self.written += part.written
        self.unchanged += part.unchanged
        self.left_out += part.left_out
        self.notes += part.notes[: max(0, LISTED - len(self.notes))]

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
    workers: int = 1,
    progress: OnProgress = no_progress,
) -> PushReport:
    """Write the photos of a shard set into a collection of Milvus, and return a report.

    The collection is made if it does not exist. ``uri`` and ``name`` are those of
    `MilvusCollection`; ``index`` is the type of the vectors' index (AUTOINDEX, FLAT, IVF_FLAT,
    IVF_SQ8, HNSW, ...). A row that is there already is compared and not written again, so that a
    push may be repeated and continues after a stop. ``workers`` processes write to a server, each
    a shard at a time; a file of Milvus Lite is written by one. ``progress`` is called with the
    number of photos done and of all. Raises EncoderMismatch, before anything is written, for a
    collection of another encoder, and CollectionError.
    """
    address = parse_uri(uri, name)
    shards = open_shards(output)
    total, _ = shards.counts()
    with closing(connect(address)) as connection:
        began = time.monotonic()
        report = prepare(connection, shards.manifest, index=index, rows=total)
        report.missing_shards = len(shards.missing())

        def report_progress(done: int) -> None:
            progress(Progress("pushing", done, total))

        if workers > 1 and not address.file:  # one process holds a file of Milvus Lite
            _push_parallel(connection, shards, report, batch, workers, report_progress)
        else:
            blocks = shards.blocks(size=max(batch, COMPARED))
            push_blocks(connection, blocks, report, batch=batch, progress=report_progress)
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
    batch: int = BATCH,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Write blocks of rows and their ``(n, dim)`` vectors into a prepared collection.

    Some of the stored vectors are then searched for. The counts are added to ``report``;
    ``progress`` is called with the number of photos done so far. Raises CollectionError.
    """
    before = connection.count()
    new, sample = _write_blocks(connection, blocks, report, batch, progress)
    _finish(connection, before + new, sample, report)


def _write_blocks(
    connection: "Connection",
    blocks: Iterable[Block],
    report: PushReport,
    batch: int,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[int, list[Stored]]:
    """Write blocks of rows; return how many ids are new, and some of the stored vectors."""
    new, done, sample = 0, 0, list[Stored]()
    with ThreadPoolExecutor(WRITING) as writers:
        for rows, halves in blocks:
            _check_block(rows, halves, connection.uri)
            new += _write(connection, rows, halves, report, sample, batch, writers)
            done += len(rows)
            progress(done)
    return new, sample


def _write_shards(
    output: str, address: MilvusUri, numbers: Sequence[int], batch: int
) -> tuple[int, list[Stored], PushReport]:
    """Write some shards, in a process of its own, to which little but names travels."""
    report = PushReport(str(address), "")
    with closing(connect(address)) as connection:
        blocks = open_shards(output).blocks(numbers, size=max(batch, COMPARED))
        new, sample = _write_blocks(connection, blocks, report, batch)
    return new, sample, report


def _push_parallel(
    connection: "Connection",
    shards: "ShardSet",
    report: PushReport,
    batch: int,
    workers: int,
    progress: Callable[[int], object],
) -> None:
    """Write the shards of a set as `push_blocks` does, by several processes at a time."""
    before, new, done, sample = connection.count(), 0, 0, list[Stored]()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        parts = [
            pool.submit(_write_shards, shards.name, connection.uri, [number], batch)
            for number in shards.finished()
        ]
        try:
            for part in as_completed(parts):
                part_new, part_sample, part_report = part.result()
                new += part_new
                sample += part_sample
                report.add(part_report)
                done += part_report.written + part_report.unchanged + part_report.left_out
                progress(done)
        except BrokenProcessPool as error:
            raise CollectionError(
                "a process that writes died, perhaps for memory: push again with fewer --workers"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _finish(connection, before + new, sample, report)


def _finish(
    connection: "Connection", expected: int, sample: Sequence[Stored], report: PushReport
) -> None:
    """Make what was written durable, count the rows, and search for some of the vectors."""
    if report.written:
        connection.flush()
    report.total = connection.count()
    if report.written:
        # readers, who may see rows late and remember what they see of a generation, see them now
        connection.raise_generation()
    if report.total != expected:
        raise CollectionError(
            f"{connection.uri} holds {report.total:,} photos, not {expected:,}: something "
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
    norms = np.linalg.norm(halves.astype(np.float32), axis=1)
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
    sample: list[Stored],
    batch: int,
    writers: ThreadPoolExecutor,
) -> int:
    """Write the rows of a block that are new or changed, and return how many ids are new."""
    names = connection.fields()
    held = {
        photo.photo_id: row_of(photo, vector, names)
        for photo, vector in _held(rows, halves, report)
    }
    there = _there(connection, held)
    for photo_id, stored in there.items():
        if stored["path"] != held[photo_id]["path"]:
            _leave_out(report, held[photo_id]["path"], f"its number is that of {stored['path']}")
            del held[photo_id]
    sample += [
        (photo_id, row["vector"]) for photo_id, row in islice(held.items(), None, None, batch)
    ]
    changed = [
        row
        for photo_id, row in held.items()
        if photo_id not in there or not _equal(there[photo_id], row)
    ]
    batches = [changed[start : start + batch] for start in range(0, len(changed), batch)]
    for _ in writers.map(connection.upsert, batches):
        pass
    report.written += len(changed)
    report.unchanged += len(held) - len(changed)
    return len(held.keys() - there.keys())


def _there(
    connection: "Connection", held: Mapping[int, Mapping[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Return by id what is stored of these rows: their digests, and of a collection without them
    every value.
    """
    if DIGEST not in connection.fields():
        names = ["id", *(name for name in FIELDS if name in connection.fields()), "vector"]
        return {row["id"]: row for row in connection.among(list(held), names)}
    there = {row["id"]: row for row in connection.among(list(held), ["id", DIGEST])}
    same = [photo_id for photo_id, row in there.items() if row[DIGEST] == held[photo_id][DIGEST]]
    for photo_id in same:
        there[photo_id]["path"] = held[photo_id]["path"]
    others = [photo_id for photo_id in there if "path" not in there[photo_id]]
    for row in connection.among(others, ["id", "path"]):
        there[row["id"]]["path"] = row["path"]
    return there


def _held(
    rows: Sequence[ShardRow], halves: Halves, report: PushReport
) -> Iterator[tuple[Photo, Halves]]:
    """Yield each photo that Milvus can hold, with its vector."""
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
            yield photo, vector
        else:
            _leave_out(report, photo.path, reason)


def _leave_out(report: PushReport, path: str, reason: str) -> None:
    report.left_out += 1
    if report.left_out <= LISTED:
        report.notes.append(f"Milvus cannot hold {path}: {reason}")


def _equal(there: dict[str, Any], row: dict[str, Any]) -> bool:
    """Return whether a stored row equals the one that would be written."""
    if DIGEST in row:
        return bool(there[DIGEST] == row[DIGEST])
    same = np.array_equal(there["vector"], row["vector"])
    return same and all(there[name] == row[name] for name in row if name != "vector")


def _verify(connection: "Connection", sample: Sequence[Stored], report: PushReport) -> None:
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
