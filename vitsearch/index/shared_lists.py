"""One query over inverted lists by all threads."""

from typing import Any

import faiss as _faiss
import numpy as np

from vitsearch.index.protocol import Ids
from vitsearch.vectors import Vectors

faiss: Any = _faiss  # its type stubs lack half of what is used here


def shareable_lists(index: Any) -> Any:
    """Return an index of inverted lists that several threads may search for one query, None for any other.

    Its parallel mode is set to one query a thread, which gives the same results on every run (the modes that share a query do not where
    scores are equal).
    """
    inner = faiss.downcast_index(index)
    if type(inner) not in (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ):
        return None
    inner.parallel_mode = 3
    return inner


def search_shared(index: Any, row: Vectors, count: int) -> tuple[Vectors, Ids]:
    """Search for one query ``(1, dim)`` as for several: as many as there are threads, each with its share of the lists.

    FAISS gives one query one thread. Returns scores and ids ``(1, n)``, best first, equal scores in order of id; ``n`` is ``count``, or as
    many as the lists hold.
    """
    effort = min(index.nprobe, index.nlist)
    threads = max(1, min(faiss.omp_get_max_threads(), effort))
    share = -(-effort // threads)
    near, lists = np.zeros(share * threads, np.float32), np.full(share * threads, -1, np.int64)  # -1: no list
    near[:effort], lists[:effort] = (found[0] for found in index.quantizer.search(row, effort))
    dealt = [np.ascontiguousarray(whole.reshape(share, threads).T) for whole in (lists, near)]
    rows = np.ascontiguousarray(np.repeat(row, threads, axis=0))
    scores, ids = np.empty((threads, count), np.float32), np.empty((threads, count), np.int64)
    arrays = [faiss.swig_ptr(array) for array in (rows, *dealt, scores, ids)]
    index.search_preassigned_c(threads, arrays[0], count, *arrays[1:], False, faiss.SearchParametersIVF(nprobe=share))
    best = np.lexsort((ids.ravel(), -scores.ravel()))
    best = best[ids.ravel()[best] >= 0][:count]
    return scores.ravel()[best][None], ids.ravel()[best][None]
