"""A search by words beside rclip, of the same vectors and with the same model: python
benchmarks/search.py --work DIR [--rows 10000 100000] [--rounds 11].

Both have one ViT-B-32-256 with random weights (benchmarks/peers/model.py), rclip as ONNX in its
three files, `vitsearch` as the export that its first use makes, and collections of so many seeded
unit vectors without photos behind them. Cold is the whole process of `vitsearch search` and of
`rclip --no-indexing`, files in the page cache; warm is a search in a process that has searched
before, without remembered answers. The programs take turns; medians. Cold `mini` and the import of
torch stand beside it. DIR is that of benchmarks/throughput.py, with what it has made; rclip needs a
``python3.12`` on the PATH.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from latency import SCENES, make_of, warm
from machine import machine
from peers.environments import environment
from serve import VITSEARCH
from throughput import PEERS, QUIET, here

from vitsearch import Collection, load_encoder


class Drawn:
    """Seeded unit rows, in the place of `LikeReal`; exact search takes as long for any others."""

    def __init__(self, count: int, dim: int) -> None:
        self.count, self.dim = count, dim

    def rows(self) -> Iterator[np.ndarray]:
        """Yield them as one float16 block."""
        yield self.queries(self.count).astype(np.float16)

    def queries(self, count: int, **_: bool) -> np.ndarray:
        """Return so many float32 rows."""
        vectors = np.random.default_rng(count).standard_normal((count, self.dim), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def took(command: Sequence[str | Path], folder: Path, env: dict[str, str]) -> float:
    """Return the milliseconds of a whole process."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - began)


def in_turns(calls: dict[str, Callable[[str], float]], rounds: int) -> dict[str, str]:
    """Return the median and the spread of calls that take turns, each first call left out."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for query in SCENES[: rounds + 1]:
        for name, call in calls.items():
            times[name].append(call(query))
    return {
        name: f"{statistics.median(all_[1:]):.0f} ms ({min(all_[1:]):.0f} to {max(all_[1:]):.0f})"
        for name, all_ in times.items()
    }


def measure(work: Path, rows: int, rounds: int) -> None:
    """Print the lines of so many photos."""
    model = f"local-dir:{work / 'model' / 'open_clip'}"
    env = os.environ | QUIET | here() | {"VITSEARCH_HOME": str(work / "home")}
    roots = {name: work / "search" / f"{name}-{rows}" for name in ("mini", "vit", "rclip")}
    os.environ["VITSEARCH_HOME"] = env["VITSEARCH_HOME"]
    for name, encoder in (("mini", "mini"), ("vit", model)):
        if not roots[name].exists():
            aside = roots[name].with_name(f"{roots[name].name}.part")
            shutil.rmtree(aside, ignore_errors=True)
            make_of(aside, encoder, Drawn(rows, load_encoder(encoder).dim), "auto")
            aside.rename(roots[name])
    python, data, folder = environment(work, "rclip"), roots["rclip"], roots["rclip"] / "photos"
    peer = PEERS / "search_rclip.py"
    peer_env = env | {"RCLIP_DATADIR": str(data)}
    if not (data / "filled").exists():
        shutil.rmtree(data, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in (work / "model" / "rclip").iterdir():
            (data / file.name).symlink_to(file.resolve())
        vectors = data / "vectors.npy"
        np.save(vectors, Drawn(rows, 512).queries(rows))
        subprocess.run([python, peer, "fill", vectors, folder], env=peer_env, check=True)
        (data / "filled").touch()

    def ours(name: str) -> Callable[[str], float]:
        return lambda query: took(
            [*VITSEARCH, "search", roots[name], query, "--min-relevance", "0"], folder, env
        )

    cold = in_turns(
        {
            "vitsearch, ViT-B-32-256": ours("vit"),
            "rclip": lambda query: took(
                [python.parent / "rclip", "--no-indexing", query], folder, peer_env
            ),
            "vitsearch, mini": ours("mini"),
            "import torch": lambda _: took([sys.executable, "-c", "import torch"], folder, env),
        },
        rounds,
    )
    for name, figures in cold.items():
        print(f"| {rows:,} | cold | {name} | {figures} |", flush=True)
    queries = data / "queries.json"
    queries.write_text(json.dumps([*SCENES, *(f"{scene} again" for scene in SCENES)]))
    for _ in range(3):
        asked = [python, peer, "warm", folder, queries]
        done = subprocess.run(asked, env=peer_env, check=True, capture_output=True, text=True)
        print(f"| {rows:,} | warm | rclip | {float(done.stdout.split()[-1]):.1f} ms |")
        for name in ("vit", "mini"):
            with Collection.open(roots[name]) as collection:
                median = warm(collection.search, json.loads(queries.read_text()))
            print(f"| {rows:,} | warm | vitsearch, {name} | {median:.1f} ms |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=11, help="at most 39")
    chosen = parser.parse_args()
    model = [sys.executable, PEERS / "model.py", chosen.work / "model"]
    subprocess.run(model, check=True, env=os.environ | QUIET)
    print(machine())
    print("| photos | search | program | a search |\n|---|---|---|---|")
    for rows in chosen.rows:
        measure(chosen.work, rows, chosen.rounds)


if __name__ == "__main__":
    main()
