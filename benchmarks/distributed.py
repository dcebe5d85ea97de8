"""Embedding on a local Ray cluster beside indexing on one machine, and whether it stays as fast and
small with more photos.

python benchmarks/distributed.py against PHOTOS [--encoder mini] [--rounds 3] python
benchmarks/distributed.py growth [--counts 5000 20000 80000] [--encoder colour] [--side 64]

``against`` runs both on the same folder in turn, each in a process of its own, and compares rates
and vectors; the start of the cluster and of its actors, and the loading of the model on one
machine, are reported apart. ``growth`` draws small photos, each another, and embeds more and more
of them; memory is the most that the driver and all processes of the cluster held together
(proportional set size).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import machine
from PIL import Image

EMBED = """
import json, sys
from dataclasses import asdict
from vitsearch.cluster import embed
source, output, encoder, size = sys.argv[1:]
if __name__ == "__main__":
    print(json.dumps(asdict(embed(source, output, encoder=encoder, shard_size=int(size)))))
"""
INDEX = """
import json, sys
import vitsearch
source, output, encoder, size = sys.argv[1:]
report = vitsearch.index_folder(source, collection=output, encoder=encoder)
times = {"seconds": report.seconds, "start_seconds": report.load_seconds}
print(json.dumps({"embedded": report.indexed, **times}))
"""


def run(code: str, *arguments: str) -> tuple[dict[str, Any], int]:
    """Run code in a process of its own; return what it says, and the most memory that it and its
    children held, in bytes.
    """
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=out, stderr=subprocess.DEVNULL
        )
        peak = 0
        while child.poll() is None:
            peak = max(peak, held_by(child.pid))
            time.sleep(1)
        if child.returncode:
            sys.exit(f"the run ended with {child.returncode}")
        out.seek(0)
        return json.loads(out.read().strip().splitlines()[-1]), peak


def held_by(pid: int) -> int:
    """Return the memory of a process and all below it, what they share counted once."""
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    except psutil.NoSuchProcess:
        pass
    return total


def against(photos: Path, encoder: str, rounds: int) -> None:
    rates: dict[str, list[float]] = {"one machine": [], "Ray": []}
    starts: dict[str, float] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name, code in (("one machine", INDEX), ("Ray", EMBED)):
                report, memory = run(code, str(photos), f"{folder}/{name}", encoder, "1000")
                rates[name].append(report["embedded"] / report["seconds"])
                starts[name] = report["start_seconds"]
                rate = rates[name][-1]
                print(
                    (
                        f"  {name}: {rate:.1f} photos/s for {report['seconds']:.1f} s, "
                        f"{memory / 1e6:.0f} MB"
                    ),
                    file=sys.stderr,
                    flush=True,
                )
            apart = difference(photos, f"{folder}/one machine", f"{folder}/Ray")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"{machine()}; {encoder}, {len(list(photos.iterdir())):,} photos, medians of {rounds}\n")
    for name, rate in medians.items():
        print(f"{name}: {rate:.1f} photos/s after {starts[name]:.1f} s of start")
    print(
        f"Ray / one machine: {medians['Ray'] / medians['one machine']:.3f}; vectors "
        f"differ by at most {apart:.1e}"
    )


def difference(photos: Path, collection: str, output: str) -> float:
    """Return the largest difference of a number in the vectors of both."""
    import vitsearch
    from vitsearch.shards import open_shards

    with vitsearch.Collection.open(photos, collection=collection) as opened:
        named, rows = opened.vectors()
        here = dict(zip((photo.path for photo in named), rows, strict=True))
    there = {
        row.path: half
        for block, halves in open_shards(output).blocks()
        for row, half in zip(block, halves, strict=True)
    }
    if here.keys() != there.keys():
        sys.exit(f"{len(here.keys() ^ there.keys())} photos are only in one of both")
    from vitsearch.arrays import unit_rows

    return max(float(np.abs(here[path] - unit_rows(there[path][None])[0]).max()) for path in here)


def growth(counts: list[int], encoder: str, side: int) -> None:
    print(
        f"{machine()}; {encoder}, photos of {side} x {side}\n\n"
        "| photos | photos/s | start | peak memory |\n|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        drawn = 0
        for count in sorted(counts):
            draw(Path(folder) / "photos", drawn, count, side)
            drawn = count
            report, memory = run(
                EMBED, f"{folder}/photos", f"{folder}/shards-{count}", encoder, "10000"
            )
            rate = report["embedded"] / report["seconds"]
            print(
                (
                    f"| {count:,} | {rate:.1f} | {report['start_seconds']:.1f} s "
                    f"| {memory / 1e6:.0f} MB |"
                ),
                flush=True,
            )


def draw(folder: Path, start: int, stop: int, side: int) -> None:
    """Draw photos of plain areas and noise, each another, 1,000 in a folder."""
    for number in range(start, stop):
        random = np.random.default_rng(number)
        small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        subfolder = folder / f"{number // 1000:03}"
        subfolder.mkdir(parents=True, exist_ok=True)
        small.resize((side, side), Image.Resampling.BICUBIC).save(
            subfolder / f"{number:06}.jpg", quality=85
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    beside = commands.add_parser("against")
    beside.add_argument("photos", type=Path)
    beside.add_argument("--rounds", type=int, default=3)
    more = commands.add_parser("growth")
    more.add_argument("--counts", type=int, nargs="+", default=[5000, 20_000, 80_000])
    more.add_argument("--side", type=int, default=64)
    beside.add_argument("--encoder", default="mini")
    more.add_argument("--encoder", default="colour")
    options = parser.parse_args()
    if options.command == "against":
        against(options.photos, options.encoder, options.rounds)
    else:
        growth(options.counts, options.encoder, options.side)


if __name__ == "__main__":
    main()
