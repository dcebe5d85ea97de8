"""SQLite for the store: the schema as numbered migrations, connections, and error messages."""

import sqlite3
from pathlib import Path

from vitsearch.filters.columns import missing_columns
from vitsearch.photos.columns import METADATA

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
)

# the columns that are written for a photo, the path first, the metadata last
WRITTEN = ("path", "size", "mtime_ns", "fingerprint", "width", "height", *METADATA)
PUT_PHOTO = (
    f"INSERT INTO photos ({', '.join(WRITTEN)}) "
    f"VALUES (CAST(? AS TEXT){', ?' * (len(WRITTEN) - 1)}) ON CONFLICT (path) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in WRITTEN[1:])
    + ", label = NULL, label_score = NULL RETURNING id"
)

RESTORE = "restore it from a backup, or delete its folder and index again"
NO_PERMISSION = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def connect(path: Path, read_only: bool) -> sqlite3.Connection:
    """Return an open connection to a file; raises sqlite3.Error."""
    if not read_only:
        return _configured(
            sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False),
            "PRAGMA journal_mode = WAL",
        )
    uri = path.absolute().as_uri()
    try:
        return _configured(
            sqlite3.connect(
                f"{uri}?mode=ro",
                uri=True,
                isolation_level=None,
                timeout=30,
                check_same_thread=False,
            ),
            "SELECT count(*) FROM sqlite_master",
        )
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in NO_PERMISSION or not path.exists():
            raise  # a busy file must not be opened as an immutable one
        # WAL needs a shared-memory file, which a read-only folder cannot take; nobody can be
        # writing there either
        return _configured(
            sqlite3.connect(
                f"{uri}?mode=ro&immutable=1",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            ),
            "SELECT count(*) FROM sqlite_master",
        )


def _configured(db: sqlite3.Connection, first: str) -> sqlite3.Connection:
    try:
        db.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        db.execute(first).fetchone()
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
    except (sqlite3.Error, UnicodeDecodeError):
        db.close()
        raise
    return db


def add_missing_columns(db: sqlite3.Connection) -> None:
    """Add the metadata columns that an older database does not have, with null values."""
    if not missing_columns(db):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for column in missing_columns(db):
            db.execute(f"ALTER TABLE photos ADD COLUMN {column.name} {column.sql_type}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def select_photos(db: sqlite3.Connection) -> str:
    """Return the beginning of a query for photos: id, the columns `WRITTEN`, label and its score.

    Columns that the database does not have are null.
    """
    missing = {column.name for column in missing_columns(db)}
    columns = (f"NULL AS {name}" if name in missing else name for name in WRITTEN)
    return f"SELECT id, {', '.join(columns)}, label, label_score FROM photos"


def explain(path: Path, failure: sqlite3.Error | UnicodeDecodeError) -> str:
    """Return in one line what is wrong with a file and what to do."""
    error = " ".join(str(failure).split())  # SQLite quotes a damaged schema, line breaks and all
    code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
    damage = (
        isinstance(failure, UnicodeDecodeError) or "no such table" in error or "malformed" in error
    )
    if damage or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"{path} is damaged ({error}): {RESTORE}"
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
