"""Pictures for a compiled image tower."""

from typing import Any

import numpy as np

SIZE = 4


def pictures(count: int) -> list[Any]:
    return list(np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
