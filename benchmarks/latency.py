"""Milliseconds of a search with `mini`, cold and warm, by words and by a photo: python
benchmarks/latency.py [--rows 10000 100000 1000000].

Cold is the whole process of `vitsearch search`, start of Python and loading of the tower included,
with its files in the page cache; warm is `Collection.search` in a process that has searched before:
read and encode the query, search the index, score the best from the stored vectors, look up their
paths. The collections are real but hold vectors like those of photos, without photos (vectors.py),
with the index that the recipe builds. Each query is asked once: no answer is remembered. Medians.
``--keep DIR`` keeps the collections for the next time (about 4 kB a photo).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from indexing import draw
from machine import machine
from vectors import LikeReal, sample_photos

from indexes import fill
from vitsearch import Collection, load_encoder
from vitsearch.index.recipe import load_recipe
from vitsearch.index.snapshot import open_snapshot
from vitsearch.storage import read_collection_config, write_collection_config
from vitsearch.storage.indexes import IndexMaintainer
from vitsearch.storage.store import PhotoStore

ENCODER = "mini"
Real = tuple[np.ndarray, np.ndarray]
SCENES = [
    f"{what} {where}"
    for where in ("on a beach", "at night", "in the snow", "in a street", "by a lake")
    for what in (
        "a dog running",
        "two children playing",
        "a red car",
        "people at a table",
        "a bird",
        "a man with a hat",
        "an old bicycle",
        "boats",
    )
]


def make(root: Path, rows: int, recipe: str, real: Real | None = None) -> None:
    """Make the collection of so many vectors that `mini` opens, with its index, and the photos that
    are asked for; the vectors are like ``real`` ones of photos and of words.
    """
    make_of(root, ENCODER, LikeReal(rows, *(real or sample_photos())), recipe)
    for number in range(len(SCENES)):
        draw(number).save(root / f"query-{number:02}.jpg", quality=90)


def make_of(root: Path, name: str, data: Any, recipe: str) -> None:
    """Make the collection of vectors (as `LikeReal` has them) that an encoder opens, with its
    index.
    """
    folder = root / ".vitsearch"
    encoder = load_encoder(name)
    fill(folder, data)
    config = replace(
        read_collection_config(folder, root),
        encoder=name,
        encoder_fingerprint=encoder.fingerprint,
        dtype=encoder.dtype,
        root=str(root),
    )
    chosen = load_recipe(recipe)
    write_collection_config(folder, replace(config, recipe=chosen.to_dict()))
    texts = data.queries(200, words=True, tuning=True)
    with closing(PhotoStore(folder / "photos.db", read_only=True)) as store:
        IndexMaintainer(
            folder, store, encoder.dim, encoder.fingerprint, chosen, texts=lambda: texts
        ).update()


def photos_of(root: Path) -> list[Path]:
    """Return the query photos; the collection does not hold them."""
    return sorted(root.glob("query-*.jpg"))


def cold(root: Path, queries: Sequence[str]) -> float:
    """Return the median milliseconds of `vitsearch search` as a process of its own, without the
    first.
    """
    times = []
    for query in queries:
        began = time.perf_counter()
        command = [
            sys.executable,
            "-c",
            "from vitsearch.cli import main; main()",
            "search",
            str(root),
            query,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[1:])


def warm(ask: Callable[[Any], object], queries: Sequence[Any]) -> float:
    """Return the median milliseconds of a call for one query, after the first quarter of them."""
    times = []
    for query in queries:
        began = time.perf_counter()
        ask(query)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[len(times) // 4 :])


def measure(root: Path, rows: int, rounds: int) -> str:
    """Return the line of the table of one collection."""
    photos = photos_of(root)
    by_words = cold(root, SCENES[: rounds + 1])
    by_photo = cold(root, [str(photo) for photo in photos[: rounds + 1]])
    bare = cold_start(rounds)
    with Collection.open(root) as collection:
        vectors = list(LikeReal(0, *sample_photos()).queries(100, words=True))
        alone = warm(collection.search, vectors)
        words, pictures = warm(collection.search, SCENES), warm(collection.search, photos)
    name = open_snapshot(root / ".vitsearch" / "index").recipe.name
    processes = " | ".join(f"{figure:.0f} ms" for figure in (bare, by_words, by_photo))
    return (
        f"| {rows:,} | `{name}` | {processes} | {words:.1f} ms | {pictures:.1f} ms | "
        f"{alone:.2f} ms |"
    )


def cold_start(rounds: int) -> float:
    """Return the median milliseconds of `vitsearch --help`: what no search can go below."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", "from vitsearch.cli import main; main()", "--help"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--rounds", type=int, default=10, help="processes for each cold figure, at most 39"
    )
    parser.add_argument("--recipe", default="auto")
    parser.add_argument(
        "--keep",
        type=Path,
        help="folder for the collections; those that are there are taken as they are",
    )
    chosen = parser.parse_args()
    print(f"{machine()}; `{ENCODER}`, recipe {chosen.recipe}, medians\n")
    print(
        "| photos | index | `vitsearch --help` | cold, words | cold, photo | warm, words | "
        "warm, photo | a vector alone |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for rows in chosen.rows:
            root = (chosen.keep or Path(scratch)) / f"{rows}-{chosen.recipe}"
            if not root.exists():
                aside = root.with_name(f"{root.name}.{os.getpid()}")
                make(aside, rows, chosen.recipe)
                aside.rename(root)
            print(measure(root, rows, chosen.rounds), flush=True)


if __name__ == "__main__":
    main()
