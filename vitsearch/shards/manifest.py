"""``vitsearch.json`` of a shard set: which encoder made the vectors, of which photos, in how many
shards.
"""

import hashlib
from dataclasses import dataclass

from vitsearch.encoders.base import MAX_DIM, EncoderIdentity, golden_from_lists
from vitsearch.errors import CollectionError
from vitsearch.paths import raw_path
from vitsearch.records import parse_record, to_json
from vitsearch.types import PhotoInfo
from vitsearch.untrusted import parse_json

MANIFEST = "vitsearch.json"
LAYOUT = "shards"
FORMAT = 1
MAX_SHARDS = 10_000_000


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of a shard set.

    ``golden`` holds the encoder's vectors of the golden picture and, where it reads text, of the
    golden sentence; ``source`` is the folder or URL of the photos that paths are relative to;
    ``decoding`` says whether JPEGs were decoded "scaled" or "exact", ``colours`` whether ICC
    profiles were applied ("srgb") or ignored ("raw", as in sets that do not say it). ``rows``
    photos are listed, ``shard_size`` for each of ``shards`` but the last; ``complete`` says that
    all of these have been written.
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
    colours: str = "raw"
    layout: str = LAYOUT
    format: int = FORMAT

    def __post_init__(self) -> None:
        if min(self.dim, self.shard_size, self.format) < 1 or min(self.rows, self.shards) < 0:
            raise ValueError("a number below 1")
        if self.dim > MAX_DIM:
            raise ValueError(f"vectors of more than {MAX_DIM:,} numbers")
        if self.shards > MAX_SHARDS:
            raise ValueError(f"more than {MAX_SHARDS:,} shards")
        golden_from_lists(self.golden, self.dim)  # raises for rows of another length

    @property
    def identity(self) -> EncoderIdentity:
        """Which encoder made the vectors."""
        return EncoderIdentity.from_record(self, golden_from_lists(self.golden, self.dim))

    def to_bytes(self) -> bytes:
        """Return the JSON text of the manifest."""
        return to_json(self).encode("ascii")


def read_manifest(data: bytes, name: str) -> Manifest:
    """Return the manifest of the shard set ``name``; raises CollectionError for one that is
    damaged, newer, or of another layout.
    """
    if (layout := layout_of(data)) not in (None, LAYOUT):
        raise CollectionError(
            f"{name} holds an export of layout {layout[:40]!r}, not shards: name another place"
        )
    return parse_record(
        Manifest,
        data,
        f"{name}/{MANIFEST}",
        error=CollectionError,
        repair="restore it, or embed into another place",
    )


def is_manifest(data: bytes) -> bool:
    """Return whether a ``vitsearch.json`` is that of a shard set, even a damaged one."""
    return layout_of(data) == LAYOUT


def layout_of(data: bytes) -> str | None:
    """Return which kind of export a ``vitsearch.json`` is of, None where it is not an object."""
    try:
        stored = parse_json(data)
    except ValueError:
        return None
    return str(stored.get("layout")) if isinstance(stored, dict) else None


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
