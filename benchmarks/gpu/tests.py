"""The tests marked `gpu`."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.report import Report


def measure(report: Report, _: argparse.Namespace) -> None:
    """Run them; on a CPU they are skipped."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-rs", "-p", "no:cacheprovider"]
    marked = [file for file in Path("tests").rglob("test_*.py") if "mark.gpu" in file.read_text()]
    run = subprocess.run(
        [*command, *map(str, sorted(marked))], capture_output=True, text=True, check=False
    )
    print(run.stdout, run.stderr)
    for outcome in ("passed", "failed", "skipped", "error"):
        counts = re.findall(rf"(\d+) {outcome}", run.stdout)
        report.add(outcome, int(counts[-1]) if counts else 0, "tests")
    for reason in sorted(set(re.findall(r"^SKIPPED \[\d+\] (.*)$", run.stdout, re.MULTILINE))):
        report.add("skipped", reason)
    for name in re.findall(r"^(?:FAILED|ERROR) (.*)$", run.stdout, re.MULTILINE):
        report.add("failed", name[:300])
    if run.returncode:
        raise RuntimeError(f"pytest ended with exit code {run.returncode}")
