"""What a filter may ask about a photo: the columns, the view that has them, and how a text looks
like a pattern.
"""

import re
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

from vitsearch.types import Photo

Value = str | int | float

COLUMNS: Mapping[str, Literal["text", "number", "date"]] = {
    "path": "text",
    "size": "number",
    "mtime": "date",
    "taken_at": "date",
    "year": "number",
    "month": "number",
    "camera": "text",
    "width": "number",
    "height": "number",
    "latitude": "number",
    "longitude": "number",
    "label": "text",
    "score": "number",
}
PHOTO_FACTS = (
    "SELECT id, path, size,"
    # the remainder makes the division round down also before 1970
    " strftime('%Y-%m-%dT%H:%M:%S', mtime_ns / 1000000000 - (mtime_ns % 1000000000 < 0), "
    "'unixepoch') AS mtime,"
    " taken_at, CAST(substr(taken_at, 1, 4) AS INTEGER) AS year, CAST(substr(taken_at, 6, 2) AS "
    "INTEGER) AS month,"
    " camera, width, height, latitude, longitude, label, label_score AS score FROM photos"
)
LIKE = "photo_like"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def prepare(db: sqlite3.Connection) -> None:
    """Give a connection what the SQL of a filter needs: the temporary view ``photo_facts`` and the
    function of ``like``.

    Nothing is written to the file, so that a read-only connection will do. Raises sqlite3.Error.
    """
    db.create_function(LIKE, 2, like, deterministic=True)
    db.execute(f"CREATE TEMP VIEW IF NOT EXISTS photo_facts AS {PHOTO_FACTS}")


def photo_facts(photo: Photo) -> dict[str, Value | None]:
    """Return the row of all `COLUMNS` that the view ``photo_facts`` has for this photo."""
    info = photo.info
    return {
        "path": photo.path,
        "size": photo.size,
        "mtime": (_EPOCH + timedelta(seconds=photo.mtime_ns // 10**9)).strftime(
            "%Y-%m-%dT%H:%M:%S"
        ),
        "taken_at": info.taken_at,
        "year": int(info.taken_at[:4]) if info.taken_at else None,
        "month": int(info.taken_at[5:7]) if info.taken_at else None,
        "camera": info.camera,
        "width": info.width,
        "height": info.height,
        "latitude": info.latitude,
        "longitude": info.longitude,
        "label": photo.label,
        "score": photo.label_score,
    }


def raw(text: str) -> bytes:
    """Return the bytes of a text as the database holds them; raises UnicodeEncodeError for half a
    character.
    """
    return text.encode("utf-8", "surrogateescape")


def like(text: bytes | None, pattern: bytes) -> bool | None:
    r"""Return whether a text is what a pattern of ``%``, ``_`` and ``\`` describes, in any case;
    None for no text.
    """
    return (
        None
        if text is None
        else _expression(pattern).fullmatch(text.decode("utf-8", "surrogateescape")) is not None
    )


@lru_cache(maxsize=64)
def _expression(pattern: bytes) -> re.Pattern[str]:
    pieces = [""]
    for mark in re.findall(r"\\.|.", pattern.decode("utf-8", "surrogateescape"), re.DOTALL):
        if mark == "%":
            pieces.append("")
        else:
            pieces[-1] += "." if mark == "_" else re.escape(mark[-1])
    first, *middle = pieces
    last = ".*" + middle.pop() if middle else ""
    # a piece has one length, so its first place is as good as any: the atomic groups keep a long
    # pattern from trying them all
    return re.compile(
        first + "".join(f"(?>.*?{piece})" for piece in middle if piece) + last,
        re.DOTALL | re.IGNORECASE,
    )
