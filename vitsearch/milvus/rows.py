"""A photo as a row of Milvus, and back."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from vitsearch.milvus.filter import CASEFOLDED, casefold
from vitsearch.paths import composed
from vitsearch.photos.columns import COLUMNS, METADATA, Column
from vitsearch.types import Photo, PhotoInfo

MAX_TEXT_BYTES = 65_535
TEXT, INTEGER, REAL = "VARCHAR", "INT64", "DOUBLE"


def _type_of(column: Column) -> str:
    if column.kind != "number":
        return TEXT
    return INTEGER if column.integer else REAL


# name: (type, whether it may be null)
FIELDS: Mapping[str, tuple[str, bool]] = {
    "fingerprint": (TEXT, False),
    "mtime_ns": (INTEGER, False),
    **{name: (_type_of(column), not column.always) for name, column in COLUMNS.items()},
    **{copy: (TEXT, not COLUMNS[name].always) for name, copy in CASEFOLDED.items()},
}
PHOTO_FIELDS = (
    "path", "size", "mtime_ns", "fingerprint", "width", "height", *METADATA, "label", "score",
)  # fmt: skip


def _copied(text: object) -> str:
    """Return a text as the copy of its column has it."""
    return casefold(composed(str(text)))


def row_of(photo: Photo, vector: NDArray[Any]) -> dict[str, Any]:
    """Return the row of a photo with its vector ``(dim,)``."""
    values = {name: column.of(photo) for name, column in COLUMNS.items()}
    copies = {
        copy: None if values[name] is None else _copied(values[name])
        for name, copy in CASEFOLDED.items()
    }
    stat = {
        "id": photo.photo_id,
        "fingerprint": photo.fingerprint.hex(),
        "mtime_ns": photo.mtime_ns,
    }
    return {**stat, **values, **copies, "vector": vector.astype("float32").tolist()}


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
        text = COLUMNS[name].of(photo)
        label = "name" if name == "path" else name
        if text is None:
            continue
        if any("\ud800" <= char <= "\udfff" for char in str(text)):
            return f"the {label} is not UTF-8"
        if max(len(str(text).encode()), len(_copied(text).encode())) > MAX_TEXT_BYTES:
            return f"the {label} is longer than {MAX_TEXT_BYTES:,} bytes"
    return None
