"""Measure Milvus Lite over vectors like those of photos (vectors.py): the push, and recall@10 of
photos and of words and latency of each of its indexes.

python benchmarks/milvus.py [--rows 10000] [--dim 384] [--queries 100] [--milvus milvus://HOST:PORT]
[--photos DIR | --vectors PHOTOS.npy WORDS.npy] [--views milvus://HOST:PORT/NAME]

Recall is the share of the exact top 10 that `Collection.search` returns; latencies are of one
query at a time, through the whole of it: the proposal, the vectors fetched and scored again. With
--milvus a server is measured instead of Milvus Lite. With --views nothing is pushed: what takes the
whole of a collection that is there is timed, each view on a new connection, so that nothing is
remembered.

On an Intel Xeon at 2.0 GHz, 2 cores with much other work (compare the rows with each other), 10,000
x 384:

    index        rows/s  again/s  photos   words  p50 ms  p95 ms   batch  with a filter, ms
    FLAT            437      691   1.000   1.000   212.9   336.6    61.9  173.6, 141.6
    IVF_FLAT        194      290   1.000   1.000    67.3   140.2    32.2  70.0, 96.6
    IVF_SQ8         381      817   1.000   1.000    52.3    96.5    16.7  55.3, 67.2
    HNSW            621      877   1.000   1.000    45.9    73.8    26.2  65.3, 70.7

``again`` is a second push of the same rows, which are compared and not written; ``batch`` is the
time of one query of 200 asked together.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from vectors import LikeReal, add_arguments, real_vectors

from vitsearch import Collection
from vitsearch.arrays import Vectors, cosine_scores, top_k, unit_rows
from vitsearch.cluster.push import BATCH, prepare, push_blocks
from vitsearch.collection.backend import positions
from vitsearch.collection.map import FILE, current_map
from vitsearch.filters import EVERY
from vitsearch.labels import LinearClassifier
from vitsearch.milvus import connect, parse_uri
from vitsearch.photos.columns import METADATA
from vitsearch.shards import Manifest, ShardRow, photo_id
from vitsearch.types import PhotoInfo
from vitsearch.web.pages.cache import facets_of

INDEXES = ("FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "HNSW_SQ", "AUTOINDEX")
VALUES = {"text": "-", "date": "2019-07-14", "number": 0}
EVERYTHING = {name: VALUES[column.kind] for name, column in METADATA.items()}
CLASSES, ROUNDS = 20, 3
FILTERS = (None, "year = 2019", "path like '%7.jpg' and width > 700")


def blocks(halves: np.ndarray) -> Iterator[tuple[list[ShardRow], np.ndarray]]:
    """Yield rows of photos that are not there, with the vectors."""
    for start in range(0, len(halves), BATCH):
        yield (
            [row(number) for number in range(start, min(start + BATCH, len(halves)))],
            halves[start : start + BATCH],
        )


def row(number: int) -> ShardRow:
    """Return the facts of one photo."""
    path = f"{number % 100:02d}/{number:07d}.jpg"
    info = PhotoInfo(
        640 + number % 200,
        480,
        # earlier servers than 2.5 have no empty values
        EVERYTHING
        | {
            "taken_at": f"{2015 + number % 10}-{1 + number % 12:02d}-14T18:30:05",
            "camera": f"Camera {number % 30}",
        },
    )
    digest = hashlib.blake2b(path.encode(), digest_size=16).digest()
    return ShardRow(photo_id(path), path, 10, 0, digest, info, "cat", 0.5)


def exact(rows: np.ndarray, queries: Vectors) -> list[set[str]]:
    """Return the paths of the true top 10 of each query."""
    return [
        {row(index).path for index in top_k(cosine_scores(rows, query), 10).tolist()}
        for query in queries
    ]


def measured(collection: Collection, queries: Vectors, truth: list[set[str]]) -> dict[str, Any]:
    """Return recall@10 of the queries by photos, which are the first half, and of those by words,
    and the latency in milliseconds: median, 95th percentile, and of a query with each filter.
    """
    collection.search(queries[0])
    hits, spent = [], []
    for query, best in zip(queries, truth, strict=True):
        began = time.perf_counter()
        results = collection.search(query)
        spent.append(1000 * (time.perf_counter() - began))
        hits.append(len(best & {hit.path for hit in results}) / 10)
    filtered = []
    for where in FILTERS[1:]:
        began = time.perf_counter()
        for query in queries[:20]:
            collection.search(query, where=where)
        filtered.append(1000 * (time.perf_counter() - began) / 20)
    began = time.perf_counter()
    collection.search_batch(list(queries))
    batch = 1000 * (time.perf_counter() - began) / len(queries)
    return {
        "photos": np.mean(hits[: len(hits) // 2]),
        "words": np.mean(hits[len(hits) // 2 :]),
        "p50": np.median(spent),
        "p95": np.percentile(spent, 95),
        "batch": batch,
        "filtered": filtered,
    }


def views(name: str) -> None:
    """Print how long each view of the whole of a collection takes, the median of a few rounds."""
    random = np.random.default_rng(0)
    asked: dict[str, Callable[[Collection], object]] = {
        "info": lambda collection: collection.info(),
        "months": lambda collection: collection.store.months_where(EVERY),
        "facets of the filters": lambda collection: facets_of(collection.store),
        f"labels of {CLASSES} classes": lambda collection: collection.label(
            LinearClassifier(
                tuple(f"class {number}" for number in range(CLASSES)),
                unit_rows(random.standard_normal((CLASSES, collection.dim), dtype=np.float32)),
                np.zeros(CLASSES, dtype=np.float32),
                fingerprint=collection.config.encoder_fingerprint,
            ),
            sampled=True,
        ),
        "similarity map": current_map,
        "places": lambda collection: positions(collection.store, EVERY),
        "20,000 results": lambda collection: collection.search(
            random.standard_normal(collection.dim), 20_000
        ),
    }
    print(machine())
    for title, ask in asked.items():
        spent, used = [], []
        for _ in range(ROUNDS):
            with Collection.open(name) as collection:
                len(collection)
                (collection.folder / FILE).unlink(missing_ok=True)
                began, worked = time.perf_counter(), time.process_time()
                ask(collection)
                spent.append(time.perf_counter() - began)
                used.append(time.process_time() - worked)
        print(f"{title:24} {np.median(spent):6.2f} s, {np.median(used):.2f} s of a core here")


def main() -> None:
    """Push the same vectors under every index, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=100, help="of each kind")
    parser.add_argument(
        "--milvus", help="A server; by default a file of Milvus Lite that is thrown away."
    )
    parser.add_argument("--views", help="The URI of a collection of which these are measured.")
    add_arguments(parser)
    chosen = parser.parse_args()
    if chosen.views:
        views(chosen.views)
        return
    data = LikeReal(chosen.rows, *real_vectors(chosen), chosen.dim)
    halves = np.concatenate([*data.rows()])
    both = [data.queries(chosen.queries, words=words) for words in (False, True)]
    queries = np.concatenate([each[: min(map(len, both))] for each in both])
    truth = exact(halves, queries)
    manifest = Manifest(
        "none", "0" * 32, "float32", data.dim, [], "", "scaled", BATCH, chosen.rows, 1
    )
    print(machine())
    print(f"{chosen.rows:,} x {data.dim}, {len(queries)} queries")
    print(
        f"{'index':10} {'rows/s':>8} {'again/s':>8} {'photos':>7} {'words':>7} {'p50 ms':>7} "
        f"{'p95 ms':>7} "
        f"{'batch':>7}  with a filter, ms"
    )
    with tempfile.TemporaryDirectory() as folder:
        for index in INDEXES:
            name = f"{chosen.milvus or f'milvus://{Path(folder)}/{index}.db'}/benchmark_{index}"
            rates = [pushed(name, manifest, halves, index) for _ in range(2)]
            with Collection.open(name) as collection:
                facts = measured(collection, queries, truth)
            line = (
                f"{index:10} {rates[0]:8.0f} {rates[1]:8.0f} {facts['photos']:7.3f} "
                f"{facts['words']:7.3f} {facts['p50']:7.1f} {facts['p95']:7.1f} "
            )
            print(
                line
                + f"{facts['batch']:7.1f}  "
                + ", ".join(f"{value:.1f}" for value in facts["filtered"]),
                flush=True,
            )
            if chosen.milvus:
                with closing(connect(parse_uri(name))) as connection:
                    connection.drop()


def pushed(name: str, manifest: Manifest, halves: np.ndarray, index: str) -> float:
    """Push everything, and return the rows a second: of the first push, and of the next, which
    compares and writes nothing.
    """
    with closing(connect(parse_uri(name))) as connection:
        report = prepare(connection, manifest, index=index, rows=len(halves))
        began = time.perf_counter()
        push_blocks(connection, blocks(halves), report)
        return len(halves) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
