"""Candidates for a query, from the indexes and from the vectors that no index holds yet."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vitsearch.arrays import Halves, Ids, Vectors, top_k
from vitsearch.index.exact import ExactIndex, rough_scores
from vitsearch.index.snapshot import IndexSnapshot

# a filter that leaves at most so many rows has each of them compared, whatever the index
FEW = 2_000
# a filter that leaves a smaller share of the rows makes most of an index search useless
SELECTIVE = 0.005
MAX_IN_MEMORY = 1 << 25  # bytes of vectors that no index holds yet
MAX_ID_BITS = 1 << 24  # of a selection of ids, beside 64 for each row
MIN_ROWS = 10_000  # of an index, from which results are scored by its own rows
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
        """Return the vectors of all batches; many lie in a temporary file without a name, mapped,
        so that they are not this process's own memory.
        """
        ids: list[Ids] = []
        with tempfile.SpooledTemporaryFile(MAX_IN_MEMORY) as file:
            for part, rows in batches:
                ids.append(part)
                file.write(np.ascontiguousarray(rows).data)
            count = sum(map(len, ids))
            if not count:
                return cls.empty(dim)
            if count * dim * 2 <= MAX_IN_MEMORY:
                file.seek(0)
                vectors = np.frombuffer(file.read(), dtype=np.float16).reshape(count, dim)
            else:
                file.flush()
                file.fileno()  # in a file, if it was not yet
                vectors = np.memmap(file, np.float16, "r", shape=(count, dim))
            return cls(np.concatenate(ids), vectors.view(np.ndarray))


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
        sources.append(_from_snapshot(snapshot, queries, count, allowed, newer))
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
    snapshot: IndexSnapshot, queries: Vectors, count: int, allowed: Ids | None, newer: Ids
) -> list[Proposal]:
    """Return what an index proposes for each query, without the rows that are ``newer`` elsewhere
    or were removed.
    """
    reach = count if snapshot.recipe.is_exact else count * snapshot.recipe.overfetch
    if allowed is None:
        available, nearest = len(snapshot), _nearest(snapshot, queries, reach)
    else:
        positions = _positions(snapshot, allowed)
        available = len(positions)
        nearest = [
            _nearest_allowed(snapshot, query, reach, positions=positions, allowed=allowed)
            for query in queries
        ]
    proposals = []
    for ids, query in zip(nearest, queries, strict=True):
        left = ids[~is_among(ids, newer)] if len(newer) else ids
        best = _best(snapshot, left, query, count)
        proposals.append(Proposal(best, len(best) < len(left) or len(ids) < available))
    return proposals


def _best(snapshot: IndexSnapshot, ids: Ids, query: Vectors, count: int) -> Ids:
    """Return the best of an index's candidates by its own rows.

    They cost less to read than those in the database, which decide in the end: these rows are not
    checked, what is returned is.
    """
    if len(ids) <= count:
        return ids
    scores = rough_scores(snapshot.vectors[snapshot.positions(ids)], query)
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
        ids = _among(snapshot, query, count, allowed=allowed, share=share)
        if ids is None:
            ids = snapshot.search(query, int(count / share * 1.25) + 1).ids
            ids = ids[is_among(ids, allowed)]
        if len(ids) >= count:
            return ids[:count]
    return _exact_among(snapshot, positions, query, count)


def _among(
    snapshot: IndexSnapshot, query: Vectors, count: int, *, allowed: Ids, share: float
) -> Ids | None:
    """Return the best of the allowed ids that the index itself finds, None where it cannot select.

    The bits of the ids are remembered for the next search by the same filter.
    """
    search = getattr(snapshot.index, "search_among", None)
    if search is None or int(allowed[-1]) > MAX_ID_BITS + 64 * len(snapshot):
        return None
    last = snapshot.filtered.get("bits")
    if last is None or last[0] is not allowed:
        mask = np.zeros(int(allowed[-1]) + 1, dtype=bool)
        mask[allowed] = True
        last = snapshot.filtered["bits"] = allowed, np.packbits(mask, bitorder="little")
    candidates = search(query, count, last[1], share)
    return None if candidates is None else candidates.ids


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


def _positions(snapshot: IndexSnapshot, allowed: Ids) -> Ids:
    """Return the positions of the rows that a filter leaves, remembered for the next search by the
    same filter: to look them up takes longer than a search.
    """
    last = snapshot.filtered.get("positions")
    if last is None or last[0] is not allowed:
        last = snapshot.filtered["positions"] = allowed, positions_of(snapshot.ids, allowed)
    return last[1]


def known_vectors(snapshot: IndexSnapshot, ids: Ids) -> dict[int, tuple[bytes, int]]:
    """Return the vector, as it is stored, and the generation of each row with one of these ids that
    the index holds; not checked.

    There are none where the generations were not stored, or the rows are so few that the database's
    own cost next to nothing and are checked by being read.
    """
    if snapshot.generations is None or len(snapshot) < MIN_ROWS:
        return {}
    at = np.minimum(np.searchsorted(snapshot.ids, ids), len(snapshot) - 1)
    at = at[snapshot.ids[at] == ids]
    numbers, generations = snapshot.ids[at].tolist(), snapshot.generations[at].tolist()
    rows = zip(numbers, snapshot.vectors[at], generations, strict=True)
    return {number: (row.tobytes(), generation) for number, row, generation in rows}


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
