"""The last line that every program prints: how many photos in how many seconds."""

import json
import time


def report(count: int, began: float) -> None:
    """Print the photos, and the seconds since ``began``, a reading of `time.perf_counter`."""
    print(
        json.dumps({"count": count, "seconds": time.perf_counter() - began, "stages": {}}),
        flush=True,
    )
