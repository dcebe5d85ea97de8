"""The map of a collection: every photo at a place in a square, those that look alike near each
other.

Some photos are laid out (landmarks, evenly spread over the ids): the principal axes of their
vectors are where they begin, then each is drawn towards its nearest neighbours and pushed off by
others chosen by chance, as in UMAP (McInnes et al. 2018, arXiv:1802.03426) with the kernel of t-SNE
(Damrich and Hamprecht 2021, arXiv:2103.14608). Every other photo goes among the landmarks most like
it. The places are kept in the collection's folder; what is indexed later is placed among what is
there, until it is more than a fifth.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Ids, Vectors, unit_rows
from vitsearch.collection import Collection
from vitsearch.records import atomic_file

Places = NDArray[np.float32]

FILE = "map.npz"
LANDMARKS = 6000
AXES = 50  # of the principal ones, in which neighbours are looked for
SPARE_AXES, ITERATIONS = 10, 12  # of the search for them
NEIGHBOURS = 15
ROUNDS = 400
PUSHES = 5  # photos pushed off for each neighbour drawn near
FARTHEST_STEP = 4.0
AROUND = 0.1  # how far from the landmark most like it a photo is placed
STALE = 0.2  # the share of new photos from which the whole map is drawn again
BLOCK = 512  # rows held against all others at a time


@dataclass(frozen=True, slots=True, eq=False)
class PhotoMap:
    """The places ``(n, 2)`` of photos, both coordinates from 0 to 1, in order of id, in one state
    of a collection.

    ``drawn`` is how many photos there were when the whole map was drawn.
    """

    ids: Ids
    places: Places
    generation: int
    fingerprint: str
    drawn: int


def current_atlas(found: Collection) -> PhotoMap:
    """Return the map of a collection as it is now: the stored one, that one with what is new placed
    in it, or one drawn anew.

    It is stored where the folder can be written. The vectors are read in batches: memory does not
    grow with the collection.
    """
    file = found.folder / FILE
    with found.store.reading():
        generation = found.store.generation()
        stored = read_atlas(file, found.config.encoder_fingerprint)
        if stored and stored.generation == generation:
            return stored
        ids = np.concatenate(
            [np.empty(0, dtype=np.int64), *(ids for ids, _ in found.store.vector_batches())]
        )
        known = _known(stored, ids)
        if known is None:
            marks, places, drawn = *_drawn(found, ids), len(ids)
        else:
            marks, places, drawn = known
        photo_map = PhotoMap(
            ids,
            _all_places(found, ids, marks, places),
            generation,
            found.config.encoder_fingerprint,
            drawn,
        )
    write_atlas(file, photo_map)
    return photo_map


def _known(stored: PhotoMap | None, ids: Ids) -> tuple[Ids, Places, int] | None:
    """Return the photos of a stored map that are still there, their places and ``drawn``; None
    where the map has to be drawn anew.
    """
    if stored is None:
        return None
    kept = np.isin(stored.ids, ids)
    if kept.sum() < 2 or max(len(ids) - kept.sum(), len(ids) - stored.drawn) > STALE * len(ids):
        return None
    return stored.ids[kept], stored.places[kept], stored.drawn


def _drawn(found: Collection, ids: Ids) -> tuple[Ids, Places]:
    """Return the landmarks among the ids, and where they lie."""
    marks = _spaced(ids)
    return marks, lay_out(_rows_of(found, marks))


def _spaced(ids: Ids) -> Ids:
    step = max(1, -(-len(ids) // LANDMARKS))
    return ids[::step]


def _rows_of(found: Collection, wanted: Ids) -> Vectors:
    rows = [np.empty((0, found.dim), dtype=np.float32)]
    for ids, halves in found.store.vector_batches():
        here = np.isin(ids, wanted)
        if here.any():
            rows.append(unit_rows(halves[here]))
    return np.concatenate(rows)


def _all_places(found: Collection, ids: Ids, marks: Ids, places: Places) -> Places:
    """Return the places of all ids: those of the marks, and every other photo among the marks most
    like it.
    """
    result = np.full((len(ids), 2), 0.5, dtype=np.float32)
    result[np.searchsorted(ids, marks)] = places
    if len(marks) == len(ids):
        return result
    some = _spaced(marks)
    rows, where = _rows_of(found, some), places[np.searchsorted(marks, some)]
    for batch, halves in found.store.vector_batches():
        new = ~np.isin(batch, marks)
        if new.any():
            result[np.searchsorted(ids, batch[new])] = _among(unit_rows(halves[new]), rows, where)
    return result


def _among(rows: Vectors, landmarks: Vectors, places: Places) -> Places:
    """Return a place for each row: at the landmark most like it, drawn towards the next two where
    these lie near that one.

    Between landmarks that lie far apart there is nothing that it is like.
    """
    near = nearest(rows, landmarks, min(3, len(landmarks)))
    likeness = np.einsum("nd,nkd->nk", rows, landmarks[near])
    close = np.abs(places[near] - places[near[:, :1]]).max(axis=2) <= AROUND
    weight = close * np.exp(20 * (likeness - likeness.max(axis=1, keepdims=True)))
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray((places[near] * weight[..., None]).sum(axis=1), dtype=np.float32)


def lay_out(rows: Vectors, *, seed: int = 0) -> Places:
    """Return places ``(n, 2)`` from 0 to 1 for ``(n, d)`` unit rows; equal rows and an equal seed
    give equal places.
    """
    if len(rows) < 3:
        return np.linspace(0.35, 0.65, max(2, len(rows)), dtype=np.float32)[
            : len(rows), None
        ].repeat(2, axis=1)
    axes = principal(rows, AXES)
    start = axes[:, :2].astype(np.float64) / max(float(axes[:, 0].std()), 1e-9)
    start += np.random.default_rng(seed).normal(
        scale=1e-3, size=start.shape
    )  # equal photos must be able to part
    near = nearest(axes, axes, min(NEIGHBOURS + 1, len(rows)))[:, 1:]
    return spread(settle(start, near, seed=seed))


def principal(rows: Vectors, count: int) -> NDArray[np.float32]:
    """Return the rows ``(n, count)`` along their principal axes, the longest first, or along all of
    them where there are fewer.
    """
    centred = rows - rows.mean(axis=0)
    square = centred.T.astype(np.float64) @ centred
    # subspace iteration: only the longest axes are wanted, and finding all of them takes many times
    # as long
    basis = np.random.default_rng(0).normal(
        size=(rows.shape[1], min(rows.shape[1], count + SPARE_AXES))
    )
    for _ in range(ITERATIONS):
        basis = np.linalg.qr(square @ basis)[0]
    values, within = np.linalg.eigh(basis.T @ square @ basis)
    best = basis @ within[:, np.argsort(-values)[: min(count, rows.shape[1])]]
    best = best * np.where(
        best[np.abs(best).argmax(axis=0), np.arange(best.shape[1])] < 0, -1, 1
    )  # else the sign is the machine's
    result = np.zeros((len(rows), max(2, best.shape[1])), dtype=np.float32)
    result[:, : best.shape[1]] = centred @ best
    return result


def nearest(rows: NDArray[np.float32], among: NDArray[np.float32], count: int) -> Ids:
    """Return the places ``(n, count)`` of the rows nearest to each row by distance, the nearest
    first, itself where it is among them.
    """
    found = np.empty((len(rows), count), dtype=np.int64)
    squares = (among * among).sum(axis=1)
    for start in range(0, len(rows), BLOCK):
        distance = squares - 2 * rows[start : start + BLOCK] @ among.T
        part = np.argpartition(distance, count - 1, axis=1)[:, :count]
        order = np.take_along_axis(distance, part, axis=1).argsort(axis=1, kind="stable")
        found[start : start + BLOCK] = np.take_along_axis(part, order, axis=1)
    return found


def settle(start: NDArray[np.float64], near: Ids, *, seed: int) -> NDArray[np.float64]:
    """Return the places ``(n, 2)`` after each was drawn to its neighbours ``(n, k)`` and pushed off
    by others.
    """
    chance = np.random.default_rng(seed)
    places, own = np.array(start, dtype=np.float64), np.arange(len(start))
    for step in range(ROUNDS):
        parallel_calls = 1 - step / ROUNDS
        pulled = near[own, chance.integers(near.shape[1], size=len(own))]
        apart = places[own] - places[pulled]
        pull = _limited(-2 * apart / (1 + (apart * apart).sum(axis=1, keepdims=True)))
        move = pull - np.stack(
            [np.bincount(pulled, weights=pull[:, axis], minlength=len(own)) for axis in (0, 1)],
            axis=1,
        )
        for pushed in chance.integers(len(own), size=(PUSHES, len(own))):
            apart = places - places[pushed]
            square = (apart * apart).sum(axis=1, keepdims=True)
            move += _limited(2 * apart / ((0.001 + square) * (1 + square)))
        places += parallel_calls * _limited(move)
    return places


def _limited(move: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(move, -FARTHEST_STEP, FARTHEST_STEP)


def spread(places: NDArray[np.float64]) -> Places:
    """Return places from 0 to 1 that use the square: half by distance, half by order along each
    axis, so that a knot opens.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - low) / np.where(high > low, high - low, 1)
    order = places.argsort(axis=0, kind="stable").argsort(axis=0) / max(1, len(places) - 1)
    return np.asarray(0.5 * scaled + 0.5 * order, dtype=np.float32)


def read_atlas(file: Path, fingerprint: str) -> PhotoMap | None:
    """Return the stored map of this encoder's vectors; None where there is none, or where it cannot
    be read.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            ids, places, facts = stored["ids"], stored["places"], stored["facts"]
            same = str(stored["fingerprint"]) == fingerprint
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    sound = (
        ids.dtype == np.int64
        and places.dtype == np.float32
        and places.shape == (len(ids), 2)
        and facts.shape == (2,)
    )
    if not same or not sound or not np.isfinite(places).all() or (np.diff(ids) <= 0).any():
        return None
    return PhotoMap(ids, places, int(facts[0]), fingerprint, int(facts[1]))


def write_atlas(file: Path, photo_map: PhotoMap) -> bool:
    """Store a map, whole or not at all, and return whether the folder could be written: it is
    derived, so it may be made again.
    """
    facts = np.array([photo_map.generation, photo_map.drawn], dtype=np.int64)
    try:
        with atomic_file(file, sync=False) as aside, open(aside, "wb") as out:
            np.savez(
                out,
                ids=photo_map.ids,
                places=photo_map.places,
                facts=facts,
                fingerprint=np.array(photo_map.fingerprint),
            )
    except OSError:
        return False
    return True
