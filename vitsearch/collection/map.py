"""The map of a collection: a position in a square for every photo, with similar photos together.

Landmarks, evenly spread over the ids, are laid out first. They start on the principal axes of their
vectors; then each is attracted by its nearest neighbours and repelled by others chosen at random,
as in UMAP (McInnes et al. 2018, arXiv:1802.03426) with the kernel of t-SNE (Damrich and Hamprecht
2021, arXiv:2103.14608). Every other photo goes among the landmarks most like it. The map is stored
in the collection's folder; photos that are indexed later are placed in it, until they are more than
a fifth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids, Vectors
from vitsearch.collection import Collection
from vitsearch.collection.backend import is_large
from vitsearch.index.backends import unit_widened
from vitsearch.records import atomic_file

Positions = NDArray[np.float32]

FILE = "map.npz"
LANDMARKS = 6000
AXES = 50  # principal axes in which neighbours are searched
SPARE_AXES, ITERATIONS = 10, 12  # of the subspace iteration that finds the axes
NEIGHBOURS = 15
ROUNDS = 400
REPULSIONS = 5  # for each attraction
MAX_STEP = 4.0
AROUND = 0.1  # the largest distance of a photo from the landmark most like it
STALE = 0.2  # the share of new photos from which the map is drawn anew
BLOCK = 512  # rows that stay in the processor's cache while they are compared with others


@dataclass(frozen=True, slots=True, eq=False)
class PhotoMap:
    """The positions ``(n, 2)`` of photos, from 0 to 1, in order of id.

    ``generation`` and ``state`` are number and identity of the state of the collection that they
    belong to, ``drawn`` is the number of photos when the map was drawn anew.
    """

    ids: Ids
    positions: Positions
    generation: int
    fingerprint: str
    drawn: int
    state: str = ""


def current_map(collection: Collection) -> PhotoMap:
    """Return the map of a collection in its present state.

    It is the stored one, that one with new photos placed in it, or one drawn anew, which is stored
    if the folder can be written. The vectors are read in batches, so that memory does not grow with
    the collection; of a large one in Milvus a sample is on the map.
    """
    file = collection.folder / FILE
    store, fingerprint = collection.store, collection.config.encoder_fingerprint
    with store.reading():
        generation, state = store.generation(), store.state()
        stored = read_map(file, fingerprint)
        if stored and (stored.generation, stored.state) == (generation, state):
            return stored
        batches = [ids for ids, _ in _batches(collection)]
        ids = np.concatenate([np.empty(0, dtype=np.int64), *batches])
        if moments := store.moments():  # a video is where its first moment is
            ids = ids[~np.isin(ids, [*moments])]
        known, rows = _known(stored, ids), None
        if known is None:
            # a sample is laid out anew after each push, so with fewer
            limit = LANDMARKS // 3 if is_large(store) else LANDMARKS
            landmarks, drawn = _spaced(ids, limit), len(ids)
            rows = _rows_of(collection, landmarks)
            placed = lay_out(rows)
        else:
            landmarks, placed, drawn = known
        positions = _all_positions(collection, ids, landmarks, placed, rows)
    photo_map = PhotoMap(ids, positions, generation, fingerprint, drawn, state)
    write_map(file, photo_map)
    return photo_map


def _batches(collection: Collection) -> Iterator[tuple[Ids, Halves]]:
    """Yield ids and rows of the photos that are on the map, in order of id."""
    store = collection.store
    if not is_large(store):
        yield from store.vector_batches()
        return
    rows = store.sampled_rows()
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        yield np.array([row[0] for row in part]), store.halves([row[2] for row in part])


def _known(stored: PhotoMap | None, ids: Ids) -> tuple[Ids, Positions, int] | None:
    """Return the remaining photos of a stored map, their positions and ``drawn``.

    None if the map has to be drawn anew.
    """
    if stored is None:
        return None
    remaining = np.isin(stored.ids, ids)
    added = max(len(ids) - remaining.sum(), len(ids) - stored.drawn)
    if remaining.sum() < 2 or added > STALE * len(ids):
        return None
    return stored.ids[remaining], stored.positions[remaining], stored.drawn


def _spaced(ids: Ids, limit: int = LANDMARKS) -> Ids:
    step = max(1, -(-len(ids) // limit))
    return ids[::step]


def _rows_of(collection: Collection, ids: Ids) -> Vectors:
    rows = [np.empty((0, collection.dim), dtype=np.float32)]
    for batch, halves in _batches(collection):
        chosen = np.isin(batch, ids)
        if chosen.any():
            rows.append(unit_widened(halves[chosen]))
    return np.concatenate(rows)


def _all_positions(
    collection: Collection, ids: Ids, placed_ids: Ids, placed: Positions, rows: Vectors | None
) -> Positions:
    """Return the positions of all ids: those placed already, and every other one among them.

    ``rows`` are those of the placed ids that are `_spaced`, None where they are to be read.
    """
    result = np.full((len(ids), 2), 0.5, dtype=np.float32)
    result[np.searchsorted(ids, placed_ids)] = placed
    if len(placed_ids) == len(ids):
        return result
    landmarks = _spaced(placed_ids)
    rows = _rows_of(collection, landmarks) if rows is None else rows
    anchors = placed[np.searchsorted(placed_ids, landmarks)]
    for batch, halves in _batches(collection):
        new = ~np.isin(batch, placed_ids) & np.isin(batch, ids)
        if new.any():
            positions = _interpolated(unit_widened(halves[new]), rows, anchors)
            result[np.searchsorted(ids, batch[new])] = positions
    return result


def _interpolated(rows: Vectors, landmarks: Vectors, positions: Positions) -> Positions:
    """Return a position for each row: that of the landmark most like it, weighted with those of the
    next two if they are near that one.

    The middle between distant landmarks would look like neither of them.
    """
    near = nearest(rows, landmarks, min(3, len(landmarks)))
    likeness = np.einsum("nd,nkd->nk", rows, landmarks[near])
    close = np.abs(positions[near] - positions[near[:, :1]]).max(axis=2) <= AROUND
    weight = close * np.exp(20 * (likeness - likeness.max(axis=1, keepdims=True)))
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray((positions[near] * weight[..., None]).sum(axis=1), dtype=np.float32)


def lay_out(rows: Vectors, *, seed: int = 0) -> Positions:
    """Return positions ``(n, 2)`` from 0 to 1 for ``(n, d)`` unit rows.

    Equal rows and an equal seed give equal positions.
    """
    if len(rows) < 3:
        diagonal = np.linspace(0.35, 0.65, 2, dtype=np.float32)[: len(rows)]
        return diagonal[:, None].repeat(2, axis=1)
    axes = principal(rows, AXES)
    start = axes[:, :2].astype(np.float64) / max(float(axes[:, 0].std()), 1e-9)
    # noise, so that equal photos can move apart
    start += np.random.default_rng(seed).normal(scale=1e-3, size=start.shape)
    near = nearest(axes, axes, min(NEIGHBOURS + 1, len(rows)))[:, 1:]
    return spread(settle(start, near, seed=seed))


def principal(rows: Vectors, count: int) -> NDArray[np.float32]:
    """Return the coordinates ``(n, count)`` of the rows on their longest principal axes.

    There are fewer columns, but at least 2, if the rows have fewer axes.
    """
    centred = rows - rows.mean(axis=0)
    square = centred.T.astype(np.float64) @ centred
    # subspace iteration for the longest axes: finding all of them takes many times as long
    dim = rows.shape[1]
    basis = np.random.default_rng(0).normal(size=(dim, min(dim, count + SPARE_AXES)))
    for _ in range(ITERATIONS):
        basis = np.linalg.qr(square @ basis)[0]
    values, within = np.linalg.eigh(basis.T @ square @ basis)
    best = basis @ within[:, np.argsort(-values)[: min(count, dim)]]
    # the largest component is positive: otherwise the sign would depend on the machine
    largest = best[np.abs(best).argmax(axis=0), np.arange(best.shape[1])]
    best = best * np.where(largest < 0, -1, 1)
    result = np.zeros((len(rows), max(2, best.shape[1])), dtype=np.float32)
    result[:, : best.shape[1]] = centred @ best
    return result


def nearest(rows: NDArray[np.float32], among: NDArray[np.float32], count: int) -> Ids:
    """Return the indices ``(n, count)`` of the rows ``among`` nearest to each row, nearest first.

    A row that is ``among`` them comes first in its own list.
    """
    indices = np.empty((len(rows), count), dtype=np.int64)
    squares = (among * among).sum(axis=1)
    for start in range(0, len(rows), BLOCK):
        distance = squares - 2 * rows[start : start + BLOCK] @ among.T
        part = np.argpartition(distance, count - 1, axis=1)[:, :count]
        order = np.take_along_axis(distance, part, axis=1).argsort(axis=1, kind="stable")
        indices[start : start + BLOCK] = np.take_along_axis(part, order, axis=1)
    return indices


def settle(start: NDArray[np.float64], near: Ids, *, seed: int) -> NDArray[np.float64]:
    """Return the positions ``(n, 2)`` after attraction by neighbours ``(n, k)`` and repulsion."""
    rng, count = np.random.default_rng(seed), len(start)
    positions = np.array(start, dtype=np.float64)
    for step in range(ROUNDS):
        learning_rate = 1 - step / ROUNDS
        partners = near[np.arange(count), rng.integers(near.shape[1], size=count)]
        apart = positions - positions[partners]
        pull = _limited(-2 * apart / (1 + (apart * apart).sum(axis=1, keepdims=True)))
        reaction = [np.bincount(partners, weights=axis, minlength=count) for axis in pull.T]
        move = pull - np.stack(reaction, axis=1)
        for others in rng.integers(count, size=(REPULSIONS, count)):
            apart = positions - positions[others]
            square = (apart * apart).sum(axis=1, keepdims=True)
            move += _limited(2 * apart / ((0.001 + square) * (1 + square)))
        positions += learning_rate * _limited(move)
    return positions


def _limited(move: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(move, -MAX_STEP, MAX_STEP)


def spread(positions: NDArray[np.float64]) -> Positions:
    """Return positions from 0 to 1 that fill the square.

    Each is half by distance and half by rank along the axis, so that dense clusters open up.
    """
    low, high = positions.min(axis=0), positions.max(axis=0)
    scaled = (positions - low) / np.where(high > low, high - low, 1)
    order = positions.argsort(axis=0, kind="stable").argsort(axis=0) / max(1, len(positions) - 1)
    return np.asarray(0.5 * scaled + 0.5 * order, dtype=np.float32)


def read_map(file: Path, fingerprint: str) -> PhotoMap | None:
    """Return the stored map of this encoder's vectors, None if there is none that can be read."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            if any(part.compress_type for part in stored.zip.infolist()):
                return None  # `write_map` stores: a packed one may grow without bounds
            ids, positions, counts = stored["ids"], stored["places"], stored["facts"]
            same = str(stored["fingerprint"]) == fingerprint
            state = str(stored["state"]) if "state" in stored else ""
    except Exception:  # whatever is in the file, the map can be drawn anew
        return None
    sound = (
        ids.dtype == np.int64
        and positions.dtype == np.float32
        and positions.shape == (len(ids), 2)
        and counts.shape == (2,)
    )
    if not same or not sound or not np.isfinite(positions).all() or (np.diff(ids) <= 0).any():
        return None
    return PhotoMap(ids, positions, int(counts[0]), fingerprint, int(counts[1]), state)


def write_map(file: Path, photo_map: PhotoMap) -> bool:
    """Store a map atomically, and return whether the folder could be written.

    A map is derived data: without a file it is drawn anew.
    """
    counts = np.array([photo_map.generation, photo_map.drawn], dtype=np.int64)
    try:
        with atomic_file(file, sync=False) as aside, open(aside, "wb") as out:
            np.savez(
                out,
                ids=photo_map.ids,
                places=photo_map.positions,
                facts=counts,
                fingerprint=np.array(photo_map.fingerprint),
                state=np.array(photo_map.state),
            )
    except OSError:
        return False
    return True
