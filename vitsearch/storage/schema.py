"""SQLite for the store: the schema as numbered migrations, and error messages."""

import errno
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vitsearch.filters.tree import TEXT_INDEX, missing_columns
from vitsearch.paths import raw_path
from vitsearch.photos.columns import METADATA
from vitsearch.storage.filesystem import write_error, write_problem
from vitsearch.storage.rows import (
    CHECKSUM,
    SIDECARS,
    WRITTEN,
    PhotoRows,
    row_checksum,
    table_columns,
)

_METADATA = "".join(f"{name} {column.sql_type}, " for name, column in METADATA.items())
MIGRATIONS = (
    f"""
    CREATE TABLE photos (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path TEXT NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        fingerprint BLOB NOT NULL,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        {_METADATA}
        label TEXT,
        label_score REAL
    );
    CREATE INDEX photos_fingerprint ON photos(fingerprint);
    CREATE TABLE vectors (
        photo_id INTEGER PRIMARY KEY REFERENCES photos(id) ON DELETE CASCADE,
        generation INTEGER NOT NULL,
        vector BLOB NOT NULL
    );
    CREATE INDEX vectors_generation ON vectors(generation);
    CREATE TABLE failures (
        path TEXT PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ('failed', 'skipped')),
        reason TEXT NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    INSERT INTO facts VALUES ('generation', 0);
    """,
    # checksums of rows; each state of the photos and vectors gets an identity beside its number.
    # Index folders of before carry no identity: '' ties those up to this state to the collection.
    # Failures that may pass by themselves; what a walk left out, and the devices of its folders;
    # photos whose files are gone (see `_add_missing_photos`)
    """
    ALTER TABLE photos ADD COLUMN checksum BLOB;
    ALTER TABLE failures ADD COLUMN transient INTEGER NOT NULL DEFAULT 0;
    UPDATE failures SET transient = 1
    WHERE state = 'failed' AND reason GLOB 'cannot be opened: *';
    CREATE TABLE left_out (
        path TEXT NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        files INTEGER NOT NULL,
        PRIMARY KEY (path, reason)
    ) WITHOUT ROWID;
    CREATE TABLE folders (path TEXT PRIMARY KEY, device TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE missing_vectors (
        photo_id INTEGER PRIMARY KEY REFERENCES missing_photos(id) ON DELETE CASCADE,
        generation INTEGER NOT NULL,
        vector BLOB NOT NULL
    );
    ALTER TABLE failures ADD COLUMN checksum INTEGER;
    ALTER TABLE facts ADD COLUMN checksum INTEGER;
    CREATE TABLE states (generation INTEGER PRIMARY KEY, state TEXT NOT NULL);
    INSERT INTO states SELECT CAST(value AS INTEGER), '' FROM facts WHERE name = 'generation';
    DELETE FROM facts WHERE name = 'generation';
    """,
)
CHECKSUMS = 2  # the format from which rows have checksums
_BATCH = 4096  # rows that are given their checksums at a time

PUT_PHOTO = (
    f"INSERT INTO photos ({', '.join(WRITTEN)}, {SIDECARS}) "
    f"VALUES (CAST(? AS TEXT){', ?' * (len(WRITTEN) - 1)}, CAST(? AS TEXT)) "
    "ON CONFLICT (path) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in (*WRITTEN[1:], SIDECARS))
    + ", label = NULL, label_score = NULL RETURNING id"
)
OF_TAGS = [name for name, column in METADATA.items() if not column.apart]
# what changes of a photo whose file is another one with the same content, or was read again
MOVED = "path = CAST(? AS TEXT), size = ?, mtime_ns = ?"
READ_AGAIN = ", ".join([MOVED, f"{SIDECARS} = CAST(? AS TEXT)", *(f"{n} = ?" for n in OF_TAGS)])


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring a file of an earlier format up to date, each step in one transaction."""
    for number in range(version, len(MIGRATIONS)):
        db.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]}")
        if number + 1 == CHECKSUMS:
            _add_missing_photos(db)
            _give_checksums(db)
        db.execute(f"PRAGMA user_version = {number + 1}")
        db.execute("COMMIT")


def _add_missing_photos(db: sqlite3.Connection) -> None:
    """Create the table of photos that were put aside: the columns of ``photos``, as they are in
    this file, and since when (ISO 8601, UTC).
    """
    columns = [f'"{row[1]}" {row[2]}' for row in db.execute("PRAGMA table_info(photos)")]
    rest = ", ".join(columns[1:])
    db.execute(
        f"CREATE TABLE missing_photos (id INTEGER PRIMARY KEY, {rest}, since TEXT, UNIQUE (path))"
    )
    db.execute("CREATE INDEX missing_fingerprint ON missing_photos(fingerprint)")
    db.execute("CREATE INDEX missing_since ON missing_photos(since)")


def _give_checksums(db: sqlite3.Connection) -> None:
    """Give every row of a file of before checksums its own."""
    for table, key in (("failures", "path"), ("facts", "name")):
        columns = ", ".join(name for name in table_columns(db, table) if name != CHECKSUM)
        rows = db.execute(f"SELECT {key}, {columns} FROM {table}").fetchall()
        db.executemany(
            f"UPDATE {table} SET checksum = ? WHERE {key} = CAST(? AS TEXT)",
            [(row_checksum(row[1:]), raw_path(row[0])) for row in rows],
        )
    photos, last = PhotoRows(db), -1
    sql = (
        f"SELECT vectors.generation, vector, {photos.columns} FROM photos JOIN vectors "
        "ON photo_id = photos.id WHERE photos.id > ? ORDER BY photos.id LIMIT ?"
    )
    while batch := db.execute(sql, (last, _BATCH)).fetchall():
        last = batch[-1][2]
        db.executemany(
            "UPDATE photos SET checksum = ? WHERE id = ?",
            [(photos.checksum_of(row[2:], *row[:2]), row[2]) for row in batch],
        )


RESTORE = "restore it from a backup, or delete its folder and index again"
_DISK = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
}
NO_PERMISSION = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


# texts of photos for FTS5, kept by triggers, and the places of their words by content
_FILL = f"INSERT INTO {TEXT_INDEX}(rowid, text) SELECT id, text FROM photos WHERE text IS NOT NULL"
_TEXTS = (
    f"CREATE VIRTUAL TABLE {TEXT_INDEX} USING fts5(text, content='photos', content_rowid='id', "
    "tokenize='unicode61 remove_diacritics 2')",
    f"CREATE TRIGGER {TEXT_INDEX}_put AFTER INSERT ON photos WHEN new.text IS NOT NULL BEGIN "
    f"INSERT INTO {TEXT_INDEX}(rowid, text) VALUES (new.id, new.text); END",
    f"CREATE TRIGGER {TEXT_INDEX}_remove AFTER DELETE ON photos WHEN old.text IS NOT NULL BEGIN "
    f"INSERT INTO {TEXT_INDEX}({TEXT_INDEX}, rowid, text) VALUES ('delete', old.id, old.text); END",
    f"CREATE TRIGGER {TEXT_INDEX}_change AFTER UPDATE OF text ON photos "
    "WHEN old.text IS NOT new.text BEGIN "
    f"INSERT INTO {TEXT_INDEX}({TEXT_INDEX}, rowid, text) "
    "SELECT 'delete', old.id, old.text WHERE old.text IS NOT NULL; "
    f"INSERT INTO {TEXT_INDEX}(rowid, text) "
    "SELECT new.id, new.text WHERE new.text IS NOT NULL; END",
    "CREATE TABLE text_places (fingerprint BLOB PRIMARY KEY, places BLOB, problem TEXT) "
    "WITHOUT ROWID",
)


def has_text_index(db: sqlite3.Connection) -> bool:
    """Return whether a file has the tables of texts."""
    sql = "SELECT 1 FROM main.sqlite_master WHERE name = ?"
    return db.execute(sql, (TEXT_INDEX,)).fetchone() is not None


def add_text_index(db: sqlite3.Connection) -> None:
    """Add the tables of texts that an older database does not have; nothing where this SQLite has
    no FTS5.
    """
    if has_text_index(db):
        return
    with suppress(sqlite3.Error):
        db.execute("CREATE VIRTUAL TABLE temp.probe_of_fts5 USING fts5(text)")
        db.execute("DROP TABLE temp.probe_of_fts5")
        _in_one(db, [*_TEXTS, _FILL])


def fill_text_index(db: sqlite3.Connection) -> None:
    """Write the index of texts anew from the texts (inside a transaction)."""
    if has_text_index(db):
        db.execute(f"INSERT INTO {TEXT_INDEX}({TEXT_INDEX}) VALUES ('delete-all')")
        db.execute(_FILL)


def forget_texts(db: sqlite3.Connection) -> None:
    """Remove what is left of texts that no photo has any more (inside a transaction)."""
    if has_text_index(db):
        db.execute(
            "DELETE FROM text_places WHERE fingerprint NOT IN (SELECT fingerprint FROM photos "
            "UNION SELECT fingerprint FROM missing_photos)"
        )
        db.execute(f"INSERT INTO {TEXT_INDEX}({TEXT_INDEX}) VALUES ('optimize')")


def add_missing_columns(db: sqlite3.Connection) -> None:
    """Add the columns that an older database does not have, with null values."""
    missing = []
    for table in ("photos", "missing_photos"):
        missing += [(table, each.name, each.sql_type) for each in missing_columns(db, table)]
        if SIDECARS not in table_columns(db, table):
            missing.append((table, SIDECARS, "TEXT"))
    if missing:
        _in_one(
            db, [f"ALTER TABLE {table} ADD COLUMN {name} {kind}" for table, name, kind in missing]
        )


def _in_one(db: sqlite3.Connection, statements: Sequence[str]) -> None:
    """Execute statements in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            db.execute(statement)
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # the disk's error, raised below, may have ended it
            db.execute("ROLLBACK")
        raise


def explain(path: Path, failure: sqlite3.Error | UnicodeDecodeError) -> str:
    """Return in one line what is wrong with a file and what to do."""
    error = " ".join(str(failure).split())  # SQLite quotes a damaged schema, line breaks and all
    code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
    if "closed database" in error:
        return f"{path} was closed: open the collection again"
    damage = isinstance(failure, UnicodeDecodeError) or any(
        sign in error for sign in ("no such table", "no such column", "malformed", "mismatch")
    )
    if damage or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"{path} is damaged ({error}): {RESTORE}"
    problem = write_problem(path.parent) if code in _DISK else None  # SQLite does not tell
    if problem and problem.errno != errno.ENOENT:
        return write_error(path.parent, problem)
    if code == sqlite3.SQLITE_FULL:
        return (
            f"the disk of {path} is full: free some space and run again; what was stored "
            "before is kept"
        )
    if code in NO_PERMISSION:
        return (
            f"{path} cannot be opened or written ({error}): check its permissions, or put the "
            "collection elsewhere with --collection DIR"
        )
    if code == sqlite3.SQLITE_BUSY:
        return f"{path} is busy with another process: try again in a moment"
    return f"{path} cannot be used ({error}): check the disk; what was stored before is kept"
