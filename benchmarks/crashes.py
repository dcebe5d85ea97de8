"""Stops runs of indexing at every change of a file, and lets the disk fail from every change on.

    PYTHONPATH=tests python benchmarks/crashes.py [--every 1] [--errors-every 3] [--only delta]

Needs Linux and a C compiler. Prints one line a scenario and a line for each problem; the figures in
docs/reliability.md are from here.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from helpers.crash_sweep import ERRORS, SCENARIOS, Sweep
from helpers.faults import faulty_disk


def main() -> int:
    """Run the sweep, print what was found, and return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="stop at every n-th change")
    parser.add_argument("--errors-every", type=int, default=3, help="fail from every n-th change")
    parser.add_argument("--only", choices=list(SCENARIOS))
    chosen = parser.parse_args()
    total, wrong, started = 0, 0, time.perf_counter()
    with faulty_disk() as disk:
        for name, scenario in SCENARIOS.items():
            if chosen.only not in (None, name):
                continue
            with tempfile.TemporaryDirectory(prefix="vitsearch-crashes-") as work:
                sweep = Sweep(scenario, disk, Path(work))
                counts = dict.fromkeys(ERRORS, 0)
                for error in ERRORS:
                    step = chosen.errors_every if error else chosen.every
                    for at in range(1, sweep.changes + 1, step):
                        problems = sweep.problems_at(at, error)
                        counts[error] += 1
                        wrong += bool(problems)
                        for problem in problems:
                            print(f"{name}, change {at}, {ERRORS[error]}: {problem}"[:600])
            total += sum(counts.values())
            points = ", ".join(f"{count} {ERRORS[error]}" for error, count in counts.items())
            print(f"{name}: {sweep.changes} changes; {points}", flush=True)
    print(f"{total} points in {time.perf_counter() - started:.0f} s, {wrong} with a problem")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
