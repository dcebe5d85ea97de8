"""Where things lie."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # the checkout
TESTS = ROOT / "tests"
DATA = ROOT.parent / "shared" / "data"  # photos that are not part of the repository; may be missing
