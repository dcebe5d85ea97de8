"""What every index does, and what a library behind one has to provide."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids
from vitsearch.index.recipe import Recipe

# the files of an index folder beside its manifest
VECTORS = "vectors.f16"
IDS = "ids.i64"
FAISS = "index.faiss"
GENERATIONS = "generations.u32"  # the generation of each row, its low 32 bits
REMOVED = "removed.i64"  # in an index of changes: the ids that are no longer in the collection
LISTS = "lists.ivfdata"  # the inverted lists of a recipe with on_disk


class Candidates(NamedTuple):
    """The rows proposed for one query, best first.

    ``scores`` is ``(n,)`` float32 and ``ids`` ``(n,)`` int64, never -1.
    """

    scores: NDArray[np.float32]
    ids: Ids


@runtime_checkable
class VectorIndex(Protocol):
    """An index that proposes candidates by inner product of unit rows.

    The scores of an approximate index only order its proposals; the caller computes exact scores
    from the stored vectors.
    """

    dim: int

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return at most ``min(k, len(self))`` candidates for one ``(dim,)`` unit query.

        An approximate index may return fewer.
        """
        ...

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each of the ``(m, dim)`` unit queries, in their order."""
        ...


class SelectiveIndex(VectorIndex, Protocol):
    """An index that may find its candidates among some rows; those on GPUs cannot."""

    def search_among(
        self, queries: NDArray[Any], k: int, allowed: NDArray[np.uint8], share: float
    ) -> list[Candidates] | None:
        """Return at most ``k`` candidates for each query among the rows whose bits, by id, are set
        in ``allowed``, a ``share`` of all; None for an index that cannot select.
        """
        ...


class IndexBackend(Protocol):
    """A library that builds, writes and opens the indexes of one kind of recipe.

    `vitsearch.index.backends` holds one for each kind.
    """

    def check(self, recipe: Recipe, dim: int) -> None:
        """Raise RecipeError where an index of ``dim`` dimensions cannot be built here."""
        ...

    def write(self, folder: Path, recipe: Recipe, vectors: Halves, ids: Ids) -> None:
        """Build the index over ``(n, dim)`` rows and their ``(n,)`` ids, and write it to a folder.

        The rows themselves are in the folder already. Raises RecipeError and OSError.
        """
        ...

    def open(self, folder: Path, recipe: Recipe) -> SelectiveIndex:
        """Return the index that `write` left in a folder.

        Raises RecipeError where it cannot be read here, so that the search has to be exact.
        """
        ...


def query_rows(queries: NDArray[Any], dim: int) -> NDArray[np.float32]:
    """Return queries as float32 rows ``(m, dim)``; raises ValueError for another shape."""
    rows = np.ascontiguousarray(queries, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise ValueError(f"expected (m, {dim}) queries, got shape {rows.shape}")
    return rows
