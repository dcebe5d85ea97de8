"""Candidates for a query, from the indexes and from the vectors that no index holds yet."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids, Vectors, row_products, top_k
from vitsearch.index.backends import ExactIndex, rough_scores, unit_widened
from vitsearch.index.snapshot import IndexSnapshot

# rows, of an index or left by a filter, of which each is compared whatever the recipe
FEW = 4_000
# a filter that leaves a smaller share of the rows makes most of an index search useless
SELECTIVE = 0.005
# where a larger share of an index was replaced or removed, it is searched as behind a filter
MAX_STALE = 0.02
MAX_IN_MEMORY = 1 << 25  # bytes of vectors that no index holds yet
MAX_ID_BITS = 1 << 24  # of a selection of ids, beside 64 for each row
MIN_ROWS = 10_000  # of an index, from which results are scored by its own rows
MAX_REMEMBERED = 1 << 26  # bytes of the selections of the last filters
MAX_ENTRIES = 32  # of what is remembered
BLOCK = 65_536  # rows read from the memory-mapped file at a time
T = TypeVar("T")


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
    """The ids that one source proposes for one query, best first; ``more`` if it holds others.

    ``rows`` are their vectors, ``(n, dim)`` float16, and ``generations`` ``(n,)`` those that they
    were stored under, as the source has them, not checked; None where it does not tell.
    """

    ids: Ids
    more: bool
    rows: Halves | None = None
    generations: NDArray[np.uint32] | None = None

    def first(self, count: int) -> "Proposal":
        """Return the best ``count`` of it."""
        if len(self.ids) <= count:
            return self
        rows = None if self.rows is None else self.rows[:count]
        generations = None if self.generations is None else self.generations[:count]
        return Proposal(self.ids[:count], True, rows, generations)

    def known(self) -> dict[int, tuple[bytes, int]]:
        """Return the raw vectors and the generations by id."""
        if self.rows is None or self.generations is None:
            return {}
        vectors = zip(map(bytes, self.rows), self.generations.tolist(), strict=True)
        return dict(zip(self.ids.tolist(), vectors, strict=True))


def candidates_for(
    snapshots: Sequence[IndexSnapshot],
    unindexed: UnindexedVectors,
    queries: Vectors,
    count: int,
    *,
    allowed: Ids | None = None,
    removed: Ids | None = None,
) -> list[list[Proposal]]:
    """Return for each of the ``(m, dim)`` queries what each source proposes for ``count`` results.

    The first source is the unindexed rows, then come the indexes, the newest first. An approximate
    index is asked for ``overfetch`` times as many (see its recipe), of which its own rows choose
    the best. ``snapshots`` are in order, oldest first; where several sources hold a row, only the
    newest proposes it. ``allowed`` are the ascending ids that a filter leaves, None for all, and
    ``removed`` those that are known to be in no source's place any more. Raises IndexDamaged.
    """
    sources = [_from_unindexed(unindexed, queries, count, allowed)] if len(unindexed) else []
    newer = unindexed.ids if removed is None else _united(snapshots[0], unindexed.ids, removed)
    for snapshot in reversed(snapshots):
        sources.append(_from_snapshot(snapshot, queries, count, allowed, newer))
        if snapshot is not snapshots[0]:
            newer = _united(snapshots[0], newer, snapshot.ids)
            if snapshot.removed is not None:
                newer = _united(snapshots[0], newer, snapshot.removed)
    return [list(of_query) for of_query in zip(*sources, strict=True)] or [[] for _ in queries]


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
    selection = _selected(snapshot, allowed, newer)
    available = len(snapshot) if selection is None else len(selection)
    if available <= FEW and not (snapshot.recipe.is_exact and selection is None):
        return _compared(snapshot, queries, count, selection)
    if selection is None:
        nearest = _nearest(snapshot, queries, reach)
    else:
        nearest = _nearest_selected(snapshot, queries, reach, selection)
    proposals = []
    for ids, query in zip(nearest, queries, strict=True):
        left = ids if selection is not None or not len(newer) else ids[~is_among(ids, newer)]
        positions, rows = _best(snapshot, left, query, count)
        more = len(positions) < len(left) or len(ids) < available
        proposals.append(_proposal(snapshot, positions, rows, more))
    return proposals


def _proposal(snapshot: IndexSnapshot, positions: Ids, rows: Halves, more: bool) -> Proposal:
    """Return the rows at some positions as a proposal.

    Without their vectors where the generations were not stored, or the index's rows are so few that
    the database's own cost next to nothing and are checked by being read.
    """
    ids = snapshot.ids[positions]
    if snapshot.generations is None or len(snapshot) < MIN_ROWS:
        return Proposal(ids, more)
    return Proposal(ids, more, rows, snapshot.generations[positions])


def _best(
    snapshot: IndexSnapshot, candidates: Ids, query: Vectors, count: int
) -> tuple[Ids, Halves]:
    """Return the positions of the best of an index's candidates by its own rows, and these.

    They cost less to read than those in the database, which decide in the end: these rows are not
    checked, what is returned is.
    """
    positions = snapshot.positions(candidates if snapshot.ordered is None else candidates[:count])
    rows = snapshot.vectors.take(positions, axis=0)
    if len(positions) <= count:
        return positions, rows
    near = top_k(rough_scores(rows, query), count)
    return positions[near], rows[near]


def _nearest(snapshot: IndexSnapshot, queries: Vectors, count: int) -> list[Ids]:
    """Return the ids that the index finds for each query; too few are replaced by exact ones."""
    nearest = [candidates.ids for candidates in snapshot.search_batch(queries, count)]
    # lists that were not read or a graph in pieces: only the rows reach every photo
    enough = min(count, len(snapshot))
    short = [index for index, ids in enumerate(nearest) if len(ids) < enough]
    if short:
        exact = snapshot.exact().search_batch(queries[short], count)
        for index, candidates in zip(short, exact, strict=True):
            nearest[index] = candidates.ids
    return nearest


# -- Behind a filter, and where rows were replaced or removed --------------------------------------


def _selected(snapshot: IndexSnapshot, allowed: Ids | None, newer: Ids) -> Ids | None:
    """Return the ascending positions of the rows that are left by a filter and not newer elsewhere;
    None for all, and where only a few of many are not left.
    """
    if allowed is None and not len(newer):
        return None

    def select() -> Ids | None:
        if allowed is not None:
            positions = positions_of(snapshot.ids, allowed)
            return positions[~is_among(snapshot.ids[positions], newer)]
        gone = positions_of(snapshot.ids, newer)
        if len(gone) <= MAX_STALE * len(snapshot) and len(snapshot) > FEW:
            return None
        left = np.ones(len(snapshot), dtype=bool)
        left[gone] = False
        return np.flatnonzero(left)

    of = (allowed, newer if len(newer) else None)
    return _remembered(snapshot, "selection", of, select)


def _compared(
    snapshot: IndexSnapshot, queries: Vectors, count: int, selection: Ids | None
) -> list[Proposal]:
    """Return the best of few rows, of which each is compared."""
    positions = np.arange(len(snapshot)) if selection is None else selection
    wide = _remembered(
        snapshot, "rows", (selection,), lambda: unit_widened(snapshot.rows(positions))
    )
    proposals = []
    for query in queries:
        best = positions[top_k(row_products(wide, query), count)]
        more = len(best) < len(positions)
        proposals.append(_proposal(snapshot, best, snapshot.vectors[best], more))
    return proposals


def _nearest_selected(
    snapshot: IndexSnapshot, queries: Vectors, count: int, positions: Ids
) -> list[Ids]:
    """Return the ids of the best of the rows at some positions for each query.

    The index finds them where they are many; otherwise each of them is compared.
    """
    share = len(positions) / max(1, len(snapshot))
    nearest: list[Ids] = [positions[:0]] * len(queries)
    if share >= SELECTIVE and count < len(positions) / 8:
        nearest = _among(snapshot, queries, count, positions)
    for index in (index for index, ids in enumerate(nearest) if len(ids) < count):
        nearest[index] = _exact_among(snapshot, positions, queries[index], count)
    return nearest


def _among(snapshot: IndexSnapshot, queries: Vectors, count: int, positions: Ids) -> list[Ids]:
    """Return the ids of the best of the rows at some positions that the index finds for each query;
    where it cannot select, among so many more as a selection of this size needs.
    """
    share = len(positions) / len(snapshot)
    last = int(snapshot.ids[positions[-1]])
    if last <= MAX_ID_BITS + 64 * len(snapshot):

        def bits() -> NDArray[np.uint8]:
            mask = np.zeros(last + 1, dtype=bool)
            mask[snapshot.ids[positions]] = True
            return np.packbits(mask, bitorder="little")

        chosen = _remembered(snapshot, "bits", (positions,), bits)
        index = snapshot.index if snapshot.ordered is None else snapshot.ordered
        selected = index.search_among(queries, count, chosen, share)
        if selected is not None:
            return [candidates.ids for candidates in selected]
    wider = snapshot.search_batch(queries, int(count / share * 1.25) + 1)
    return [each.ids[is_among(snapshot.positions(each.ids), positions)][:count] for each in wider]


def _exact_among(snapshot: IndexSnapshot, positions: Ids, query: Vectors, count: int) -> Ids:
    if len(positions) == len(snapshot):
        return snapshot.exact().search(query, count).ids
    ids, scores = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    for start in range(0, len(positions), BLOCK):
        block = positions[start : start + BLOCK]
        index = ExactIndex(snapshot.rows(block), snapshot.ids[block])
        best = index.search(query, count)
        ids, scores = np.concatenate([ids, best.ids]), np.concatenate([scores, best.scores])
        order = top_k(scores, count)
        ids, scores = ids[order], scores[order]
    return ids


def _united(snapshot: IndexSnapshot, ids: Ids, others: Ids) -> Ids:
    """Return the ascending ids that are among either; of the same arrays the same one."""
    if not len(ids) or not len(others):
        return ids if len(ids) else others
    return _remembered(snapshot, "united", (ids, others), lambda: np.union1d(ids, others))


def _remembered(
    snapshot: IndexSnapshot, name: str, of: tuple[object, ...], make: Callable[[], T]
) -> T:
    """Return what is made of these very objects, which the index remembers for the next search by
    the same filter: to make it takes longer than a search.
    """
    for other, objects, value, _ in snapshot.filtered:
        if name == other and all(a is b for a, b in zip(of, objects, strict=True)):
            return value
    value = make()
    size = value.nbytes if isinstance(value, np.ndarray) else 0
    entries = [(name, of, value, size), *snapshot.filtered]  # the latest first
    sizes = np.cumsum([entry[3] for entry in entries])
    room = int(np.searchsorted(sizes, MAX_REMEMBERED, side="right"))
    snapshot.filtered[:] = entries[: max(1, min(room, MAX_ENTRIES))]
    return value


def positions_of(ids: Ids, allowed: Ids) -> Ids:
    """Return the positions in ``ids`` of those that are among ``allowed``; both ascend."""
    at = np.searchsorted(ids, allowed)
    at = at[at < len(ids)] if len(ids) else at[:0]
    return at[ids[at] == allowed[: len(at)]]


def is_among(ids: Ids, allowed: Ids) -> np.ndarray:
    """Return for each id whether it is among ``allowed``, which ascends; ``(n,)`` bool."""
    if not len(allowed):
        return np.zeros(len(ids), dtype=bool)
    at = np.minimum(np.searchsorted(allowed, ids), len(allowed) - 1)
    among: np.ndarray = allowed[at] == ids
    return among
