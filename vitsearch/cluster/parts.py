"""The parts of an index from shards: each built on its own, then merged on disk.

A part reads some shards once, writes their vectors, ids and paths to files, and their inverted
lists beside them.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from vitsearch.arrays import Halves, Ids, drop_pages, mapped
from vitsearch.cluster.shard_index import ENDS, ORDER, PATHS
from vitsearch.errors import CollectionError
from vitsearch.index.base import FAISS, IDS, VECTORS
from vitsearch.paths import raw_path
from vitsearch.records import flush
from vitsearch.shards import open_shards

PARTS = "parts"
TRAINED = f"{PARTS}/trained.faiss"
BLOCK = 4096  # rows in memory as numbers
_STEP = 1 << 20  # ids, or bytes of paths, handled at a time


@dataclass(frozen=True, slots=True)
class Part:
    """One task: add some shards to the files of a folder.

    Their first row is row number ``start`` of all, and they have ``rows`` rows.
    """

    number: int
    output: str
    folder: Path
    shards: tuple[int, ...]
    start: int
    rows: int
    dim: int
    exact: bool

    def file(self, kind: str) -> Path:
        """Return the path of one file of this part: "faiss", "paths", "ends" (of paths) or "done".

        The last exists when the others are complete.
        """
        return self.folder / PARTS / f"{self.number:06d}.{kind}"

    def is_done(self) -> bool:
        """Return whether the part was built, now or by an earlier run."""
        return self.file("done").exists()


def make_part(part: Part) -> int:
    """Build a part and return its number; building it twice does no harm.

    Raises CollectionError, RecipeError and OSError (a full disk).
    """
    if part.is_done():
        return part.number
    batches = _copied(part)
    if part.exact:
        count = sum(len(ids) for ids, _ in batches)
    else:
        from vitsearch.index.sharded import write_part

        count = write_part(part.file("faiss"), part.folder / TRAINED, batches)
    assert count == part.rows
    part.file("done").touch()
    return part.number


def _copied(part: Part) -> Iterator[tuple[Ids, Halves]]:
    """Yield each batch of a part after writing it: ``(b,)`` row numbers, ``(b, dim)`` float16."""
    row, end = part.start, 0
    folder = part.folder
    with (
        open(folder / VECTORS, "r+b") as vectors,
        open(folder / IDS, "r+b") as ids,
        open(part.file("paths"), "wb") as paths,
        open(part.file("ends"), "wb") as ends,
    ):
        vectors.seek(2 * part.dim * row)
        ids.seek(8 * row)
        for rows, halves in open_shards(part.output).blocks(part.shards, BLOCK):
            if row + len(rows) > part.start + part.rows:
                break  # it would overwrite another part: the shards have changed
            names = [raw_path(photo.path) for photo in rows]
            paths.write(b"".join(names))
            lengths = np.cumsum([len(name) for name in names], dtype="<i8")
            ends.write((lengths + end).tobytes())
            vectors.write(np.ascontiguousarray(halves, dtype="<f2").data)
            ids.write(np.array([photo.photo_id for photo in rows], dtype="<i8").data)
            yield np.arange(row, row + len(rows), dtype=np.int64), halves
            row, end = row + len(rows), end + int(lengths[-1])
        for file in (vectors, ids, paths, ends):
            file.flush()
            flush(file.fileno())
    if row != part.start + part.rows:
        raise CollectionError(
            f"the shards of {part.output} have changed while they were read: "
            "run the same command again"
        )


def merge_parts(folder: Path, parts: Sequence[Part], *, batch: int) -> None:
    """Write the paths of all parts, their inverted lists if any, and the order of their ids.

    About ``batch`` rows are sorted at a time.
    """
    offset = 0
    with open(folder / PATHS, "wb") as paths, open(folder / ENDS, "wb") as ends:
        for part in parts:
            with open(part.file("paths"), "rb") as names:
                shutil.copyfileobj(names, paths, _STEP)
            ends.write((np.fromfile(part.file("ends"), dtype="<i8") + offset).tobytes())
            offset = paths.tell()
    rows = sum(part.rows for part in parts)
    if not parts[0].exact:
        from vitsearch.index.sharded import merge_lists

        files = [part.file("faiss") for part in parts]
        merged = merge_lists(folder / FAISS, folder / TRAINED, files)
        assert merged == rows
    write_order(folder, rows, batch=batch)


def write_order(folder: Path, count: int, *, batch: int) -> None:
    """Write the row numbers in order of their ids, equal ids in order of the rows.

    About ``batch`` rows are sorted at a time: ids are hashes, so equal ranges of ids hold about
    equally many. The ids are read once for each range.
    """
    ids: Ids = mapped(folder / IDS, "<i8", (count,))
    ranges = -(-count // batch)
    edges = [(number * 2**63) // ranges for number in range(ranges)] + [2**63]
    with open(folder / ORDER, "wb") as out:
        for low, high in pairwise(edges):
            inside = [
                start + np.flatnonzero((block >= low) & (block <= high - 1))
                for start, block in _blocks_of(ids)
            ]
            rows = np.concatenate(inside)
            out.write(rows[np.argsort(ids[rows], kind="stable")].astype("<i8").tobytes())
            drop_pages(ids)


def _blocks_of(ids: Ids, step: int = _STEP) -> Iterator[tuple[int, Ids]]:
    for start in range(0, len(ids), step):
        yield start, np.asarray(ids[start : start + step])


def row_numbers(file: Path, count: int) -> Ids:
    """Return the numbers from 0 on, ``(count,)``, memory-mapped: they may not fit into memory."""
    with open(file, "wb") as out:
        for start in range(0, count, _STEP):
            out.write(np.arange(start, min(count, start + _STEP), dtype="<i8").tobytes())
    return mapped(file, "<i8", (count,))
