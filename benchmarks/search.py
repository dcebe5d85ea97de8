"""Latency and recall of the recipes over clustered vectors: python benchmarks/search.py [--rows N]
[--dim D].

The rows lie around centres as photos of a collection do; queries lie near rows. Recall@10 is the
share of the ten best rows (by exact cosine) that are among the ten first proposals, and among the
ten best of 40 proposals scored again from the vectors, as a search does.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine

from vitsearch.arrays import cosine_scores, top_k, unit_rows
from vitsearch.index import IndexSnapshot, build_snapshot, open_snapshot
from vitsearch.index.recipe import Recipe, list_recipes, load_recipe

K = 10
PROPOSALS = 40


def clustered(
    count: int, dim: int, *, seed: int, centres: int = 1000, spread: float = 1.0
) -> np.ndarray:
    """Return unit rows around seeded centres; ``spread`` is the length of the noise beside the
    centre's length of 1.
    """
    middle = unit_rows(np.random.default_rng(0).standard_normal((centres, dim)))
    generator = np.random.default_rng(seed)
    rows = np.empty((count, dim), np.float16)
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        noise = generator.standard_normal((size, dim), dtype=np.float32) * np.float32(
            spread / dim**0.5
        )
        rows[start : start + size] = unit_rows(middle[generator.integers(0, centres, size)] + noise)
    return rows


def measure(
    snapshot: IndexSnapshot, queries: np.ndarray, truth: list[set[int]]
) -> tuple[float, float, float]:
    """Return the median milliseconds of a query, and recall@10 of the proposals before and after
    scoring them again.
    """
    times, raw, rescored = [], 0, 0
    for query, right in zip(queries, truth, strict=True):
        started = time.perf_counter()
        hits = snapshot.search(query, PROPOSALS)
        places = np.searchsorted(snapshot.ids, hits.ids)
        best = top_k(cosine_scores(snapshot.vectors[places], query), K)
        times.append(time.perf_counter() - started)
        raw += len(right & set(hits.ids[:K].tolist()))
        rescored += len(right & set(hits.ids[best].tolist()))
    return statistics.median(times) * 1000, raw / (K * len(truth)), rescored / (K * len(truth))


def run(
    recipe: Recipe, folder: Path, rows: np.ndarray, queries: np.ndarray, truth: list[set[int]]
) -> str:
    """Build, open and search one recipe; return its line of the table."""
    started = time.perf_counter()
    batches = (
        (np.arange(i, min(i + 4096, len(rows))), rows[i : i + 4096])
        for i in range(0, len(rows), 4096)
    )
    build_snapshot(folder, batches, recipe=recipe, dim=rows.shape[1], generation=1, fingerprint="")
    built = time.perf_counter() - started
    file = folder / "index.faiss"
    size = file.stat().st_size / len(rows) if file.exists() else 0
    started = time.perf_counter()
    snapshot = open_snapshot(folder)
    opened = (time.perf_counter() - started) * 1000
    measure(snapshot, queries[:20], truth[:20])  # the first touch of mapped pages
    latency, raw, rescored = measure(snapshot, queries, truth)
    return (
        f"| `{recipe.name}` | {built:.1f} s | {size:.0f} | {opened:.1f} ms | {latency:.2f} ms "
        f"| {raw:.3f} | {rescored:.3f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument(
        "--recipes",
        nargs="*",
        default=[
            name
            for name in list_recipes()
            if load_recipe(name).kind == "faiss" and not load_recipe(name).gpu
        ],
    )
    chosen = parser.parse_args()
    rows = clustered(chosen.rows, chosen.dim, seed=1)
    queries = unit_rows(clustered(chosen.queries, chosen.dim, seed=2, spread=1.1))
    with tempfile.TemporaryDirectory() as scratch:
        exact = Recipe("exact", kind="exact")
        recipes = [exact, *map(load_recipe, chosen.recipes)]
        build_snapshot(
            Path(scratch, "truth"),
            [(np.arange(len(rows)), rows)],
            recipe=exact,
            dim=chosen.dim,
            generation=1,
            fingerprint="",
        )
        truth = [
            set(hits.ids.tolist())
            for hits in open_snapshot(Path(scratch, "truth")).index.search_batch(queries, K)
        ]
        print(
            f"{machine()}; {chosen.rows:,} x {chosen.dim} rows, {chosen.queries} "
            "queries one by one, medians\n"
        )
        print(
            "| recipe | build | index bytes a row | open | query | recall@10 as proposed | "
            "recall@10 scored again |"
        )
        print("|---|---|---|---|---|---|---|")
        for number, recipe in enumerate(recipes):
            print(run(recipe, Path(scratch, str(number)), rows, queries, truth), flush=True)


if __name__ == "__main__":
    main()
