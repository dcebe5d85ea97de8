"""FAISS on GPUs: a passing copy of an index to search, and a graph that is built there (CAGRA,
arXiv:2308.15136).
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
from vitsearch.index.base import Candidates
from vitsearch.index.faiss_index import FaissIndex, build_faiss_index, few_rows, gpu_count
from vitsearch.index.recipe import Recipe

faiss: Any = _faiss  # its type stubs lack what only a FAISS for GPUs has

MAX_RESULTS = 2048  # results, and lists read, that FAISS has GPU kernels for
MAX_GRAPH_SHARE = 512  # results that CAGRA finds in one go
CODE_BYTES = frozenset(
    {1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96}
)  # of product-quantised vectors
# A query and a row are each rounded to 11 bits and their products summed in float32: the score is
# off by less than this
ROUNDING = 1.1e-3
NO_GPU = (
    "FAISS sees no GPU here (`vitsearch doctor` says which FAISS this is); FAISS for GPUs is "
    "in pip install 'vitsearch[gpu]'"
)
NO_CAGRA = (
    "recipe {name!r} is built by FAISS with cuVS on an NVIDIA GPU, and {lacks}: pip "
    "install faiss-gpu-cuvs, or take recipe hnsw"
)


class GpuIndex:
    """A copy of a FAISS index on one GPU or several; what a GPU cannot do is done by the index
    itself.

    ``places`` are the ids of the copy's rows where it counts them from 0. ``resources`` live as
    long as the copy does.
    """

    def __init__(
        self,
        index: FaissIndex,
        copy: Any,
        *,
        places: Ids | None = None,
        resources: Sequence[Any] = (),
    ) -> None:
        self.dim = index.dim
        self._index, self._copy, self._places, self._resources = index, copy, places, resources
        self._graph = _is(copy, "GpuIndexCagra")
        self._turn = threading.Lock()  # FAISS's memory on a GPU is for one search at a time

    def __len__(self) -> int:
        return len(self._index)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return at most ``min(k, n)`` candidates for one ``(dim,)`` query, best first, as FAISS
        scores them.
        """
        return self.search_batch(np.asarray(query)[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each ``(m, dim)`` query, asked for in one call. Raises
        RecipeError where the GPU's memory is full.
        """
        rows = np.ascontiguousarray(queries, dtype=np.float32)
        count = min(k, len(self))
        if (
            count <= 0
            or not len(rows)
            or rows.shape[1:] != (self.dim,)
            or count > (MAX_GRAPH_SHARE if self._graph else MAX_RESULTS)
        ):
            return self._index.search_batch(rows, k)
        try:
            with self._turn:
                scores, found = self._copy.search(rows, count, **self._options(count))
        except RuntimeError as error:
            raise RecipeError(f"the GPU could not search ({_reason(error)})") from error
        return [self._candidates(s, i) for s, i in zip(scores, found, strict=True)]

    def _options(self, count: int) -> dict[str, Any]:
        if not self._graph:
            return {}
        parameters = faiss.SearchParametersCagra()
        parameters.itopk_size = min(
            MAX_GRAPH_SHARE, -32 * (-max(count, self._index.ef_search()) // 32)
        )  # a multiple of 32
        return {"params": parameters}

    def _candidates(self, scores: NDArray[Any], found: NDArray[Any]) -> Candidates:
        if self._places is None:
            kept = found >= 0
            return Candidates(scores[kept], found[kept])
        kept = (found >= 0) & (found < len(self._places))
        return Candidates(scores[kept], self._places[found[kept]])


class ExactByGpu:
    """Exact search by a copy in half precision: it proposes, the ``(n, dim)`` stored rows decide,
    and more is asked while in doubt.
    """

    def __init__(self, copy: GpuIndex, index: FaissIndex, *, vectors: Halves, ids: Ids) -> None:
        self.dim = index.dim
        self._copy, self._index, self._vectors, self._ids = copy, index, vectors, ids

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return the ``min(k, n)`` rows of highest cosine with the ``(dim,)`` query, best first,
        equal scores by id.
        """
        return self.search_batch(np.asarray(query)[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each ``(m, dim)`` query, asked for in one call. Raises
        RecipeError where the GPU's memory is full.
        """
        reach = 2 * k + 64
        if k <= 0 or min(reach, len(self)) > MAX_RESULTS:
            return self._index.search_batch(queries, k)
        proposed = self._copy.search_batch(unit_rows(queries), reach)
        return [
            self._decided(query, some, k, reach)
            for query, some in zip(queries, proposed, strict=True)
        ]

    def _decided(self, query: Vectors, proposed: Candidates, k: int, reach: int) -> Candidates:
        ids = np.sort(proposed.ids)
        scores = cosine_scores(self._vectors[np.searchsorted(self._ids, ids)], query).astype(
            np.float32
        )
        best = top_k(scores, k)
        all_known = len(ids) == len(self)
        if all_known or (len(best) == k and scores[best[-1]] > proposed.scores[-1] + ROUNDING):
            return Candidates(scores[best], ids[best])
        if min(4 * reach, len(self)) > MAX_RESULTS:
            return self._index.search(query, k)
        more = self._copy.search(unit_rows(query[None])[0], 4 * reach)
        return self._decided(query, more, k, 4 * reach)


def to_gpu(index: FaissIndex, *, float16: bool = True, device: str = "cuda") -> GpuIndex:
    """Return a copy of an index on the GPUs (``device`` "cuda"), or on one of them ("cuda:1"), to
    search as long as it is held.

    Several GPUs hold a copy each, or where it does not fit into one, a share each. ``float16``
    halves what a flat index takes there. Raises RecipeError where FAISS sees no such GPU, where the
    kind of index does not run on one, and where the memory does not suffice.
    """
    numbers = gpu_numbers(device, gpu_count())
    kept = index.faiss_index
    wrapped = isinstance(kept, faiss.IndexIDMap)
    inner = faiss.downcast_index(kept.index) if wrapped else kept
    refused = refusal(inner)
    if refused:
        raise RecipeError(refused)
    # FAISS would copy the number of rows of the map of ids along, whatever arrives on the GPU
    places = faiss.vector_to_array(kept.id_map).astype(np.int64) if wrapped else None
    copy, resources = _copied(inner, numbers, float16)
    check_copy(copy, inner)
    return GpuIndex(index, copy, places=places, resources=resources)


def gpu_numbers(device: str, count: int) -> list[int]:
    """Return which of ``count`` GPUs a device means: all of them, or that of "cuda:1". Raises
    RecipeError where there is none.
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


def refusal(inner: Any) -> str | None:
    """Return why a FAISS index, without its map of ids, cannot be searched on a GPU, None where it
    can.
    """
    kind = type(inner)
    if kind is faiss.IndexHNSWCagra:
        return (
            None
            if hasattr(faiss, "GpuIndexCagra")
            else "this FAISS has no cuVS, which searches a CAGRA graph on a GPU"
        )
    if kind not in (
        faiss.IndexFlat,
        faiss.IndexFlatIP,
        faiss.IndexIVFFlat,
        faiss.IndexIVFScalarQuantizer,
        faiss.IndexIVFPQ,
    ):
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
    """Raise RecipeError where a copy has not as many rows as the index: without a GPU, FAISS gives
    an empty one and no error.
    """
    if copy.ntotal != inner.ntotal or not copy.ntotal:
        raise RecipeError(f"the copy on the GPU has {copy.ntotal:,} of {inner.ntotal:,} rows")


def _copied(inner: Any, numbers: Sequence[int], float16: bool) -> tuple[Any, list[Any]]:
    for shard in (False, True)[: len(numbers)]:
        resources = [faiss.StandardGpuResources() for _ in numbers]
        try:
            if len(numbers) == 1:
                return faiss.index_cpu_to_gpu(
                    resources[0], numbers[0], inner, _options(faiss.GpuClonerOptions, float16)
                ), resources
            options = _options(faiss.GpuMultipleClonerOptions, float16)
            options.shard = shard
            return faiss.index_cpu_to_gpu_multiple_py(resources, inner, options, numbers), resources
        except RuntimeError as error:
            problem = error
    raise RecipeError(f"the index could not be copied to the GPU ({_reason(problem)})") from problem


def _options(kind: Callable[[], Any], float16: bool) -> Any:
    options = kind()
    options.useFloat16 = float16
    options.use_cuvs = False  # it has no scalar quantisers, and other limits
    return options


def check_cagra(recipe: Recipe) -> None:
    """Raise RecipeError where the graph of a recipe with the factory string CAGRA cannot be built
    here.
    """
    if not hasattr(faiss, "GpuIndexCagra"):
        raise RecipeError(NO_CAGRA.format(name=recipe.name, lacks="this FAISS is another"))
    if not gpu_count():
        raise RecipeError(NO_CAGRA.format(name=recipe.name, lacks="there is no GPU here"))


def build_cagra(recipe: Recipe, vectors: Halves, ids: Ids) -> FaissIndex:
    """Return the graph over ``(n, d)`` float16 rows and their ``(n,)`` ids, built on a GPU, as an
    index that is searched on any machine.

    The rows are held in memory as float32 while it is built. Few rows make a flat index. Raises
    RecipeError.
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
            f"recipe {recipe.name!r} could not be built on the GPU ({_reason(error)}): take "
            "recipe hnsw"
        ) from error
    check_copy(twin, graph)
    return FaissIndex(with_ids(twin, ids), search=recipe.search)


def with_ids(inner: Any, ids: Ids) -> Any:
    """Return a FAISS index that has rows, with their ``(n,)`` ids; FAISS itself puts a map of ids
    only around an empty index.
    """
    mapped = faiss.IndexIDMap(faiss.IndexFlatIP(inner.d))
    mapped.index, mapped.ntotal, mapped.own_fields = inner, inner.ntotal, True
    mapped.referenced_objects = []  # the flat one that was taken out
    inner.this.disown()
    faiss.copy_array_to_vector(np.ascontiguousarray(ids, dtype=np.int64), mapped.id_map)
    return mapped


def _is(index: Any, kind: str) -> bool:
    return hasattr(faiss, kind) and isinstance(index, getattr(faiss, kind))


def _reason(error: RuntimeError) -> str:
    return " ".join(str(error).split(": ")[-1].split())[:200]
