"""Read the vectors inside a FAISS index (arXiv:2401.08281), in a process of its own: FAISS trusts
what it reads, and an index may be a stranger's.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Ids, Vectors
from vitsearch.errors import CollectionError
from vitsearch.index.faiss_index import named, short_reason
from vitsearch.interop.base import BLOCK
from vitsearch.untrusted import CHILD_MEMORY, CHILD_SECONDS, reason, run_in_child

faiss: Any = _faiss  # its type stubs lack half of what is used here

VECTORS, IDS = "vectors.f32", "ids.i64"  # what the child leaves
BYTES_A_SECOND = 20_000_000  # that a slow disk gives
_FLAT = "give an index of whole vectors (Flat, IVF,Flat or HNSW,Flat)"
# lists on disk are looked for beside the index alone, whatever path it names, and not written to
_FLAGS: int = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY


class StoredRows:
    """The vectors and ids that an index in a file holds, copied out of it by another process.

    Raises CollectionError for a file that FAISS cannot read, that crashes it, or takes too long or
    too much memory, and for an index that does not hold the vectors themselves. ``ids`` are those
    of the rows, in the order of the rows; 0 and up where the index stores none.
    """

    def __init__(self, file: Path) -> None:
        self._copy = tempfile.TemporaryDirectory(prefix="vitsearch-")  # goes with this object
        size = _size_of(file.parent)
        read = run_in_child(
            f"{__name__}:copy_rows",
            {"file": str(file), "out": self._copy.name, "size": size},
            error=CollectionError,
            where=file,
            problem="cannot be read as a FAISS index",
            repair="write it again",
            seconds=CHILD_SECONDS + size / BYTES_A_SECOND,
            memory=CHILD_MEMORY + 3 * size,
        )
        if "refused" in read:
            raise CollectionError(f"{file} {read['refused']}: {_FLAT}")
        self.dim, count = int(read["dim"]), int(read["count"])
        self._rows: Vectors = self._mapped(VECTORS, np.dtype(np.float32), (count, self.dim))
        self.ids: Ids = self._mapped(IDS, np.dtype(np.int64), (count,))

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[Vectors]:
        """Yield the ``(n, dim)`` rows in their order."""
        for start in range(0, len(self), BLOCK):
            yield np.asarray(self._rows[start : start + BLOCK])

    def _mapped(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(Path(self._copy.name, name), dtype=dtype, mode="r", shape=shape)


def _size_of(folder: Path) -> int:
    """Return the bytes of a folder's files; raises CollectionError where one is a link that leads
    out of it, since its content would be taken for vectors.
    """
    inside = folder.resolve()
    size = 0
    for file in folder.iterdir():
        if file.is_symlink() and not file.resolve().is_relative_to(inside):
            raise CollectionError(f"{file} is a link that leads out of its folder: remove it")
        size += file.stat().st_size if file.is_file() else 0
    return size


# -- In the child ----------------------------------------------------------------------------------


def copy_rows(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the rows and the ids of an index into the files `VECTORS` and `IDS` of a folder.

    Returns their ``dim`` and ``count``, or why they are ``refused``. Raises ValueError.
    """
    stored = _read(Path(facts["file"]))
    ids, index = _unwrapped(stored)
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexHNSW):
        inner = faiss.downcast_index(inner.storage)
    if not isinstance(inner, faiss.IndexFlat | faiss.IndexIVFFlat):
        kind = type(inner).__name__
        return {"refused": f"is an {kind}, which keeps no vectors or only rounded ones"}
    count, dim = int(stored.ntotal), int(stored.d)
    if dim < 1 or 4 * count * dim > facts["size"]:
        raise ValueError("it says that it holds more than its file")
    keys = _inner_keys(index, count)
    ids = np.arange(count, dtype=np.int64) if ids is None else ids
    if len(ids) != count or len(keys) != count:
        raise ValueError(f"it holds {len(ids):,} ids of {count:,} vectors")
    Path(facts["out"], IDS).write_bytes(ids.tobytes())
    with open(Path(facts["out"], VECTORS), "wb") as out:
        for start in range(0, count, BLOCK):
            try:
                rows = index.reconstruct_batch(keys[start : start + BLOCK])
            except RuntimeError as error:
                problem = f"does not give its vectors back ({short_reason(error)})"
                return {"refused": problem}
            out.write(np.ascontiguousarray(rows, dtype=np.float32).data)
    return {"dim": dim, "count": count}


def _read(file: Path) -> Any:
    try:
        with named(file) as name:
            if name is not None:
                return faiss.read_index(name, _FLAGS)
        with open(file, "rb") as opened:
            return faiss.read_index(faiss.PyCallbackIOReader(opened.read))
    except RuntimeError as error:
        raise ValueError(short_reason(error)) from error
    except (OSError, MemoryError) as error:
        raise ValueError(reason(error)) from error


def _unwrapped(index: Any) -> tuple[Ids | None, Any]:
    """Return the ids of an index and what lies under them; None where it gives the rows numbers
    from 0 up.
    """
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexIDMap):  # IDMap2 is one
        ids = faiss.vector_to_array(inner.id_map).astype(np.int64)
        return ids, faiss.downcast_index(inner.index)
    if isinstance(inner, faiss.IndexIVF):
        inner.set_direct_map_type(faiss.DirectMap.Hashtable)
        return _list_ids(inner), inner
    return None, inner


def _list_ids(index: Any) -> Ids:
    lists = index.invlists
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
        for number in range(index.nlist)
    ]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def _inner_keys(index: Any, count: int) -> Ids:
    if isinstance(index, faiss.IndexIVF):
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        return _list_ids(index)
    return np.arange(count, dtype=np.int64)
