"""What an index is: something that proposes the rows nearest to a query."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Ids

LISTS = "lists.ivfdata"  # beside index.faiss, where a recipe leaves its inverted lists on disk


class Candidates(NamedTuple):
    """Rows proposed for one query, best first: ``scores`` (n,) float32 and ``ids`` (n,) int64,
    never -1.
    """

    scores: NDArray[np.float32]
    ids: Ids


@runtime_checkable
class VectorIndex(Protocol):
    """Proposes candidates by inner product of unit rows.

    The scores of an approximate index are approximate: they are for ordering the proposals, and the
    caller scores again from the vectors.
    """

    dim: int

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return at most ``min(k, len(self))`` candidates for one ``(dim,)`` unit query; an
        approximate index may find fewer.
        """
        ...

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each of the ``(m, dim)`` unit queries, in their order."""
        ...


def query_rows(queries: NDArray[Any], dim: int) -> NDArray[np.float32]:
    """Return queries as float32 rows ``(m, dim)``; raises ValueError for another shape."""
    rows = np.ascontiguousarray(queries, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise ValueError(f"expected (m, {dim}) queries, got shape {rows.shape}")
    return rows
