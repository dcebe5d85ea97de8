"""Functions on rows of unit length, with NumPy only."""

import mmap
import os
from collections.abc import Container
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitsearch.paths import NOT_SUPPORTED
from vitsearch.types import Activation

Vectors = NDArray[np.float32]  # (n, dim) rows of unit length
Halves = NDArray[np.float16]  # such rows as they are stored
Ids = NDArray[np.int64]


def unit_rows(rows: NDArray[Any]) -> Vectors:
    """Return the rows as float32 scaled to length 1; a row of zeros stays zero.

    ``(n, d)`` in and out. Raises ValueError for another shape or a number that is not finite.
    """
    array = np.ascontiguousarray(rows, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"expected (n, d) vectors, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("a vector holds a number that is not finite")
    wide = array.astype(np.float64)  # squares of small float32 numbers would vanish
    norms = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return (wide / np.where(norms == 0, 1, norms)).astype(np.float32)


def cosine_scores(rows: NDArray[Any], query: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of each ``(n, dim)`` row with the query ``(dim,)``, or with its own of
    ``(n, dim)``; 0 for a row of zeros.

    Each row is summed by itself in float64, so a row's score does not depend on its neighbours
    and equal rows get equal scores, which one product of all rows does not promise.
    """
    wide = np.asarray(rows, dtype=np.float64)
    vector = np.asarray(query, dtype=np.float64)
    norms = np.sqrt(row_products(wide, wide)) * np.sqrt(row_products(vector, vector))
    return np.clip(row_products(wide, vector) / np.where(norms == 0, 1, norms), -1.0, 1.0)


def row_products(rows: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Return the product of each ``(n, dim)`` row with its own of ``others``, or with the one: each
    by itself, for the threads of a matrix product take longer to wake up than a few of them take.
    """
    products: NDArray[Any] = (rows[..., None, :] @ others[..., :, None])[..., 0, 0]
    return products


_PRODUCT = 2**18  # multiplications of a matrix product, up to which OpenBLAS wakes no thread
_BLOCK = 2**17  # numbers of rows that stay in the processor's cache while they are multiplied


def products(rows: Vectors, queries: Vectors) -> Vectors:
    """Return the products ``(m, n)`` of ``(m, dim)`` queries with ``(n, dim)`` rows, which need not
    be aligned: one thread computes them, and reads the rows once.
    """
    count, dim = queries.shape
    step = max(1, _PRODUCT // queries.size)
    block = np.zeros((max(1, _BLOCK // (step * dim)), step, dim), dtype=np.float32)
    memory, held = block.reshape(-1, dim).view(np.uint8), rows.view(np.uint8)
    result = np.empty((count, len(rows)), dtype=np.float32)
    for start in range(0, len(rows), len(memory)):
        part = held[start : start + len(memory)]
        memory[: len(part)] = part
        multiplied = (queries @ block.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(count, -1)
        result[:, start : start + len(part)] = multiplied[:, : len(part)]
    return result


def top_k(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the indices of the k largest scores, best first, equal scores in order of index."""
    count = min(k, len(scores))
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    if count < len(scores):
        edge = np.partition(scores, len(scores) - count)[len(scores) - count]
        above = np.flatnonzero(scores > edge)
        level = np.flatnonzero(scores == edge)[: count - len(above)]
        chosen = np.sort(np.concatenate([above, level]))
    else:
        chosen = np.arange(len(scores))
    order = np.argsort(-scores[chosen], kind="stable")
    return chosen[order].astype(np.int64)


def to_probabilities(logits: NDArray[Any], activation: Activation) -> NDArray[np.float64]:
    """Return ``(n, classes)`` logits as probabilities."""
    wide = np.asarray(logits, dtype=np.float64)
    return softmax(wide) if activation == "softmax" else sigmoid(wide)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows that sum to 1, without overflow for large logits."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each logit as a probability, without overflow or loss of small ones."""
    result: NDArray[np.float64] = np.exp(-np.logaddexp(0, -logits))
    return result


def mapped(
    file: Path,
    dtype: str | np.dtype[Any],
    shape: tuple[int, ...],
    *,
    offset: int = 0,
    order: Literal["C", "F"] = "C",
) -> NDArray[Any]:
    """Return the content of a file behind ``offset`` bytes as an array that cannot be written,
    memory-mapped where its file system can, else read.

    Raises OSError, and ValueError for a shorter file.
    """
    if 0 in shape:
        return np.empty(shape, dtype)  # an empty file cannot be mapped
    try:
        rows = np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)
        return rows.view(np.ndarray)  # each slice of a memmap costs a Python call
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    read = np.fromfile(file, dtype, count=prod(shape), offset=offset).reshape(shape, order=order)
    read.flags.writeable = False
    return read


def drop_pages(rows: NDArray[Any]) -> None:
    """Release the pages of memory-mapped rows.

    They would count as memory of this process until the system needs it.
    """
    while not isinstance(rows, np.memmap) and isinstance(rows.base, np.ndarray):
        rows = rows.base  # of which they are a view
    mapped = getattr(rows, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, slots=True)
class Fingerprints(Container[bytes]):
    """Sorted fingerprints of 16 bytes each; a Python set would take six times the memory."""

    ordered: NDArray[np.bytes_]

    def __contains__(self, fingerprint: object) -> bool:
        # NumPy compares bytes without trailing zeros, so the other side must be an array too
        sought = np.array([fingerprint], dtype="S16")
        position = int(np.searchsorted(self.ordered, sought)[0])
        return bool((self.ordered[position : position + 1] == sought).any())


_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def map_npy(file: Path) -> NDArray[Any]:
    """Return the array in a ``.npy`` file, memory-mapped.

    Raises OSError, and ValueError for anything else, a pickle, an array of objects, or a header
    that asks for more than the file holds.
    """
    with open(file, "rb") as opened:
        if opened.read(6) != np.lib.format.MAGIC_PREFIX:
            raise ValueError("it is no .npy file")
        opened.seek(0)
        read_header = _NPY_HEADERS.get(np.lib.format.read_magic(opened))
        if read_header is None:
            raise ValueError("its version is not known")
        try:
            shape, by_columns, dtype = read_header(opened)
        except (SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError("its header cannot be read") from error
        start, size = opened.tell(), os.fstat(opened.fileno()).st_size
    if dtype.hasobject:
        raise ValueError("it holds objects")
    if min(shape, default=0) < 0 or start + prod(shape) * dtype.itemsize > size:
        raise ValueError(f"it does not hold the {' x '.join(map(str, shape))} numbers it says")
    return mapped(file, dtype, shape, offset=start, order="F" if by_columns else "C")
