"""Clustered vectors, an index of them, and the plain search."""

import numpy as np

from vitsearch.arrays import cosine_scores, top_k, unit_rows
from vitsearch.index.recipe import load_recipe
from vitsearch.index.snapshot import build_snapshot

DIM = 64


def clustered(count, dim=DIM, seed=0, spread=0.6):
    """Rows around 20 centres, as photos of a collection are; half precision, ids with gaps."""
    generator = np.random.default_rng(seed)
    centres = unit_rows(generator.standard_normal((20, dim)))
    rows = centres[
        generator.integers(0, 20, count)
    ] + spread / dim**0.5 * generator.standard_normal((count, dim))
    return unit_rows(rows).astype(np.float16), np.arange(count, dtype=np.int64) * 3 + 1


def brute_force(vectors, ids, query, k):
    """The reference: every cosine in float64, rounded to float32, sorted stably in order of id."""
    scores = cosine_scores(vectors, query).astype(np.float32)
    best = top_k(scores, k)
    return scores[best], ids[best]


def build(folder, vectors, ids, recipe=None, *, generation=1, fingerprint="f" * 32):
    half = len(ids) // 2
    batches = [(ids[:half], vectors[:half]), (ids[half:], vectors[half:])]
    build_snapshot(
        folder,
        batches,
        recipe=recipe or load_recipe("flat"),
        dim=vectors.shape[1],
        generation=generation,
        fingerprint=fingerprint,
    )
    return folder
