"""An index built from shards: it proposes, and a memory-mapped copy of the vectors decides."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids, cosine_scores, mapped, top_k
from vitsearch.errors import IndexDamaged, RecipeError
from vitsearch.index import ExactIndex, Manifest, VectorIndex
from vitsearch.index.base import FAISS, IDS, LISTS, VECTORS, query_rows
from vitsearch.index.manifest import check_file, read_manifest

PATHS = "paths.bin"
ENDS = "paths.i64"
ORDER = "order.i64"
FACTS = "shards.json"
FILES = (VECTORS, IDS, PATHS, ENDS, ORDER, FACTS, FAISS, LISTS)
SPARE = 8


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
        from vitsearch.index.faiss_index import read_faiss_index
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
