"""A photo as a row of Milvus, and back."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from vitsearch.filters import photo_facts
from vitsearch.milvus.filter import FOLDED, casefold
from vitsearch.types import Photo, PhotoInfo

MAX_TEXT_BYTES = 65_535  # bytes of a text
TEXT, WHOLE, REAL = "VARCHAR", "INT64", "DOUBLE"

# name: (type, whether a photo may not say it)
COLUMNS: Mapping[str, tuple[str, bool]] = {
    "path": (TEXT, False),
    "fingerprint": (TEXT, False),
    "size": (WHOLE, False),
    "mtime": (TEXT, False),
    "mtime_ns": (WHOLE, False),
    "taken_at": (TEXT, True),
    "year": (WHOLE, True),
    "month": (WHOLE, True),
    "camera": (TEXT, True),
    "width": (WHOLE, False),
    "height": (WHOLE, False),
    "latitude": (REAL, True),
    "longitude": (REAL, True),
    "label": (TEXT, True),
    "score": (REAL, True),
    "path_folded": (TEXT, False),
    "camera_folded": (TEXT, True),
    "label_folded": (TEXT, True),
}
OF_PHOTO = [
    "path", "size", "mtime_ns", "fingerprint", "width", "height", "taken_at", "camera",
    "latitude", "longitude", "label", "score",
]  # fmt: skip


def row_of(photo: Photo, vector: NDArray[Any]) -> dict[str, Any]:
    """Return the row of a photo with its vector ``(dim,)``."""
    facts = photo_facts(photo)
    copies = {
        copy: None if facts[name] is None else casefold(str(facts[name]))
        for name, copy in FOLDED.items()
    }
    own = {"id": photo.photo_id, "fingerprint": photo.fingerprint.hex(), "mtime_ns": photo.mtime_ns}
    return {**own, **facts, **copies, "vector": vector.astype("float32").tolist()}


def photo_of(row: Mapping[str, Any]) -> Photo:
    """Return the photo of a row that has the columns `OF_PHOTO`."""
    said = [
        row["width"],
        row["height"],
        row["taken_at"],
        row["camera"],
        row["latitude"],
        row["longitude"],
    ]
    fingerprint = bytes.fromhex(row["fingerprint"])
    return Photo(
        row["id"],
        row["path"],
        row["size"],
        row["mtime_ns"],
        fingerprint,
        PhotoInfo(*said),
        row["label"],
        row["score"],
    )


def unheld(photo: Photo) -> str | None:
    """Return why Milvus cannot hold a photo's row, None where it can: its texts are UTF-8 of a
    limited length.
    """
    for what, text in (("name", photo.path), ("camera", photo.info.camera), ("label", photo.label)):
        if text is None:
            continue
        if any("\ud800" <= char <= "\udfff" for char in text):
            return f"the {what} is no UTF-8"
        if max(len(text.encode()), len(casefold(text).encode())) > MAX_TEXT_BYTES:
            return f"the {what} is longer than {MAX_TEXT_BYTES:,} bytes"
    return None
