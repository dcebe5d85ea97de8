"""What the indexes propose: candidates, which the stored vectors then decide on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vitsearch.index.exact import ExactIndex
from vitsearch.index.protocol import Halves, Ids
from vitsearch.index.shadow import Shadow
from vitsearch.vectors import Vectors, top_k

FEW = 10_000  # rows that a filter leaves which are compared one by one whatever the index
BLOCK = 65_536  # rows taken out of the mapped file at a time
SELECTIVE = 0.05  # a filter that leaves a smaller share than this has the rest of the index searched in vain


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """The vectors that no index has yet: ``(n,)`` ids and ``(n, dim)`` float16 rows."""

    ids: Ids
    rows: Halves

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls, dim: int) -> "Fresh":
        """Return no vectors."""
        return cls(np.empty(0, dtype=np.int64), np.empty((0, dim), dtype=np.float16))

    @classmethod
    def of(cls, batches: Iterable[tuple[Ids, Halves]], dim: int) -> "Fresh":
        """Return the vectors of some batches."""
        parts = list(batches)
        return cls(np.concatenate([ids for ids, _ in parts]), np.concatenate([rows for _, rows in parts])) if parts else cls.none(dim)


def propose(shadows: Sequence[Shadow], fresh: Fresh, vector: Vectors, wanted: int, *, allowed: Ids | None = None) -> tuple[Ids, bool]:
    """Return the ids of about ``wanted`` candidates from each index and from the fresh rows, and whether asking for more gives more.

    The indexes are given oldest first, and a row counts as what the newest of them, or the fresh rows, say. ``allowed`` are the ids, in
    order, that a filter leaves; None leaves all.
    """
    found, more = _of_fresh(fresh, vector, wanted, allowed)
    newer = fresh.ids
    for shadow in reversed(shadows):
        ids, rest = _of_shadow(shadow, vector, wanted, allowed)
        found = np.concatenate([ids[~np.isin(ids, newer)], found])
        more = more or rest
        if shadow is not shadows[0]:
            newer = np.concatenate([newer, shadow.ids])
    return found, more


def _of_fresh(fresh: Fresh, vector: Vectors, wanted: int, allowed: Ids | None) -> tuple[Ids, bool]:
    ids, rows = fresh.ids, fresh.rows
    if allowed is not None:
        inside = is_among(ids, allowed)
        ids, rows = ids[inside], rows[inside]
    best = top_k(rows.astype(np.float32) @ vector, wanted)
    return ids[best], len(best) < len(ids)


def _of_shadow(shadow: Shadow, vector: Vectors, wanted: int, allowed: Ids | None) -> tuple[Ids, bool]:
    if allowed is None:
        known = shadow.search(vector, wanted).ids
        if len(known) < min(wanted, len(shadow)):  # lists that were not read, a graph in pieces: only the rows reach every photo
            known = ExactIndex(shadow.vectors, shadow.ids).search(vector, wanted).ids
        return known, len(known) < len(shadow)
    places = places_of(shadow.ids, allowed)
    share = len(places) / max(1, len(shadow))
    if len(places) > FEW and share >= SELECTIVE and wanted < len(places) / 8:
        reach = int(wanted / share * 1.25) + 1
        known = shadow.search(vector, reach).ids
        known = known[is_among(known, allowed)]
        if len(known) >= wanted:
            return known[:wanted], True
    known = _exact_among(shadow, places, vector, wanted)
    return known, len(known) < len(places)


def _exact_among(shadow: Shadow, places: Ids, vector: Vectors, wanted: int) -> Ids:
    """Return the best of some rows, every one of which is compared."""
    if len(places) == len(shadow):
        return ExactIndex(shadow.vectors, shadow.ids).search(vector, wanted).ids
    ids, scores = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    for start in range(0, len(places), BLOCK):
        some = places[start : start + BLOCK]
        best = ExactIndex(shadow.vectors[some], np.asarray(shadow.ids)[some]).search(vector, wanted)
        ids, scores = np.concatenate([ids, best.ids]), np.concatenate([scores, best.scores])
        kept = top_k(scores, wanted)
        ids, scores = ids[kept], scores[kept]
    return ids


def places_of(ids: Ids, allowed: Ids) -> Ids:
    """Return the places in ``ids`` of those that are among ``allowed``; both are in order."""
    at = np.searchsorted(ids, allowed)
    at = at[at < len(ids)] if len(ids) else at[:0]
    return at[np.asarray(ids)[at] == allowed[: len(at)]]


def is_among(ids: Ids, allowed: Ids) -> np.ndarray:
    """Return for each id whether it is among ``allowed``, which is in order."""
    if not len(allowed):
        return np.zeros(len(ids), dtype=bool)
    at = np.minimum(np.searchsorted(allowed, ids), len(allowed) - 1)
    found: np.ndarray = allowed[at] == ids
    return found
