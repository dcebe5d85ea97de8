"""What the indexes propose: candidates, which the stored vectors then decide on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vitsearch.arrays import Halves, Ids, Vectors, cosine_scores, top_k
from vitsearch.index.exact import ExactIndex
from vitsearch.index.snapshot import IndexSnapshot

FEW = 10_000  # rows that a filter leaves which are compared one by one whatever the index
BLOCK = 65_536  # rows taken out of the mapped file at a time
# a filter that leaves a smaller share than this has the rest of the index searched in vain
SELECTIVE = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class UnindexedVectors:
    """The vectors that no index has yet: ``(n,)`` ids and ``(n, dim)`` float16 rows."""

    ids: Ids
    rows: Halves

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls, dim: int) -> "UnindexedVectors":
        """Return no vectors."""
        return cls(np.empty(0, dtype=np.int64), np.empty((0, dim), dtype=np.float16))

    @classmethod
    def of(cls, batches: Iterable[tuple[Ids, Halves]], dim: int) -> "UnindexedVectors":
        """Return the vectors of some batches."""
        parts = list(batches)
        return (
            cls(
                np.concatenate([ids for ids, _ in parts]),
                np.concatenate([rows for _, rows in parts]),
            )
            if parts
            else cls.none(dim)
        )


class Proposal(NamedTuple):
    """What one source proposes for one query: the ids of candidates, best first, and whether it
    holds others.
    """

    ids: Ids
    more: bool


def propose(
    snapshots: Sequence[IndexSnapshot],
    fresh: UnindexedVectors,
    queries: Vectors,
    wanted: int,
    *,
    allowed: Ids | None = None,
) -> list[list[Proposal]]:
    """Return for each of the ``(m, dim)`` queries what each source proposes for ``wanted`` results:
    the fresh rows, then the indexes.

    An approximate index is asked for as many times more as its recipe's ``overfetch`` says; its
    rows then say which are the best. The indexes are given oldest first, and a row counts as what
    the newest of them, or the fresh rows, say. ``allowed`` are the ids, in order, that a filter
    leaves; None leaves all.
    """
    sources = [_of_fresh(fresh, queries, wanted, allowed)]
    newer = fresh.ids
    for snapshot in reversed(snapshots):
        found = _of_shadow(snapshot, queries, wanted, allowed)
        sources.append([Proposal(ids[~is_among(ids, newer)], more) for ids, more in found])
        if snapshot is not snapshots[0]:
            newer = np.union1d(newer, snapshot.ids)
    return [list(of_query) for of_query in zip(*sources, strict=True)]


def _of_fresh(
    fresh: UnindexedVectors, queries: Vectors, wanted: int, allowed: Ids | None
) -> list[Proposal]:
    ids, rows = fresh.ids, fresh.rows
    if allowed is not None:
        inside = is_among(ids, allowed)
        ids, rows = ids[inside], rows[inside]
    return [
        Proposal(best.ids, len(best.ids) < len(ids))
        for best in ExactIndex(rows, ids).search_batch(queries, wanted)
    ]


def _of_shadow(
    snapshot: IndexSnapshot, queries: Vectors, wanted: int, allowed: Ids | None
) -> list[Proposal]:
    reach = wanted if snapshot.recipe.is_exact else wanted * snapshot.recipe.overfetch
    if allowed is None:
        return [
            _cut(snapshot, ids, query, wanted, of=len(snapshot))
            for ids, query in zip(_of_all(snapshot, queries, reach), queries, strict=True)
        ]
    places = places_of(snapshot.ids, allowed)
    found = (_of_some(snapshot, query, reach, places=places, allowed=allowed) for query in queries)
    return [
        _cut(snapshot, ids, query, wanted, of=len(places))
        for ids, query in zip(found, queries, strict=True)
    ]


def _cut(snapshot: IndexSnapshot, ids: Ids, query: Vectors, wanted: int, *, of: int) -> Proposal:
    """Return the best of an index's candidates by its rows, which cost less to read here than in
    the database.
    """
    if len(ids) > wanted:
        scores = cosine_scores(snapshot.vectors[np.searchsorted(snapshot.ids, ids)], query)
        ids = ids[top_k(scores, wanted)]
    return Proposal(ids, len(ids) < of)


def _of_all(snapshot: IndexSnapshot, queries: Vectors, wanted: int) -> list[Ids]:
    found = [best.ids for best in snapshot.search_batch(queries, wanted)]
    # lists that were not read, a graph in pieces: only the rows reach every photo
    short = [place for place, ids in enumerate(found) if len(ids) < min(wanted, len(snapshot))]
    if short:
        exact = ExactIndex(snapshot.vectors, snapshot.ids).search_batch(queries[short], wanted)
        for place, best in zip(short, exact, strict=True):
            found[place] = best.ids
    return found


def _of_some(
    snapshot: IndexSnapshot, query: Vectors, wanted: int, *, places: Ids, allowed: Ids
) -> Ids:
    """Return the best of the rows at some places: by the index where they are many, else by
    comparing each of them.
    """
    share = len(places) / max(1, len(snapshot))
    if len(places) > FEW and share >= SELECTIVE and wanted < len(places) / 8:
        reach = int(wanted / share * 1.25) + 1
        known = snapshot.search(query, reach).ids
        known = known[is_among(known, allowed)]
        if len(known) >= wanted:
            return known[:wanted]
    return _exact_among(snapshot, places, query, wanted)


def _exact_among(snapshot: IndexSnapshot, places: Ids, query: Vectors, wanted: int) -> Ids:
    if len(places) == len(snapshot):
        return ExactIndex(snapshot.vectors, snapshot.ids).search(query, wanted).ids
    ids, scores = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    for start in range(0, len(places), BLOCK):
        some = places[start : start + BLOCK]
        best = ExactIndex(snapshot.vectors[some], np.asarray(snapshot.ids)[some]).search(
            query, wanted
        )
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
