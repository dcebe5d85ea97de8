"""Parts of an index put one after the other in files: paths, lists, and the rows in order of their ids."""

import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from vitsearch.distributed.parts import TRAINED, Part
from vitsearch.distributed.shard_index import ENDS, ORDER, PATHS
from vitsearch.index.protocol import Ids
from vitsearch.index.shadow import FAISS, IDS
from vitsearch.vectors import let_go

_STEP = 1 << 20


def join_parts(folder: Path, parts: Sequence[Part], *, most: int) -> None:
    """Write the paths of all parts, their lists where they have some, and the order of their ids, sorting about ``most`` rows at once."""
    offset = 0
    with open(folder / PATHS, "wb") as paths, open(folder / ENDS, "wb") as ends:
        for part in parts:
            with open(part.file("paths"), "rb") as names:
                shutil.copyfileobj(names, paths, _STEP)
            ends.write((np.fromfile(part.file("ends"), dtype="<i8") + offset).tobytes())
            offset = paths.tell()
    rows = sum(part.rows for part in parts)
    if not parts[0].exact:
        from vitsearch.index.merged import merge_parts

        merged = merge_parts(folder / FAISS, folder / TRAINED, [part.file("faiss") for part in parts])
        assert merged == rows
    write_order(folder, rows, most=most)


def write_order(folder: Path, count: int, *, most: int) -> None:
    """Write the rows in order of their ids (of equal ids, in order of the rows), sorting about ``most`` of them at a time.

    Ids are hashes, so equal ranges of ids hold about equally many; the ids are read once for each range.
    """
    ids: Ids = np.memmap(folder / IDS, dtype="<i8", mode="r", shape=(count,))
    ranges = -(-count // most)
    edges = [(number * 2**63) // ranges for number in range(ranges)] + [2**63]
    with open(folder / ORDER, "wb") as out:
        for low, high in pairwise(edges):
            rows = np.concatenate([start + np.flatnonzero((some >= low) & (some <= high - 1)) for start, some in _blocks_of(ids)])
            out.write(rows[np.argsort(ids[rows], kind="stable")].astype("<i8").tobytes())
            let_go(ids)


def _blocks_of(ids: Ids, step: int = _STEP) -> Iterator[tuple[int, Ids]]:
    for start in range(0, len(ids), step):
        yield start, np.asarray(ids[start : start + step])


def row_numbers(file: Path, count: int) -> Ids:
    """Return the numbers from 0 on, ``(count,)``, memory-mapped: as many as there are rows may be too many for the memory."""
    with open(file, "wb") as out:
        for start in range(0, count, _STEP):
            out.write(np.arange(start, min(count, start + _STEP), dtype="<i8").tobytes())
    return np.memmap(file, dtype="<i8", mode="r", shape=(count,))
