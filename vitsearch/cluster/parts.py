"""The work on one part of an index: some shards read once, their vectors, ids and paths written to
files, and their lists beside them.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from vitsearch.arrays import Halves, Ids, drop_pages
from vitsearch.cluster.shard_index import ENDS, ORDER, PATHS
from vitsearch.index.base import FAISS, IDS, VECTORS
from vitsearch.paths import raw_path
from vitsearch.shards import open_shards

PARTS = "parts"
TRAINED = f"{PARTS}/trained.faiss"
BLOCK = 4096  # rows in memory as numbers


@dataclass(frozen=True, slots=True)
class Part:
    """What one task is to do: put some shards, whose first row is the ``start``-th of all, into the
    files of a folder.
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
        """Return a file of this part's own: "faiss", "paths", "ends" (of each path), or "done",
        which is there when the others are.
        """
        return self.folder / PARTS / f"{self.number:06d}.{kind}"

    def is_done(self) -> bool:
        """Return whether the part was built, now or by an earlier run."""
        return self.file("done").exists()


def make_part(part: Part) -> int:
    """Build a part and return its number; doing it twice is no harm. Raises CollectionError,
    RecipeError and OSError (a full disk).
    """
    if part.is_done():
        return part.number
    batches = _copied(part)
    if part.exact:
        found = sum(len(ids) for ids, _ in batches)
    else:
        from vitsearch.index.sharded import write_part

        found = write_part(part.file("faiss"), part.folder / TRAINED, batches)
    assert found == part.rows
    part.file("done").touch()
    return part.number


def _copied(part: Part) -> Iterator[tuple[Ids, Halves]]:
    """Yield the rows of a part with their places as ids, each batch after it was written to the
    files.
    """
    place, end = part.start, 0
    folder = part.folder
    with (
        open(folder / VECTORS, "r+b") as vectors,
        open(folder / IDS, "r+b") as ids,
        open(part.file("paths"), "wb") as paths,
        open(part.file("ends"), "wb") as ends,
    ):
        vectors.seek(2 * part.dim * place)
        ids.seek(8 * place)
        for rows, halves in open_shards(part.output).blocks(part.shards, BLOCK):
            if place + len(rows) > part.start + part.rows:
                break  # it would run into the rows of another part; what was counted has changed
            names = [raw_path(row.path) for row in rows]
            paths.write(b"".join(names))
            lengths = np.cumsum([len(name) for name in names], dtype="<i8")
            ends.write((lengths + end).tobytes())
            vectors.write(np.ascontiguousarray(halves, dtype="<f2").data)
            ids.write(np.array([row.photo_id for row in rows], dtype="<i8").data)
            yield np.arange(place, place + len(rows), dtype=np.int64), halves
            place, end = place + len(rows), end + int(lengths[-1])
        for file in (vectors, ids, paths, ends):
            file.flush()
            os.fsync(file.fileno())
    if place != part.start + part.rows:
        from vitsearch.errors import CollectionError

        raise CollectionError(
            f"the shards of {part.output} have changed while they were read: run the same "
            "command "
            "again"
        )


# -- Parts of an index put one after the other in files --------------------------------------------

_STEP = 1 << 20


def join_parts(folder: Path, parts: Sequence[Part], *, most: int) -> None:
    """Write the paths of all parts, their lists where they have some, and the order of their ids,
    sorting about ``most`` rows at once.
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
        from vitsearch.index.sharded import merge_parts

        merged = merge_parts(
            folder / FAISS, folder / TRAINED, [part.file("faiss") for part in parts]
        )
        assert merged == rows
    write_order(folder, rows, most=most)


def write_order(folder: Path, count: int, *, most: int) -> None:
    """Write the rows in order of their ids (of equal ids, in order of the rows), sorting about
    ``most`` of them at a time.

    Ids are hashes, so equal ranges of ids hold about equally many; the ids are read once for each
    range.
    """
    ids: Ids = np.memmap(folder / IDS, dtype="<i8", mode="r", shape=(count,))
    ranges = -(-count // most)
    edges = [(number * 2**63) // ranges for number in range(ranges)] + [2**63]
    with open(folder / ORDER, "wb") as out:
        for low, high in pairwise(edges):
            rows = np.concatenate(
                [
                    start + np.flatnonzero((some >= low) & (some <= high - 1))
                    for start, some in _blocks_of(ids)
                ]
            )
            out.write(rows[np.argsort(ids[rows], kind="stable")].astype("<i8").tobytes())
            drop_pages(ids)


def _blocks_of(ids: Ids, step: int = _STEP) -> Iterator[tuple[int, Ids]]:
    for start in range(0, len(ids), step):
        yield start, np.asarray(ids[start : start + step])


def row_numbers(file: Path, count: int) -> Ids:
    """Return the numbers from 0 on, ``(count,)``, memory-mapped: as many as there are rows may be
    too many for the memory.
    """
    with open(file, "wb") as out:
        for start in range(0, count, _STEP):
            out.write(np.arange(start, min(count, start + _STEP), dtype="<i8").tobytes())
    return np.memmap(file, dtype="<i8", mode="r", shape=(count,))
