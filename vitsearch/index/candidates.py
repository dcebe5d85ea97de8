"""Candidates for a query, from the indexes and from the vectors that no index holds yet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vitsearch.arrays import Halves, Ids, Vectors, cosine_scores, top_k
from vitsearch.index.exact import ExactIndex
from vitsearch.index.snapshot import IndexSnapshot

# a filter that leaves at most so many rows has each of them compared, whatever the index
FEW = 10_000
# a filter that leaves a smaller share of the rows makes most of an index search useless
SELECTIVE = 0.05
BLOCK = 65_536  # rows read from the memory-mapped file at a time


@dataclass(frozen=True, slots=True, eq=False)
class UnindexedVectors:
    """The vectors that no index holds yet: ``(n,)`` ids and ``(n, dim)`` float16 rows."""

    ids: Ids
    rows: Halves

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls, dim: int) -> "UnindexedVectors":
        """Return no vectors."""
        return cls(np.empty(0, dtype=np.int64), np.empty((0, dim), dtype=np.float16))

    @classmethod
    def from_batches(cls, batches: Iterable[tuple[Ids, Halves]], dim: int) -> "UnindexedVectors":
        """Return the vectors of all batches."""
        parts = list(batches)
        if not parts:
            return cls.empty(dim)
        ids, rows = zip(*parts, strict=True)
        return cls(np.concatenate(ids), np.concatenate(rows))


class Proposal(NamedTuple):
    """The ids that one source proposes for one query, best first; ``more`` if it holds others."""

    ids: Ids
    more: bool


def candidates_for(
    snapshots: Sequence[IndexSnapshot],
    unindexed: UnindexedVectors,
    queries: Vectors,
    count: int,
    *,
    allowed: Ids | None = None,
) -> list[list[Proposal]]:
    """Return for each of the ``(m, dim)`` queries what each source proposes for ``count`` results.

    The first source is the unindexed rows, then come the indexes, the newest first. An approximate
    index is asked for ``overfetch`` times as many (see its recipe), of which its own rows choose
    the best. ``snapshots`` are in order, oldest first; where several sources hold a row, only the
    newest proposes it. ``allowed`` are the ascending ids that a filter leaves, None for all. Raises
    IndexDamaged.
    """
    sources = [_from_unindexed(unindexed, queries, count, allowed)]
    newer = unindexed.ids
    for snapshot in reversed(snapshots):
        proposals = _from_snapshot(snapshot, queries, count, allowed)
        sources.append([Proposal(ids[~is_among(ids, newer)], more) for ids, more in proposals])
        if snapshot is not snapshots[0]:
            newer = np.union1d(newer, snapshot.ids)
            if snapshot.removed is not None:
                newer = np.union1d(newer, snapshot.removed)
    return [list(of_query) for of_query in zip(*sources, strict=True)]


def _from_unindexed(
    unindexed: UnindexedVectors, queries: Vectors, count: int, allowed: Ids | None
) -> list[Proposal]:
    ids, rows = unindexed.ids, unindexed.rows
    if allowed is not None:
        inside = is_among(ids, allowed)
        ids, rows = ids[inside], rows[inside]
    return [
        Proposal(best.ids, len(best.ids) < len(ids))
        for best in ExactIndex(rows, ids).search_batch(queries, count)
    ]


def _from_snapshot(
    snapshot: IndexSnapshot, queries: Vectors, count: int, allowed: Ids | None
) -> list[Proposal]:
    reach = count if snapshot.recipe.is_exact else count * snapshot.recipe.overfetch
    if allowed is None:
        available, nearest = len(snapshot), _nearest(snapshot, queries, reach)
    else:
        positions = positions_of(snapshot.ids, allowed)
        available = len(positions)
        nearest = [
            _nearest_allowed(snapshot, query, reach, positions=positions, allowed=allowed)
            for query in queries
        ]
    best = [_best(snapshot, ids, query, count) for ids, query in zip(nearest, queries, strict=True)]
    return [Proposal(ids, len(ids) < available) for ids in best]


def _best(snapshot: IndexSnapshot, ids: Ids, query: Vectors, count: int) -> Ids:
    """Return the best of an index's candidates by its own rows.

    They cost less to read than those in the database, which decide in the end.
    """
    if len(ids) <= count:
        return ids
    scores = cosine_scores(snapshot.rows(snapshot.positions(ids)), query)
    return ids[top_k(scores, count)]


def _nearest(snapshot: IndexSnapshot, queries: Vectors, count: int) -> list[Ids]:
    """Return what the index finds for each query; too few candidates are replaced by exact ones."""
    nearest = [candidates.ids for candidates in snapshot.search_batch(queries, count)]
    # lists that were not read or a graph in pieces: only the rows reach every photo
    enough = min(count, len(snapshot))
    short = [index for index, ids in enumerate(nearest) if len(ids) < enough]
    if short:
        exact = snapshot.exact().search_batch(queries[short], count)
        for index, candidates in zip(short, exact, strict=True):
            nearest[index] = candidates.ids
    return nearest


def _nearest_allowed(
    snapshot: IndexSnapshot, query: Vectors, count: int, *, positions: Ids, allowed: Ids
) -> Ids:
    """Return the best of the rows at the positions that a filter leaves.

    The index finds them where they are many; otherwise each of them is compared.
    """
    share = len(positions) / max(1, len(snapshot))
    if len(positions) > FEW and share >= SELECTIVE and count < len(positions) / 8:
        reach = int(count / share * 1.25) + 1
        ids = snapshot.search(query, reach).ids
        ids = ids[is_among(ids, allowed)]
        if len(ids) >= count:
            return ids[:count]
    return _exact_among(snapshot, positions, query, count)


def _exact_among(snapshot: IndexSnapshot, positions: Ids, query: Vectors, count: int) -> Ids:
    if len(positions) == len(snapshot):
        return snapshot.exact().search(query, count).ids
    ids, scores = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    for start in range(0, len(positions), BLOCK):
        block = positions[start : start + BLOCK]
        index = ExactIndex(snapshot.rows(block), np.asarray(snapshot.ids)[block])
        best = index.search(query, count)
        ids, scores = np.concatenate([ids, best.ids]), np.concatenate([scores, best.scores])
        order = top_k(scores, count)
        ids, scores = ids[order], scores[order]
    return ids


def positions_of(ids: Ids, allowed: Ids) -> Ids:
    """Return the positions in ``ids`` of those that are among ``allowed``; both ascend."""
    at = np.searchsorted(ids, allowed)
    at = at[at < len(ids)] if len(ids) else at[:0]
    return at[np.asarray(ids)[at] == allowed[: len(at)]]


def is_among(ids: Ids, allowed: Ids) -> np.ndarray:
    """Return for each id whether it is among ``allowed``, which ascends; ``(n,)`` bool."""
    if not len(allowed):
        return np.zeros(len(ids), dtype=bool)
    at = np.minimum(np.searchsorted(allowed, ids), len(allowed) - 1)
    among: np.ndarray = allowed[at] == ids
    return among
