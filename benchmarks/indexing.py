"""Memory, speed and second-run time of indexing synthetic photos: python benchmarks/indexing.py
FOLDER [--photos N].

Draws N and N/10 seeded JPEG photos of 640x480 into FOLDER once (about 75 kB each), then runs
`vitsearch index` on both in processes of their own and watches their peak memory; after that, five
times in turn, a second run on the unchanged photos and a bare `os.walk` + `os.stat` of them. FOLDER
is kept for the next run, except the collections. With --tiny the photos are PPM files of 16x16, so
that what is ours weighs more than the decoder.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image

WIDTH, HEIGHT = 640, 480
ROUNDS = 5


def draw(number: int) -> Image.Image:
    """Return a seeded picture: a slope between three colours with noise over it, as compressible as
    a photo.
    """
    generator = np.random.default_rng(number)
    corners = generator.integers(0, 256, (3, 3)).astype(np.float32)
    across, down = (
        np.linspace(0, 1, WIDTH, dtype=np.float32),
        np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None],
    )
    row = corners[0] + (corners[1] - corners[0]) * across[:, None]
    noise = np.tile(generator.integers(-12, 13, (48, 64, 1), dtype=np.int16), (10, 10, 1))
    return Image.fromarray(
        np.clip(row + (corners[2] - row) * down + noise, 0, 255).astype(np.uint8)
    )


def make_photos(folder: Path, count: int, *, tiny: bool = False) -> Path:
    """Draw the photos that are not there yet, 250 to a folder."""
    for number in range(count):
        file = folder / f"{number // 250:04}" / f"{number:06}.{'ppm' if tiny else 'jpg'}"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = file.with_suffix(".part")
            if tiny:
                aside.write_bytes(b"P6 16 16 255\n" + np.random.default_rng(number).bytes(768))
            else:
                draw(number).save(aside, "JPEG", quality=85)
            aside.rename(file)
    return folder


def index(
    folder: Path, collection: Path, *, encoder: str, workers: int | None
) -> tuple[dict, float]:
    """Run `vitsearch index` and return its report and its peak resident memory in MB."""
    command = [
        sys.executable,
        "-c",
        "from vitsearch.cli import main; main()",
        "index",
        str(folder),
        "--collection",
        str(collection),
    ]
    command += ["--json", "--encoder", encoder, *(["--workers", str(workers)] if workers else [])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        peaks = [0]
        watcher = threading.Thread(target=watch, args=(process.pid, peaks))
        watcher.start()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        watcher.join()
    if process.returncode:
        raise SystemExit(f"vitsearch index {folder} ended with exit code {process.returncode}")
    return json.loads(output.splitlines()[-1]), max(peaks[0], usage.ru_maxrss) / 1024


def watch(process: int, peaks: list[int]) -> None:
    """Keep the process's highest VmHWM in kB, which unlike ru_maxrss starts anew when it starts
    Python.
    """
    while True:
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            return
        if "VmHWM:" not in status:
            return
        peaks[0] = max(peaks[0], int(status.split("VmHWM:")[1].split()[0]))
        time.sleep(0.02)


def walk(folder: Path) -> float:
    """Return the seconds of a bare walk of the folder with a stat of every file."""
    started = time.perf_counter()
    for subfolder, _, names in os.walk(folder):
        for name in names:
            os.stat(os.path.join(subfolder, name))
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--encoder", default="colour")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    size, kind = ("16x16", "tiny") if chosen.tiny else (f"{WIDTH}x{HEIGHT}", "photos")
    print(f"{machine()}; photos of {size}, encoder {chosen.encoder}\n")
    print("| photos | first run | photos/s | peak memory | second run | os.walk + stat | ratio |")
    print("|---|---|---|---|---|---|---|")
    for count in (chosen.photos // 10, chosen.photos):
        print(
            line(
                make_photos(chosen.folder / f"{kind}-{count}", count, tiny=chosen.tiny),
                count,
                chosen,
            ),
            flush=True,
        )


def line(folder: Path, count: int, chosen: argparse.Namespace) -> str:
    """Measure one folder of photos and return its line of the table."""
    collection = chosen.folder / f"collection-{count}"
    shutil.rmtree(collection, ignore_errors=True)
    ways = {"encoder": chosen.encoder, "workers": chosen.workers}
    report, peak = index(folder, collection, **ways)
    if report["indexed"] != count:
        raise SystemExit(f"{report['indexed']} of {count} photos were indexed: {report}")
    again, bare = [], []
    for _ in range(ROUNDS):
        second, _ = index(folder, collection, **ways)
        if second["unchanged"] != count:
            raise SystemExit(f"{second['unchanged']} of {count} photos were unchanged: {second}")
        again.append(second["seconds"])
        bare.append(walk(folder))
    shutil.rmtree(collection)
    seconds, walked = statistics.median(again), statistics.median(bare)
    speed = count / report["seconds"]
    print(f"{count:,} photos, bound by {report['stages']['bound']}", file=sys.stderr)
    return (
        f"| {count:,} | {report['seconds']:.1f} s | {speed:.0f} | {peak:.0f} MB | "
        f"{seconds * 1000:.0f} ms | {walked * 1000:.0f} ms "
        f"| {seconds / walked:.2f} |"
    )


if __name__ == "__main__":
    main()
