"""Exact search by PyTorch, for a GPU that FAISS does not use; it holds the rows as float16."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitsearch.arrays import Halves, Ids, cosine_scores, top_k, unit_rows
from vitsearch.errors import RecipeError
from vitsearch.index import Candidates, query_rows

_BLOCK = 33_554_432  # numbers that are float32 at a time: 128 MiB
_CUDA_BLOCK = 16 * _BLOCK  # numbers multiplied at a time where they stay float16
_SCORES = 268_435_456  # of a block with the queries that are compared at a time: 1 GiB
_BATCH = 64  # queries compared with a block at a time
_SPARE = 64  # rows kept of a block beyond twice as many as are wanted
_RESIDUE = 2.0**11  # what is left of a query by rounding it to float16 is kept times this
# the most a score can be off where PyTorch was set to fast and coarse matrix products
_COARSE = 2.0**-6
# the same on a GPU, with room for sums of parts that it rounds
_ON_CUDA = 2.0**-10


class TorchExact:
    """An index that compares every row with the query on a device.

    The results are those of `ExactIndex`, equal scores in order of id.

    ``vectors`` is ``(n, dim)`` float16 unit rows and ``ids`` ``(n,)`` ascending int64, both of
    which may be memory-mapped. Raises RecipeError where the device cannot be used or its memory
    does not suffice.
    """

    def __init__(self, vectors: Halves, ids: Ids, *, device: str, block: int = 0) -> None:
        self.dim = vectors.shape[1]
        self._vectors, self._ids = vectors, ids
        try:
            self._device = torch.device(device)
            self._is_cuda = self._device.type == "cuda"
            block = block or (_CUDA_BLOCK if self._is_cuda else _BLOCK)
            step = max(1, min(block // max(1, self.dim), _SCORES // (2 * _BATCH)))
            self._blocks = [
                self._on_device(vectors[start : start + step]) for start in range(0, len(ids), step)
            ]
        except (RuntimeError, AssertionError) as error:  # the latter from a PyTorch without CUDA
            raise RecipeError(
                f"the vectors could not be copied to {device} ({_reason(error)})"
            ) from error

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return the ``min(k, n)`` rows of highest cosine with one ``(dim,)`` query, best first.

        Equal scores are in order of id.
        """
        return self.search_batch(np.asarray(query)[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each ``(m, dim)`` query.

        Raises RecipeError where the device's memory does not suffice.
        """
        rows = query_rows(queries, self.dim)
        count = min(k, len(self))
        if count <= 0:
            return [Candidates(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in rows]
        near: list[NDArray[np.int64]] = []
        try:
            with torch.inference_mode():
                for start in range(0, len(rows), _BATCH):
                    batch = torch.from_numpy(unit_rows(rows[start : start + _BATCH]))
                    near += self._near(batch.to(self._device), count)
        except RuntimeError as error:
            raise RecipeError(f"{self._device} could not search ({_reason(error)})") from error
        return [
            self._rescored(row, positions, count) for row, positions in zip(rows, near, strict=True)
        ]

    def _on_device(self, halves: Halves) -> tuple[Tensor, Tensor]:
        """Return rows on the device, and the reciprocal of the length of each.

        Rounding leaves lengths a little off 1, and a row may be zero: its reciprocal is 0 too.
        """
        rows = torch.from_numpy(np.array(halves)).to(self._device)
        lengths = torch.linalg.vector_norm(rows.to(torch.float32), dim=1)
        return rows, torch.where(lengths > 0, 1 / lengths, 0.0)

    def _near(self, queries: Tensor, count: int) -> list[NDArray[np.int64]]:
        """Return for each query the ascending positions of all rows that can be among its best.

        The rough scores of the device exclude the others. They are looked at once, at the end: a
        GPU that has to answer after each block stands still meanwhile.
        """
        pairs, nearest, start = _split(queries), [], 0
        for rows, scales in self._blocks:
            size = min(2 * count + _SPARE, len(rows))
            scores, row = self._rough(pairs, rows, scales).topk(size, dim=1)
            nearest.append((scores, row + start, size < len(rows)))
            start += len(rows)
        scores = torch.cat([block[0] for block in nearest], dim=1)
        bars = scores.topk(count, dim=1).values[:, -1:] - 2 * self._slack()
        # a block of which all that is kept may be among the best may have more that may
        more = [(block[0][:, -1:] >= bars).any() & block[2] for block in nearest]
        if bool(torch.stack(more).any()):
            return self._all_above(pairs, bars)
        query, column = torch.nonzero(scores >= bars, as_tuple=True)
        return _by_query(
            query, torch.cat([block[1] for block in nearest], dim=1)[query, column], bars
        )

    def _all_above(self, pairs: Tensor, bars: Tensor) -> list[NDArray[np.int64]]:
        """Return for each query the ascending positions of all rows that reach its bar."""
        near, start = [], 0
        for rows, scales in self._blocks:
            query, row = torch.nonzero(self._rough(pairs, rows, scales) >= bars, as_tuple=True)
            near.append((query, row + start))
            start += len(rows)
        query, row = (torch.cat(parts) for parts in zip(*near, strict=True))
        return _by_query(query, row, bars)

    def _rough(self, pairs: Tensor, rows: Tensor, scales: Tensor) -> Tensor:
        """Return the cosines ``(m, n)`` of queries that were `_split` with rows of a block.

        On a GPU the rows are read as float16, its matrix units multiply them and add up in float32.
        """
        if self._is_cuda:
            products = torch.mm(pairs, rows.T, out_dtype=torch.float32)
        else:
            products = pairs.to(torch.float32) @ rows.to(torch.float32).T
        rounded, residue = products.chunk(2)
        return (rounded + residue / _RESIDUE) * scales

    def _slack(self) -> float:
        if self._is_cuda:
            return _ON_CUDA
        exact = torch.get_float32_matmul_precision() == "highest"
        return (self.dim + 16) * 2.0**-22 if exact else _COARSE

    def _rescored(
        self, query: NDArray[Any], positions: NDArray[np.int64], count: int
    ) -> Candidates:
        scores = cosine_scores(self._vectors[positions], query).astype(np.float32)
        best = top_k(scores, count)
        return Candidates(scores[best], np.asarray(self._ids)[positions[best]])


def _split(queries: Tensor) -> Tensor:
    """Return ``(m, dim)`` float32 unit rows as ``(2m, dim)`` float16: all rounded, then what is
    left of all.

    Rows are read once for both, and their sum is as near to the queries as float32 needs.
    """
    rounded = queries.to(torch.float16)
    residue = (queries - rounded.to(torch.float32)) * _RESIDUE
    return torch.cat([rounded, residue.to(torch.float16)])


def _by_query(query: Tensor, row: Tensor, bars: Tensor) -> list[NDArray[np.int64]]:
    """Return for each of the queries its rows, ascending."""
    numbers, rows = query.cpu().numpy(), row.cpu().numpy()
    return [np.sort(rows[numbers == number]) for number in range(len(bars))]


def cuda_device_count() -> int:
    """Return the number of NVIDIA GPUs that this PyTorch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
