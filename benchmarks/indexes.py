"""Measure the recipes on real collections of vectors like those of photos (vectors.py), beside
plain FAISS calls and beside NumPy.

python benchmarks/indexes.py [--rows 100000] [--dim 512] [--recipes auto hnsw ...] [--memory 2GB]
[--photos DIR | --vectors PHOTOS.npy WORDS.npy] [--keep DIR]

For each recipe: seconds to build, bytes a vector in the index, milliseconds of a search alone
(`Collection.search` with a vector, scored from the stored vectors) and in a batch of 64, the
milliseconds of the plain FAISS call with the same parameters and number of candidates, and
recall@10 of photos and of words that were kept out. The index is tuned with other words. Medians;
the machine is named.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from machine import machine
from vectors import LikeReal, add_arguments, real_vectors

from vitsearch import Collection
from vitsearch.index.backends import ExactIndex
from vitsearch.index.recipe import Recipe, list_recipes, load_recipe
from vitsearch.index.snapshot import open_snapshot
from vitsearch.storage import CollectionConfig, write_collection_config
from vitsearch.storage.indexes import IndexMaintainer
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, PhotoInfo

K, QUERIES, BATCH, BLOCK = 10, 100, 64, 50_000


def fill(folder: Path, data: LikeReal) -> None:
    """Make a collection of these vectors, without photos behind them."""
    folder.mkdir(parents=True)
    recipe = load_recipe("auto").to_dict()
    write_collection_config(
        folder,
        CollectionConfig(
            "none", "f" * 32, "float32", data.dim, recipe, "2026-01-01T00:00:00+00:00", str(folder)
        ),
    )
    with closing(PhotoStore(folder / "photos.db")) as store:
        first = 1
        for block in data.rows():
            with store.writing():
                for number, row in enumerate(block, first):
                    store.put_photo(
                        Found(f"{number // 1000:05}/{number}.jpg", 1, 1),
                        number.to_bytes(16, "big"),
                        PhotoInfo(640, 480),
                        vector=row,
                        generation=1,
                    )
                store.raise_generation(first == 1)
            first += len(block)


def upkeep(folder: Path, recipe: Recipe, data: LikeReal) -> float:
    """Build the index of a recipe and return the seconds."""
    texts = data.queries(2 * QUERIES, words=True, tuning=True)
    with closing(PhotoStore(folder / "photos.db", read_only=True)) as store:
        keeper = IndexMaintainer(
            folder,
            store,
            data.dim,
            "f" * 32,
            recipe,
            texts=lambda: texts,
        )
        began = time.perf_counter()
        keeper.update()
        return time.perf_counter() - began


def timed(call: Callable[[np.ndarray], object], queries: np.ndarray) -> float:
    """Return the median milliseconds of a call for one query."""
    for query in queries[:10]:
        call(query)
    times = []
    for query in queries:
        began = time.perf_counter()
        call(query)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def anonymous_bytes() -> int:
    """Return the memory of this process without its mapped files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def measure(folder: Path, recipe: Recipe, data: LikeReal, queries: np.ndarray) -> str:
    """Build, search and judge one recipe; return its line of the table."""
    built = upkeep(folder, recipe, data)
    before = anonymous_bytes()
    snapshot = open_snapshot(folder / "index")
    truth = [
        set(hits.ids.tolist())
        for hits in ExactIndex(snapshot.vectors, snapshot.ids).search_batch(queries, K)
    ]
    reach = (K + 3) * snapshot.recipe.overfetch
    plain = timed(lambda query: snapshot.index.search(query, reach), queries)
    with Collection.open(folder.parent, collection=folder) as collection:
        alone = timed(lambda query: collection.search(query, K), queries)
        began = time.perf_counter()
        hits = collection.search_batch(list(np.concatenate([queries] * 2)[:BATCH]), K)
        batch = 1000 * (time.perf_counter() - began) / BATCH
        hits = collection.search_batch(list(queries), K)
    resident = max(0, anonymous_bytes() - before) / data.count
    share = [len({hit.photo_id for hit in a} & b) / K for a, b in zip(hits, truth, strict=True)]
    photos, words = np.split(np.array(share), [len(data.queries(QUERIES, words=False))])
    size = sum(file.stat().st_size for file in (folder / "index").glob("*.faiss")) / data.count
    measured = snapshot.manifest.measured
    stored = f"{measured.recall:.3f}" if measured else "-"
    effort = ", ".join(f"{key} {value:g}" for key, value in snapshot.recipe.search.items())
    name = (
        recipe.name
        if snapshot.recipe.name == recipe.name
        else f"{recipe.name}: {snapshot.recipe.name}"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        (
            f"  peak resident so far {peak:.2f} GB, of which files may be; resident for the index "
            f"{resident:.0f} bytes a vector"
        ),
        flush=True,
    )
    return (
        f"| `{name}` | {built:.0f} s | {size:.0f} | {alone:.2f} ms | {batch:.2f} ms | {plain:.2f} "
        f"ms | {photos.mean():.3f} | {words.mean():.3f} "
        f"| {stored} | {effort or '-'} |"
    )


def baselines(folder: Path, data: LikeReal, queries: np.ndarray) -> list[str]:
    """Return the lines of exact float32 FAISS and of NumPy."""
    import faiss

    snapshot = open_snapshot(folder / "index")
    lines: list[str] = []
    line = f"| {{}} | - | {4 * data.dim} | {{:.2f}} ms | {{}} | - | 1.000 | 1.000 | - | - |"
    if data.count * data.dim * 4 < 6e9:
        flat = faiss.IndexFlatIP(data.dim)
        for start in range(0, data.count, BLOCK):
            flat.add(np.asarray(snapshot.vectors[start : start + BLOCK], dtype=np.float32))
        alone = timed(lambda query: flat.search(query[None], K), queries[:30])
        began = time.perf_counter()
        flat.search(queries[:BATCH], K)
        batch = 1000 * (time.perf_counter() - began) / len(queries[:BATCH])
        lines.append(
            line.format("FAISS `IndexFlatIP`, float32, in memory", alone, f"{batch:.2f} ms")
        )
        wide = faiss.rev_swig_ptr(flat.get_xb(), data.count * data.dim).reshape(
            data.count, data.dim
        )
        alone = timed(lambda query: np.argpartition(-(wide @ query), K)[:K], queries[:30])
        lines.append(line.format("NumPy `rows @ query`, float32, in memory", alone, "-"))
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=0, help="0: that of the real vectors")
    parser.add_argument(
        "--recipes",
        nargs="*",
        default=[name for name in list_recipes() if not load_recipe(name).gpu],
    )
    parser.add_argument("--memory", type=float, default=0, help="bytes that recipe auto may take")
    add_arguments(parser)
    parser.add_argument(
        "--keep", type=Path, help="folder for the collection; taken as it is where it is there"
    )
    chosen = parser.parse_args()
    data = LikeReal(chosen.rows, *real_vectors(chosen), chosen.dim)
    queries = np.concatenate([data.queries(QUERIES, words=words) for words in (False, True)])
    print(f"{machine()}; {data.count:,} rows of {data.dim}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = (chosen.keep or Path(scratch)) / "collection"
        if not folder.exists():
            began = time.perf_counter()
            fill(folder, data)
            print(
                (
                    f"  stored in {time.perf_counter() - began:.0f} s, "
                    f"{os.path.getsize(folder / 'photos.db') / 1e9:.2f} GB"
                ),
                flush=True,
            )
        lines: list[str] = []
        if len(chosen.recipes) != 1:  # one alone is spared a second copy of the vectors
            upkeep(folder, Recipe("exact", "exact"), data)
            lines = baselines(folder, data, queries)
        for name in chosen.recipes:
            recipe = load_recipe(name)
            facts = recipe.to_dict() | (
                {"memory": int(chosen.memory)} if recipe.kind == "auto" and chosen.memory else {}
            )
            lines.append(measure(folder, Recipe.from_dict(facts), data, queries))
    print(
        "| recipe | build | bytes a vector | a search | in a batch | plain call | photos | "
        "words | stored | effort |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
