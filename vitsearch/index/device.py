"""Where an index is searched: on the CPU, or by a copy of it on a GPU."""

import logging
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids
from vitsearch.errors import RecipeError
from vitsearch.index.availability import gpu_count, torch_gpu_count
from vitsearch.index.base import Candidates, VectorIndex
from vitsearch.index.exact import ExactIndex
from vitsearch.index.recipe import Recipe

log = logging.getLogger("vitsearch")


class OnGpu:
    """An index that is searched by a copy on a GPU, made at the first search.

    Where that fails the index itself is searched, and that is logged.
    """

    def __init__(self, index: VectorIndex, copy: Callable[[], VectorIndex]) -> None:
        self.dim = index.dim
        self._index, self._make = index, copy
        self._copy: VectorIndex | None = None
        self._failed = False

    def __len__(self) -> int:
        return len(self._index)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return the candidates of the copy, or of the index, for one ``(dim,)`` query."""
        return self.search_batch(query[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates for each ``(m, dim)`` query, searched for in one call."""
        if not self._failed:
            try:
                if self._copy is None:
                    self._copy = self._make()
                return self._copy.search_batch(queries, k)
            except RecipeError as error:
                self._copy, self._failed = None, True  # frees the GPU's memory
                log.warning(f"{error}; searched on the CPU instead")
        return self._index.search_batch(queries, k)


def on_device(
    index: VectorIndex, recipe: Recipe, *, device: str, vectors: Halves, ids: Ids
) -> VectorIndex:
    """Return an index over ``(n, dim)`` rows and their ``(n,)`` ids that searches on a device.

    On "cpu" that is the index itself; on "cuda" a copy on a GPU, by FAISS, or for exact search by
    PyTorch; "auto" uses the GPU for recipes that ask for one. It is logged where "cuda"
    was requested and the CPU searches.
    """
    requested = device.startswith("cuda")
    if not len(index) or not (requested or (device == "auto" and recipe.gpu)):
        return index
    if gpu_count() and not isinstance(index, ExactIndex):
        return OnGpu(index, lambda: _faiss_copy(index, recipe, device, vectors, ids))
    if requested and (recipe.is_exact or recipe.gpu) and torch_gpu_count():
        return OnGpu(index, lambda: _torch_copy(device, vectors, ids))
    if requested:
        log.warning(
            f"no GPU that can search an index of recipe {recipe.name!r} (see `vitsearch doctor`); "
            "searched on the CPU instead"
        )
    return index


def _faiss_copy(
    index: VectorIndex, recipe: Recipe, device: str, vectors: Halves, ids: Ids
) -> VectorIndex:
    from vitsearch.index.faiss_index import FaissIndex
    from vitsearch.index.gpu import ExactByGpu, to_gpu

    assert isinstance(index, FaissIndex)
    copy = to_gpu(index, device="cuda" if device == "auto" else device)
    return ExactByGpu(copy, index, vectors=vectors, ids=ids) if recipe.is_exact else copy


def _torch_copy(device: str, vectors: Halves, ids: Ids) -> VectorIndex:
    from vitsearch.index.torch_exact import TorchExact

    return TorchExact(vectors, ids, device=device)
