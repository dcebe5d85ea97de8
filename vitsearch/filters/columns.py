"""What the SQL of a filter needs in SQLite: a view with every column, and a ``like`` function."""

import re
import sqlite3
from functools import lru_cache

from vitsearch.paths import composed
from vitsearch.photos.columns import COLUMNS, METADATA, Column

LIKE = "photo_like"


def prepare(db: sqlite3.Connection) -> None:
    """Give a connection the temporary view ``photo_facts``, with all `COLUMNS`, and ``like``.

    Nothing is written to the file, so that a read-only connection will do; one that has them is
    left alone. Raises sqlite3.Error.
    """
    # a function cannot be given again while rows of the connection are still being read
    if db.execute("SELECT 1 FROM sqlite_temp_schema WHERE name = 'photo_facts'").fetchone():
        return
    db.create_function(LIKE, 2, like, deterministic=True)
    columns = ", ".join(f"{column.sql or name} AS {name}" for name, column in COLUMNS.items())
    missing = "".join(f", NULL AS {column.name}" for column in missing_columns(db))
    photos = f"(SELECT *{missing} FROM photos)" if missing else "photos"
    db.execute(f"CREATE TEMP VIEW photo_facts AS SELECT id, {columns} FROM {photos}")


def distinct(db: sqlite3.Connection, column: str) -> list[str]:
    """Return the different values of a column of texts, in order, of ``path`` the folders; those
    that are not UTF-8 are left out. Raises sqlite3.Error.
    """
    prepare(db)
    value = COLUMNS[column].name
    if column == "path":  # what is left of the last slash
        value = "rtrim(rtrim(path, replace(path, '/', '')), '/')"
    rows = db.execute(f"SELECT DISTINCT CAST({value} AS TEXT) FROM photo_facts")
    return sorted(row[0] for row in rows if row[0] and row[0].isprintable())


def missing_columns(db: sqlite3.Connection, table: str = "photos") -> list[Column]:
    """Return the metadata columns that a table of an older database does not have."""
    stored = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
    return [column for name, column in METADATA.items() if name not in stored]


def raw(text: str) -> bytes:
    """Return the stored bytes of a text; raises UnicodeEncodeError for half a character."""
    return text.encode("utf-8", "surrogateescape")


def like(text: bytes | None, pattern: bytes) -> bool | None:
    r"""Return whether a text matches a pattern of ``%``, ``_`` and ``\``, in any case, composed or
    decomposed.

    None if there is no text.
    """
    if text is None:
        return None
    name = composed(text.decode("utf-8", "surrogateescape"))
    return _expression(pattern).fullmatch(name) is not None


@lru_cache(maxsize=64)
def _expression(pattern: bytes) -> re.Pattern[str]:
    pieces = [""]
    text = composed(pattern.decode("utf-8", "surrogateescape"))
    for mark in re.findall(r"\\.|.", text, re.DOTALL):
        if mark == "%":
            pieces.append("")
        else:
            pieces[-1] += "." if mark == "_" else re.escape(mark[-1])
    first, *middle = pieces
    last = ".*" + middle.pop() if middle else ""
    # a piece has a fixed length, so its first match is as good as any: atomic groups keep a long
    # pattern from backtracking through them all
    between = "".join(f"(?>.*?{piece})" for piece in middle if piece)
    return re.compile(first + between + last, re.DOTALL | re.IGNORECASE)
