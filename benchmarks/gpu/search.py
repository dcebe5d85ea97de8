"""Searches on a GPU over vectors like those of photos (vectors.py), beside the same on the CPU."""

import argparse
import io
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.models import capped
from benchmarks.gpu.report import Report
from benchmarks.vectors import LikeReal, Neighbourhoods, real_vectors
from vitsearch.arrays import cosine_scores, top_k, unit_rows
from vitsearch.encoders.checkpoints import one_line
from vitsearch.index.backends import gpu_count
from vitsearch.index.candidates import UnindexedVectors, candidates_for
from vitsearch.index.recipe import load_recipe
from vitsearch.index.snapshot import IndexSnapshot, build_snapshot, open_snapshot
from vitsearch.index.torch_exact import TorchExact

K, SPARE, QUERIES, BATCH, ROUNDS, BLOCK = 10, 3, 200, 64, 30, 100_000
RECIPES = ("gpu-flat", "gpu-ivf", "gpu-cagra")

Halves = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Set:
    """Rows, queries of each kind, and the ids ``(m, K)`` of their best rows."""

    rows: Halves
    queries: dict[str, NDArray[np.float32]]
    truth: dict[str, NDArray[np.int64]]
    device: str

    @property
    def size(self) -> str:
        """The number of rows and their length."""
        return f"{len(self.rows):,} x {self.rows.shape[1]}"


def measure(report: Report, chosen: argparse.Namespace) -> None:
    """Measure PyTorch over both sets, FAISS over the smaller one."""
    chosen.photos = None
    photos, words = tiny_vectors() if chosen.tiny else real_vectors(chosen)
    smaller = made_set(LikeReal(3000 if chosen.tiny else 1_000_000, photos, words), chosen.device)
    attempt(report, smaller.size, partial(by_torch, report, smaller))
    if not chosen.tiny:
        data = LikeReal(10_000_000, photos, words)
        larger = lambda: by_torch(report, made_set(data, chosen.device))  # noqa: E731
        attempt(report, f"{data.count:,} rows", larger)
    with tempfile.TemporaryDirectory() as scratch:
        for name in RECIPES:
            attempt(report, name, partial(by_faiss, report, smaller, Path(scratch) / name))
        attempt(report, "traps", partial(traps, report, smaller, Path(scratch)))


def attempt(report: Report, name: str, call: Callable[[], None]) -> None:
    """Write an error as a result: the next measurement goes on."""
    try:
        call()
    except Exception as error:  # CUDA, FAISS and cuVS each raise their own
        report.add(name, f"failed: {one_line(error)}")


def made_set(data: LikeReal, device: str) -> Set:
    """Return rows made on the device, with queries that they were not made from."""
    rows = made(data, device)
    queries = {
        "photos": data.queries(QUERIES, words=False),
        "words": data.queries(QUERIES, words=True),
    }
    photos, words = np.split(
        exact(rows, np.concatenate([*queries.values()]), device), [len(queries["photos"])]
    )
    return Set(rows, queries, {"photos": photos, "words": words}, device)


def tiny_vectors() -> tuple[np.ndarray, np.ndarray]:
    """Return a thousand rows in place of real ones."""
    rows = np.random.default_rng(0).standard_normal((1300, 32), np.float32)
    return unit_rows(rows[:1000]), unit_rows(rows[1000:])


def made(data: LikeReal, device: str) -> Halves:
    """Return the rows, made on the device as `Neighbourhoods` makes them."""
    near = Neighbourhoods(data.base)
    base = torch.from_numpy(data.base).to(device)
    means, others = torch.from_numpy(near.means).to(device), torch.from_numpy(near.near).to(device)
    generator = torch.Generator(device).manual_seed(1)
    rows: Halves = np.empty((data.count, data.dim), np.float16)
    for start in range(0, data.count, BLOCK):
        size = min(BLOCK, data.count - start)
        at = torch.randint(len(base), (size,), device=device, generator=generator)
        shape = (size, others.shape[1])
        weights = torch.randn(shape, device=device, generator=generator) / shape[1] ** 0.5
        block = base[at] - weights.sum(dim=1, keepdim=True) * means[at]
        for column in range(shape[1]):
            block += weights[:, column, None] * base[others[at, column]]
        block = torch.nn.functional.normalize(block)
        rows[start : start + size] = block.to(torch.float16).cpu().numpy()
    return rows


def exact(rows: Halves, queries: np.ndarray, device: str) -> NDArray[np.int64]:
    """Return the ids ``(m, K)`` of the best rows, by float32 on the device."""
    asked = torch.from_numpy(np.ascontiguousarray(queries)).to(device)
    parts = []
    for start in range(0, len(rows), BLOCK):
        block = torch.from_numpy(rows[start : start + BLOCK]).to(device).to(torch.float32)
        scores, ids = (asked @ torch.nn.functional.normalize(block).T).topk(K, dim=1)
        parts.append((scores, ids + start))
    scores, ids = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return ids.gather(1, scores.topk(K, dim=1).indices).cpu().numpy()


def milliseconds(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median of calls that end with their results in memory."""
    call()
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


def by_torch(report: Report, data: Set) -> None:
    """Measure exact search by PyTorch, results scored from the rows."""
    began = time.perf_counter()
    index = TorchExact(data.rows, np.arange(len(data.rows)), device=data.device)
    name = "exact by PyTorch"
    report.add(f"{name}, copied", time.perf_counter() - began, "s", data.size)
    for kind, asked in data.queries.items():
        hits = [each.ids for each in index.search_batch(asked, K)]
        report.add(f"{name}, {kind}", recall(hits, data.truth[kind]), "recall@10", data.size)
        for count, rounds in ((1, ROUNDS), (BATCH, 10)):
            search = partial(index.search_batch, np.resize(asked, (count, asked.shape[1])), K)
            took = milliseconds(search, rounds)
            report.add(f"{name}, {kind}, queries at once: {count}", took, "ms", data.size)


def by_faiss(report: Report, data: Set, folder: Path) -> None:
    """Measure the recipe of the folder's name: built, copied, searched on both sides, with a filter
    and without rows that were removed.
    """
    name, rows, size = folder.name, data.rows, data.size
    if not gpu_count() and data.device.startswith("cuda"):
        report.add(name, "skipped: FAISS sees no GPU")
        return
    began = time.perf_counter()
    build(folder, name, rows)
    report.add(f"{name}, built", time.perf_counter() - began, "s", size)
    in_index = sum(file.stat().st_size for file in folder.glob("*.faiss")) / len(rows)
    report.add(f"{name}, size", in_index, "bytes a vector", size)
    here, there = open_snapshot(folder), open_snapshot(folder, device=data.device)
    began = time.perf_counter()
    searched(there, data.queries["photos"][:1])
    report.add(f"{name}, copied and searched", time.perf_counter() - began, "s", size)
    for kind, asked in data.queries.items():
        hits = searched(there, asked)
        report.add(f"{name}, {kind}", recall(hits, data.truth[kind]), "recall@10", size)
        same = recall(searched(here, asked), np.stack([np.resize(hit, K) for hit in hits]))
        report.add(f"{name}, {kind}, the same by the CPU", same, "share", size)
        for side, snapshot in ((data.device, there), ("by the CPU", here)):
            for count, rounds in ((1, ROUNDS), (BATCH, 5)):
                some = np.resize(asked, (count, asked.shape[1]))
                took = milliseconds(partial(searched, snapshot, some), rounds)
                beside = f"{size}, {side}"
                report.add(f"{name}, {kind}, queries at once: {count}", took, "ms", beside)
    narrow(report, name, there, data)


def build(folder: Path, recipe: str, rows: Halves) -> None:
    """Write an index folder over the rows, numbered from 0."""
    starts = range(0, len(rows), BLOCK)
    build_snapshot(
        folder,
        (
            (np.arange(start, min(start + BLOCK, len(rows))), rows[start : start + BLOCK])
            for start in starts
        ),
        recipe=load_recipe(recipe),
        dim=rows.shape[1],
        generation=1,
        fingerprint="",
    )


def narrow(report: Report, name: str, snapshot: IndexSnapshot, data: Set) -> None:
    """Measure recall behind filters that leave a share of the rows, and with rows removed."""
    rows, asked = data.rows, data.queries["photos"][:20]
    drawn = np.random.default_rng(2).random(len(rows))
    nothing = UnindexedVectors.empty(rows.shape[1])
    cases = {f"filter of {share:.0%}": drawn < share for share in (0.01, 0.1, 0.5)}
    for case, inside in (cases | {"30% removed": drawn >= 0.3}).items():
        left = np.flatnonzero(inside)
        how = {"allowed": left} if case in cases else {"removed": np.flatnonzero(~inside)}
        proposed = candidates_for([snapshot], nothing, asked, K, **how)
        hits = [best(snapshot, of[0].ids, row) for of, row in zip(proposed, asked, strict=True)]
        truth = left[exact(rows[left], asked, data.device)]
        report.add(f"{name}, {case}", recall(hits, truth), "recall@10", data.size)


def searched(snapshot: IndexSnapshot, queries: np.ndarray) -> list[NDArray[np.int64]]:
    """Return the ids of the best of each query, scored from the stored vectors as a search does."""
    reach = (K + SPARE) * (1 if snapshot.recipe.is_exact else snapshot.recipe.overfetch)
    hits = snapshot.search_batch(queries, reach)
    return [best(snapshot, hit.ids, query) for hit, query in zip(hits, queries, strict=True)]


def best(snapshot: IndexSnapshot, ids: NDArray[np.int64], query: np.ndarray) -> NDArray[np.int64]:
    """Return the best of the ids by the stored vectors."""
    ids = np.sort(ids)
    return ids[top_k(cosine_scores(snapshot.vectors[ids], query), K)]


def recall(hits: list[NDArray[np.int64]], truth: NDArray[np.int64]) -> float:
    """Return the mean share of the true best that were found."""
    return float(np.mean([len({*a} & {*b}) / K for a, b in zip(hits, truth.tolist(), strict=True)]))


def traps(report: Report, data: Set, scratch: Path) -> None:
    """An index without rows, and one that the card's memory does not hold."""
    rows = data.rows
    build(scratch / "empty", "flat", rows[:0])
    build(scratch / "large", "flat", rows)
    asked = data.queries["photos"][:1]
    hits = open_snapshot(scratch / "empty", device=data.device).search_batch(asked, K)
    report.add("an index without rows", len(hits[0].ids), "results")
    remarks = io.StringIO()
    handler = logging.StreamHandler(remarks)
    logging.getLogger("vitsearch").addHandler(handler)
    with capped(data.device, 2**24):
        large = open_snapshot(scratch / "large", device=data.device)
        hits = large.search_batch(asked, K)
    logging.getLogger("vitsearch").removeHandler(handler)
    right = recall([best(large, hits[0].ids, asked[0])], data.truth["photos"][:1])
    said = " ".join(remarks.getvalue().split())[:200]
    report.add("a set cap on the card's memory", right, "recall@10", said)
