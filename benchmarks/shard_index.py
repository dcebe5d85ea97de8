"""Build an index from shards of vectors like those of photos (vectors.py) in a child process, and
measure its memory, time and recall.

python benchmarks/shard_index.py [--rows 500000] [--dim 128] [--recipes ivf-sq8 ivf-pq ivf]
[--memory 400MB] [--address local]

For each recipe: seconds by stage, the most memory of the child that was its own ("anonymous", read
every 20 ms), the most with mapped files ("resident", as the system counts it), bytes a photo of the
index alone and of the folder, the recall@10 that was stored and that of 200 queries which are no
photos, milliseconds of a search alone, and the same of comparing every vector. With --address the
parts are built by workers of a Ray cluster, of which "workers" is the most that one had of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine
from vectors import LikeReal, add_arguments, real_vectors

from vitsearch.cli.index import bytes_of
from vitsearch.cluster.shard_index import ShardIndex
from vitsearch.index.backends import ExactIndex
from vitsearch.shards import Manifest, ShardRow, create_shards, photo_id
from vitsearch.types import PhotoInfo

SHARD, QUERIES, K = 10_000, 200, 10
CHILD = """
import glob, json, resource, sys, threading, time
from vitsearch.cluster.build import build_index
most = {"self": 0, "worker": 0}
def own(process):
    with open(f"/proc/{process}/status") as file:
        (anonymous,) = (line for line in file if line.startswith("RssAnon"))
    return int(anonymous.split()[1]) * 1024
def watch():
    while True:
        most["self"] = max(most["self"], own("self"))
        for name in glob.glob("/proc/[0-9]*/comm") if address else ():
            try:
                with open(name) as file:
                    if file.read().startswith("ray::"):
                        most["worker"] = max(most["worker"], own(name.split("/")[2]))
            except (OSError, ValueError):  # it ended meanwhile
                pass
        time.sleep(0.02)
output, index, recipe, memory, address = sys.argv[1:]
threading.Thread(target=watch, daemon=True).start()
report = build_index(output, index, recipe=recipe, memory=int(memory), address=address or None)
resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({
    "seconds": report.seconds, "parts": report.parts, "anonymous": most["self"],
    "worker": most["worker"], "resident": resident,
    "recall": report.measured and report.measured.recall,
    "search": dict(report.recipe.search), "overfetch": report.recipe.overfetch,
}))
"""


def fill(folder: Path, data: LikeReal) -> None:
    """Write the vectors as shards of photos that are not there."""
    shards = -(-data.count // SHARD)
    golden = [[1.0] + [0.0] * (data.dim - 1)]
    manifest = Manifest(
        "none",
        "f" * 32,
        "float32",
        data.dim,
        golden,
        "/photos",
        "scaled",
        SHARD,
        data.count,
        shards,
    )
    writer, number, row = create_shards(folder, manifest), 0, 0
    for block in data.rows():
        for start in range(0, len(block), SHARD):
            vectors = block[start : start + SHARD]
            names = [f"{i // 1000:05}/{i}.jpg" for i in range(row, row + len(vectors))]
            rows = [
                ShardRow(photo_id(name), name, 1, 1, b"f" * 16, PhotoInfo(640, 480))
                for name in names
            ]
            writer.write(number, rows, vectors)
            number, row = number + 1, row + len(vectors)
    writer.finish()


def timed(call: object, queries: np.ndarray) -> float:
    """Return the median milliseconds of a call for one query."""
    assert callable(call)
    times = []
    for query in np.concatenate([queries[:10], queries]):
        began = time.perf_counter()
        call(query[None], K)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[10:])


def row(
    shards: Path, index: Path, recipe: str, *, memory: int, address: str, queries: np.ndarray
) -> str:
    """Build by one recipe in a child process, search here, and return the line of the table."""
    command = [sys.executable, "-c", CHILD, str(shards), str(index), recipe, str(memory), address]
    facts = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[
            -1
        ]
    )
    shard_index = ShardIndex.open(index)
    exact = ExactIndex(shard_index.vectors, np.arange(len(shard_index)))
    ids, _ = shard_index.search(queries, K)
    truth = exact.search_batch(queries, K)
    recall = np.mean(
        [
            len({*shard_index.ids[hits.ids].tolist()} & {*mine.tolist()}) / K
            for hits, mine in zip(truth, ids, strict=True)
        ]
    )
    lists = sum(
        file.stat().st_size
        for file in index.iterdir()
        if file.name in ("index.faiss", "lists.ivfdata")
    )
    size = sum(file.stat().st_size for file in index.iterdir())
    stages = ", ".join(f"{name} {value:.1f}" for name, value in facts["seconds"].items())
    effort = (
        ", ".join(f"{name} {value:g}" for name, value in facts["search"].items())
        + f", overfetch {facts['overfetch']}"
    )
    alone, compared = timed(shard_index.search, queries), timed(exact.search_batch, queries[:20])
    return (
        f"| `{recipe}` | {sum(facts['seconds'].values()):.1f} s ({stages}) | {facts['parts']} | "
        f"{facts['anonymous'] / 1e6:.0f} MB | {facts['worker'] / 1e6:.0f} MB "
        f"| {facts['resident'] / 1e6:.0f} MB | {lists / len(shard_index):.0f} / "
        f"{size / len(shard_index):.0f} | {facts['recall']:.3f} | {recall:.3f} "
        f"| {alone:.2f} ms | {compared:.1f} ms | {effort} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--recipes", nargs="*", default=["ivf-sq8", "ivf-pq", "ivf"])
    parser.add_argument("--memory", default="400MB")
    parser.add_argument("--address", default="", help="of a Ray cluster; local starts one")
    add_arguments(parser)
    chosen = parser.parse_args()
    data = LikeReal(chosen.rows, *real_vectors(chosen), chosen.dim)
    queries = data.queries(QUERIES, words=False)
    print(f"{machine()}; {data.count:,} rows of {data.dim}, --memory {chosen.memory}", flush=True)
    heads = (
        "recipe | build | parts | anonymous | workers | resident | bytes: index / folder | "
        "stored | recall | a search | exact | effort"
    )
    print(f"| {heads} |")
    print("|---" * 12 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        fill(Path(scratch) / "shards", data)
        for recipe in chosen.recipes:
            memory = bytes_of(chosen.memory)
            index = Path(scratch) / recipe
            print(
                row(
                    Path(scratch) / "shards",
                    index,
                    recipe,
                    memory=memory,
                    address=chosen.address,
                    queries=queries,
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
