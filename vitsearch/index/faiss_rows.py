"""FAISS over half-precision rows where they lie, in a mapped file too: all are compared with one
query, a block at a time by several threads, and the candidates of an index are put in order.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Lock
from typing import Any, Protocol

import faiss as _faiss
import numpy as np

from vitsearch.arrays import Halves, Ids, Vectors
from vitsearch.errors import RecipeError
from vitsearch.index.faiss_index import FaissIndex

faiss: Any = _faiss  # its type stubs lack half of what is used here
HAS_VIEWS = hasattr(faiss, "MaybeOwnedVectorUInt8")  # of memory that is not FAISS's: from 1.11 on
ROWS = 8192  # in a block; fewer take longer, more leave too little for each thread
_SPARE = 16  # rows of a block whose rough scores may be as high as that of the last result
_MAX_THREADS = 4  # few have memory at its limit


class _RowView:
    """An index of FAISS over ``(n, dim)`` rows, numbered from ``first``, that are not copied: they
    are in memory for as long as this one.
    """

    def __init__(self, dim: int) -> None:
        kind = faiss.ScalarQuantizer.QT_fp16
        self.index = faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)
        self._rows: Halves | None = None

    def show(self, rows: Halves, first: int = 0) -> None:
        """Take these rows for those of before."""
        self._rows = np.ascontiguousarray(rows, dtype="<f2")
        start = int(self._rows.__array_interface__["data"][0]) - first * self.index.code_size
        codes = faiss.MaybeOwnedVectorUInt8()
        codes.is_owned = False
        codes.view_data = codes.c_ptr = faiss.cast_integer_to_uint8_ptr(start)
        self.index.ntotal = first + len(rows)
        codes.view_size = codes.c_size = self.index.ntotal * self.index.code_size
        self.index.codes = codes


# -- All rows --------------------------------------------------------------------------------------


class Best(Protocol):
    """The ``k`` best rows so far."""

    k: int

    def bar(self, rough: Vectors) -> float: ...
    def offer(self, halves: Halves, rough: Vectors, positions: Ids) -> None: ...


def scan(vectors: Halves, query: Vectors, best: Best) -> None:
    """Offer the ``(n, dim)`` rows that may be among the best for a unit query ``(1, dim)``.

    A quarter of the time that NumPy takes to widen the rows and multiply.
    """
    starts, lock = count(0, ROWS), Lock()

    def work() -> None:
        faiss.omp_set_num_threads(1)  # of this thread
        view = _RowView(vectors.shape[1])
        while (start := next(starts)) < len(vectors):
            halves = vectors[start : start + ROWS]
            view.show(halves)
            rough, near = _nearest(view.index, query, 2 * best.k + _SPARE)
            with lock:
                if len(near) < len(halves) and rough[-1] >= best.bar(rough):
                    rough, near = _nearest(view.index, query, len(halves))
                best.offer(halves[near], rough, start + near)

    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        for each in [pool.submit(work) for _ in range(threads)]:
            each.result()


def _nearest(index: Any, query: Vectors, number: int) -> tuple[Vectors, Ids]:
    """Return the largest products of a query with the rows of an index, in descending order, and
    the positions of the rows.
    """
    products, positions = index.search(query, min(number, index.ntotal))
    return products[0], positions[0]


# -- Some rows -------------------------------------------------------------------------------------


class OrderedIndex(FaissIndex):
    """An index of lists whose candidates are put in order by the ``(n, dim)`` rows themselves, in
    the same call of FAISS: a third of the time that NumPy takes. The ``ids`` have no gaps.
    """

    def __init__(self, index: FaissIndex, vectors: Halves, ids: Ids) -> None:
        self._of_lists, self._view = index, _RowView(index.dim)
        self._view.show(vectors)  # FAISS wants as many rows here as there, before they have numbers
        refined = faiss.IndexRefine(index.faiss_index, self._view.index)
        self._view.show(vectors, int(ids[0]))
        refined.ntotal = self._view.index.ntotal
        super().__init__(refined)
        self._probes = True
        # an altered id must not be where memory is read
        self._ids = faiss.IDSelectorRange(int(ids[0]), int(ids[-1]) + 1)
        lists = faiss.extract_index_ivf(index.faiss_index)
        effort = {"nprobe": lists.nprobe, "max_codes": lists.max_codes}
        self._params = self.parameters(faiss.SearchParametersIVF(sel=self._ids, **effort))

    def parameters(self, of_lists: Any) -> Any:
        """Return the parameters of a search with those of the lists."""
        inner = self._of_lists.parameters(of_lists)
        return faiss.IndexRefineSearchParameters(k_factor=1, base_index_params=inner)


def ordered_by(index: object, vectors: Halves, ids: Ids) -> FaissIndex | None:
    """Return an index with its candidates in the order of the rows; None where FAISS cannot do that
    (no lists, ids that are missing between the rows), or on one thread only what several do.
    """
    if not isinstance(index, FaissIndex) or not HAS_VIEWS or index.effort()[0] != "nprobe":
        return None
    without_gaps = len(ids) and int(ids[-1]) - int(ids[0]) == len(ids) - 1
    if not without_gaps or index.is_parallel:
        return None
    ordered = OrderedIndex(index, vectors, ids)
    try:
        ordered.search(np.zeros(index.dim), 1)
    except RecipeError:  # a kind of lists that takes no selection
        return None
    return ordered
