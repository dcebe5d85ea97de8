"""The library behind each kind of recipe; a new kind is one class here and one row of `BACKENDS`.
And exact search over half-precision rows, block by block, in constant memory (NumPy only).
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import (
    Halves,
    Ids,
    Vectors,
    cosine_scores,
    row_products,
    top_k,
    unit_rows,
)
from vitsearch.errors import RecipeError
from vitsearch.index import (
    FAISS,
    Candidates,
    IndexBackend,
    SelectiveIndex,
    VectorIndex,
    query_rows,
)
from vitsearch.index.recipe import Recipe
from vitsearch.records import flush

# numbers in a block: 1 MiB as float32 stays in the processor's cache; measured 3 to 10 times faster
# than blocks of 4 MiB
_BLOCK = 262_144
# numbers in all rows from which FAISS's scan is worth its threads, and worth loading FAISS
_MANY, _VERY_MANY = 2**24, 2**28
_MAX_SCANNED = 128  # results; more take their time in FAISS
# 0x8fffe000: the sign bit, then 5 bits of exponent and 10 of fraction
_SIGN_AND_VALUE = np.int32(-0x70002000)
_REBIAS = np.float32(2.0**112)  # the exponents of float16 and float32 count from 15 and from 127


class ExactIndex:
    """An index that compares every row with the query; equal scores are in order of id.

    ``vectors`` is ``(n, dim)`` float16 unit rows and ``ids`` ``(n,)`` ascending int64, both of
    which may be memory-mapped.
    """

    def __init__(self, vectors: Halves, ids: Ids) -> None:
        if vectors.ndim != 2 or vectors.dtype != np.float16 or ids.shape != vectors.shape[:1]:
            raise ValueError(
                f"expected (n, d) float16 vectors and (n,) ids, got {vectors.dtype} "
                f"{vectors.shape} and {ids.shape}"
            )
        self.dim = vectors.shape[1]
        self._vectors, self._ids = vectors, ids

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return the ``min(k, n)`` rows of highest cosine with one ``(dim,)`` query, best first."""
        return self.search_batch(np.asarray(query)[None], k)[0]

    def search_among(
        self, queries: NDArray[Any], k: int, allowed: NDArray[np.uint8], share: float
    ) -> list[Candidates] | None:
        """Return None: where each row is compared, those that are allowed are picked before."""
        return None

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each ``(m, dim)`` query; the rows are read once for all."""
        rows = query_rows(queries, self.dim)
        best = [Best(row, min(k, len(self))) for row in rows]
        scan = _scan(self._vectors.size) if len(rows) == 1 and 0 < k <= _MAX_SCANNED else None
        if scan:
            scan(self._vectors, unit_rows(rows), best[0])
        elif k > 0 and best:
            scaled = unit_rows(rows) * _REBIAS
            step = max(1, _BLOCK // max(1, self.dim))
            block = np.empty((step, self.dim), dtype=np.int32)
            for start in range(0, len(self), step):
                halves = self._vectors[start : start + step]
                rough = _shrunken(halves, block) @ scaled.T
                positions = np.arange(start, start + len(halves))
                for column, keeper in enumerate(best):
                    keeper.offer(halves, rough[:, column], positions)
        for keeper in best:
            keeper.settle()
        return [Candidates(keeper.scores, self._ids[keeper.positions]) for keeper in best]


def _scan(numbers: int) -> "Callable[[Halves, Vectors, Best], None] | None":
    """Return FAISS's scan where it is worth its threads for so many numbers, None without FAISS."""
    if numbers < (_MANY if "faiss" in sys.modules else _VERY_MANY):
        return None
    try:
        from vitsearch.index.faiss_rows import HAS_VIEWS, scan
    except ImportError:
        return None
    return scan if HAS_VIEWS else None


class Best:
    """The k best rows met so far for one query, with scores summed in float64 row by row."""

    def __init__(self, query: Vectors, k: int) -> None:
        self.query = query
        self.k = k
        self.scores = np.empty(0, dtype=np.float32)
        self.positions = np.empty(0, dtype=np.int64)
        self._waiting: list[tuple[Vectors, Ids]] = []
        # a row of float16 has a length within 2^-11 of 1, and float32 products add at most 2^-23 a
        # dimension
        self.slack = 2.0**-11 + len(query) * 2.0**-23

    def offer(self, halves: Halves, rough: Vectors, positions: Ids) -> None:
        """Add the rows at these positions whose rough scores allow them to be among the best."""
        near = np.flatnonzero(rough >= self.bar(rough))
        if len(near):
            scores = cosine_scores(halves[near], self.query).astype(np.float32)
            self._waiting.append((scores, positions[near]))
        # not after each block: a large k would be sorted again each time
        if sum(len(scores) for scores, _ in self._waiting) >= self.k:
            self.settle()

    def settle(self) -> None:
        """Reduce what has been offered to the k best, equal scores in order of position."""
        scores = np.concatenate([self.scores, *(scores for scores, _ in self._waiting)])
        positions = np.concatenate([self.positions, *(positions for _, positions in self._waiting)])
        order = np.argsort(positions)
        best = order[top_k(scores[order], self.k)]
        self.scores, self.positions, self._waiting = scores[best], positions[best], []

    def bar(self, rough: Vectors) -> float:
        """Return the rough score below which no row is among the best; ``rough`` are of some."""
        bar = self.scores[-1] - self.slack if len(self.scores) == self.k else -np.inf
        if len(rough) > self.k:
            position = len(rough) - self.k
            bar = max(bar, np.partition(rough, position)[position] - 2 * self.slack)
        return float(bar)


def rough_scores(halves: Halves, query: NDArray[Any]) -> Vectors:
    """Return the cosine of each ``(n, dim)`` row with a unit query ``(dim,)``, to about 1e-6.

    They choose among candidates, in a tenth of the time of `cosine_scores`. A row of zeros, or one
    with numbers that are not finite, gets no useful score.
    """
    wide = widened(halves)
    products: Vectors = row_products(wide, np.asarray(query, dtype=np.float32))
    return products / _lengths(wide)


def _lengths(wide: Vectors) -> Vectors:
    lengths: Vectors = np.maximum(np.sqrt(row_products(wide, wide)), np.float32(1e-12))
    return lengths


def unit_widened(halves: Halves) -> Vectors:
    """Return finite rows as float32 of length 1, to about 1e-7."""
    wide = widened(halves)
    wide /= _lengths(wide)[:, None]
    return wide


def widened(halves: Halves) -> Vectors:
    """Return finite rows as float32, in a third of the time of NumPy's own conversion."""
    wide = _shrunken(halves, np.empty(halves.shape, dtype=np.int32))
    wide *= _REBIAS
    return wide


def _shrunken(halves: Halves, block: NDArray[np.int32]) -> Vectors:
    """Return the rows as float32 times 2^-112, in the memory of ``block``.

    Shifting the bits of a float16 to the positions of a float32 gives its value with the exponent's
    bias wrong by 112; numpy's own conversion takes three to four times as long.
    """
    bits = block[: len(halves)]
    bits[...] = halves.view(np.int16)
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _SIGN_AND_VALUE, out=bits)
    return bits.view(np.float32)


log = logging.getLogger("vitsearch")
# -- Libraries -------------------------------------------------------------------------------------


# at least one of them exists where there is a GPU: NVIDIA's driver, WSL, ROCm, Jetson
_DRIVERS = (
    "/proc/driver/nvidia/version",
    "/dev/nvidiactl",
    "/dev/dxg",
    "/dev/kfd",
    "/dev/nvhost-ctrl",
)
CAGRA = "CAGRA"  # our own factory string: a graph that FAISS builds on a GPU


def faiss_is_installed() -> bool:
    """Return whether FAISS is installed; it is not imported."""
    return find_spec("faiss") is not None


def gpu_count() -> int:
    """Return the number of GPUs that FAISS can use, 0 without a FAISS for GPUs."""
    try:
        from vitsearch.index.faiss_index import faiss_gpu_count
    except ImportError:
        return 0
    return faiss_gpu_count()


def torch_gpu_count() -> int:
    """Return the number of GPUs that PyTorch can use, 0 without PyTorch.

    PyTorch is imported, which takes seconds, only where the system has a GPU.
    """
    no_driver = sys.platform == "linux" and not any(map(os.path.exists, _DRIVERS))
    if no_driver or find_spec("torch") is None:
        return 0
    from vitsearch.index.torch_exact import cuda_device_count

    return cuda_device_count()


class ExactBackend:
    """Exact search over the rows alone; there is nothing to build."""

    def check(self, recipe: Recipe, dim: int) -> None:
        """Accept every recipe."""

    def write(self, folder: Path, recipe: Recipe, vectors: Halves, ids: Ids) -> None:
        """Write nothing: the rows are enough."""

    def open(self, folder: Path, recipe: Recipe) -> SelectiveIndex:
        """Raise RecipeError: there is no file to open."""
        raise RecipeError(f"recipe {recipe.name!r} has no index file; the search is exact")


class FaissBackend:
    """Any FAISS index, by the factory string of its recipe."""

    def check(self, recipe: Recipe, dim: int) -> None:
        """Raise RecipeError for a bad factory string or where FAISS, or its GPU, is missing.

        A recipe of exact search needs no FAISS.
        """
        try:
            from vitsearch.index.faiss_index import check_factory
        except ImportError as error:
            if recipe.is_exact:
                return
            raise RecipeError(
                f"recipe {recipe.name!r} needs FAISS, which is not installed: pip install "
                "'vitsearch[faiss]'"
            ) from error
        if recipe.factory == CAGRA:
            from vitsearch.index.gpu import check_cagra

            check_cagra(recipe)
        else:
            check_factory(recipe, dim)

    def write(self, folder: Path, recipe: Recipe, vectors: Halves, ids: Ids) -> None:
        """Build the index over ``(n, dim)`` rows and write it to a folder, synced to disk."""
        try:
            from vitsearch.index.faiss_index import build_faiss_index, few_rows
        except ImportError:  # a recipe of exact search: the rows are enough
            return
        if recipe.on_disk and not few_rows(len(ids)):
            from vitsearch.index.faiss_large import write_disk_index

            write_disk_index(folder, FAISS, recipe, vectors, ids)
            return
        if recipe.factory == CAGRA:
            from vitsearch.index.gpu import build_cagra

            index = build_cagra(recipe, vectors, ids)
        else:
            index = build_faiss_index(recipe, vectors, ids)
        with open(folder / FAISS, "wb") as file:
            index.write(file)
            file.flush()
            flush(file.fileno())

    def open(self, folder: Path, recipe: Recipe) -> SelectiveIndex:
        """Return the index in a folder; raises RecipeError where this FAISS cannot read it."""
        try:
            from vitsearch.index.faiss_files import read_faiss_index
        except ImportError as error:
            raise RecipeError(
                f"FAISS is not installed, so recipe {recipe.name!r} is searched exactly: pip "
                "install 'vitsearch[faiss]'"
            ) from error
        try:
            return read_faiss_index(folder / FAISS, search=recipe.search)
        except (RuntimeError, RecipeError) as error:
            if recipe.on_disk and "mmap" in str(error):
                raise RecipeError(
                    f"the file system of {folder} cannot map the lists of recipe {recipe.name!r}, "
                    "so the search is exact; choose another recipe, or another --collection DIR"
                ) from error
            raise RecipeError(
                f"this FAISS cannot read the index of recipe {recipe.name!r}, so the search is "
                "exact; index again to rebuild it"
            ) from error


def ordered_by(index: SelectiveIndex, vectors: Halves, ids: Ids) -> SelectiveIndex | None:
    """Return an index of FAISS over ``(n, dim)`` rows that puts its candidates in their order
    itself, at a third of the cost; None where it cannot.
    """
    from vitsearch.index.faiss_rows import ordered_by as by_faiss

    return by_faiss(index, vectors, ids)


BACKENDS: Mapping[str, IndexBackend] = {"exact": ExactBackend(), "faiss": FaissBackend()}


def backend_for(recipe: Recipe) -> IndexBackend:
    """Return the backend of a recipe.

    Raises RecipeError for the kind "auto", which `choose_recipe` turns into one of the others.
    """
    if recipe.kind not in BACKENDS:
        raise RecipeError(
            f"recipe {recipe.name!r} is not an index yet: choose_recipe gives the one to build"
        )
    return BACKENDS[recipe.kind]


def check_recipe(recipe: Recipe, dim: int) -> None:
    """Raise RecipeError where an index of the recipe cannot be built here.

    That is for a factory string that FAISS refuses at this dimension, or where FAISS is missing.
    """
    if recipe.kind in BACKENDS:  # "auto" chooses only among recipes that can be built
        BACKENDS[recipe.kind].check(recipe, dim)


# -- On a GPU --------------------------------------------------------------------------------------


class OnGpu:
    """An index that is searched by a copy on a GPU, made at the first search.

    Where that fails the index itself is searched, and that is logged.
    """

    def __init__(self, index: SelectiveIndex, copy: Callable[[], VectorIndex]) -> None:
        self.dim = index.dim
        self._index, self._make = index, copy
        self._copy: VectorIndex | None = None
        self._failed = False
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._index)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return the candidates of the copy, or of the index, for one ``(dim,)`` query."""
        return self.search_batch(query[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates for each ``(m, dim)`` query, searched for in one call."""
        with self._lock:  # a GPU's memory for searching is shared by the threads
            if not self._failed:
                try:
                    if self._copy is None:
                        self._copy = self._make()
                    return self._copy.search_batch(queries, k)
                except RecipeError as error:
                    self._copy, self._failed = None, True  # frees the GPU's memory
                    log.warning(f"{error}; searched on the CPU instead")
        return self._index.search_batch(queries, k)

    def search_among(
        self, queries: NDArray[Any], k: int, allowed: NDArray[Any], share: float
    ) -> list[Candidates] | None:
        """Return what the index itself finds: GPUs ignore a selection."""
        return self._index.search_among(queries, k, allowed, share)


def wants_gpu(recipe: Recipe, device: str) -> bool:
    """Return whether an index is to be searched on a GPU: on "cuda", and on "auto" by a recipe that
    asks for one.
    """
    return device.startswith("cuda") or (device == "auto" and recipe.gpu)


def on_device(
    index: SelectiveIndex, recipe: Recipe, *, device: str, vectors: Halves, ids: Ids
) -> SelectiveIndex:
    """Return an index over ``(n, dim)`` rows and their ``(n,)`` ids that searches on a device.

    On "cpu" that is the index itself; on "cuda" a copy on a GPU, by FAISS, or for exact search by
    PyTorch; "auto" uses the GPU for recipes that ask for one. It is logged where "cuda"
    was requested and the CPU searches.
    """
    requested = device.startswith("cuda")
    if not len(index) or not wants_gpu(recipe, device):
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
