"""How much of the truth an index finds on sample queries, and the least effort with which it finds enough."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.index.exact import ExactIndex
from vitsearch.index.manifest import Measured, write_manifest
from vitsearch.index.protocol import Ids, VectorIndex
from vitsearch.index.shadow import Shadow
from vitsearch.recipes import Recipe
from vitsearch.vectors import Vectors, cosine_scores, top_k

K = 10
SPARE = 8
MOST_OVERFETCH = 64
EFFORTS = {  # the values that are tried, by the parameter that FAISS has for it
    "nprobe": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096),
    "efSearch": (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048),
}


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Queries whose true answers are known: unit vectors ``(m, dim)``, how many of them are photos (the first ones), and the answers.

    ``own`` is the id of each photo query, which is left out of its own answers; ``truth`` is ``(m, k)`` ids.
    """

    queries: Vectors
    own: Ids
    truth: Ids

    @property
    def photos(self) -> int:
        """The number of queries that are photos."""
        return len(self.own)


def make_sample(shadow: Shadow, texts: Vectors, *, photos: int, seed: int = 0) -> Sample:
    """Return a sample of ``photos`` of the index's own rows, drawn with a seed, and of text vectors ``(t, dim)``, answered exactly."""
    count = min(photos, len(shadow))
    chosen = np.sort(np.random.default_rng(seed).choice(len(shadow), count, replace=False))
    own = np.asarray(shadow.ids)[chosen]
    queries = np.concatenate([np.asarray(shadow.vectors[chosen], dtype=np.float32), texts.astype(np.float32)])
    found = ExactIndex(shadow.vectors, shadow.ids).search_batch(queries, K + 1)
    truth = np.stack([_without(one.ids, own[place] if place < count else -1) for place, one in enumerate(found)])
    return Sample(queries, own, truth)


def measure(shadow: Shadow, sample: Sample, index: VectorIndex, overfetch: int) -> Measured:
    """Return the recall of an index over a shadow's rows, its proposals scored again as a search does."""
    proposals = index.search_batch(sample.queries, overfetch * (K + 1) + SPARE)
    shares = [_share(shadow, sample, place, proposal.ids) for place, proposal in enumerate(proposals)]
    texts = shares[sample.photos :]
    by_photo = shares[: sample.photos]
    return Measured(K, float(np.mean(by_photo)) if by_photo else 1.0, float(np.mean(texts)) if texts else None, len(shares), len(shadow))


def tune(shadow: Shadow, sample: Sample, recall: float) -> tuple[Recipe, Measured]:
    """Return a shadow's recipe with the least search effort that reaches the recall, and the recall that it has.

    Where even the greatest effort does not reach it, the index's codes are too coarse: more candidates are then asked for each result.
    What comes nearest is returned where nothing reaches it.
    """
    recipe = shadow.recipe
    best: tuple[Recipe, Measured] | None = None
    for tried, index in _efforts(shadow, recipe):
        found = measure(shadow, sample, index, tried.overfetch)
        if best is None or found.recall > best[1].recall:
            best = tried, found
        if found.recall >= recall:
            return tried, found
    assert best is not None
    return best


def keep_tuning(folder: Path, shadow: Shadow, recipe: Recipe, measured: Measured) -> None:
    """Write into an index folder how it is to be searched from now on, and what recall that was measured to have."""
    write_manifest(folder, replace(shadow.manifest, recipe=recipe, measured=measured))


def _efforts(shadow: Shadow, recipe: Recipe) -> Iterator[tuple[Recipe, VectorIndex]]:
    """Yield ways to search, the cheapest first; each sets the one index that there is."""
    if isinstance(shadow.index, ExactIndex):
        yield recipe, shadow.index
        return
    from vitsearch.index.faiss_index import FaissIndex

    assert isinstance(shadow.index, FaissIndex)
    name, most = shadow.index.effort()
    values = [value for value in EFFORTS.get(name, ()) if value < most] + [most] * (name == "nprobe") if name else [0]
    overfetch = recipe.overfetch
    while overfetch <= max(MOST_OVERFETCH, recipe.overfetch):
        for value in values:
            search = dict(recipe.search) | ({name: value} if name else {})
            shadow.index.set_search(search)
            yield replace(recipe, search=search, overfetch=overfetch), shadow.index
        values, overfetch = values[-1:], overfetch * 2


def _share(shadow: Shadow, sample: Sample, place: int, ids: Ids) -> float:
    """Return the share of a query's true answers among its best proposals, scored from the rows."""
    own = sample.own[place] if place < sample.photos else -1
    proposed = ids[ids != own]
    rows = shadow.vectors[np.searchsorted(shadow.ids, proposed)]
    best = proposed[top_k(cosine_scores(rows, sample.queries[place]), K)]
    truth: NDArray[np.int64] = sample.truth[place]
    real = truth[truth >= 0]
    return float(np.isin(real, best).mean()) if len(real) else 1.0


def _without(ids: Ids, own: int) -> Ids:
    """Return the first k ids that are not a query's own, padded with -1."""
    kept = ids[ids != own][:K]
    return np.pad(kept, (0, K - len(kept)), constant_values=-1)
