"""Exact search by PyTorch, for a GPU that FAISS does not use; it holds the rows as float16."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitsearch.arrays import Halves, Ids, cosine_scores, top_k, unit_rows
from vitsearch.errors import RecipeError
from vitsearch.index.base import Candidates, query_rows

_BLOCK = 33_554_432  # numbers that are float32 at a time: 128 MiB
_BATCH = 256  # queries compared with a block at a time
# the most a score can be off where PyTorch was set to fast and coarse matrix products
_COARSE = 2.0**-6


class TorchExact:
    """An index that compares every row with the query on a device.

    The results are those of `ExactIndex`, equal scores in order of id.

    ``vectors`` is ``(n, dim)`` float16 unit rows and ``ids`` ``(n,)`` ascending int64, both of
    which may be memory-mapped. Raises RecipeError where the device cannot be used or its memory
    does not suffice.
    """

    def __init__(self, vectors: Halves, ids: Ids, *, device: str, block: int = _BLOCK) -> None:
        self.dim = vectors.shape[1]
        self._vectors, self._ids = vectors, ids
        step = max(1, block // max(1, self.dim))
        try:
            self._device = torch.device(device)
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

        The rough scores of the device exclude the others.
        """
        best, slack = torch.empty((len(queries), 0), device=self._device), self._slack()
        bars = torch.full((len(queries), 1), -torch.inf, device=self._device)
        near, start = [], 0
        for rows, scales in self._blocks:
            rough = (queries @ rows.to(torch.float32).T) * scales
            best = torch.cat([best, rough.topk(min(count, len(rows)), dim=1).values], dim=1)
            best = best.topk(min(count, best.shape[1]), dim=1).values
            if best.shape[1] == count:
                bars = best[:, -1:] - 2 * slack
            query, row = torch.nonzero(rough >= bars, as_tuple=True)
            near.append((query, row + start, rough[query, row]))
            start += len(rows)
        query, row, scores = (torch.cat(parts) for parts in zip(*near, strict=True))
        inside = scores >= bars[query, 0]
        query, row = query[inside].cpu(), row[inside].cpu()
        return [row[query == number].numpy() for number in range(len(queries))]

    def _slack(self) -> float:
        exact = torch.get_float32_matmul_precision() == "highest"
        return (self.dim + 16) * 2.0**-22 if exact else _COARSE

    def _rescored(
        self, query: NDArray[Any], positions: NDArray[np.int64], count: int
    ) -> Candidates:
        scores = cosine_scores(self._vectors[positions], query).astype(np.float32)
        best = top_k(scores, count)
        return Candidates(scores[best], np.asarray(self._ids)[positions[best]])


def cuda_device_count() -> int:
    """Return the number of NVIDIA GPUs that this PyTorch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
