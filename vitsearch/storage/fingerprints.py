"""Fingerprints of the contents of all photos, for membership tests."""

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Fingerprints(Container[bytes]):
    """Sorted fingerprints of 16 bytes each; a Python set would take six times the memory."""

    ordered: NDArray[np.bytes_]

    def __contains__(self, fingerprint: object) -> bool:
        # NumPy compares bytes without trailing zeros, so the other side must be an array too
        sought = np.array([fingerprint], dtype="S16")
        position = int(np.searchsorted(self.ordered, sought)[0])
        return bool((self.ordered[position : position + 1] == sought).any())
