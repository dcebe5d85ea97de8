"""Encodes batches, in smaller ones where memory does not hold them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.encoders.base import ImageEncoder, Vectors

TOO_LARGE = "not enough memory to encode it, even by itself"  # why a photo has no vector
NOT_FINITE = "the encoder gave a vector that is not finite"
_WORDS = ("out of memory", "bad_alloc", "bad allocation", "failed to allocate", "not enough memory")


class OomSafeEncoder:
    """An encoder whose batches are halved when memory runs out; the size that went through is kept
    for the batches to come.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        self.encoder = encoder
        self.max_batch: int | None = None

    def encode(self, pictures: Sequence[NDArray[Any]]) -> list[Vectors | None]:
        """Return the unit row ``(dim,)`` of each prepared picture in order, None for one that does
        not fit even by itself.

        Any other error of the encoder is raised.
        """
        rows: list[Vectors | None] = []
        largest, ran_out = 1, False
        size = self.max_batch or max(1, len(pictures))
        while len(rows) < len(pictures):
            part = pictures[len(rows) : len(rows) + size]
            encoded = self._part(part)
            if encoded is not None:
                rows += list(encoded)
                largest = max(largest, len(part))
                continue
            ran_out = True
            if len(part) == 1:
                rows.append(None)
            size = max(1, len(part) // 2)
        self.max_batch = largest if ran_out else self.max_batch
        return rows

    def _part(self, pictures: Sequence[NDArray[Any]]) -> Vectors | None:
        """Return the rows, or None where memory ran out; what the failed attempt held is free by
        then.
        """
        try:
            return np.asarray(self.encoder.encode_prepared(pictures))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return None


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out: Python's, numpy's, PyTorch's on any device,
    or ONNX Runtime's.
    """
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in text for words in _WORDS)
    )
