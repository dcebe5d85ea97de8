"""Whether imported vectors are those of the encoder: some of the photos are embedded and compared.

Vectors of another model, of other preprocessing, or paired with the wrong paths give results without any error: this is where
they are found out.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitsearch.encoders.protocol import ImageEncoder
from vitsearch.errors import EncoderMismatch, PhotoError
from vitsearch.exchange.rows import Row
from vitsearch.photos import read_photo
from vitsearch.store import Half
from vitsearch.types import Found
from vitsearch.vectors import Vectors, unit_rows

CLOSE = 0.99  # half precision and another decoder of JPEG stay above, another model falls far below
AGREEING = 0.75  # of the compared photos; the others may have been edited since, or lie on their side where EXIF was not read
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """One vector with the photo that it is said to be of."""

    row: Row
    found: Found
    vector: Half


def check_vectors(encoder: ImageEncoder, candidates: Sequence[Candidate], root: Path) -> tuple[int, set[str]]:
    """Return how many photos were compared, and the paths of those whose vector is not what the encoder gives (cosine below 0.99).

    Raises EncoderMismatch where they are more than a quarter, or where none of the photos could be compared.
    """
    cosines: dict[str, float] = {}
    for start in range(0, len(candidates), _AT_ONCE):
        for path, cosine in _cosines(encoder, candidates[start : start + _AT_ONCE], root):
            cosines[path] = min(cosine, cosines.get(path, cosine))  # a path may have several vectors
    if not cosines:
        raise EncoderMismatch(f"none of {len(candidates)} photos could be compared with its vector: they changed or cannot be read")
    apart = {path for path, cosine in cosines.items() if not cosine >= CLOSE}
    if len(cosines) - len(apart) < AGREEING * len(cosines):
        worst = min(cosines, key=lambda path: cosines[path])
        raise EncoderMismatch(
            f"the vectors are not those of encoder {encoder.name}: of {len(cosines)} photos embedded to compare, {len(apart)} have a "
            f"cosine below {CLOSE} (median {float(np.median(list(cosines.values()))):.4f}, worst {cosines[worst]:.4f}, {worst}): "
            "name the encoder that made them, or check that paths and vectors are in the same order"
        )
    return len(cosines), apart


def _cosines(encoder: ImageEncoder, candidates: Sequence[Candidate], root: Path) -> list[tuple[str, float]]:
    read, prepared = [], []
    for one in candidates:
        try:
            photo = read_photo(os.path.join(root, one.found.path))
        except PhotoError:
            continue
        if one.row.fingerprint in (None, photo.fingerprint):
            read.append(one)
            prepared.append(encoder.prepare(photo.image))
    if not read:
        return []
    fresh: Vectors = unit_rows(encoder.encode_prepared(prepared))
    given = unit_rows(np.stack([one.vector for one in read]))
    return [(one.found.path, float(a @ b)) for one, a, b in zip(read, fresh, given, strict=True)]
