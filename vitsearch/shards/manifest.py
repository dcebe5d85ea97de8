"""``vitsearch.json`` of a shard set: which encoder made the vectors, of which photos, in how many
shards.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from vitsearch.arrays import Vectors
from vitsearch.errors import CollectionError
from vitsearch.paths import raw_path
from vitsearch.types import PhotoInfo

MANIFEST = "vitsearch.json"
LAYOUT = "shards"
FORMAT = 1
_TYPES: dict[str, type] = {
    "dim": int,
    "shard_size": int,
    "rows": int,
    "shards": int,
    "format": int,
    "golden": list,
    "complete": bool,
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a shard set says of itself.

    ``golden`` holds the encoder's vectors of the golden picture and, where it reads text, of the
    golden sentence; ``source`` is the folder or URL of the photos that paths are relative to;
    ``decoding`` says whether JPEGs were decoded "scaled" or "exact". ``rows`` photos are listed,
    ``shard_size`` for each of ``shards`` but the last; ``complete`` says that all of these are
    there.
    """

    encoder: str
    encoder_fingerprint: str
    dtype: str
    dim: int
    golden: list[list[float]]
    source: str
    decoding: str
    shard_size: int
    rows: int
    shards: int
    complete: bool = False
    layout: str = LAYOUT
    format: int = FORMAT

    def golden_vectors(self) -> Vectors:
        """Return the golden vectors as ``(1 or 2, dim)`` float32 rows."""
        return np.array(self.golden, dtype=np.float32).reshape(-1, self.dim)

    def to_bytes(self) -> bytes:
        """Return the JSON text of the manifest."""
        return (json.dumps(asdict(self), ensure_ascii=True) + "\n").encode("ascii")


def read_manifest(data: bytes, name: str) -> Manifest:
    """Return the manifest of the shard set ``name``; raises CollectionError for one that is
    damaged, newer, or of another layout.
    """
    try:
        stored = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CollectionError(
            f"{name}/{MANIFEST} is damaged ({error}): restore it, or embed into another place"
        ) from error
    if isinstance(stored, dict) and stored.get("layout") != LAYOUT:
        raise CollectionError(
            f"{name} holds an export of layout {str(stored.get('layout'))[:40]!r}, no shards: "
            "name another place"
        )
    if problem := _problem(stored):
        raise CollectionError(
            f"{name}/{MANIFEST} is damaged ({problem}): restore it, or embed into another place"
        )
    return Manifest(**{field.name: stored[field.name] for field in fields(Manifest)})


def is_manifest(data: bytes) -> bool:
    """Return whether a ``vitsearch.json`` is that of a shard set, be it whole or damaged."""
    try:
        stored = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(stored, dict) and stored.get("layout") == LAYOUT


def _problem(stored: Any) -> str | None:
    if not isinstance(stored, dict):
        return "not an object"
    if isinstance(stored.get("format"), int) and stored["format"] > FORMAT:
        return (
            f"format {stored['format']}, newer than this vitsearch reads ({FORMAT}): upgrade "
            "vitsearch"
        )
    for name in (field.name for field in fields(Manifest)):
        wanted = _TYPES.get(name, str)
        if not isinstance(stored.get(name), wanted) or (
            wanted is int and isinstance(stored[name], bool)
        ):
            return f"{name!r} is missing or of the wrong type"
    if (
        min(stored["dim"], stored["shard_size"], stored["format"]) < 1
        or min(stored["rows"], stored["shards"]) < 0
    ):
        return "a number below 1"
    return (
        None
        if all(is_row(row, stored["dim"]) for row in stored["golden"])
        else f"'golden' holds no rows of {stored['dim']} numbers"
    )


def is_row(row: Any, dim: int) -> bool:
    """Return whether a value of a JSON file is a vector of ``dim`` finite numbers."""
    return (
        isinstance(row, list)
        and len(row) == dim
        and all(isinstance(number, int | float) and math.isfinite(number) for number in row)
    )


# -- One row of a shard: a photo with its facts, or a file with the reason why it is none ----------


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One photo, or with ``error`` a file that could not be read.

    ``fingerprint`` is the 16-byte BLAKE2b hash of the file's content; it and ``info`` are None
    where there is no photo.
    """

    photo_id: int
    path: str
    size: int
    mtime_ns: int
    fingerprint: bytes | None = None
    info: PhotoInfo | None = None
    label: str | None = None
    label_score: float | None = None
    error: str | None = None


def photo_id(path: str) -> int:
    """Return the id of the photo at a path: the first 63 bits of its BLAKE2b hash, at least 1.

    It is the same on every machine, in every run and in every shard set, so that rows can be
    written twice without harm. Among 50 million paths two have the same id with a probability of 1
    in 7,000, among 5 billion of 3 in 4: `vitsearch push` counts.
    """
    return int.from_bytes(hashlib.blake2b(raw_path(path), digest_size=8).digest(), "big") >> 1 or 1
