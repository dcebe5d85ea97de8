"""How much of the truth an index finds on sample queries, and the least effort with which it finds
enough.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Ids, Vectors, cosine_scores, drop_pages
from vitsearch.index.base import VectorIndex
from vitsearch.index.exact import ExactIndex
from vitsearch.index.manifest import Measured, write_manifest
from vitsearch.index.recipe import Recipe
from vitsearch.index.snapshot import IndexSnapshot

K = 10
SPARE = 8
TIE = 1e-6
MAX_OVERFETCH = 64
EFFORTS = {  # the values that are tried, by the parameter that FAISS has for it
    "nprobe": (
        1,
        2,
        3,
        4,
        6,
        8,
        12,
        16,
        24,
        32,
        48,
        64,
        96,
        128,
        192,
        256,
        384,
        512,
        1024,
        2048,
        4096,
    ),
    "efSearch": (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048),
}


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Queries whose true answers are known: unit vectors ``(m, dim)``, of which the first are
    photos.

    ``own`` is the id of each photo query, which is left out of its own answers. ``bars`` ``(m,)``
    are the scores of the last of the ``answers`` ``(m,)`` best rows: what scores as much is as good
    an answer, so that ties do not count as misses.
    """

    queries: Vectors
    own: Ids
    bars: NDArray[np.float64]
    answers: NDArray[np.int64]


def make_sample(snapshot: IndexSnapshot, texts: Vectors, *, photos: int, seed: int = 0) -> Sample:
    """Return a sample of ``photos`` of the index's own rows, drawn with a seed, and of text vectors
    ``(t, dim)``, answered exactly.
    """
    count = min(photos, len(snapshot))
    chosen = np.sort(np.random.default_rng(seed).choice(len(snapshot), count, replace=False))
    own = np.asarray(snapshot.ids)[chosen]
    queries = np.concatenate(
        [np.asarray(snapshot.vectors[chosen], dtype=np.float32), texts.astype(np.float32)]
    )
    found = ExactIndex(snapshot.vectors, snapshot.ids).search_batch(queries, K + 1)
    scores = [
        _scores(snapshot, queries[place], one.ids[one.ids != _own(own, place)])[:K]
        for place, one in enumerate(found)
    ]
    bars = np.array([row[-1] if len(row) else np.inf for row in scores])
    drop_pages(snapshot.vectors)
    return Sample(queries, own, bars, np.array([len(row) for row in scores], dtype=np.int64))


def measure(
    snapshot: IndexSnapshot, sample: Sample, index: VectorIndex, overfetch: int
) -> Measured:
    """Return the recall of an index over a shadow's rows, its proposals scored again as a search
    does.
    """
    proposals = index.search_batch(sample.queries, overfetch * (K + 1) + SPARE)
    shares = [
        _share(snapshot, sample, place, proposal.ids) for place, proposal in enumerate(proposals)
    ]
    drop_pages(snapshot.vectors)
    by_photo, texts = shares[: len(sample.own)], shares[len(sample.own) :]
    return Measured(
        K,
        float(np.mean(by_photo)) if by_photo else 1.0,
        float(np.mean(texts)) if texts else None,
        len(shares),
        len(snapshot),
    )


def tune(snapshot: IndexSnapshot, sample: Sample, recall: float) -> tuple[Recipe, Measured]:
    """Return a shadow's recipe with the least search effort that reaches the recall, and the recall
    that it has.

    Where even the greatest effort does not reach it, the index's codes are too coarse: more
    candidates are then asked for each result. What comes nearest is returned where nothing reaches
    it.
    """
    recipe = snapshot.recipe
    best: tuple[Recipe, Measured] | None = None
    for tried, index in _efforts(snapshot, recipe):
        found = measure(snapshot, sample, index, tried.overfetch)
        if best is None or found.recall > best[1].recall:
            best = tried, found
        if found.recall >= recall:
            return tried, found
    assert best is not None
    return best


def keep_tuning(
    folder: Path, snapshot: IndexSnapshot, recipe: Recipe, measured: Measured, *, asked: Recipe
) -> None:
    """Write into an index folder how it is to be searched from now on, what recall that was
    measured to have, and what had been asked.
    """
    write_manifest(
        folder, replace(snapshot.manifest, recipe=recipe, measured=measured, asked=asked.to_dict())
    )


def _efforts(snapshot: IndexSnapshot, recipe: Recipe) -> Iterator[tuple[Recipe, VectorIndex]]:
    """Yield ways to search, the cheapest first; each sets the one index that there is."""
    if isinstance(snapshot.index, ExactIndex):
        yield recipe, snapshot.index
        return
    from vitsearch.index.faiss_index import FaissIndex

    assert isinstance(snapshot.index, FaissIndex)
    name, most = snapshot.index.effort()
    values = (
        [value for value in EFFORTS.get(name, ()) if value < most] + [most] * (name == "nprobe")
        if name
        else [0]
    )
    overfetch = recipe.overfetch
    while overfetch <= max(MAX_OVERFETCH, recipe.overfetch):
        for value in values:
            search = dict(recipe.search) | ({name: value} if name else {})
            snapshot.index.set_search(search)
            yield replace(recipe, search=search, overfetch=overfetch), snapshot.index
        values, overfetch = values[-1:], overfetch * 2


def _share(snapshot: IndexSnapshot, sample: Sample, place: int, ids: Ids) -> float:
    """Return the share of a query's true answers that its best proposals are as good as, scored
    from the rows.
    """
    if not sample.answers[place]:
        return 1.0
    scores = _scores(snapshot, sample.queries[place], ids[ids != _own(sample.own, place)])[
        : sample.answers[place]
    ]
    return float((scores >= sample.bars[place] - TIE).sum() / sample.answers[place])


def _scores(snapshot: IndexSnapshot, query: Vectors, ids: Ids) -> NDArray[np.float64]:
    """Return the exact scores of some rows, best first."""
    return -np.sort(-cosine_scores(snapshot.vectors[np.searchsorted(snapshot.ids, ids)], query))


def _own(own: Ids, place: int) -> int:
    return int(own[place]) if place < len(own) else -1
