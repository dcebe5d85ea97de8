"""Run the parts one after the other, each in a process of its own, within a time for all.

python -m benchmarks.gpu.run OUT [--device cuda] [--tiny] [--seconds 400] [--only PART ...]
[--vectors PHOTOS.npy WORDS.npy]

A part that fails, hangs or takes too long is one result that says so; the next one goes on. OUT
gets results.jsonl, table.md and PART.log. Without a GPU every part is "skipped: no GPU"; --device
cpu runs the same code on the CPU, --tiny with small models and few rows.
"""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.report import HEADER, Report, line, read_results
from benchmarks.machine import machine

# in order of worth, with the most seconds of each on a GPU
PARTS = {
    "tests": 100,
    "parity": 90,
    "search": 130,
    "embedding": 120,
    "classifying": 45,
    "training": 60,
}


def main() -> None:
    """Run the parts, or with ``--part`` one of them in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--vectors", type=Path, nargs=2)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    file = chosen.out / "results.jsonl"
    if chosen.part:
        module = importlib.import_module(f"benchmarks.gpu.{chosen.part}")
        module.measure(Report(file, chosen.part), chosen)
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    has_gpu = describe(Report(file, "machine"))
    deadline, is_cuda = time.monotonic() + chosen.seconds, chosen.device.startswith("cuda")
    for part in chosen.only:
        report, left = Report(file, part), deadline - time.monotonic()
        limit = PARTS[part] if is_cuda else chosen.seconds
        if is_cuda and not has_gpu:
            report.add("part", "skipped: no GPU")
        elif left < 5:
            report.add("part", "skipped: no time was left")
        else:
            began, problem = time.monotonic(), run_part(part, chosen, min(limit, left))
            report.add("part", problem or "done", beside=f"{time.monotonic() - began:.0f} s")
    table = "\n".join([HEADER, *map(line, read_results(file))])
    (chosen.out / "table.md").write_text(f"{table}\n", encoding="utf-8")
    print(f"\n{table}")


def describe(report: Report) -> bool:
    """Write what is measured on, and return whether PyTorch sees a GPU."""
    report.add("processor", machine())
    for name in ("torch", "torchvision", "transformers", "open_clip", "timm", "faiss", "ray"):
        try:
            report.add(name, str(importlib.import_module(name).__version__))
        except Exception as error:  # a broken package is a result too
            report.add(name, f"missing: {error}"[:200])
    try:
        import torch
    except ImportError:
        return False
    if not torch.cuda.is_available():
        return False
    facts = torch.cuda.get_device_properties(0)
    report.add("chip", facts.name, beside=f"{facts.total_memory / 2**30:.0f} GiB")
    report.add("CUDA of PyTorch", str(torch.version.cuda), beside=driver())
    return True


def driver() -> str:
    """Return the version of the driver, empty where it does not tell."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split()
    except OSError:
        return ""
    return next((f"driver {word}" for word in words if word.count(".") > 1), "")


def run_part(part: str, chosen: argparse.Namespace, seconds: float) -> str:
    """Run a part in a process of its own, and return what went wrong, empty for nothing."""
    command = [sys.executable, "-m", "benchmarks.gpu.run", str(chosen.out), "--part", part]
    command += ["--device", chosen.device, *(["--tiny"] if chosen.tiny else [])]
    command += ["--vectors", *map(str, chosen.vectors)] if chosen.vectors else []
    log = chosen.out / f"{part}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status is None:
        return f"cut off after {seconds:.0f} s"
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return f"failed with {status}: {' '.join(last)[:300]}" if status else ""


if __name__ == "__main__":
    main()
