"""A photo as a row of Milvus, and back."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from vitsearch.milvus.filter import CASEFOLDED, casefold
from vitsearch.paths import composed
from vitsearch.photos.columns import COLUMNS, METADATA, Column
from vitsearch.types import Photo, PhotoInfo

MAX_TEXT_BYTES = 65_535
TEXT, INTEGER, REAL = "VARCHAR", "INT64", "DOUBLE"
DIGEST = "digest"  # of all that a row holds: tells without reading them whether two rows are equal


def _type_of(column: Column) -> str:
    if column.kind != "number":
        return TEXT
    return INTEGER if column.integer else REAL


# name: (type, whether it may be null)
FIELDS: Mapping[str, tuple[str, bool]] = {
    "fingerprint": (TEXT, False),
    "mtime_ns": (INTEGER, False),
    DIGEST: (INTEGER, False),
    **{name: (_type_of(column), not column.always) for name, column in COLUMNS.items()},
    **{copy: (TEXT, not COLUMNS[name].always) for name, copy in CASEFOLDED.items()},
}
PHOTO_FIELDS = (
    "path", "size", "mtime_ns", "fingerprint", "width", "height", *METADATA, "label", "score",
)  # fmt: skip


@lru_cache(maxsize=10_000)  # cameras, lenses and towns repeat
def _copied(text: str) -> str:
    """Return a text as the copy of its column has it."""
    return casefold(composed(text))


def row_of(
    photo: Photo, vector: NDArray[Any], names: Iterable[str] = FIELDS.keys()
) -> dict[str, Any]:
    """Return the row of a photo with its vector ``(dim,)``, of the fields with these names."""
    values = {name: column.of(photo) for name, column in COLUMNS.items()}
    copies = {
        copy: None if values[name] is None else _copied(str(values[name]))
        for name, copy in CASEFOLDED.items()
    }
    stat = {"fingerprint": photo.fingerprint.hex(), "mtime_ns": photo.mtime_ns}
    every = {**stat, **values, **copies}
    row = {name: every[name] for name in FIELDS if name in every and name in names}
    if DIGEST in names:
        row[DIGEST] = _digest(row, vector)
    return {"id": photo.photo_id, **row, "vector": vector}


def _digest(row: Mapping[str, Any], vector: NDArray[Any]) -> int:
    """Return a 64-bit number of the values and of the vector in half precision."""
    digest = hashlib.blake2b(repr(sorted(row.items())).encode(), digest_size=8)
    digest.update(vector.astype("<f2").tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


def photo_of(row: Mapping[str, Any]) -> Photo:
    """Return the photo of a row with the columns `PHOTO_FIELDS`; metadata may be missing."""
    metadata = {name: row.get(name) for name in METADATA}
    return Photo(
        row["id"],
        row["path"],
        row["size"],
        row["mtime_ns"],
        bytes.fromhex(row["fingerprint"]),
        PhotoInfo(row["width"], row["height"], metadata),
        row["label"],
        row["score"],
    )


def rejection(photo: Photo) -> str | None:
    """Return why Milvus cannot hold a photo's row, or None if it can.

    The texts of Milvus are UTF-8 of a limited length.
    """
    for name in CASEFOLDED:
        text = str(COLUMNS[name].of(photo) or "")
        if text.isascii() and 2 * len(text) <= MAX_TEXT_BYTES:  # no copy is longer
            continue
        label = "name" if name == "path" else name
        if any("\ud800" <= char <= "\udfff" for char in text):
            return f"the {label} is not UTF-8"
        if max(len(text.encode()), len(_copied(text).encode())) > MAX_TEXT_BYTES:
            return f"the {label} is longer than {MAX_TEXT_BYTES:,} bytes"
    return None
