"""What the photos of a collection look like (`vitsearch.photos.looks`): computed when it is first
needed, and stored beside the database by the photos' content.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from vitsearch.errors import CollectionError, PhotoError
from vitsearch.photos import PhotoDecoder
from vitsearch.photos.decode import open_photo
from vitsearch.photos.looks import SIDE, Looks, looks_of
from vitsearch.records import atomic_write
from vitsearch.storage.filesystem import disk_errors
from vitsearch.types import OnProgress, Photo, Progress, no_progress

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
