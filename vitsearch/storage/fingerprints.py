"""Fingerprints of the contents of all photos, for membership tests."""

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Fingerprints(Container[bytes]):
    """Fingerprints in order, 16 bytes each: a set of Python's would take six times as much
    memory.
    """

    ordered: NDArray[np.bytes_]

    def __contains__(self, fingerprint: object) -> bool:
        # compared as an array is: without the zeros at the end
        sought = np.array([fingerprint], dtype="S16")
        position = int(np.searchsorted(self.ordered, sought)[0])
        return bool((self.ordered[position : position + 1] == sought).any())
