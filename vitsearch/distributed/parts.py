"""The work on one part of an index: some shards read once, their vectors, ids and paths written to files, and their lists beside them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitsearch.index.protocol import Halves, Ids
from vitsearch.index.shadow import IDS, VECTORS
from vitsearch.shards import open_shards
from vitsearch.types import raw_path

PARTS = "parts"
TRAINED = f"{PARTS}/trained.faiss"
BLOCK = 4096  # rows in memory as numbers


@dataclass(frozen=True, slots=True)
class Part:
    """What one task is to do: put some shards, whose first row is the ``start``-th of all, into the files of a folder."""

    number: int
    output: str
    folder: Path
    shards: tuple[int, ...]
    start: int
    rows: int
    dim: int
    exact: bool

    def file(self, kind: str) -> Path:
        """Return a file of this part's own: "faiss", "paths", "ends" (of each path), or "done", which is there when the others are."""
        return self.folder / PARTS / f"{self.number:06d}.{kind}"

    def is_done(self) -> bool:
        """Return whether the part was built, now or by an earlier run."""
        return self.file("done").exists()


def make_part(part: Part) -> int:
    """Build a part and return its number; doing it twice is no harm. Raises CollectionError, RecipeError and OSError (a full disk)."""
    if part.is_done():
        return part.number
    batches = _copied(part)
    if part.exact:
        found = sum(len(ids) for ids, _ in batches)
    else:
        from vitsearch.index.merged import write_part

        found = write_part(part.file("faiss"), part.folder / TRAINED, batches)
    assert found == part.rows
    part.file("done").touch()
    return part.number


def _copied(part: Part) -> Iterator[tuple[Ids, Halves]]:
    """Yield the rows of a part with their places as ids, each batch after it was written to the files."""
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

        raise CollectionError(f"the shards of {part.output} have changed while they were read: run the same command again")
