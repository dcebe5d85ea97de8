"""`make fuzz`: many cases of every target; exits 1 where one crashes, leaves a traceback or does
not end.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from fuzzing.running import fuzz_all
from fuzzing.targets import TARGETS

parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
parser.add_argument("--cases", type=int, default=22_000, help="of all targets together")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--only", help="the targets whose names hold this text")
given = parser.parse_args()
chosen = [target for target in TARGETS if given.only is None or given.only in target.name]
with tempfile.TemporaryDirectory(prefix="vitsearch-fuzz-") as folder:
    found = fuzz_all(chosen, given.cases, given.seed, Path(folder))
for name, outcome in found.items():
    shown = [outcome.counts[kind] for kind in ("taken", "refused", "traceback", "crash", "endless")]
    sys.stdout.write(f"| {name} | {outcome.cases:,} | {' | '.join(map(str, shown))} |\n")
sys.exit(any(outcome.problems for outcome in found.values()))
