"""Read the vectors inside a FAISS index (arXiv:2401.08281)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np

from vitsearch.arrays import Ids, Vectors
from vitsearch.errors import CollectionError
from vitsearch.interop.rows import BLOCK

faiss: Any = _faiss  # its type stubs lack half of what is used here


class StoredRows:
    """An index from a file, read for the vectors that it holds.

    FAISS trusts what it reads: open only files of people whose programs you would run. Raises
    CollectionError for a file that FAISS cannot read, and for an index that does not hold the
    vectors themselves.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            with open(file, "rb") as opened:
                self._stored = faiss.read_index(faiss.PyCallbackIOReader(opened.read))
        except (OSError, RuntimeError, MemoryError) as error:
            raise CollectionError(
                f"{file} cannot be read as a FAISS index ({_reason(error)}): write it again"
            ) from error
        self.dim = int(self._stored.d)
        self._ids, self._index = _unwrapped(self._stored)
        self._check_exact()

    def __len__(self) -> int:
        return int(self._stored.ntotal)

    @property
    def ids(self) -> Ids:
        """The ids of the rows, in the order of the rows; 0 and up where the index stores none."""
        return np.arange(len(self), dtype=np.int64) if self._ids is None else self._ids

    def blocks(self) -> Iterator[Vectors]:
        """Yield the ``(n, dim)`` rows in their order."""
        keys = _inner_keys(self._index, len(self))
        for start in range(0, len(self), BLOCK):
            try:
                yield self._index.reconstruct_batch(keys[start : start + BLOCK])
            except RuntimeError as error:
                raise CollectionError(
                    f"{self._file} does not give its vectors back ({_reason(error)}): {_FLAT}"
                ) from error

    def _check_exact(self) -> None:
        inner = faiss.downcast_index(self._index)
        if isinstance(inner, faiss.IndexHNSW):
            inner = faiss.downcast_index(inner.storage)
        if not isinstance(inner, faiss.IndexFlat | faiss.IndexIVFFlat):
            raise CollectionError(
                f"{self._file} is an {type(inner).__name__}, which keeps no vectors or only "
                f"rounded ones: {_FLAT}"
            )


_FLAT = "give an index of whole vectors (Flat, IVF,Flat or HNSW,Flat)"


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


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split(": ")[-1].split())[:160] or type(error).__name__
