"""Measure searches on a GPU beside the same on the CPU, over vectors like those of photos
(vectors.py), and how far their results agree.

python benchmarks/gpu_search.py [--rows 1000000 10000000] [--dim 512] [--recipes gpu-flat gpu-ivf
ivf-sq8] [--photos DIR | --vectors PHOTOS.npy WORDS.npy] [--keep DIR]

For each recipe, on each side: seconds to build (once), seconds of the first search on the GPU (the
copy), milliseconds of one search and of one in a batch of 256, the candidates scored again from the
stored vectors as a search does. "The same" is the share of the CPU's ten best that are among the
GPU's. Without a FAISS that sees a GPU, exact search by PyTorch is measured where that sees one;
with neither, one line is printed. Ten million rows of 512 take 35 GB of disk. Medians; the machine
and the chip are named.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from machine import machine
from vectors import LikeReal, add_arguments, real_vectors

from vitsearch.arrays import cosine_scores, top_k
from vitsearch.index import IndexSnapshot, build_snapshot, gpu_count, open_snapshot
from vitsearch.index.backends import torch_gpu_count
from vitsearch.index.recipe import load_recipe

K, SPARE, QUERIES, BATCH = 10, 8, 50, 256


def chip() -> str:
    """Return the names of the GPUs, as the driver or PyTorch gives them."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    if not names and torch_gpu_count():
        import torch

        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ", ".join(names) or "a GPU without a name"


def batches(data: LikeReal) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ids and float16 rows."""
    first = 0
    for rows in data.rows():
        yield np.arange(first, first + len(rows)), rows
        first += len(rows)


def searched(snapshot: IndexSnapshot, queries: np.ndarray) -> list[set[int]]:
    """Return the ids of the ten best of each query, all asked at once and scored again from the
    stored vectors.
    """
    reach = (K + SPARE) * (1 if snapshot.recipe.is_exact else snapshot.recipe.overfetch)
    best = []
    for query, hits in zip(queries, snapshot.search_batch(queries, reach), strict=True):
        ids = np.sort(hits.ids)
        best.append(
            set(
                ids[
                    top_k(
                        cosine_scores(snapshot.vectors[np.searchsorted(snapshot.ids, ids)], query),
                        K,
                    )
                ].tolist()
            )
        )
    return best


def seconds(call: Callable[[], object]) -> float:
    """Return the time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def speeds(snapshot: IndexSnapshot, queries: np.ndarray) -> str:
    """Return the columns of the milliseconds of one search, and of one in a batch."""
    searched(snapshot, queries[:5])
    alone = statistics.median(
        seconds(lambda query=query: searched(snapshot, query[None])) for query in queries[:QUERIES]
    )
    together = statistics.median(
        seconds(lambda: searched(snapshot, queries)) for _ in range(3)
    ) / len(queries)
    return f"{1000 * alone:.2f} ms | {1000 * together:.3f} ms"


def measure(folder: Path, name: str, data: LikeReal, queries: np.ndarray) -> str:
    """Build, search and compare one recipe; return its line of the table."""
    recipe = load_recipe(name)
    built = 0.0
    if not (folder / "manifest.json").exists():
        built = seconds(
            lambda: build_snapshot(
                folder, batches(data), recipe=recipe, dim=data.dim, generation=1, fingerprint=""
            )
        )
    here, there = open_snapshot(folder), open_snapshot(folder, device="cuda")
    copied = seconds(lambda: searched(there, queries[:1]))
    on_gpu = speeds(there, queries)
    if type(there.index).__name__ != "OnGpu":
        return f"| {data.count:,} | `{name}` | {built:.0f} s | searched on the CPU |"
    same = np.mean(
        [
            len(a & b) / K
            for a, b in zip(searched(here, queries), searched(there, queries), strict=True)
        ]
    )
    return (
        f"| {data.count:,} | `{name}` | {built:.0f} s | {speeds(here, queries)} | {copied:.1f} "
        f"s | {on_gpu} | {same:.4f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="*", type=int, default=[1_000_000, 10_000_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--recipes", nargs="*", default=["gpu-flat", "gpu-ivf", "ivf-sq8"])
    parser.add_argument(
        "--keep", type=Path, help="folder for the indexes; taken as they are where they are there"
    )
    add_arguments(parser)
    chosen = parser.parse_args()
    if not (gpu_count() or torch_gpu_count()):
        print("no GPU that FAISS or PyTorch can use: nothing to measure")
        return
    print(
        f"{machine()}; {chip()}; {'FAISS' if gpu_count() else 'PyTorch'} searches "
        f"there; rows of {chosen.dim}"
    )
    print(
        "| rows | recipe | build | CPU, one | CPU, of a batch | copy | GPU, one | "
        "GPU, of a batch | the same |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    photos, words = real_vectors(chosen)
    with tempfile.TemporaryDirectory() as scratch:
        for count in chosen.rows:
            data = LikeReal(count, photos, words, chosen.dim)
            queries = np.concatenate(
                [data.queries(BATCH // 2, words=False), data.queries(BATCH // 2, words=True)]
            )
            for name in chosen.recipes:
                print(
                    measure(
                        (chosen.keep or Path(scratch)) / f"{name}-{count}", name, data, queries
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
