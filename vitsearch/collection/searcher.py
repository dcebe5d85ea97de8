"""The search itself: the index proposes, the stored vectors decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.collection.duplicates import collapsed, likeness_to
from vitsearch.collection.wish import WINDOW, Wish
from vitsearch.errors import IndexDamaged
from vitsearch.index import Fresh, Shadow, manifest_stamp, open_shadow, propose
from vitsearch.index.propose import Proposal
from vitsearch.layout import DELTA, MAIN, Settings
from vitsearch.store import PhotoStore
from vitsearch.types import SearchResult
from vitsearch.vectors import Vectors, cosine_scores, unit_rows

SPARE = 8  # candidates asked for beyond the results wanted: some may have been removed since the index was built
TIE = 1e-6  # where the last candidate is this near to the last result, one not proposed may belong before it, by score or by path
FIRST = 100  # results asked for at first where all that reach a score are wanted
TOGETHER = 256  # queries that an index is asked for at once
FRESH_KEPT = 20_000  # vectors newer than the index that are held in memory between searches

Ids = NDArray[np.int64]


Asked = tuple[Vectors, frozenset[int]]  # a unit vector (dim,) and the ids to leave out


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Where candidates come from in one state of the collection: the indexes, what is newer, and the ids that a filter leaves."""

    shadows: list[Shadow]
    fresh: Fresh
    allowed: Ids | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A result with what later steps need of it."""

    result: SearchResult
    raw: bytes
    fingerprint: bytes


class Searcher:
    """Finds the stored photos nearest to vectors.

    ``notes`` gains a line where an index cannot be used; with ``strict`` a damaged one raises IndexDamaged instead.
    """

    def __init__(
        self, folder: Path, settings: Settings, store: PhotoStore, notes: list[str], *, strict: bool = False, device: str = "auto"
    ) -> None:
        self._strict, self._device = strict, device
        self._folder, self._settings, self._store, self._notes = folder, settings, store, notes
        self._shadows: dict[str, Shadow | None] = {}
        self._stamps: dict[str, object] = {}
        self._fresh: tuple[tuple[int, int], Fresh] | None = None

    def close(self) -> None:
        """Let the index's files go."""
        self._shadows, self._stamps, self._fresh = {}, {}, None

    def find(self, queries: Sequence[Asked], wish: Wish) -> list[list[SearchResult]]:
        """Return the results for each (unit vector, ids to leave out), all on one state of the collection."""
        found: list[list[SearchResult]] = []
        with self._store.reading():
            allowed = self._store.ids_where(wish.where) if wish.where is not None else None
            shadows = self._indexes()
            sources = Sources(shadows, self._newer(max((shadow.generation for shadow in shadows), default=-1)), allowed)
            for start in range(0, len(queries), TOGETHER):
                some = queries[start : start + TOGETHER]
                firsts = _first_proposals(some, wish, sources)
                found += [self._one(asked, wish, sources, first) for asked, first in zip(some, firsts, strict=True)]
        return found

    def _one(self, asked: Asked, wish: Wish, sources: Sources, first: list[Proposal] | None) -> list[SearchResult]:
        pool = wish.needed
        while True:
            hits = self._nearest(asked, pool, sources=sources, least=wish.min_score, first=first)
            rows = self._rows_of(hits) if wish.collapse or wish.diverse else np.empty((0, self._settings.dim), dtype=np.float32)
            kept = collapsed(rows, [hit.fingerprint for hit in hits], wish.collapse) if wish.collapse else list(range(len(hits)))
            if len(kept) >= wish.needed or len(hits) < pool:  # enough, or there are no more
                break
            pool, first = 4 * pool, None
        kept = kept[: int(min(wish.needed, len(kept)))]
        if wish.diverse:
            scores = np.array([hits[place].result.score for place in kept])
            kept = [kept[place] for place in marginal_order(rows[kept], scores, wish.diverse)]
        return [hits[place].result for place in kept[wish.offset : int(min(wish.end, len(kept)))]]

    def _nearest(self, asked: Asked, count: float, *, sources: Sources, least: float | None, first: list[Proposal] | None) -> list[Hit]:
        """Return the ``count`` best hits of at least a score, best first, equal scores in order of path."""
        vector, left_out = asked
        wanted = _first_wanted(count, left_out)
        while True:
            proposed, first = first or propose(sources.shadows, sources.fresh, vector[None], wanted, allowed=sources.allowed)[0], None
            hits = self._rescored(np.concatenate([ids for ids, _ in proposed]), vector, left_out)
            above = [hit for hit in hits if least is None or np.float32(hit.result.score) >= np.float32(least)]
            if _is_settled(_reach(proposed, hits), hits, count, least=least, enough=len(above) <= wanted):
                return above[: int(min(count, len(above)))]
            wanted *= 4

    def _rows_of(self, hits: Sequence[Hit]) -> Vectors:
        return unit_rows(self._store.halves([hit.raw for hit in hits])) if hits else np.empty((0, self._settings.dim), dtype=np.float32)

    def _rescored(self, ids: Ids, vector: Vectors, left_out: frozenset[int]) -> list[Hit]:
        """Return the hits of the candidate ids that are (still) in the collection, exactly scored, best first."""
        rows = [row for row in self._store.rows(ids.tolist()) if row[0] not in left_out]
        if not rows:
            return []
        scores = cosine_scores(self._store.halves([row[2] for row in rows]), vector)
        hits = [
            Hit(SearchResult(path, float(score), photo_id), raw, fingerprint)
            for (photo_id, path, raw, fingerprint), score in zip(rows, scores, strict=True)
        ]
        return sorted(hits, key=lambda hit: (-hit.result.score, hit.result.path))

    def _newer(self, generation: int) -> Fresh:
        """Return the vectors that no index knows yet, all of them where there is none."""
        now = self._store.generation()
        if generation == now:
            return Fresh.none(self._settings.dim)
        if self._fresh and self._fresh[0] == (generation, now):
            return self._fresh[1]
        fresh = Fresh.of(self._store.vector_batches(since=generation), self._settings.dim)
        self._fresh = ((generation, now), fresh) if len(fresh) <= FRESH_KEPT else None
        return fresh

    def _indexes(self) -> list[Shadow]:
        """Return the main index and, where it goes on from that one, the delta of later changes; none that knows more than the store."""
        now, main, delta = self._store.generation(), self._current(MAIN), self._current(DELTA)
        if not main or main.generation > now:
            return []
        goes_on = delta and delta.manifest.since == main.generation and delta.generation <= now
        return [main, delta] if delta and goes_on else [main]

    def _current(self, name: str) -> Shadow | None:
        """Return an index, opened again when it was replaced; None where it is missing, damaged or of other vectors."""
        stamp = manifest_stamp(self._folder / name)
        if name in self._stamps and stamp == self._stamps[name]:
            return self._shadows[name]
        self._stamps[name], self._shadows[name] = stamp, None
        if stamp is not None:
            self._shadows[name] = self._opened(name)
        return self._shadows[name]

    def _opened(self, name: str) -> Shadow | None:
        try:
            # the delta is small: copying it would take longer than searching it
            device = self._device if name == MAIN else "cpu"
            shadow = open_shadow(self._folder / name, device=device, tell=self._notes.append)
        except IndexDamaged as error:
            if self._strict:
                raise
            self._notes.append(f"{error}; searching every stored vector, the next `vitsearch index` rebuilds it")
            return None
        built = shadow.manifest
        if built.dim != self._settings.dim or built.fingerprint != self._settings.encoder_fingerprint:
            return None
        if shadow.degraded:
            self._notes.append(shadow.degraded)
        return shadow


def _first_wanted(count: float, left_out: frozenset[int]) -> int:
    return (FIRST if count == np.inf else int(count)) + len(left_out) + SPARE


def _first_proposals(queries: Sequence[Asked], wish: Wish, sources: Sources) -> list[list[Proposal] | None]:
    """Return what is proposed first for each query; an index is asked for many at once, which takes a fraction of the time."""
    found: list[list[Proposal] | None] = [None] * len(queries)
    if sources.allowed is not None:
        return found
    wanted = [_first_wanted(wish.needed, left_out) for _, left_out in queries]
    for count in sorted(set(wanted)):
        places = [place for place, one in enumerate(wanted) if one == count]
        vectors = np.stack([queries[place][0] for place in places])
        for place, proposed in zip(places, propose(sources.shadows, sources.fresh, vectors, count), strict=True):
            found[place] = proposed
    return found


def _reach(proposed: Sequence[Proposal], hits: Sequence[Hit]) -> float:
    """Return the highest score that a row which no source has proposed is expected to have, -inf where all were proposed.

    That is the lowest of what a source has proposed: of each by itself, for one may have given all its far rows and another few near ones.
    """
    scores = {hit.result.photo_id: hit.result.score for hit in hits}
    lowest = (min((scores[one] for one in ids.tolist() if one in scores), default=np.inf) for ids, more in proposed if more)
    return max(lowest, default=-np.inf)


def _is_settled(reach: float, hits: Sequence[Hit], count: float, *, least: float | None, enough: bool) -> bool:
    """Return whether no row that was not proposed can belong among the ``count`` best hits of at least a score.

    ``enough`` says that the index was asked for as many results as there are, or for more: its own order is rough.
    """
    if reach == -np.inf or (least is not None and reach < least - TIE and enough):
        return True
    return len(hits) >= count and reach < hits[int(count) - 1].result.score - TIE


def marginal_order(rows: Vectors, scores: NDArray[np.float64], diverse: float) -> list[int]:
    """Return the places of the ``(n, dim)`` unit rows in order of marginal relevance, window by window, equal ones as they came.

    Next comes the row with the highest ``(1 - diverse) * score - diverse * likeness``, the likeness to the most alike row before it.
    """
    order: list[int] = []
    wide = rows.astype(np.float64)
    for start in range(0, len(rows), WINDOW):
        some = slice(start, start + WINDOW)
        # rounded, so that equal rows are equally alike
        likest = (wide[some] @ wide[:start].T).max(axis=1).astype(np.float32) if start else None
        order += [start + place for place in _marginal_window(rows[some], scores[some], likest, diverse)]
    return order


def _marginal_window(rows: Vectors, scores: NDArray[np.float64], likest: NDArray[np.float32] | None, diverse: float) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < len(rows):
        value = (1 - diverse) * scores - (0 if likest is None else diverse * likest.astype(np.float64))
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
        likeness = likeness_to(rows[chosen[-1]], rows)
        likest = likeness if likest is None else np.maximum(likest, likeness)
    return chosen
