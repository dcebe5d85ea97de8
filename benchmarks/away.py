"""What it costs when the disk of a collection was away: python benchmarks/away.py FOLDER
[--photos N].

Writes N photos of 16x16 into FOLDER once, indexes them with `colour`, then takes turns, each run a
process of its own: an unchanged run; a run with the folder of the photos empty, as where a disk is
not mounted (they stay); a run without that folder (they are put aside); and the run after each,
with the photos back. FOLDER is kept for the next time, except the collection.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from indexing import make_photos
from machine import machine

ROUNDS = 3


def index(root: Path, collection: Path) -> tuple[dict, float]:
    """Run `vitsearch index`, and return its report and the seconds of the whole process."""
    command = [sys.executable, "-c", "from vitsearch.cli import main; main()", "index"]
    command += [str(root), "--collection", str(collection), "--encoder", "colour", "--json"]
    started = time.perf_counter()
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seconds = time.perf_counter() - started
    if ended.returncode:
        raise SystemExit(f"vitsearch index {root} ended with exit code {ended.returncode}")
    return json.loads(ended.stdout), seconds


def rounds(root: Path, collection: Path, count: int) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of each kind of run: within the run, and of the whole process."""
    disk, away = root / "disk", root.with_name("away")
    times: dict[str, list[tuple[float, float]]] = {}

    def measure(what: str, **expected: int) -> None:
        report, seconds = index(root, collection)
        shown = {name: report[name] for name in expected}
        if shown != expected or report["indexed"]:
            raise SystemExit(f"{what}: {report}")
        times.setdefault(what, []).append((report["seconds"], seconds))

    for _ in range(ROUNDS):
        measure("unchanged", unchanged=count + 1)
        disk.rename(away)
        disk.mkdir()
        measure("its folder empty: the photos stay", out_of_reach=count)
        disk.rmdir()
        away.rename(disk)
        measure("back", unchanged=count + 1)
        disk.rename(away)
        measure("its folder gone: the photos are put aside", removed=count, put_aside=count)
        away.rename(disk)
        measure("back, from those put aside", restored=count, put_aside=0)
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=100_000)
    chosen = parser.parse_args()
    root, collection = chosen.folder / "photos", chosen.folder / "collection"
    make_photos(root / "disk", chosen.photos, tiny=True)
    (root / "here.ppm").write_bytes(b"P6 16 16 255\n" + np.random.default_rng(1).bytes(768))
    shutil.rmtree(collection, ignore_errors=True)
    report, _ = index(root, collection)
    if report["indexed"] != chosen.photos + 1:
        raise SystemExit(f"not every photo was indexed: {report}")
    times = rounds(root, collection, chosen.photos)
    shutil.rmtree(collection)
    print(f"{machine()}; {chosen.photos:,} photos of 16x16, encoder colour\n")
    print("| run | seconds | with the start of the process | times an unchanged run |")
    print("|---|---|---|---|")
    medians = {
        what: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for what, rows in times.items()
    }
    for what, (seconds, whole) in medians.items():
        ratios = f"{seconds / medians['unchanged'][0]:.2f}, {whole / medians['unchanged'][1]:.2f}"
        print(f"| {what} | {seconds:.2f} | {whole:.2f} | {ratios} |")


if __name__ == "__main__":
    main()
