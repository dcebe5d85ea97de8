"""Copies of photos by two opinions, that of their vectors and that of their pictures, and which of
them is the best.

What a picture looks like, in a few numbers, is computed when it is first needed, and stored beside
the database by the photos' content.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.collection import Collection
from vitsearch.collection.duplicates import LookAlikes, first_indices, look_alikes, rows_with_others
from vitsearch.errors import CollectionError, PhotoError, QueryError
from vitsearch.filters import as_filter
from vitsearch.filters.tree import Filter
from vitsearch.options import SearchOptions
from vitsearch.photos import PhotoDecoder
from vitsearch.photos.decode import open_photo
from vitsearch.records import atomic_write
from vitsearch.storage.filesystem import disk_errors
from vitsearch.types import OnProgress, Photo, Progress, no_progress

SIDE = 256  # pixels, of the longest side at which pictures are compared
FLAT = 4.0  # levels of grey: a picture of less contrast shows nothing
GREY = 0.01  # a picture of less saturation has no colour
_HASHED, _LOW = 32, 8  # pixels and frequencies along each side of the hash
_FREQUENCIES = np.cos(
    np.pi / (2 * _HASHED) * np.outer(np.arange(_LOW), 2 * np.arange(_HASHED) + 1)
)  # the first rows of the discrete cosine transform (DCT-II), but for their lengths


class Looks(NamedTuple):
    """A perceptual hash of 63 bits, the sharpness, the contrast (standard deviation of the grey
    levels, 0 to 127.5) and the saturation (0 to 1).
    """

    hash: int
    sharpness: float
    contrast: float
    saturation: float

    @property
    def is_flat(self) -> bool:
        """Whether the picture is blank."""
        return self.contrast < FLAT

    @property
    def has_colour(self) -> bool:
        """Whether the picture is not grey."""
        return self.saturation >= GREY


def looks_of(image: Image.Image) -> Looks:
    """Return what an RGB picture looks like; it is brought to `SIDE` pixels first, so that copies
    of different sizes can be compared.

    The sharpness is the variance of the Laplacian of the grey levels (Pech-Pacheco et al. 2000,
    "Diatom autofocusing in brightfield microscopy", ICPR).
    """
    scale = SIDE / max(image.size)
    size = (max(3, round(image.width * scale)), max(3, round(image.height * scale)))
    small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    grey = np.asarray(small.convert("L"), dtype=np.float64)
    across = grey[1:-1, :-2] + grey[1:-1, 2:] - 2 * grey[1:-1, 1:-1]
    down = grey[:-2, 1:-1] + grey[2:, 1:-1] - 2 * grey[1:-1, 1:-1]
    channels = np.asarray(small, dtype=np.float64)
    saturation = (channels.max(axis=2) - channels.min(axis=2)).mean() / 255
    return Looks(
        perceptual_hash(small), float((across + down).var()), float(grey.std()), float(saturation)
    )


def perceptual_hash(image: Image.Image) -> int:
    """Return 63 bits: which of the lowest frequencies of a picture, brought to 32 x 32 levels of
    grey, lie above their median.

    Copies that were resized, saved again or turned grey differ in a few bits, other pictures in
    about half of them (Zauner 2010, "Implementation and benchmarking of perceptual image hash
    functions").
    """
    small = image.convert("L").resize((_HASHED, _HASHED), Image.Resampling.LANCZOS)
    grey = np.asarray(small, dtype=np.float64)
    low = (_FREQUENCIES @ grey @ _FREQUENCIES.T).ravel()[1:]  # without the brightness
    return int.from_bytes(np.packbits(np.append(False, low > np.median(low))).tobytes())


def bits_apart(first: int, others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return in how many bits each of ``(n,)`` hashes differs from one."""
    differences = np.ascontiguousarray(others ^ np.uint64(first)).view(np.uint8)
    counts: NDArray[np.int64] = np.unpackbits(differences.reshape(-1, 8), axis=1).sum(
        axis=1, dtype=np.int64
    )
    return counts


# -- Looks of a collection -------------------------------------------------------------------------


FILE = "looks.v1"
_ROW = np.dtype(
    [
        ("fingerprint", "V16"),
        ("hash", "<u8"),
        ("sharpness", "<f4"),
        ("contrast", "<f4"),
        ("saturation", "<f4"),
    ]
)
_BATCH = 256  # photos between two reports of progress
_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)  # of computing, by folder

LooksByContent = Mapping[bytes, Looks]


def known_looks(folder: Path) -> dict[bytes, Looks]:
    """Return the looks that are stored in a collection's folder, by the photos' fingerprints."""
    try:
        data = (folder / FILE).read_bytes()
    except OSError:
        return {}
    rows = np.frombuffer(data[: len(data) // _ROW.itemsize * _ROW.itemsize], dtype=_ROW)
    if not np.isfinite([rows["sharpness"], rows["contrast"], rows["saturation"]]).all():
        return {}  # damaged
    return {bytes(fingerprint): Looks(*rest) for fingerprint, *rest in rows.tolist()}


def find_looks(
    root: Path, folder: Path, photos: Sequence[Photo], *, progress: OnProgress = no_progress
) -> dict[bytes, Looks]:
    """Return the looks of photos by their fingerprints, those of before or newly computed; photos
    that cannot be read are left out.

    New ones are stored where the collection's folder can be written. One thread at a time computes
    for a collection, so that others read what it has stored.
    """
    with _locks[folder]:
        known = known_looks(folder)
        missing = {photo.fingerprint: photo for photo in photos if photo.fingerprint not in known}
        if missing:
            known |= _compute(root, [*missing.values()], progress)
            _write(folder, known)
    return {photo.fingerprint: known[photo.fingerprint] for photo in photos
            if photo.fingerprint in known}  # fmt: skip


def _compute(root: Path, photos: Sequence[Photo], progress: OnProgress) -> dict[bytes, Looks]:
    computed: dict[bytes, Looks] = {}
    with PhotoDecoder() as decoder, ThreadPoolExecutor(os.cpu_count()) as threads:

        def compute(photo: Photo) -> Looks | None:
            with suppress(PhotoError, OSError), open_photo(root, photo.file, photo) as file:
                picture = decoder.decode_file(file, at=photo.time, name=photo.path, at_least=SIDE)
                return looks_of(picture)
            return None

        for start in range(0, len(photos), _BATCH):
            batch = photos[start : start + _BATCH]
            for photo, looks in zip(batch, threads.map(compute, batch), strict=True):
                if looks is not None:
                    computed[photo.fingerprint] = looks
            progress(Progress("decoding", start + len(batch), len(photos)))
    return computed


def _write(folder: Path, known: LooksByContent) -> None:
    rows = np.array(
        [(fingerprint, *looks) for fingerprint, looks in sorted(known.items())], dtype=_ROW
    )
    with suppress(CollectionError, OSError), disk_errors(folder):
        atomic_write(folder / FILE, rows.tobytes(), sync=False)


def without_looks(folder: Path, photos: Iterable[Photo]) -> int:
    """Return of how many photos the looks are not stored."""
    known = known_looks(folder)
    return sum(photo.fingerprint not in known for photo in photos)


# -- Copies ----------------------------------------------------------------------------------------


# The least cosine from which pictures are compared: of mini, a copy at a quarter of the size has
# 0.72 and a grey one 0.77 at the least among scikit-image's photos, where two different ones have
# up to 0.55.
NEAR = 0.65
MAX_BITS = 6  # of 63: their resized, grey and recompressed copies differ in 4, other photos in 20


@dataclass(frozen=True, slots=True)
class Copies:
    """Groups of photos that look alike, how many blank pictures were left out, and what the
    pictures look like by their fingerprints.
    """

    groups: list[LookAlikes]
    blank: int
    looks: LooksByContent


def find_copies(
    collection: Collection,
    threshold: float | None = None,
    *,
    where: str | Filter | None = None,
    max_unknown: int | None = None,
    progress: OnProgress = no_progress,
) -> Copies:
    """Return the groups of photos that look alike by their vectors (as `Collection.lookalikes`), or
    whose vectors are near and whose perceptual hashes are nearly the same; blank pictures are left
    out.

    Photos with a near neighbour are decoded once, and what they look like is stored. Raises
    QueryError where more than ``max_unknown`` would have to be, and as `Collection.lookalikes`.
    """
    least = collection.lookalike_threshold if threshold is None else threshold
    SearchOptions(collapse=least)  # raises for a threshold outside its range
    photos, vectors = collection.vectors_where(as_filter(where))
    distinct = first_indices([photo.fingerprint for photo in photos])
    near = rows_with_others(vectors[distinct], min(NEAR, least), progress=progress)
    compared = [photos[distinct[row]] for row in near.tolist()]
    if max_unknown is not None:
        unknown = without_looks(collection.folder, compared)
        if unknown > max_unknown:
            raise QueryError(
                f"{unknown:,} pictures have to be looked at, too many while a page waits: run "
                "`vitsearch dupes` once, which stores what they look like"
            )
    looks = find_looks(collection.root, collection.folder, compared, progress=progress)
    shown = [
        row
        for row, photo in enumerate(photos)
        if photo.fingerprint not in looks or not looks[photo.fingerprint].is_flat
    ]
    photos, vectors = [photos[row] for row in shown], vectors[shown]
    groups = look_alikes(photos, vectors, least, opinion=_opinion(photos, looks), progress=progress)
    return Copies(groups, sum(each.is_flat for each in looks.values()), looks)


def _opinion(
    photos: Sequence[Photo], looks: LooksByContent
) -> tuple[float, Callable[[int, NDArray[np.int64]], NDArray[np.bool_]]]:
    """Return the cosine from which pictures are compared, and whether one picture looks like each
    of others, by their positions among the distinct photos.
    """
    distinct = first_indices([photo.fingerprint for photo in photos])
    seen = [looks.get(photos[row].fingerprint) for row in distinct]
    hashes = np.array([each.hash if each else 0 for each in seen], dtype=np.uint64)
    is_known = np.array([each is not None for each in seen], dtype=bool)

    def same(first: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        near = bits_apart(int(hashes[first]), hashes[others]) <= MAX_BITS
        result: NDArray[np.bool_] = near & is_known[others] & is_known[first]
        return result

    return NEAR, same


# -- The best of several copies --------------------------------------------------------------------


class Proposal(NamedTuple):
    """The photo of a group that is proposed to be the one that stays, and why."""

    photo: Photo
    reason: str


Measure = Callable[[Photo, Looks | None], float]
# what is better, in order of weight, and from which factor on: blocks of a strongly compressed JPEG
# count as sharpness too
MEASURES: tuple[tuple[str, Measure, float], ...] = (
    ("more pixels", lambda photo, _: photo.info.width * photo.info.height, 1.05),
    ("in colour", lambda _, looks: float(looks is None or looks.has_colour), 1.0),
    ("sharper", lambda _, looks: looks.sharpness if looks else 0.0, 1.5),
    ("the larger file", lambda photo, _: photo.size, 1.05),
)


def best_copy(photos: Sequence[Photo], looks: LooksByContent) -> Proposal:
    """Return the best of photos that are copies of each other.

    One with more pixels, then in colour, then sharper, then with the larger file is better; of
    equal ones that with the shortest path.
    """
    left, reasons = list(photos), []
    for reason, measure, factor in MEASURES:
        values = [measure(photo, looks.get(photo.fingerprint)) for photo in left]
        better = [
            photo
            for photo, value in zip(left, values, strict=True)
            if value * factor >= max(values)
        ]
        if len(better) < len(left):
            left = better
            reasons.append(reason)
    best = min(left, key=lambda photo: (photo.path.count("/"), len(photo.path), photo.path))
    return Proposal(best, ", ".join(reasons) or "the shortest path")
