"""FAISS's scan of half-precision rows for one query, a block at a time, by several threads."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Lock
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids, Vectors

ROWS = 4096  # in a block; of 256 to 16,384 the fastest
_SPARE = 16  # rows of a block whose rough scores may be as high as that of the last result
_MAX_THREADS = 4  # few have memory at its limit


class Best(Protocol):
    """The ``k`` best rows so far."""

    k: int

    def bar(self, rough: Vectors) -> float: ...
    def offer(self, halves: Halves, rough: Vectors, positions: Ids) -> None: ...


def scan(vectors: Halves, query: Vectors, best: Best) -> None:
    """Offer the ``(n, dim)`` rows that may be among the best for a unit query ``(1, dim)``.

    Half the time that NumPy takes to widen the rows and multiply.
    """
    starts, lock = count(0, ROWS), Lock()

    def work() -> None:
        scanner = _Scanner(vectors.shape[1])
        while (start := next(starts)) < len(vectors):
            halves = vectors[start : start + ROWS]
            rough, near = scanner.best(halves, query, 2 * best.k + _SPARE)
            with lock:
                if len(near) < len(halves) and rough[-1] >= best.bar(rough):
                    rough, near = scanner.best(halves, query, len(halves))
                best.offer(halves[near], rough, start + near)

    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        for each in [pool.submit(work) for _ in range(threads)]:
            each.result()


class _Scanner:
    """Computes the products of a query with a block of rows; for one thread.

    The rows are copied into the memory of one small index: FAISS frees the memory of an index, so
    that of a mapped file cannot be lent to it.
    """

    def __init__(self, dim: int) -> None:
        faiss.omp_set_num_threads(1)  # of this thread
        kind = faiss.ScalarQuantizer.QT_fp16
        self._index = faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)
        self._index.codes.resize(ROWS * dim * 2)
        self._codes: NDArray[np.uint8] = faiss.rev_swig_ptr(
            self._index.codes.data(), ROWS * dim * 2
        )

    def best(self, rows: Halves, query: Vectors, count: int) -> tuple[Vectors, Ids]:
        """Return the ``count`` largest products of up to `ROWS` rows, in descending order, and
        their positions.
        """
        self._codes[: rows.nbytes] = rows.reshape(-1).view(np.uint8)
        self._index.ntotal = len(rows)
        products, positions = self._index.search(query, min(count, len(rows)))
        return products[0], positions[0]
