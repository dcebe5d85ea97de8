"""Samples of vectors larger than the memory: those that train an index, and queries with their true answers, by which it is measured."""

from typing import TYPE_CHECKING

import numpy as np

from vitsearch.distributed.parts import BLOCK
from vitsearch.index import ExactIndex, Sample
from vitsearch.index.protocol import Halves
from vitsearch.index.tune import K
from vitsearch.vectors import cosine_scores, let_go

if TYPE_CHECKING:
    from vitsearch.shards.shard_set import ShardSet

SAMPLED_SHARDS = 512
QUERIES = 200
CHUNK = 33_554_432  # bytes of mapped rows that are compared before their pages are let go


def draw_sample(shards: "ShardSet", counts: dict[int, int], size: int, *, seed: int = 0) -> Halves:
    """Return ``(m, dim)`` rows drawn with a seed from all shards alike, or from 512 of them in even steps; ``m`` is ``size`` at most."""
    numbers = [number for number, count in counts.items() if count]
    chosen = (
        numbers if len(numbers) <= SAMPLED_SHARDS else [numbers[place * len(numbers) // SAMPLED_SHARDS] for place in range(SAMPLED_SHARDS)]
    )
    total, rng = sum(counts[number] for number in chosen), np.random.default_rng(seed)
    places = np.sort(rng.choice(total, min(size, total), replace=False))
    sample = np.empty((len(places), shards.manifest.dim), dtype=np.float16)
    start = taken = 0
    for rows, halves in shards.blocks(chosen, BLOCK):
        end = int(np.searchsorted(places, start + len(rows)))
        sample[taken:end] = halves[places[taken:end] - start]
        start, taken = start + len(rows), end
    return sample[:taken]


def make_truth(vectors: Halves, *, seed: int = 0) -> Sample:
    """Return 200 of the rows of ``(n, dim)``, drawn with a seed, as queries, with their exact answers among the other rows."""
    count, dim = vectors.shape
    own = np.sort(np.random.default_rng(seed).choice(count, min(QUERIES, count), replace=False)).astype(np.int64)
    queries = np.asarray(vectors[own], dtype=np.float32)
    best = [np.empty(0) for _ in own]
    step = max(1, CHUNK // (2 * dim))
    for start in range(0, count, step):
        rows = vectors[start : start + step]
        found = ExactIndex(rows, np.arange(start, start + len(rows), dtype=np.int64)).search_batch(queries, K + 1)
        for place, one in enumerate(found):
            others = one.ids[one.ids != own[place]]
            scores = cosine_scores(vectors[others], queries[place])
            best[place] = -np.sort(-np.concatenate([best[place], scores]))[:K]
        let_go(vectors)
    bars = np.array([scores[-1] if len(scores) else np.inf for scores in best])
    return Sample(queries, own, bars, np.array([len(scores) for scores in best], dtype=np.int64))
