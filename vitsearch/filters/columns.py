"""What a filter may ask about a photo, in SQLite: the view that has every column, and how a text
looks like a pattern.
"""

import re
import sqlite3
from functools import lru_cache

from vitsearch.photos.columns import COLUMNS, METADATA, Column

LIKE = "photo_like"


def prepare(db: sqlite3.Connection) -> None:
    """Give a connection what the SQL of a filter needs: the temporary view ``photo_facts``, which
    has all `COLUMNS`, and the function of ``like``.

    Nothing is written to the file, so that a read-only connection will do. Raises sqlite3.Error.
    """
    db.create_function(LIKE, 2, like, deterministic=True)
    columns = ", ".join(f"{column.sql or name} AS {name}" for name, column in COLUMNS.items())
    missing = "".join(f", NULL AS {column.name}" for column in missing_columns(db))
    photos = f"(SELECT *{missing} FROM photos)" if missing else "photos"
    db.execute(f"CREATE TEMP VIEW IF NOT EXISTS photo_facts AS SELECT id, {columns} FROM {photos}")


def missing_columns(db: sqlite3.Connection) -> list[Column]:
    """Return the metadata columns that a database does not have yet, made before them."""
    stored = {row[1] for row in db.execute("PRAGMA table_info(photos)")}
    return [column for name, column in METADATA.items() if name not in stored]


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
