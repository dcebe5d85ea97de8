"""Any FAISS index, by its factory string (arXiv:2401.08281): built and searched."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids, Vectors, drop_pages, products, top_k, unit_rows
from vitsearch.errors import RecipeError
from vitsearch.index import Candidates, check_size, parse_factory, query_rows, smallest
from vitsearch.index.recipe import Recipe, training_rows

faiss: Any = _faiss  # its type stubs lack half of what is used here
if hasattr(os, "register_at_fork"):  # OpenMP would wait for threads that were left in the parent
    os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))

# numbers converted to float32 at a time while building: 4 MiB, with the copies 16
_BLOCK = 1_048_576
_SEED = 0
# with fewer numbers to compare, threads cost more than they save, 20 times more on a busy machine
_PARALLEL = 67_108_864
# so many queries, with up to so many numbers, read a flat index once: FAISS reads it for each
_TOGETHER, _MULTIPLIED = 3, 268_435_456
_FEW = 9_984  # rows that FAISS wants for 256 centres; with fewer the training may fail


class FaissIndex:
    """A FAISS index with the photos' ids, searched by inner product.

    ``search`` sets parameters such as ``nprobe`` or ``efSearch``. Raises RecipeError for one that
    the index does not have.
    """

    def __init__(self, index: Any, *, search: Mapping[str, float] | None = None) -> None:
        self._index = index
        self.dim: int = index.d
        self._lists = parallel_ivf(index)
        # FAISS searches lists for one query on one thread; to wake the others costs more than that
        self._probes = self.effort()[0] == "nprobe"
        self._is_flat = isinstance(_unwrapped(index), faiss.IndexFlat)
        self._params: Any = None
        _set_search_parameters(index, search or {})

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return at most ``min(k, n)`` candidates for one ``(dim,)`` query, scored by FAISS."""
        return self.search_batch(np.asarray(query)[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each ``(m, dim)`` query, without the -1 that FAISS pads with."""
        rows = query_rows(queries, self.dim)
        count = min(k, len(self))
        if count <= 0:
            return [Candidates(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in rows]
        numbers = len(rows) * len(self) * self.dim
        small = numbers < _PARALLEL or (len(rows) == 1 and self._probes)
        try:
            if len(rows) == 1 and self._lists is not None:
                scores, ids = search_parallel(self._lists, rows, count)
            elif self._is_flat and len(rows) >= _TOGETHER and numbers < _MULTIPLIED:
                scores, ids = self._multiplied(rows, count)
            else:
                with one_thread() if small else contextlib.nullcontext():
                    scores, ids = self._index.search(rows, count, params=self._params)
        except (RuntimeError, AssertionError) as error:
            raise RecipeError(
                f"FAISS cannot search the index ({short_reason(error)}): index with another recipe"
            ) from error
        return list(map(_without_padding, scores, ids))

    def _multiplied(self, queries: Vectors, count: int) -> tuple[Vectors, Ids]:
        """Return scores and ids ``(m, count)`` for queries ``(m, dim)`` in a flat index."""
        held = faiss.rev_swig_ptr(_unwrapped(self._index).get_xb(), len(self) * self.dim)
        scores = products(held.reshape(-1, self.dim), queries)
        best = np.stack([top_k(row, count) for row in scores])
        return np.take_along_axis(scores, best, 1), faiss.vector_to_array(self._index.id_map)[best]

    def search_among(
        self, queries: NDArray[Any], k: int, allowed: NDArray[np.uint8], share: float
    ) -> list[Candidates] | None:
        """Return the candidates among the rows whose bits are set; None for one without lists."""
        if not self._probes:
            return None
        lists = faiss.extract_index_ivf(self._index)  # more are read, the fewer rows they hold
        nprobe = min(int(lists.nlist), math.ceil(lists.nprobe / math.sqrt(share)))
        selector = faiss.IDSelectorBitmap(allowed)
        params = self.parameters(faiss.SearchParametersIVF(sel=selector, nprobe=nprobe))
        rows = query_rows(queries, self.dim)
        try:
            with one_thread() if len(rows) == 1 else contextlib.nullcontext():
                scores, ids = self._index.search(rows, min(k, len(self)), params=params)
        except (RuntimeError, AssertionError):  # a kind of lists that takes no selection
            return None
        return list(map(_without_padding, scores, ids))

    def parameters(self, of_lists: Any) -> Any:
        """Return the parameters of a search with those of the lists."""
        if isinstance(self.faiss_index, faiss.IndexPreTransform):
            return faiss.SearchParametersPreTransform(index_params=of_lists)
        return of_lists

    @property
    def is_parallel(self) -> bool:
        """Whether several threads search for one query."""
        return self._lists is not None

    @property
    def faiss_index(self) -> Any:
        """The index as an object of FAISS."""
        return faiss.downcast_index(self._index)

    def ef_search(self) -> int:
        """Return how many candidates a search of a graph holds, 0 for an index without one."""
        inner = _unwrapped(self._index)
        return int(inner.hnsw.efSearch) if isinstance(inner, faiss.IndexHNSW) else 0

    def set_search(self, search: Mapping[str, float]) -> None:
        """Change search parameters; raises RecipeError for one that the index does not have."""
        _set_search_parameters(self._index, search)

    def effort(self) -> tuple[str, int]:
        """Return the parameter that trades time for recall and its maximum, ("", 0) without one."""
        inner = faiss.downcast_index(self._index)
        while hasattr(inner, "index") and not isinstance(inner, faiss.IndexIVF):
            inner = faiss.downcast_index(inner.index)
        if isinstance(inner, faiss.IndexIVF):
            return "nprobe", int(inner.nlist)
        return ("efSearch", 2**30) if isinstance(inner, faiss.IndexHNSW) else ("", 0)

    def write(self, file: BinaryIO) -> None:
        """Write the index to an open binary file; raises its OSError (a full disk)."""
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))


def _without_padding(scores: Vectors, ids: Ids) -> Candidates:
    return Candidates(scores, ids) if ids[-1] >= 0 else Candidates(scores[ids >= 0], ids[ids >= 0])


def parallel_ivf(index: Any) -> Any:
    """Return the inverted lists that several threads can search for one query, else None.

    Their parallel mode is set to one query a thread, which gives the same results on every run (the
    modes that share a query do not where scores are equal).
    """
    inner = faiss.downcast_index(index)
    if type(inner) not in (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ):
        return None
    inner.parallel_mode = 3
    return inner


def search_parallel(index: Any, row: Vectors, count: int) -> tuple[Vectors, Ids]:
    """Return scores and ids ``(1, n)`` for one query ``(1, dim)``, found by all threads.

    FAISS searches one query on one thread, so the query is repeated for each thread, with a share
    of the lists each. The best come first, equal scores in order of id; ``n`` is ``count``, or as
    many as the lists hold.
    """
    effort = min(index.nprobe, index.nlist)
    threads = max(1, min(faiss.omp_get_max_threads(), effort))
    share = -(-effort // threads)
    near = np.zeros(share * threads, np.float32)
    lists = np.full(share * threads, -1, np.int64)  # -1: no list
    nearest = index.quantizer.search(row, effort)
    near[:effort], lists[:effort] = nearest[0][0], nearest[1][0]
    shares = [np.ascontiguousarray(flat.reshape(share, threads).T) for flat in (lists, near)]
    rows = np.ascontiguousarray(np.repeat(row, threads, axis=0))
    scores, ids = np.empty((threads, count), np.float32), np.empty((threads, count), np.int64)
    arrays = [faiss.swig_ptr(array) for array in (rows, *shares, scores, ids)]
    index.search_preassigned_c(
        threads, arrays[0], count, *arrays[1:], False, faiss.SearchParametersIVF(nprobe=share)
    )
    best = np.lexsort((ids.ravel(), -scores.ravel()))
    best = best[ids.ravel()[best] >= 0][:count]
    return scores.ravel()[best][None], ids.ravel()[best][None]


def build_faiss_index(recipe: Recipe, vectors: Halves, ids: Ids) -> FaissIndex:
    """Return the index of a recipe over ``(n, d)`` float16 rows and their ``(n,)`` ids.

    The rows may be memory-mapped. The same rows give the same index: the training sample is seeded,
    and a graph is built on one thread. Where the rows are too few for the recipe, a flat index is
    built. Raises RecipeError for a bad factory string.
    """
    count, dim = vectors.shape
    factory = recipe.factory_for(count, dim)
    if few_rows(count) and parse_factory(factory, dim).lists > count:
        factory = "Flat"
    index = make_index(factory, dim, count)
    try:
        train(index, vectors, recipe.train_size)
        add(index, vectors, ids)
    except RuntimeError as error:
        if not few_rows(count):
            raise RecipeError(
                f"FAISS could not build {factory!r}: {short_reason(error)}"
            ) from error
        index = make_index("Flat", dim)
        add(index, vectors, ids)
    return FaissIndex(index, search=applicable(index, recipe.search))


def faiss_gpu_count() -> int:
    """Return the number of GPUs that this FAISS can use."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def few_rows(count: int) -> bool:
    """Return whether ``count`` rows may be too few to train a recipe on."""
    return count < _FEW


def check_factory(recipe: Recipe, dim: int) -> None:
    """Raise RecipeError when FAISS refuses a recipe's factory string or search parameters."""
    factory = recipe.factory_for(1_000_000, dim)
    parse_factory(factory, dim)
    index = make_index(smallest(factory), dim, shown=factory)
    _set_search_parameters(index, recipe.search)


def make_index(factory: str, dim: int, count: int = 0, *, shown: str = "") -> Any:
    """Return an empty index of a factory string, with ids.

    Raises RecipeError, which names it (or ``shown``), where it is bad or asks for more than an
    index of ``count`` rows may. With more lists than few rows it has one list.
    """
    if few_rows(count) and parse_factory(factory, dim).lists > count:
        factory, shown = smallest(factory), factory
    check_size(factory, dim, count)
    keeps_ids = factory.startswith(("IDMap,", "IDMap2,", "IVF")) or ",IVF" in factory
    wrapped = factory if keeps_ids else f"IDMap,{factory}"
    try:
        index = faiss.index_factory(dim, wrapped, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise RecipeError(
            f"FAISS does not take the factory string {shown or factory!r} for {dim} dimensions: "
            f"{short_reason(error)}"
        ) from error
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise RecipeError(
            f"the factory string {factory!r} gives an index without inner product; choose another"
        )
    _prepare(index)
    return index


def _sample(vectors: Halves, size: int) -> Vectors:
    """Return at most ``size`` rows, drawn with a seed, as float32, converted block by block."""
    count = len(vectors)
    chosen = (
        np.sort(np.random.default_rng(_SEED).choice(count, size, replace=False))
        if count > size
        else np.arange(count)
    )
    sample = np.empty((len(chosen), vectors.shape[1]), dtype=np.float32)
    for start, end in _blocks(len(chosen), vectors.shape[1]):
        sample[start:end] = unit_rows(vectors[chosen[start:end]])
        drop_pages(vectors)
    return sample


def _blocks(count: int, dim: int) -> Iterator[tuple[int, int]]:
    step = max(1, _BLOCK // dim)
    for start in range(0, count, step):
        yield start, min(count, start + step)


def train(index: Any, vectors: Halves, train_size: int) -> None:
    """Train an index that needs it on a seeded sample of ``(n, d)`` float16 rows.

    Raises RuntimeError, as FAISS does.
    """
    if not index.is_trained:
        with _threads_for(index):
            index.train(_sample(vectors, training_rows(_lists(index), train_size)))


def _lists(index: Any) -> int:
    """Return the number of inverted lists, 0 for an index without them."""
    try:
        return int(faiss.extract_index_ivf(index).nlist)
    except RuntimeError:
        return 0


def add(index: Any, vectors: Halves, ids: Ids) -> None:
    """Add ``(n, d)`` float16 rows, which may be memory-mapped, block by block.

    Raises RuntimeError, as FAISS does.
    """
    with _threads_for(index):
        for start, end in _blocks(len(ids), vectors.shape[1]):
            block_ids = np.ascontiguousarray(ids[start:end], dtype=np.int64)
            index.add_with_ids(unit_rows(vectors[start:end]), block_ids)
            drop_pages(vectors)


def _threads_for(index: Any) -> contextlib.AbstractContextManager[None]:
    """Return a context of all threads for inverted lists, of one thread for anything else.

    Graphs and beam searches depend on the order in which rows arrive.
    """
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    plain = isinstance(inner, faiss.IndexIVF) and isinstance(
        faiss.downcast_index(inner.quantizer), faiss.IndexFlat
    )
    return contextlib.nullcontext() if plain else one_thread()


def _set_search_parameters(index: Any, search: Mapping[str, float]) -> None:
    for name, value in search.items():
        try:
            faiss.ParameterSpace().set_index_parameter(index, name, float(value))
        except RuntimeError as error:
            raise RecipeError(
                f"FAISS has no search parameter {name!r} for this index; see [search] in the recipe"
            ) from error


def _unwrapped(index: Any) -> Any:
    """Return the index inside a map of ids, or inside another wrapper."""
    return faiss.downcast_index(index.index) if hasattr(index, "index") else index


def applicable(index: Any, search: Mapping[str, float]) -> Mapping[str, float]:
    """Return the search parameters, none for a flat index, which few rows get instead."""
    return {} if isinstance(_unwrapped(index), faiss.IndexFlat) else search


def _prepare(index: Any) -> None:
    """Switch off a warning on stderr (few points per centre) and training that is not needed."""
    index = faiss.downcast_index(index)
    if hasattr(index, "cp"):
        index.cp.min_points_per_centroid = 1
    if hasattr(index, "pq"):
        index.pq.cp.min_points_per_centroid = 1
    if hasattr(index, "do_polysemous_training"):
        # takes 13 s however few the rows, for a kind of search that is off
        index.do_polysemous_training = False
    if isinstance(index, faiss.IndexPreTransform):
        for number in range(index.chain.size()):
            _prepare_rotation(faiss.downcast_VectorTransform(index.chain.at(number)))
    for inner in ("index", "base_index", "refine_index"):
        if getattr(index, inner, None) is not None:
            _prepare(getattr(index, inner))


def _prepare_rotation(transform: Any) -> None:
    if isinstance(transform, faiss.OPQMatrix):
        quantizer = faiss.ProductQuantizer(transform.d_out, transform.M, 8)
        quantizer.cp.min_points_per_centroid = 1
        quantizer.cp.niter = transform.niter_pq
        transform.pq = quantizer
        transform.quantizer_kept_alive = quantizer  # the C++ side holds a bare pointer


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Have FAISS compute on one thread inside the block."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def short_reason(error: Exception) -> str:
    """Return the reason in an error of FAISS, without its source line, on one line."""
    return " ".join(str(error).split(": ")[-1].split())[:200]
