"""The recall of an index on sample queries, and the least search effort that reaches a recall."""

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
# the values to try of the parameter that FAISS has for the effort
# fmt: off
EFFORTS = {
    "nprobe": (
        1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096,
    ),
    "efSearch": (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048),
}
# fmt: on


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Queries whose exact answers are known: unit vectors ``(m, dim)``, photos first, then texts.

    ``photo_ids`` ``(p,)`` are the ids of the photo queries, each left out of its own answers.
    ``bars`` ``(m,)`` are the scores of the last of the ``answers`` ``(m,)`` best rows: any row that
    scores as much is as good an answer, so that ties do not count as misses.
    """

    queries: Vectors
    photo_ids: Ids
    bars: NDArray[np.float64]
    answers: NDArray[np.int64]


def make_sample(snapshot: IndexSnapshot, texts: Vectors, *, photos: int, seed: int = 0) -> Sample:
    """Return a sample of ``photos`` rows of the index and of ``(t, dim)`` text vectors.

    The rows are drawn with a seed; every query is answered exactly.
    """
    count = min(photos, len(snapshot))
    chosen = np.sort(np.random.default_rng(seed).choice(len(snapshot), count, replace=False))
    photo_ids = np.asarray(snapshot.ids)[chosen]
    queries = np.concatenate(
        [np.asarray(snapshot.vectors[chosen], dtype=np.float32), texts.astype(np.float32)]
    )
    exact = ExactIndex(snapshot.vectors, snapshot.ids).search_batch(queries, K + 1)
    scores = [
        _scores(snapshot, queries[index], _without_itself(candidates.ids, photo_ids, index))[:K]
        for index, candidates in enumerate(exact)
    ]
    drop_pages(snapshot.vectors)
    return sample_of(queries, photo_ids, scores)


def sample_of(queries: Vectors, photo_ids: Ids, scores: list[NDArray[np.float64]]) -> Sample:
    """Return a sample from queries and, for each, the exact scores of its best rows, best first."""
    bars = np.array([row[-1] if len(row) else np.inf for row in scores])
    answers = np.array([len(row) for row in scores], dtype=np.int64)
    return Sample(queries, photo_ids, bars, answers)


def measure(
    snapshot: IndexSnapshot, sample: Sample, index: VectorIndex, overfetch: int
) -> Measured:
    """Return the recall of an index over a snapshot's rows, re-scored as a search does it."""
    proposals = index.search_batch(sample.queries, overfetch * (K + 1) + SPARE)
    recalls = [
        _recall(snapshot, sample, index, proposal.ids) for index, proposal in enumerate(proposals)
    ]
    drop_pages(snapshot.vectors)
    photos, texts = np.split(np.array(recalls), [len(sample.photo_ids)])
    return Measured(
        k=K,
        photos=float(np.mean(photos)) if len(photos) else 1.0,
        texts=float(np.mean(texts)) if len(texts) else None,
        queries=len(recalls),
        count=len(snapshot),
    )


def tune(snapshot: IndexSnapshot, sample: Sample, recall: float) -> tuple[Recipe, Measured]:
    """Return the recipe with the least search effort that reaches a recall, and its recall.

    Where even the greatest effort does not reach it, the index's codes are too coarse, and more
    candidates are tried for each result. Where nothing reaches it, the best is returned.
    """
    recipe = snapshot.recipe
    best: tuple[Recipe, Measured] | None = None
    for tried, index in _efforts(snapshot, recipe):
        measured = measure(snapshot, sample, index, tried.overfetch)
        if best is None or measured.recall > best[1].recall:
            best = tried, measured
        if measured.recall >= recall:
            return tried, measured
    assert best is not None
    return best


def keep_tuning(
    folder: Path, snapshot: IndexSnapshot, recipe: Recipe, measured: Measured, *, requested: Recipe
) -> None:
    """Write into an index folder the tuned recipe, its recall, and the recipe that was requested.

    From then on the index is searched by the tuned recipe.
    """
    tuned = replace(
        snapshot.manifest, recipe=recipe, measured=measured, requested=requested.to_dict()
    )
    write_manifest(folder, tuned)


def _efforts(snapshot: IndexSnapshot, recipe: Recipe) -> Iterator[tuple[Recipe, VectorIndex]]:
    """Yield recipes with more and more search effort, and the one index, set to each in turn."""
    if isinstance(snapshot.index, ExactIndex):
        yield recipe, snapshot.index
        return
    from vitsearch.index.faiss_index import FaissIndex

    assert isinstance(snapshot.index, FaissIndex)
    name, limit = snapshot.index.effort()
    values = [value for value in EFFORTS.get(name, ()) if value < limit] if name else [0]
    if name == "nprobe":
        values.append(limit)
    overfetch = recipe.overfetch
    while overfetch <= max(MAX_OVERFETCH, recipe.overfetch):
        for value in values:
            search = dict(recipe.search) | ({name: value} if name else {})
            snapshot.index.set_search(search)
            yield replace(recipe, search=search, overfetch=overfetch), snapshot.index
        values, overfetch = values[-1:], overfetch * 2


def _recall(snapshot: IndexSnapshot, sample: Sample, index: int, ids: Ids) -> float:
    """Return the share of a query's exact answers that its best proposals are as good as."""
    answers = sample.answers[index]
    if not answers:
        return 1.0
    others = _without_itself(ids, sample.photo_ids, index)
    scores = _scores(snapshot, sample.queries[index], others)[:answers]
    return float((scores >= sample.bars[index] - TIE).sum() / answers)


def _scores(snapshot: IndexSnapshot, query: Vectors, ids: Ids) -> NDArray[np.float64]:
    """Return the exact scores of the rows with these ids, best first."""
    return -np.sort(-cosine_scores(snapshot.vectors[np.searchsorted(snapshot.ids, ids)], query))


def _without_itself(ids: Ids, photo_ids: Ids, index: int) -> Ids:
    """Return candidates without the photo that is the query; a text query has none."""
    return ids[ids != photo_ids[index]] if index < len(photo_ids) else ids
