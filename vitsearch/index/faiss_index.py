"""Any FAISS index, by its factory string (arXiv:2401.08281); the one module that imports FAISS."""

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids, Vectors, drop_pages, unit_rows
from vitsearch.errors import RecipeError
from vitsearch.index.base import LISTS, Candidates, query_rows
from vitsearch.index.recipe import Recipe, training_rows

# -- One query over inverted lists by all threads --------------------------------------------------

faiss: Any = _faiss  # its type stubs lack half of what is used here


def parallel_ivf(index: Any) -> Any:
    """Return an index of inverted lists that several threads may search for one query, None for any
    other.

    Its parallel mode is set to one query a thread, which gives the same results on every run (the
    modes that share a query do not where scores are equal).
    """
    inner = faiss.downcast_index(index)
    if type(inner) not in (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ):
        return None
    inner.parallel_mode = 3
    return inner


def search_shared(index: Any, row: Vectors, count: int) -> tuple[Vectors, Ids]:
    """Search for one query ``(1, dim)`` as for several: as many as there are threads, each with its
    share of the lists.

    FAISS gives one query one thread. Returns scores and ids ``(1, n)``, best first, equal scores in
    order of id; ``n`` is ``count``, or as many as the lists hold.
    """
    effort = min(index.nprobe, index.nlist)
    threads = max(1, min(faiss.omp_get_max_threads(), effort))
    share = -(-effort // threads)
    near, lists = (
        np.zeros(share * threads, np.float32),
        np.full(share * threads, -1, np.int64),
    )  # -1: no list
    near[:effort], lists[:effort] = (found[0] for found in index.quantizer.search(row, effort))
    dealt = [np.ascontiguousarray(whole.reshape(share, threads).T) for whole in (lists, near)]
    rows = np.ascontiguousarray(np.repeat(row, threads, axis=0))
    scores, ids = np.empty((threads, count), np.float32), np.empty((threads, count), np.int64)
    arrays = [faiss.swig_ptr(array) for array in (rows, *dealt, scores, ids)]
    index.search_preassigned_c(
        threads, arrays[0], count, *arrays[1:], False, faiss.SearchParametersIVF(nprobe=share)
    )
    best = np.lexsort((ids.ravel(), -scores.ravel()))
    best = best[ids.ravel()[best] >= 0][:count]
    return scores.ravel()[best][None], ids.ravel()[best][None]


# -- Any FAISS index, by its factory string (arXiv:2401.08281); the one module that imports FAISS --


# numbers converted to float32 at a time while building: 4 MiB, and 16 on the way there
_BLOCK = 1_048_576
_SEED = 0
_MAPPED: int = getattr(faiss, "IO_FLAG_MMAP_IFC", 0)  # older versions read the file into memory
_BESIDE: int = (
    faiss.IO_FLAG_ONDISK_SAME_DIR
)  # finds lists left on disk, but not together with the other
# numbers to compare below which threads cost more than they give, 20 times more on a busy machine
_PARALLEL = 67_108_864
_FEW = 9_984  # what FAISS wants to train 256 centres: below it, a recipe may fail for want of rows


class FaissIndex:
    """A FAISS index with the photos' ids, searched by inner product.

    ``search`` sets parameters such as ``nprobe`` or ``efSearch`` once, here. Raises RecipeError for
    one that the index does not have.
    """

    def __init__(self, index: Any, *, search: Mapping[str, float] | None = None) -> None:
        self._index = index
        self.dim: int = index.d
        self._lists = parallel_ivf(index)
        _set_search_parameters(index, search or {})

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return at most ``min(k, n)`` candidates for one ``(dim,)`` query, best first, as FAISS
        scores them.
        """
        return self.search_batch(np.asarray(query)[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each ``(m, dim)`` query; rows that FAISS pads with -1 are
        dropped.
        """
        rows = query_rows(queries, self.dim)
        count = min(k, len(self))
        if count <= 0:
            return [Candidates(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in rows]
        alone = len(rows) * len(self) * self.dim < _PARALLEL
        if len(rows) == 1 and self._lists is not None:
            scores, ids = search_shared(self._lists, rows, count)
        else:
            with _one_thread() if alone else contextlib.nullcontext():
                scores, ids = self._index.search(rows, count)
        return [Candidates(s[i >= 0], i[i >= 0]) for s, i in zip(scores, ids, strict=True)]

    @property
    def faiss_index(self) -> Any:
        """The index as FAISS knows it."""
        return faiss.downcast_index(self._index)

    def ef_search(self) -> int:
        """Return how many candidates a search in a graph keeps, 0 for an index without one."""
        inner = (
            faiss.downcast_index(self._index.index)
            if hasattr(self._index, "index")
            else self._index
        )
        return int(inner.hnsw.efSearch) if isinstance(inner, faiss.IndexHNSW) else 0

    def set_search(self, search: Mapping[str, float]) -> None:
        """Set search parameters anew. Raises RecipeError for one that the index does not have."""
        _set_search_parameters(self._index, search)

    def effort(self) -> tuple[str, int]:
        """Return the parameter that trades time for recall and its greatest value, ("", 0) where
        there is none.
        """
        inner = faiss.downcast_index(self._index)
        while hasattr(inner, "index") and not isinstance(inner, faiss.IndexIVF):
            inner = faiss.downcast_index(inner.index)
        if isinstance(inner, faiss.IndexIVF):
            return "nprobe", int(inner.nlist)
        return ("efSearch", 2**30) if isinstance(inner, faiss.IndexHNSW) else ("", 0)

    def write(self, file: BinaryIO) -> None:
        """Write the index to an open binary file. Raises OSError as the file does (a full disk)."""
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))


def build_faiss_index(recipe: Recipe, vectors: Halves, ids: Ids) -> FaissIndex:
    """Return the index of a recipe over ``(n, d)`` float16 rows, which may be memory-mapped, and
    their ``(n,)`` ids.

    The same rows give the same index: the training sample is seeded, and a graph is built on one
    thread. Where FAISS finds the rows too few for the recipe, a flat index is built. Raises
    RecipeError for a bad factory string.
    """
    factory = recipe.factory_for(len(ids), vectors.shape[1])
    index = make_index(factory, vectors.shape[1])
    try:
        train(index, vectors, recipe.train_size)
        add(index, vectors, ids)
    except RuntimeError as error:
        if len(ids) >= _FEW:
            raise RecipeError(f"FAISS could not build {factory!r}: {_reason(error)}") from error
        index = make_index("Flat", vectors.shape[1])
        add(index, vectors, ids)
    return FaissIndex(index, search=_applicable(index, recipe.search))


def gpu_count() -> int:
    """Return the number of GPUs that this FAISS can use."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def few_rows(count: int) -> bool:
    """Return whether so few rows may be too few to train a recipe on."""
    return count < _FEW


def check_factory(recipe: Recipe, dim: int) -> None:
    """Raise RecipeError when FAISS does not take the recipe's factory string or search parameters
    for ``dim`` dimensions.
    """
    index = make_index(recipe.factory_for(1_000_000, dim), dim)
    _set_search_parameters(index, recipe.search)


def read_faiss_index(path: Path, *, search: Mapping[str, float] | None = None) -> FaissIndex:
    """Return the index in a file, memory-mapped where the system and the kind of index allow it;
    lists on disk lie beside it.

    The file must be known to be whole: FAISS trusts what it reads. Raises RuntimeError when FAISS
    cannot read it.
    """
    index = _read(path)
    return FaissIndex(index, search=_applicable(index, search or {}))


def _read(path: Path) -> Any:
    flags = _BESIDE if (path.parent / LISTS).exists() else _MAPPED
    with named(path) as name:
        if name is not None:
            with (
                contextlib.suppress(TypeError),
                silenced() if flags == _BESIDE else contextlib.nullcontext(),
            ):
                return faiss.read_index(name, flags)
    with open(path, "rb") as file:
        return faiss.read_index(faiss.PyCallbackIOReader(file.read))


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep what FAISS prints about lists on disk off this process's standard output
    for the block.
    """
    library = ctypes.CDLL(None)
    library.fflush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        library.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def named(path: Path) -> Iterator[str | None]:
    """Yield a name by which FAISS, which takes UTF-8, can open a file, or None where there is none.

    On Linux that is the open folder's number and the file's own name, so that what lies beside it
    is found too.
    """
    by_number = Path("/proc/self/fd")
    if by_number.exists() and path.name.isascii():
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            yield f"{by_number}/{folder}/{path.name}"
        finally:
            os.close(folder)
        return
    yield str(path) if os.name == "posix" or str(path).isascii() else None


def make_index(factory: str, dim: int) -> Any:
    """Return an empty index of a factory string that keeps ids; raises RecipeError for one that
    FAISS does not take.
    """
    keeps_ids = factory.startswith(("IDMap,", "IDMap2,", "IVF")) or ",IVF" in factory
    wrapped = factory if keeps_ids else f"IDMap,{factory}"
    try:
        index = faiss.index_factory(dim, wrapped, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise RecipeError(
            f"FAISS does not take the factory string {factory!r} for {dim} dimensions: "
            f"{_reason(error)}"
        ) from error
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise RecipeError(
            f"the factory string {factory!r} gives an index without inner product; choose another"
        )
    _prepare(index)
    return index


def _sample(vectors: Halves, size: int) -> Vectors:
    """Return at most so many rows, drawn with a seed, as float32; converted block by block, since
    the rows are half of that.
    """
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
    """Train an index, where it needs that, on a seeded sample of ``(n, d)`` float16 rows. Raises
    RuntimeError.
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
    """Add ``(n, d)`` float16 rows, which may be memory-mapped, block by block. Raises
    RuntimeError.
    """
    with _threads_for(index):
        for start, end in _blocks(len(ids), vectors.shape[1]):
            index.add_with_ids(
                unit_rows(vectors[start:end]), np.ascontiguousarray(ids[start:end], dtype=np.int64)
            )
            drop_pages(vectors)


def _threads_for(index: Any) -> contextlib.AbstractContextManager[None]:
    """Return one thread for what depends on the order in which rows arrive (graphs, beam searches),
    all threads for inverted lists.
    """
    inner = faiss.downcast_index(index)
    plain = isinstance(inner, faiss.IndexIVF) and isinstance(
        faiss.downcast_index(inner.quantizer), faiss.IndexFlat
    )
    return contextlib.nullcontext() if plain else _one_thread()


def _set_search_parameters(index: Any, search: Mapping[str, float]) -> None:
    for name, value in search.items():
        try:
            faiss.ParameterSpace().set_index_parameter(index, name, float(value))
        except RuntimeError as error:
            raise RecipeError(
                f"FAISS has no search parameter {name!r} for this index; see [search] in the recipe"
            ) from error


def _applicable(index: Any, search: Mapping[str, float]) -> Mapping[str, float]:
    """Return no parameters for the flat index that stands in for one that could not be trained."""
    inner = faiss.downcast_index(index.index) if hasattr(index, "index") else index
    return {} if isinstance(inner, faiss.IndexFlat) else search


def _prepare(index: Any) -> None:
    """Let k-means take few points for each centre without FAISS printing a warning to stderr, and
    leave out idle work.
    """
    index = faiss.downcast_index(index)
    if hasattr(index, "cp"):
        index.cp.min_points_per_centroid = 1
    if hasattr(index, "pq"):
        index.pq.cp.min_points_per_centroid = 1
    if hasattr(index, "do_polysemous_training"):
        index.do_polysemous_training = (
            False  # takes 13 s whatever the rows, for a kind of search that is off
        )
    if isinstance(index, faiss.IndexPreTransform):
        for place in range(index.chain.size()):
            _prepare_rotation(faiss.downcast_VectorTransform(index.chain.at(place)))
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
def _one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _reason(error: RuntimeError) -> str:
    return " ".join(str(error).split(": ")[-1].split())[:200]


# -- Inverted lists in a file of their own ---------------------------------------------------------


SHARD_BYTES = 268_435_456  # of the codes that are in memory while building


def write_disk_index(
    folder: Path, file_name: str, recipe: Recipe, vectors: Halves, ids: Ids
) -> None:
    """Write an index of a recipe of inverted lists, and its lists beside it, with one shard of the
    codes in memory at a time.

    ``vectors`` is ``(n, d)`` float16 rows, which may be memory-mapped. Raises RecipeError for an
    index without inverted lists, OSError where the disk is full.
    """
    factory = recipe.factory_for(len(ids), vectors.shape[1])
    index = make_index(factory, vectors.shape[1])
    if not isinstance(index, faiss.IndexIVF):
        raise RecipeError(
            f"recipe {recipe.name!r} cannot be kept on disk: only inverted lists can, such as "
            f"IVF{{lists}},SQ8"
        )
    train(index, vectors, recipe.train_size)
    step = max(1, SHARD_BYTES // (int(index.code_size) + 8))
    starts = range(0, len(ids), step)
    shards = [folder / f"shard-{number}.faiss" for number in range(len(starts))]
    for start, shard in zip(starts, shards, strict=True):
        part = faiss.clone_index(index)
        add(part, vectors[start : start + step], ids[start : start + step])
        with named(shard) as name:
            faiss.write_index(part, name)
    _merge(folder, index, shards)
    with named(folder / file_name) as name:
        faiss.write_index(index, name)
    for shard in shards:
        shard.unlink()


def _merge(folder: Path, index: Any, shards: list[Path]) -> None:
    """Put the lists of all shards one after the other into one file, and let the index read them
    there.
    """
    opened, lists = [], faiss.InvertedListsPtrVector()
    for shard in shards:
        with named(shard) as name:
            part = faiss.read_index(name, faiss.IO_FLAG_MMAP)
        opened.append(part)  # the lists below are its own
        lists.push_back(part.invlists)
    with named(folder / LISTS) as name, silenced():
        merged = faiss.OnDiskInvertedLists(index.nlist, index.code_size, name)
        index.ntotal = merged.merge_from_multiple(lists.data(), lists.size())
    index.replace_invlists(merged, True)
    merged.this.disown()
