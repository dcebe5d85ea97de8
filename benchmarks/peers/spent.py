"""The last line that every program prints: how many photos in how many seconds."""

import json
import time


def report(count: int, began: float, ended: float | None = None) -> None:
    """Print the photos, and the seconds between two readings of `time.perf_counter`; without the
    second one, until now.
    """
    seconds = (time.perf_counter() if ended is None else ended) - began
    print(json.dumps({"count": count, "seconds": seconds, "stages": {}}), flush=True)
