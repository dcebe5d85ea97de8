"""The search itself: the index proposes, the stored vectors decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.collection.wish import Wish
from vitsearch.errors import IndexDamaged
from vitsearch.index import Fresh, Shadow, manifest_stamp, open_shadow, propose
from vitsearch.layout import Settings
from vitsearch.store import PhotoStore
from vitsearch.types import SearchResult
from vitsearch.vectors import Vectors, cosine_scores

OVERFETCH = 4  # candidates asked of the index for each result wanted: an approximate index orders them only roughly
SPARE = 8  # candidates asked of the index beyond the results wanted: some may have been removed since it was built
TIE = 1e-6  # where the last candidate is this near to the last result, one not proposed may belong before it, by score or by path
FRESH_KEPT = 20_000  # vectors newer than the index that are held in memory between searches
MAIN, DELTA = "index", "delta"

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hit:
    """A result with what later steps need of it."""

    result: SearchResult
    raw: bytes
    fingerprint: bytes


class Searcher:
    """Finds the stored photos nearest to vectors; ``notes`` gains a line where an index cannot be used."""

    def __init__(self, folder: Path, settings: Settings, store: PhotoStore, notes: list[str]) -> None:
        self._folder, self._settings, self._store, self._notes = folder, settings, store, notes
        self._shadows: dict[str, Shadow | None] = {}
        self._stamps: dict[str, object] = {}
        self._fresh: tuple[tuple[int, int], Fresh] | None = None

    def close(self) -> None:
        """Let the index's files go."""
        self._shadows, self._stamps, self._fresh = {}, {}, None

    def find(self, queries: Sequence[tuple[Vectors, frozenset[int]]], wish: Wish) -> list[list[SearchResult]]:
        """Return the results for each (unit vector, ids to leave out), all on one state of the collection."""
        with self._store.reading():
            allowed = self._store.ids_where(wish.where) if wish.where is not None else None
            shadows = [shadow for shadow in (self._current(MAIN), self._current(DELTA)) if shadow]
            fresh = self._newer(max((shadow.generation for shadow in shadows), default=-1))
            return [self._one(vector, left_out, wish, (shadows, fresh, allowed)) for vector, left_out in queries]

    def _one(
        self, vector: Vectors, left_out: frozenset[int], wish: Wish, sources: tuple[list[Shadow], Fresh, Ids | None]
    ) -> list[SearchResult]:
        pool = wish.pool
        while True:
            hits = self._nearest(vector, pool, left_out, sources=sources, least=wish.min_score)
            chosen = different(hits, wish, vector) if wish.collapse or wish.diverse else hits
            last = wish.offset + wish.top_k if wish.top_k is not None else len(chosen)
            if len(chosen) >= last or len(hits) < pool:  # enough, or there are no more
                return [hit.result for hit in chosen[wish.offset : last]]
            pool *= 4

    def _nearest(
        self,
        vector: Vectors,
        count: float,
        left_out: frozenset[int],
        *,
        sources: tuple[list[Shadow], Fresh, Ids | None],
        least: float | None,
    ) -> list[Hit]:
        """Return the ``count`` best hits of at least a score, best first, equal scores in order of path."""
        shadows, fresh, allowed = sources
        known = len(fresh) + sum(map(len, shadows))
        wanted = int(min(OVERFETCH * (count + len(left_out)) + SPARE, max(1, known)))
        while True:
            ids, more = propose(shadows, fresh, vector, wanted, allowed=allowed)
            hits = self._rescored(ids, vector, left_out)
            above = [hit for hit in hits if least is None or hit.result.score >= least]
            if not more or _is_settled(hits, above, count, least):
                return above if count == float("inf") else above[: int(count)]
            wanted *= 4

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
            shadow = open_shadow(self._folder / name)
        except IndexDamaged as error:
            self._notes.append(f"{error}; searching every stored vector, the next `vitsearch index` rebuilds it")
            return None
        built = shadow.manifest
        if built.dim != self._settings.dim or built.fingerprint != self._settings.encoder_fingerprint:
            return None
        if built.generation > self._store.generation():
            return None
        if shadow.degraded:
            self._notes.append(shadow.degraded)
        return shadow


def _is_settled(hits: Sequence[Hit], above: Sequence[Hit], count: float, least: float | None) -> bool:
    """Return whether no candidate that was not proposed can belong among the hits."""
    if not hits:
        return False
    last = hits[-1].result.score
    if least is not None and last < least - TIE:
        return True
    return len(hits) > count and last < hits[int(count) - 1].result.score - TIE


def different(hits: Sequence[Hit], wish: Wish, vector: Vectors) -> list[Hit]:
    """Return the hits without look-alikes of earlier ones, and in order of marginal relevance where the wish says so."""
    rows = np.frombuffer(b"".join(hit.raw for hit in hits), dtype="<f2").reshape(len(hits), -1).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    kept = list(range(len(hits)))
    if wish.collapse:
        kept = collapsed(rows, [hit.fingerprint for hit in hits], wish.collapse)
    if wish.diverse:
        wanted = len(kept) if wish.top_k is None else min(len(kept), wish.offset + wish.top_k)
        scores = np.array([hits[place].result.score for place in kept], dtype=np.float32)
        kept = [kept[place] for place in marginal_order(rows[kept], scores, wanted, wish.diverse)]
    return [hits[place] for place in kept]


def collapsed(rows: Vectors, fingerprints: Sequence[bytes], threshold: float) -> list[int]:
    """Return the places of the rows that are no copy and no look-alike (cosine of the threshold or more) of a row kept before."""
    kept: list[int] = []
    seen: set[bytes] = set()
    for place, row in enumerate(rows):
        if fingerprints[place] in seen or (kept and float((rows[kept] @ row).max()) >= threshold):
            continue
        seen.add(fingerprints[place])
        kept.append(place)
    return kept


def marginal_order(rows: Vectors, scores: NDArray[np.float32], count: int, diverse: float) -> list[int]:
    """Return the places of ``count`` rows, each the best by score less likeness to those chosen before, equal ones in order."""
    chosen: list[int] = []
    likest = np.zeros(len(rows), dtype=np.float32)
    for _ in range(count):
        value = (1 - diverse) * scores - (diverse * likest if chosen else 0)
        value[chosen] = -np.inf
        best = int(value.argmax())
        chosen.append(best)
        likest = np.maximum(likest, rows @ rows[best]) if len(chosen) > 1 else rows @ rows[best]
    return chosen
