"""Shards into Milvus: checked before anything is written, written again without harm, verified at
the end.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vitsearch.arrays import Halves, cosine_scores
from vitsearch.errors import CollectionError, EncoderMismatch
from vitsearch.milvus import CollectionMetadata, MilvusUri, connect, parse_place
from vitsearch.milvus.metadata import packed
from vitsearch.milvus.rows import FIELDS, row_of, unheld
from vitsearch.milvus.store import Candidates, build_params
from vitsearch.shards import Manifest, ShardRow, open_shards
from vitsearch.types import Photo

if TYPE_CHECKING:
    from vitsearch.milvus.client import Connection

BATCH = 1000  # rows written at a time
INDEX = "AUTOINDEX"
CHECKED = 16  # stored vectors that are searched for at the end
LISTED = 5  # photos that are named of those that are not held
SAME = 1e-6  # a cosine may be that much below 1

Block = tuple[Sequence[ShardRow], Halves]


@dataclass(slots=True)
class PushReport:
    """What was pushed: photos ``written``, ``unchanged`` because they were there, and ``unheld``
    because Milvus cannot hold them.

    ``total`` is how many the collection holds now, ``found`` how many of ``checked`` stored vectors
    came back first with a cosine of 1, ``missing`` the shards that are not there yet. ``notes`` are
    lines for a person.
    """

    place: str
    index: str
    written: int = 0
    unchanged: int = 0
    unheld: int = 0
    missing: int = 0
    total: int = 0
    checked: int = 0
    found: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def push(
    output: str | os.PathLike[str],
    uri: str,
    name: str | None = None,
    *,
    index: str | None = None,
    batch: int = BATCH,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> PushReport:
    """Write the photos of a shard set into a collection of Milvus, made where there is none, and
    return what was done.

    ``uri`` and ``name`` are those of `MilvusCollection`; ``index`` is the type of the vectors'
    index (AUTOINDEX, FLAT, IVF_FLAT, IVF_SQ8, HNSW, ...). A row that is there already is compared
    and not written again, so that a push may be repeated and goes on after a stop. ``progress`` is
    called with photos done and their number. Raises EncoderMismatch, before anything is written,
    for a collection of another encoder, and CollectionError.
    """
    place = parse_place(uri, name)
    shards = open_shards(output)
    total, _ = shards.counts()
    with closing(connect(place)) as connection:
        began = time.monotonic()
        report = prepare(connection, shards.manifest, index=index, rows=total)
        report.missing = len(shards.missing())
        push_blocks(
            connection,
            shards.blocks(size=batch),
            report,
            progress=lambda done: progress(done, total),
        )
        report.seconds = time.monotonic() - began
    return report


def prepare(
    connection: "Connection", manifest: Manifest, *, index: str | None = None, rows: int = 0
) -> PushReport:
    """Make the collection ready for rows of a shard set: made where there is none, checked where
    there is one.

    Raises EncoderMismatch or CollectionError where it holds the vectors of another encoder, or has
    another index than is asked for.
    """
    params = build_params((index or INDEX).upper(), rows)
    wanted = _facts(manifest)
    report = PushReport(str(connection.place), (index or INDEX).upper())
    if not connection.exists():
        connection.create(wanted, report.index, params)
    else:
        known = connection.facts()
        check_facts(known, wanted, connection.place)
        report.notes += _differences(known, wanted)
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
    """Write blocks of rows and their ``(n, dim)`` vectors into a prepared collection, and check
    that they are there.

    What was done is added to ``report``; ``progress`` is called with the photos done so far. Raises
    CollectionError.
    """
    before, new, done = connection.count(), 0, 0
    sample: list[tuple[int, Halves]] = []
    for rows, halves in blocks:
        _check_block(rows, halves, connection.place)
        new += _write(connection, rows, halves, report, sample)
        done += len(rows)
        progress(done)
    if report.written:
        connection.flush()
        connection.raise_generation()
    report.total = connection.count()
    if report.total != before + new:
        raise CollectionError(
            f"{connection.place} holds {report.total:,} photos, not {before + new:,}: "
            "something "
            "else writes to it, push again later"
        )
    _verify(connection, sample, report)


def check_facts(known: CollectionMetadata, wanted: CollectionMetadata, place: MilvusUri) -> None:
    """Raise EncoderMismatch unless two collections hold vectors of one encoder."""
    if known.dim != wanted.dim:
        raise EncoderMismatch(
            f"{place} holds vectors of {known.dim} numbers by {known.encoder}, and these have "
            f"{wanted.dim} by {wanted.encoder}: "
            "push them into another --collection NAME"
        )
    if known.encoder_fingerprint != wanted.encoder_fingerprint:
        raise EncoderMismatch(
            f"{place} was made with {known.encoder} (fingerprint "
            f"{known.encoder_fingerprint[:8]}), and these are by {wanted.encoder} "
            f"({wanted.encoder_fingerprint[:8]}): push them into another --collection NAME"
        )


def _differences(known: CollectionMetadata, wanted: CollectionMetadata) -> list[str]:
    notes = []
    if known.source != wanted.source:
        notes.append(
            f"the collection's photos are in {known.source}, these in {wanted.source}: its "
            "paths "
            "now belong to several places"
        )
    if known.decoding != wanted.decoding:
        notes.append(
            "photos decoded whole and at a reduced size are now in one collection: their "
            "scores "
            "may differ by 0.005"
        )
    return notes


def _same_index(connection: "Connection", asked: str | None) -> str:
    there = str(connection.index().get("index_type"))
    if asked and asked.upper() != there:
        raise CollectionError(
            f"{connection.place} has the index {there}, not {asked.upper()}: leave out "
            "--index, "
            "or push into another"
        )
    return there


def _facts(manifest: Manifest) -> CollectionMetadata:
    golden = packed(manifest.golden_vectors())
    own = (manifest.encoder, manifest.encoder_fingerprint, manifest.dtype, manifest.dim)
    return CollectionMetadata(
        *own, golden=golden, source=manifest.source, decoding=manifest.decoding
    )


def _check_block(rows: Sequence[ShardRow], halves: Halves, place: MilvusUri) -> None:
    if len(rows) != len(halves) or any(row.info is None or row.fingerprint is None for row in rows):
        raise CollectionError(
            f"a block for {place} is damaged (a photo without facts or vector): embed its "
            "shard "
            "again"
        )
    norms = np.linalg.norm(halves.astype(np.float64), axis=1)
    if not (np.abs(norms - 1) < 0.01).all():
        raise CollectionError(
            f"a block for {place} is damaged (a vector whose length is not 1): embed its shard "
            "again"
        )


def _write(
    connection: "Connection",
    rows: Sequence[ShardRow],
    halves: Halves,
    report: PushReport,
    sample: list[tuple[int, Halves]],
) -> int:  # fmt: skip
    """Write those rows of a block that are not there as they are, and return how many
    ids are new.
    """
    fields = ["id", *(name for name in FIELDS if name in connection.fields()), "vector"]
    held = {
        photo_id: {name: row[name] for name in fields}
        for photo_id, row in _held(rows, halves, report)
    }
    there = {row["id"]: row for row in connection.among(list(held), fields)}
    for one, row in list(held.items()):
        if one in there and there[one]["path"] != row["path"]:
            _leave_out(report, row["path"], f"its number is that of {there[one]['path']}")
            del held[one]
    changed = [row for one, row in held.items() if one not in there or not _equal(there[one], row)]
    if changed:
        connection.upsert(changed)
    report.written += len(changed)
    report.unchanged += len(held) - len(changed)
    sample += [
        (one, np.asarray(row["vector"], dtype=np.float16)) for one, row in list(held.items())[:1]
    ]
    return len(held.keys() - there.keys())


def _held(
    rows: Sequence[ShardRow], halves: Halves, report: PushReport
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield id and row of the photos that Milvus can hold."""
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
        reason = unheld(photo)
        if reason is None and seen.setdefault(photo.photo_id, photo.path) != photo.path:
            reason = f"its number is that of {seen[photo.photo_id]}"
        if reason is None:
            yield photo.photo_id, row_of(photo, vector)
        else:
            _leave_out(report, photo.path, reason)


def _leave_out(report: PushReport, path: str, reason: str) -> None:
    report.unheld += 1
    if report.unheld <= LISTED:
        report.notes.append(f"Milvus cannot hold {path}: {reason}")


def _equal(there: dict[str, Any], row: dict[str, Any]) -> bool:
    """Return whether a row is there as it would be written."""
    same = np.array_equal(
        np.asarray(there["vector"], dtype=np.float16), np.asarray(row["vector"], dtype=np.float16)
    )
    return same and all(there[name] == row[name] for name in row if name != "vector")


def _verify(
    connection: "Connection", sample: Sequence[tuple[int, Halves]], report: PushReport
) -> None:
    """Search some of the vectors that were written: each must come first with a cosine of 1, alone
    or beside its equals.
    """
    chosen = sample[:: max(1, -(-len(sample) // CHECKED))]
    if not chosen:
        return
    vectors = np.stack([vector for _, vector in chosen]).astype(np.float32)
    proposed = Candidates(connection).candidates_for(vectors, 10)
    lost = [
        one
        for (one, vector), (ids, _) in zip(chosen, proposed, strict=True)
        if not _comes_first(connection, one, vector, ids.tolist())
    ]
    report.checked, report.found = len(chosen), len(chosen) - len(lost)
    if lost:
        raise CollectionError(
            f"{connection.place}: {len(lost)} of {len(chosen)} stored vectors are not found again "
            f"(the first is that of photo {lost[0]}): "
            "push again, or into another --collection NAME with --index FLAT"
        )


def _comes_first(connection: "Connection", photo_id: int, vector: Halves, ids: list[int]) -> bool:
    rows = connection.among(ids, ["id", "vector"])
    scores = (
        cosine_scores(np.array([row["vector"] for row in rows]), vector) if rows else np.empty(0)
    )
    best = {row["id"] for row, score in zip(rows, scores, strict=True) if score >= 1 - SAME}
    return photo_id in best or (len(best) == len(ids) > 0)
