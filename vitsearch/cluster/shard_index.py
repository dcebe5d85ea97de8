"""An index built from shards: it proposes, and a memory-mapped copy of the vectors decides.

It is built in parts, which are merged on disk: a part reads some shards once, writes their vectors,
ids and paths to files, and their inverted lists beside them.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids, cosine_scores, drop_pages, mapped, top_k
from vitsearch.errors import CollectionError, IndexDamaged, RecipeError
from vitsearch.index import FAISS, IDS, LISTS, VECTORS, VectorIndex, query_rows
from vitsearch.index.backends import ExactIndex
from vitsearch.index.manifest import Manifest, check_file, read_manifest
from vitsearch.paths import raw_path
from vitsearch.records import flush
from vitsearch.shards import open_shards

PATHS = "paths.bin"
ENDS = "paths.i64"
ORDER = "order.i64"
FACTS = "shards.json"
FILES = (VECTORS, IDS, PATHS, ENDS, ORDER, FACTS, FAISS, LISTS)
SPARE = 8
PARTS = "parts"
TRAINED = f"{PARTS}/trained.faiss"
BLOCK = 4096  # rows in memory as numbers
_STEP = 1 << 20  # ids, or bytes of paths, handled at a time


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """An open index folder, with its rows in the order of the shards.

    ``ids`` is ``(n,)`` int64 photo ids, ``vectors`` ``(n, dim)`` float16. ``order`` holds the row
    numbers in order of their ids, ``ends`` where in ``names`` the path of each row ends. All are
    memory-mapped.
    """

    manifest: Manifest
    index: VectorIndex
    vectors: Halves
    ids: Ids
    order: Ids
    ends: Ids
    names: NDArray[np.uint8]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "ShardIndex":
        """Return the index in a folder that `build_index` made.

        Raises IndexDamaged where a file is missing, cut or altered.
        """
        root = Path(folder)
        manifest = read_manifest(root)
        for name, facts in manifest.files.items():
            if name in FILES:
                check_file(root / name, facts)
        dim, count = manifest.dim, manifest.count
        sizes = {VECTORS: 2 * dim * count, IDS: 8 * count, ORDER: 8 * count, ENDS: 8 * count}
        for name, size in sizes.items():
            if name not in manifest.files or manifest.files[name].size != size:
                raise IndexDamaged(
                    f"index file {root / name} does not fit the manifest; build the index again "
                    "from the shards"
                )
        vectors: Halves = _mapped(root / VECTORS, "<f2").reshape(count, dim)
        ids, order, ends = (_mapped(root / name, "<i8") for name in (IDS, ORDER, ENDS))
        index: VectorIndex
        if FAISS in manifest.files:
            index = _opened(root, manifest)
        else:
            index = ExactIndex(vectors, np.arange(count, dtype=np.int64))
        return cls(manifest, index, vectors, ids, order, ends, _mapped(root / PATHS, "u1"))

    def __len__(self) -> int:
        """Return the number of photos."""
        return self.manifest.count

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self.manifest.dim

    def search(self, vectors: NDArray[Any], top_k: int = 10) -> tuple[Ids, NDArray[np.float32]]:
        """Return the ids of the nearest photos and their exact cosines, best first.

        ``(m, dim)`` queries give two arrays ``(m, top_k)``, equal scores in the order of the
        shards; missing results have the id -1 and a score of minus infinity.
        """
        queries = query_rows(vectors, self.dim)
        count = max(0, top_k)
        ids = np.full((len(queries), count), -1, dtype=np.int64)
        scores = np.full((len(queries), count), -np.inf, dtype=np.float32)
        reach = count
        if not isinstance(self.index, ExactIndex):
            reach = self.manifest.recipe.overfetch * count + SPARE
        for number, proposed in enumerate(self.index.search_batch(queries, reach)):
            rows, exact = self._rescored(queries[number], proposed.ids, count)
            ids[number, : len(rows)], scores[number, : len(rows)] = self.ids[rows], exact
        return ids, scores

    def paths(self, ids: Sequence[int] | Ids) -> list[str]:
        """Return the paths of photos by their ``(n,)`` ids; raises KeyError for an unknown one."""
        rows = [self._row(int(photo_id)) for photo_id in ids]
        starts = [int(self.ends[row - 1]) if row else 0 for row in rows]
        return [
            self.names[start : int(self.ends[row])].tobytes().decode("utf-8", "surrogateescape")
            for start, row in zip(starts, rows, strict=True)
        ]

    def _rescored(
        self, query: NDArray[np.float32], rows: Ids, count: int
    ) -> tuple[Ids, NDArray[np.float64]]:
        rows = np.sort(rows)  # so that equal scores are in the order of the rows
        exact = cosine_scores(self.vectors[rows], query)
        best = top_k(exact, count)
        return rows[best], exact[best]

    def _row(self, photo_id: int) -> int:
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if int(self.ids[self.order[middle]]) < photo_id:
                low = middle + 1
            else:
                high = middle
        row = int(self.order[low]) if low < len(self) else -1
        if row < 0 or int(self.ids[row]) != photo_id:
            raise KeyError(photo_id)
        return row


def _opened(folder: Path, manifest: Manifest) -> VectorIndex:
    try:
        from vitsearch.index.faiss_files import read_faiss_index
    except ImportError as error:
        raise RecipeError(
            "an index built from shards is searched by FAISS: pip install 'vitsearch[faiss]'"
        ) from error
    try:
        index = read_faiss_index(folder / FAISS, search=manifest.recipe.search)
    except RuntimeError as error:
        raise IndexDamaged(
            f"this FAISS cannot read {folder / FAISS}; build the index again from the shards"
        ) from error
    if len(index) != manifest.count or index.dim != manifest.dim:
        raise IndexDamaged(
            f"index file {folder / FAISS} does not fit the manifest; build the "
            "index again from the shards"
        )
    return index


def _mapped(file: Path, kind: str) -> Any:
    return mapped(file, kind, (os.path.getsize(file) // np.dtype(kind).itemsize,))


# -- Parts -----------------------------------------------------------------------------------------


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
        from vitsearch.index.faiss_large import write_part

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
        from vitsearch.index.faiss_large import merge_lists

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
