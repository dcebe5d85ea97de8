"""The recall of an index on sample queries, and the least search effort that reaches a recall."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids, Vectors, cosine_scores, drop_pages, top_k, unit_rows
from vitsearch.index import VectorIndex
from vitsearch.index.backends import ExactIndex, rough_scores, widened
from vitsearch.index.candidates import UnindexedVectors, candidates_for
from vitsearch.index.manifest import Measured, write_manifest
from vitsearch.index.recipe import ID_BYTES, SCAN, Recipe, auto_lists, bytes_per_vector
from vitsearch.index.snapshot import IndexSnapshot, build_snapshot, open_snapshot

K = 10
SPARE = 3  # candidates that a search asks for beyond the results wanted
TIE = 1e-5  # as much as rough scores may be off
OVERFETCHES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
SCORES = 1 << 20  # held at a time while a sample is answered
RESCORE = 5.0e8  # dimensions of candidates that are fetched and scored a second
LINKS = 32  # rows that a graph compares for each of the candidates that it holds
# standard errors of a sample's mean: 99 of 100 other samples reach what one does by so many, and
# what is below by as many will not be reached
CERTAIN, HOPELESS = 2.33, 4.0
MAX_TEXTS, FITTED = 400, 65_536  # queries by words, and the rows that they are to fit
TRIED_PHOTOS, TIMED = 100, 40  # queries by photos, and those that are timed, of a trial
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

    The rows are drawn with a seed, of many texts those count that fit the photos best; every query
    is answered exactly.
    """
    texts = _fitting(snapshot.vectors, unit_rows(texts))
    count = min(photos, len(snapshot))
    chosen = np.sort(np.random.default_rng(seed).choice(len(snapshot), count, replace=False))
    photo_ids = snapshot.ids[chosen]
    queries = np.concatenate([unit_rows(snapshot.vectors[chosen]), texts])
    nearest = _nearest(snapshot.vectors, queries, K + 1)
    scores = [
        _scores(snapshot, query, _without_itself(snapshot.ids[rows], photo_ids, index))[:K]
        for index, (query, rows) in enumerate(zip(queries, nearest, strict=True))
    ]
    drop_pages(snapshot.vectors)
    bars = np.array([row[-1] if len(row) else np.inf for row in scores])
    answers = np.array([len(row) for row in scores], dtype=np.int64)
    return Sample(queries, photo_ids, bars, answers)


def _fitting(vectors: Halves, texts: Vectors) -> Vectors:
    """Return the texts whose tenth photo fits best: what people look for is there.

    The answers to other words lie far from them and close together, so that finding nine in ten
    takes an index ten times as long, and nobody has any use for them.
    """
    if len(texts) <= MAX_TEXTS:
        return texts
    size = min(FITTED, len(vectors))
    drawn = np.sort(np.random.default_rng(0).choice(len(vectors), size, replace=False))
    near = _nearest(vectors, texts, max(1, round(K * size / len(vectors))), among=drawn)
    scores = [rough_scores(vectors[at], text).min() for at, text in zip(near, texts, strict=True)]
    drop_pages(vectors)
    return texts[np.sort(top_k(np.array(scores), MAX_TEXTS))]


def _nearest(
    vectors: Halves, queries: Vectors, count: int, *, among: Ids | None = None
) -> list[Ids]:
    """Return for each of many unit queries the positions of its ``count`` best rows, in any order,
    of those at positions ``among``; rows whose scores differ by less than float32 shows may stand
    for each other.
    """
    total = len(vectors) if among is None else len(among)
    scores = np.empty(0, np.float32)
    rows, queried = np.empty(0, np.int64), np.empty(0, np.int64)
    bars = np.full(len(queries), -np.inf, dtype=np.float32)
    block = max(2 * count, SCORES // max(1, len(queries)))
    for start in range(0, total, block):
        part = slice(start, start + block)
        wide = widened(vectors[part if among is None else among[part]])
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        near = wide @ queries.T
        near /= np.maximum(lengths, np.float32(1e-12))[:, None]
        if not start and len(near) > count:  # only what may be among the best is put in order
            bars = np.partition(near, -count, axis=0)[-count]
        row, query = np.nonzero(near >= bars)
        scores = np.concatenate([scores, near[row, query]])
        rows, queried = np.concatenate([rows, start + row]), np.concatenate([queried, query])
        order = np.lexsort((-scores, queried))
        firsts = np.searchsorted(queried[order], np.arange(len(queries)))
        ranks = np.arange(len(order)) - firsts[queried[order]]
        order, ranks = order[ranks < count], ranks[ranks < count]
        scores, rows, queried = scores[order], rows[order], queried[order]
        last = ranks == count - 1
        bars[queried[last]] = scores[last]
        drop_pages(vectors)
    rows = rows if among is None else among[rows]
    return [rows[queried == number] for number in range(len(queries))]


def measure(
    snapshot: IndexSnapshot, sample: Sample, index: VectorIndex, overfetch: int
) -> Measured:
    """Return the recall of an index over a snapshot's rows, re-scored as a search does it."""
    good = _good_answers(snapshot, sample, index, overfetch)
    return _measured(snapshot, sample, good[:, -1])


def tune(snapshot: IndexSnapshot, sample: Sample, recall: float) -> tuple[Recipe, Measured]:
    """Return the recipe whose search costs least of those that reach a recall, and its recall.

    Lists to read (or the effort in a graph) and candidates to score are chosen together, by what
    they are predicted to cost, which gives the same recipe in every run. The recall is reached
    where the sample leaves little doubt of it, for photos and for words. Where nothing reaches it,
    the best is returned.
    """
    best: tuple[Recipe, Measured] | None = None
    cheapest = (np.inf, best)
    few, last = _few_of(sample), None
    for tried, index in _efforts(snapshot, snapshot.recipe):
        reading = _reading_seconds(tried, len(snapshot), snapshot.dim)
        costs = {
            each: reading + _reach(each) * snapshot.dim / RESCORE for each in _overfetches(snapshot)
        }
        worth = [each for each, cost in costs.items() if cost < cheapest[0]]
        if not worth:
            break  # a greater effort costs more
        last = tried, index, worth
        rough = _good_answers(snapshot, few, index, worth[-1])[:, -1]
        if not _is_reached(few, rough, recall, errors=-HOPELESS):
            continue  # whatever the others say
        good = _good_answers(snapshot, sample, index, worth[-1])
        for overfetch in worth:
            reach = min(_reach(overfetch), good.shape[1])
            measured = _measured(snapshot, sample, good[:, reach - 1])
            if best is None or measured.recall > best[1].recall:
                best = replace(tried, overfetch=overfetch), measured
            if _is_reached(sample, good[:, reach - 1], recall):
                cheapest = costs[overfetch], (replace(tried, overfetch=overfetch), measured)
                break
    if cheapest[1] is None and best is None:
        assert last is not None
        tried, index, worth = last
        best = replace(tried, overfetch=worth[-1]), measure(snapshot, sample, index, worth[-1])
    chosen = cheapest[1] or best
    assert chosen is not None
    return chosen


def _few_of(sample: Sample) -> Sample:
    """Return every fourth query of a sample, of each kind."""
    photos = len(sample.photo_ids)
    rows = np.concatenate([np.arange(0, photos, 4), np.arange(photos, len(sample.queries), 4)])
    few = sample.photo_ids[::4]
    return Sample(sample.queries[rows], few, sample.bars[rows], sample.answers[rows])


def _good_answers(
    snapshot: IndexSnapshot, sample: Sample, index: VectorIndex, overfetch: int
) -> NDArray[np.float64]:
    """Return for each query the share of its answers that are as good as the exact ones among the
    first 1, 2, 3, ... proposals, ``(m, n)``.
    """
    reach = _reach(overfetch)
    shares = np.ones((len(sample.queries), reach))
    for number, proposal in enumerate(index.search_batch(sample.queries, reach)):
        answers = sample.answers[number]
        if not answers:
            continue
        others = _without_itself(proposal.ids, sample.photo_ids, number)
        rows = snapshot.vectors[np.searchsorted(snapshot.ids, others)]
        good = rough_scores(rows, sample.queries[number]) >= sample.bars[number] - TIE
        counts = np.minimum(np.cumsum(good), answers) / answers
        shares[number, : len(counts)] = counts
        shares[number, len(counts) :] = counts[-1] if len(counts) else 0.0
    drop_pages(snapshot.vectors)
    return shares


def _measured(snapshot: IndexSnapshot, sample: Sample, recalls: NDArray[np.float64]) -> Measured:
    photos, texts = np.split(recalls, [len(sample.photo_ids)])
    return Measured(
        k=K,
        photos=float(np.mean(photos)) if len(photos) else 1.0,
        texts=float(np.mean(texts)) if len(texts) else None,
        queries=len(recalls),
        count=len(snapshot),
    )


def _is_reached(
    sample: Sample, recalls: NDArray[np.float64], recall: float, *, errors: float = CERTAIN
) -> bool:
    """Return whether the recalls of both kinds of queries reach one, by so many standard errors."""
    parts = np.split(recalls, [len(sample.photo_ids)])
    return all(
        np.mean(part) - errors * np.std(part) / len(part) ** 0.5 >= recall
        for part in parts
        if len(part)
    )


def _reach(overfetch: int) -> int:
    """Return how many candidates a search for ten results, or the photo itself, asks for."""
    return overfetch * (K + SPARE)


def _overfetches(snapshot: IndexSnapshot) -> list[int]:
    if snapshot.recipe.is_exact:
        return [1]
    return [*OVERFETCHES, snapshot.recipe.overfetch]


def _reading_seconds(recipe: Recipe, count: int, dim: int) -> float:
    """Return the seconds that a search is predicted to read the codes of so many rows."""
    search, scanned = recipe.search, float(count)
    if "nprobe" in search:
        lists = auto_lists(count) if recipe.lists == "auto" else int(recipe.lists or 1)
        scanned *= min(1.0, search["nprobe"] / lists)
    elif "efSearch" in search:
        scanned = LINKS * search["efSearch"]
    speed = SCAN.get(recipe.name.removeprefix("gpu-"), SCAN["flat"])
    return scanned * dim / speed


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
    for value in values:
        search = dict(recipe.search) | ({name: value} if name else {})
        snapshot.index.set_search(search)
        yield replace(recipe, search=search), snapshot.index


# -- Which recipe ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trial:
    """What a recipe did on a sample of the vectors, tuned: the recalls of photos and of words, the
    milliseconds of a search, and the bytes of a vector.

    A search reads more rows of all vectors than of the sample; what these take is added, by the
    speed at which the recipe is known to read them.
    """

    recipe: Recipe
    photos: float
    texts: float | None
    query_ms: float
    bytes_per_vector: int

    @property
    def recall(self) -> float:
        """The smaller of the two."""
        return self.photos if self.texts is None else min(self.photos, self.texts)


def try_recipes(
    vectors: Halves, texts: Vectors, recipes: Sequence[Recipe], *, count: int
) -> list[Trial]:
    """Build each recipe over ``(n, dim)`` sample rows out of ``count``, tune it to its recall, and
    return how it did.
    """
    dim, trials = vectors.shape[1], []
    ids = np.arange(len(vectors), dtype=np.int64)
    sample: Sample | None = None
    for recipe in recipes:
        with tempfile.TemporaryDirectory(prefix="vitsearch-") as scratch:
            folder = Path(scratch) / "index"
            build_snapshot(
                folder, [(ids, vectors)], recipe=recipe, dim=dim, generation=1, fingerprint=""
            )
            snapshot = open_snapshot(folder)
            sample = sample or make_sample(snapshot, texts, photos=TRIED_PHOTOS)
            tuned, measured = tune(snapshot, sample, recipe.recall)
            keep_tuning(folder, snapshot, tuned, measured, requested=recipe)
            milliseconds = _query_ms(open_snapshot(folder), sample.queries)
            del snapshot
        if recipe.is_exact:
            milliseconds *= count / len(vectors)
        else:
            here = _reading_seconds(tuned, len(vectors), dim)
            milliseconds += 1000 * (_reading_seconds(tuned, count, dim) - here)
        size = bytes_per_vector(recipe, dim) + ID_BYTES
        trials.append(Trial(tuned, measured.photos, measured.texts, milliseconds, size))
    return trials


def fastest(trials: Sequence[Trial], recall: float) -> Trial:
    """Return the trial of the quickest search that reaches a recall; where none does, that of the
    best recall.
    """
    good = [trial for trial in trials if trial.recall >= recall]
    if good:
        return min(good, key=lambda trial: trial.query_ms)
    return max(trials, key=lambda trial: trial.recall)


def _query_ms(snapshot: IndexSnapshot, queries: Vectors) -> float:
    """Return the median milliseconds of proposing for one query, after a first round."""
    times, nothing = [], UnindexedVectors.empty(snapshot.dim)
    for query in [*queries[:: max(1, len(queries) // TIMED)]] * 2:
        began = time.perf_counter()
        candidates_for([snapshot], nothing, query[None], K + SPARE)
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times[len(times) // 2 :]))


def _scores(snapshot: IndexSnapshot, query: Vectors, ids: Ids) -> NDArray[np.float64]:
    """Return the exact scores of the rows with these ids, best first."""
    return -np.sort(-cosine_scores(snapshot.vectors[np.searchsorted(snapshot.ids, ids)], query))


def _without_itself(ids: Ids, photo_ids: Ids, index: int) -> Ids:
    """Return candidates without the photo that is the query; a text query has none."""
    return ids[ids != photo_ids[index]] if index < len(photo_ids) else ids
