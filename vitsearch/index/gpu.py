"""FAISS on GPUs: a temporary copy of an index to search, and graphs built there (CAGRA).

CAGRA is described in arXiv:2308.15136.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids, Vectors, cosine_scores, top_k, unit_rows
from vitsearch.errors import RecipeError
from vitsearch.index import Candidates
from vitsearch.index.faiss_index import (
    FaissIndex,
    build_faiss_index,
    faiss_gpu_count,
    few_rows,
    short_reason,
)
from vitsearch.index.recipe import Recipe

faiss: Any = _faiss  # its type stubs lack what only a FAISS for GPUs has

MAX_RESULTS = 2048  # most results, and most lists read, of FAISS's GPU kernels
MAX_GRAPH_RESULTS = 512  # most results of one CAGRA search
# sizes of product-quantised vectors that a GPU can search
CODE_BYTES = frozenset({1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96})
# A query and a row are each rounded to 11 bits and their products summed in float32: the error of
# a score is smaller than this
ROUNDING = 1.1e-3
NO_GPU = (
    "FAISS sees no GPU here (`vitsearch doctor` says which FAISS this is); FAISS for GPUs is in "
    "pip install 'vitsearch[gpu]'"
)
NO_CAGRA = (
    "recipe {name!r} is built by FAISS with cuVS on an NVIDIA GPU, and {lacks}: pip install "
    "faiss-gpu-cuvs, or take recipe hnsw"
)


class GpuIndex:
    """A copy of a FAISS index on one or more GPUs; the index itself does what a GPU cannot.

    ``row_ids`` are the ids of the copy's rows where it numbers them from 0. ``resources`` live as
    long as the copy does.
    """

    def __init__(
        self,
        index: FaissIndex,
        copy: Any,
        *,
        row_ids: Ids | None = None,
        resources: Sequence[Any] = (),
    ) -> None:
        self.dim = index.dim
        self._index, self._copy, self._row_ids, self._resources = index, copy, row_ids, resources
        self._graph = _is(copy, "GpuIndexCagra")
        self._lock = threading.Lock()  # FAISS's memory on a GPU serves one search at a time

    def __len__(self) -> int:
        return len(self._index)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return at most ``min(k, n)`` candidates for one ``(dim,)`` query, scored by FAISS."""
        return self.search_batch(np.asarray(query)[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each ``(m, dim)`` query, searched for in one call.

        Raises RecipeError where the GPU's memory is full.
        """
        rows = np.ascontiguousarray(queries, dtype=np.float32)
        count = min(k, len(self))
        limit = MAX_GRAPH_RESULTS if self._graph else MAX_RESULTS
        if not 0 < count <= limit or not len(rows) or rows.shape[1:] != (self.dim,):
            return self._index.search_batch(rows, k)
        try:
            with self._lock:
                scores, rows_found = self._copy.search(rows, count, **self._options(count))
        except RuntimeError as error:
            raise RecipeError(f"the GPU could not search ({short_reason(error)})") from error
        return [self._candidates(s, i) for s, i in zip(scores, rows_found, strict=True)]

    def _options(self, count: int) -> dict[str, Any]:
        if not self._graph:
            return {}
        parameters = faiss.SearchParametersCagra()
        size = -32 * (-max(count, self._index.ef_search()) // 32)  # a multiple of 32
        parameters.itopk_size = min(MAX_GRAPH_RESULTS, size)
        return {"params": parameters}

    def _candidates(self, scores: NDArray[Any], rows: NDArray[Any]) -> Candidates:
        if self._row_ids is None:
            valid = rows >= 0
            return Candidates(scores[valid], rows[valid])
        valid = (rows >= 0) & (rows < len(self._row_ids))
        return Candidates(scores[valid], self._row_ids[rows[valid]])


class ExactByGpu:
    """Exact search with a half-precision copy, whose candidates the stored rows re-score.

    ``vectors`` is ``(n, dim)`` float16 and ``ids`` ``(n,)``. More candidates are requested until
    rounding cannot have hidden a result.
    """

    def __init__(self, copy: GpuIndex, index: FaissIndex, *, vectors: Halves, ids: Ids) -> None:
        self.dim = index.dim
        self._copy, self._index, self._vectors, self._ids = copy, index, vectors, ids

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return the ``min(k, n)`` rows of highest cosine with one ``(dim,)`` query, best first.

        Equal scores are in order of id.
        """
        return self.search_batch(np.asarray(query)[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each ``(m, dim)`` query, searched for in one call.

        Raises RecipeError where the GPU's memory is full.
        """
        reach = 2 * k + 64
        if k <= 0 or min(reach, len(self)) > MAX_RESULTS:
            return self._index.search_batch(queries, k)
        proposed = self._copy.search_batch(unit_rows(queries), reach)
        return [
            self._rescored(query, candidates, k, reach)
            for query, candidates in zip(queries, proposed, strict=True)
        ]

    def _rescored(self, query: Vectors, proposed: Candidates, k: int, reach: int) -> Candidates:
        ids = np.sort(proposed.ids)
        rows = self._vectors[np.searchsorted(self._ids, ids)]
        scores = cosine_scores(rows, query).astype(np.float32)
        best = top_k(scores, k)
        all_known = len(ids) == len(self)
        if all_known or (len(best) == k and scores[best[-1]] > proposed.scores[-1] + ROUNDING):
            return Candidates(scores[best], ids[best])
        if min(4 * reach, len(self)) > MAX_RESULTS:
            return self._index.search(query, k)
        more = self._copy.search(unit_rows(query[None])[0], 4 * reach)
        return self._rescored(query, more, k, 4 * reach)


def to_gpu(index: FaissIndex, *, float16: bool = True, device: str = "cuda") -> GpuIndex:
    """Return a copy of an index on all GPUs (``device`` "cuda") or on one of them ("cuda:1").

    Several GPUs hold a copy each or, where it does not fit into one, a share each. ``float16``
    halves the memory of a flat index there. Raises RecipeError where FAISS sees no such GPU, where
    the kind of index does not run on one, and where the memory does not suffice.
    """
    numbers = gpu_numbers(device, faiss_gpu_count())
    outer = index.faiss_index
    wrapped = isinstance(outer, faiss.IndexIDMap)
    inner = faiss.downcast_index(outer.index) if wrapped else outer
    problem = unsupported_reason(inner)
    if problem:
        raise RecipeError(problem)
    # without its map of ids: FAISS would copy that one's row count, whatever arrives on the GPU
    row_ids = faiss.vector_to_array(outer.id_map).astype(np.int64) if wrapped else None
    copy, resources = _copied(inner, numbers, float16)
    check_copy(copy, inner)
    return GpuIndex(index, copy, row_ids=row_ids, resources=resources)


def gpu_numbers(device: str, count: int) -> list[int]:
    """Return which of ``count`` GPUs a device names: all of them, or the one of "cuda:1".

    Raises RecipeError where there is none.
    """
    if not count:
        raise RecipeError(NO_GPU)
    number = device.partition(":")[2]
    if not number:
        return list(range(count))
    if not number.isdecimal() or int(number) >= count:
        raise RecipeError(
            f"FAISS has no device {device!r}: it sees {count} GPU{'s' * (count > 1)}, from cuda:0"
        )
    return [int(number)]


def unsupported_reason(inner: Any) -> str | None:
    """Return why a FAISS index cannot be searched on a GPU, None where it can.

    ``inner`` is the index without its map of ids.
    """
    kind = type(inner)
    if kind is faiss.IndexHNSWCagra:
        if hasattr(faiss, "GpuIndexCagra"):
            return None
        return "this FAISS has no cuVS, which searches a CAGRA graph on a GPU"
    flat = (faiss.IndexFlat, faiss.IndexFlatIP)
    lists = (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ)
    if kind not in flat + lists:
        return f"FAISS has no {kind.__name__} on a GPU"
    if isinstance(inner, faiss.IndexIVF) and inner.nprobe > MAX_RESULTS:
        return (
            f"a GPU reads at most {MAX_RESULTS} lists, and this index is searched with nprobe "
            f"{inner.nprobe}"
        )
    if kind is faiss.IndexIVFPQ and (inner.pq.M not in CODE_BYTES or inner.pq.nbits != 8):
        return f"FAISS has no codes of {inner.pq.M} times {inner.pq.nbits} bits on a GPU"
    return None


def check_copy(copy: Any, inner: Any) -> None:
    """Raise RecipeError where a copy lacks rows of the index.

    Without a GPU, FAISS returns an empty copy and no error.
    """
    if copy.ntotal != inner.ntotal or not copy.ntotal:
        raise RecipeError(f"the copy on the GPU has {copy.ntotal:,} of {inner.ntotal:,} rows")


def _copied(inner: Any, numbers: Sequence[int], float16: bool) -> tuple[Any, list[Any]]:
    for shard in (False, True)[: len(numbers)]:
        resources = [faiss.StandardGpuResources() for _ in numbers]
        try:
            if len(numbers) == 1:
                options = _options(faiss.GpuClonerOptions, float16)
                copy = faiss.index_cpu_to_gpu(resources[0], numbers[0], inner, options)
                return copy, resources
            options = _options(faiss.GpuMultipleClonerOptions, float16)
            options.shard = shard
            return faiss.index_cpu_to_gpu_multiple_py(resources, inner, options, numbers), resources
        except RuntimeError as error:
            problem = error
    raise RecipeError(
        f"the index could not be copied to the GPU ({short_reason(problem)})"
    ) from problem


def _options(kind: Callable[[], Any], float16: bool) -> Any:
    options = kind()
    options.useFloat16 = float16
    options.use_cuvs = False  # it has no scalar quantisers, and other limits
    return options


def check_cagra(recipe: Recipe) -> None:
    """Raise RecipeError where the graph of a CAGRA recipe cannot be built here."""
    if not hasattr(faiss, "GpuIndexCagra"):
        raise RecipeError(NO_CAGRA.format(name=recipe.name, lacks="this FAISS is another"))
    if not faiss_gpu_count():
        raise RecipeError(NO_CAGRA.format(name=recipe.name, lacks="there is no GPU here"))


def build_cagra(recipe: Recipe, vectors: Halves, ids: Ids) -> FaissIndex:
    """Return the CAGRA graph over ``(n, d)`` float16 rows and their ``(n,)`` ids.

    It is built on a GPU and can be searched on any machine. While it is built, the rows are in
    memory as float32. Few rows make a flat index. Raises RecipeError.
    """
    check_cagra(recipe)
    if few_rows(len(ids)):
        return build_faiss_index(replace(recipe, factory="IDMap,Flat"), vectors, ids)
    resources, rows = faiss.StandardGpuResources(), unit_rows(vectors)
    try:
        graph = faiss.GpuIndexCagra(resources, rows.shape[1], faiss.METRIC_INNER_PRODUCT)
        graph.train(rows)
        twin = faiss.IndexHNSWCagra(rows.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        graph.copyTo(twin)
    except RuntimeError as error:
        raise RecipeError(
            f"recipe {recipe.name!r} could not be built on the GPU "
            f"({short_reason(error)}): take recipe hnsw"
        ) from error
    check_copy(twin, graph)
    return FaissIndex(with_ids(twin, ids), search=recipe.search)


def with_ids(inner: Any, ids: Ids) -> Any:
    """Return a FAISS index that has rows already, with their ``(n,)`` ids.

    FAISS itself puts a map of ids only around an empty index.
    """
    mapped = faiss.IndexIDMap(faiss.IndexFlatIP(inner.d))
    mapped.index, mapped.ntotal, mapped.own_fields = inner, inner.ntotal, True
    mapped.referenced_objects = []  # drops the flat one that was replaced
    inner.this.disown()
    faiss.copy_array_to_vector(np.ascontiguousarray(ids, dtype=np.int64), mapped.id_map)
    return mapped


def _is(index: Any, kind: str) -> bool:
    return hasattr(faiss, kind) and isinstance(index, getattr(faiss, kind))
