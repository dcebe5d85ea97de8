"""An open ``photos.db``: its connection and transactions, its facts, the states that it had, and
the files that are not in it, with the reasons.
"""

import secrets
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids
from vitsearch.errors import CollectionError
from vitsearch.filters.tree import Filter, distinct, months
from vitsearch.paths import raw_path
from vitsearch.storage.connections import FileConnection, ThreadConnections, connect
from vitsearch.storage.filesystem import write_error
from vitsearch.storage.rows import (
    PhotoRows,
    row_checksum,
)
from vitsearch.storage.schema import (
    CHECKSUMS,
    MIGRATIONS,
    RESTORE,
    add_missing_columns,
    add_text_index,
    explain,
    fill_text_index,
    migrate,
)
from vitsearch.types import Found, SkippedPhoto, State

Fact = bytes | int | str
_WANTED = "damaged"  # an empty file beside it: a reader has met damage
_STATE_BYTES = 8  # two states of one number are the same by chance once in 10^19


class Database:
    """An open ``photos.db``, with one writer at a time and any number of readers.

    Read-only it may be used by any thread, and after a fork.

    Every method raises CollectionError if SQLite reports damage, a full disk, or a file that cannot
    be written.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        if read_only and not path.exists():
            raise CollectionError(
                f"{path} is missing: restore it from a backup, or run `vitsearch index` "
                "to embed the photos again"
            )
        # a writer's threads share its transactions, each thread of a reader has its own
        self._connections = ThreadConnections(
            lambda: connect(path, read_only), shared=not read_only
        )
        with self._errors():
            try:
                self._format = self._checked_format(read_only)
                self._rows = PhotoRows(self._db, checksums=self._format >= CHECKSUMS)
                self.generation()
            except BaseException:
                self.close()
                raise

    @property
    def _db(self) -> FileConnection:
        return self._connections.get()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._connections.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CollectionError(write_error(self.path.parent, error)) from error
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # the message about a damaged schema may itself not be UTF-8
            raise CollectionError(explain(self.path, error)) from error

    def damage(self, problem: str) -> CollectionError:
        """Return the error of a file that is damaged and cannot be mended."""
        return CollectionError(f"{self.path} is damaged ({problem}): {RESTORE}")

    def _checked_format(self, read_only: bool) -> int:
        """Return the format of the file, which a writer brings up to date.

        A reader takes every format that was ever finished.
        """
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise CollectionError(
                f"{self.path} has format {version}, newer than this vitsearch reads "
                f"({len(MIGRATIONS)}): upgrade vitsearch"
            )
        if read_only:
            if version < 1:
                raise CollectionError(
                    f"{self.path} has an unfinished format {version}: run `vitsearch index` on its "
                    "folder once"
                )
            return version
        migrate(self._db, version)
        add_missing_columns(self._db)
        add_text_index(self._db)
        return len(MIGRATIONS)

    # -- transactions ------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Run the block as one transaction: all of its changes are stored, or none."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.check(False)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    with suppress(sqlite3.Error):  # the disk's error, raised below, may end it too
                        self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Run the block on a snapshot of the file, whatever a writer does meanwhile."""
        with self._errors():
            self._db.check(True)
            self._db.execute("BEGIN")
            try:
                yield
                self._db.check(False)
            finally:
                if self._db.in_transaction:
                    self._db.execute("COMMIT")

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file, so that it contains everything."""
        with self._errors():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- facts -------------------------------------------------------------------------------------

    def set_meta(self, name: str, value: Fact) -> None:
        """Store a value under a name (inside `writing`)."""
        self._db.execute(
            "INSERT OR REPLACE INTO facts (name, value, checksum) VALUES (?, ?, ?)",
            (name, value, row_checksum((name, value))),
        )

    def get_meta(self, name: str) -> Fact | None:
        """Return the value stored under a name, or None.

        Raises CollectionError for a damaged one.
        """
        checksum = "checksum" if self._format >= CHECKSUMS else "NULL"
        sql = f"SELECT value, {checksum} FROM facts WHERE name = ?"
        with self._errors():
            row = self._db.execute(sql, (name,)).fetchone()
        if row is None:
            return None
        value: Fact = row[0]
        if self._format >= CHECKSUMS and row[1] != row_checksum((name, value)):
            raise CollectionError(
                f"{self.path} is damaged (its fact {name!r} cannot be read): run `vitsearch index` "
                "to write it anew"
            )
        return value

    def facts_named(self, prefix: str) -> dict[str, Fact]:
        """Return the facts whose names begin with a prefix, by what follows it; damaged ones are
        left out.
        """
        checksum = "checksum" if self._format >= CHECKSUMS else "NULL"
        sql = f"SELECT name, value, {checksum} FROM facts WHERE name >= ? AND name < ?"
        with self._errors():
            rows = self._db.execute(
                sql, (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))
            ).fetchall()
        sound = (row for row in rows if row[2] in (None, row_checksum(row[:2])))
        return {str(name)[len(prefix) :]: value for name, value, _ in sound}

    def damaged_facts(self) -> list[str]:
        """Return the names of the facts that are not what was stored."""
        if self._format < CHECKSUMS:
            return []
        with self._errors():
            rows = self._db.execute("SELECT name, value, checksum FROM facts").fetchall()
        return [str(row[0]) for row in rows if row[2] != row_checksum(row[:2])]

    def remove_facts(self, names: Sequence[str]) -> None:
        """Remove facts by name (inside `writing`)."""
        self._db.executemany(
            "DELETE FROM facts WHERE name = CAST(? AS TEXT)", [(raw_path(name),) for name in names]
        )

    def distinct(self, columns: Sequence[str]) -> dict[str, list[str]]:
        """Return the different values of columns of texts, of ``path`` the folders."""
        with self._errors():
            return {name: distinct(self._db, name) for name in columns}

    def halves(self, raw: Sequence[bytes]) -> Halves:
        """Return ``(n, dim)`` float16 rows of raw vectors.

        Raises CollectionError if their lengths differ or are odd.
        """
        same = all(isinstance(vector, bytes) and len(vector) == len(raw[0]) for vector in raw)
        if not same or len(raw[0]) % 2:
            raise self.damage("vectors of different lengths")
        return np.frombuffer(b"".join(raw), dtype="<f2").reshape(len(raw), -1).astype(np.float16)

    def months_where(self, where: Filter) -> list[tuple[str, int]]:
        """Return the months, newest first, in which photos that match a filter were taken, with
        the number of each: ``2019-07``, ``2019`` where no more is known, "" for no date.
        """
        with self._errors():
            return months(self._db, where)

    # -- damage ------------------------------------------------------------------------------------

    def page_problems(self) -> list[str]:
        """Return what SQLite's integrity check finds."""
        with self._errors():
            rows = self._db.execute("PRAGMA integrity_check").fetchall()
        return [" ".join(str(row[0]).split()) for row in rows if row[0] != "ok"]

    def rebuild_indexes(self) -> None:
        """Write the indexes of SQLite anew from its tables."""
        with self.writing():
            self._db.execute("REINDEX")
            fill_text_index(self._db)

    def ask_for_mending(self) -> None:
        """Let the next run of indexing check every row, where the folder can be written."""
        with suppress(OSError):
            self.path.with_name(_WANTED).touch()

    def mending_is_wanted(self) -> bool:
        """Return whether somebody has asked for it."""
        return self.path.with_name(_WANTED).exists()

    def mended(self) -> None:
        """Record that every row was checked and what was damaged removed."""
        with suppress(OSError):
            self.path.with_name(_WANTED).unlink(missing_ok=True)

    # -- states ------------------------------------------------------------------------------------

    def generation(self) -> int:
        """Return the number of the last committed change."""
        if self._format < CHECKSUMS:
            value = self.get_meta("generation")
        else:
            with self._errors():
                value = self._db.execute("SELECT max(generation) FROM states").fetchone()[0]
        if not isinstance(value, int):
            raise self.damage("the count of its changes cannot be read")
        return value

    def state(self) -> str:
        """Return the identity of the present state: no other one ever has it.

        It is renewed together with the generation. "" is that of a file that no version with
        identities has changed.
        """
        if self._format < CHECKSUMS:
            return ""
        sql = "SELECT state FROM states ORDER BY generation DESC LIMIT 1"
        with self._errors():
            return str(self._db.execute(sql).fetchone()[0])

    def version(self) -> tuple[int, str]:
        """Return the number of the last committed change and the identity of the state."""
        if self._format < CHECKSUMS:
            return self.generation(), ""
        sql = "SELECT generation, state FROM states ORDER BY generation DESC LIMIT 1"
        with self._errors():
            generation, state = self._db.execute(sql).fetchone() or (None, "")
        if not isinstance(generation, int):
            raise self.damage("the count of its changes cannot be read")
        return generation, str(state)

    def generations(self, ids: Ids) -> NDArray[np.uint32]:
        """Return the low 32 bits of the generation of each of these stored vectors, by their
        ascending ids.
        """
        with self._errors():
            cursor = self._db.execute("SELECT photo_id, generation FROM vectors")
            stored = np.fromiter(cursor, dtype=np.dtype((np.int64, 2)))
        stored = stored[np.argsort(stored[:, 0])]
        low: NDArray[np.uint32] = stored[np.searchsorted(stored[:, 0], ids), 1].astype(np.uint32)
        return low

    def had_state(self, generation: int, state: str) -> bool:
        """Return whether the file has, or has had, the state of this number and identity.

        What was derived from that one goes on being right for all that has not changed since.
        """
        if self._format < CHECKSUMS:
            return state == "" and generation <= self.generation()
        sql = (
            "SELECT generation, state FROM states WHERE generation >= ? ORDER BY generation LIMIT 1"
        )
        with self._errors():
            row = self._db.execute(sql, (generation,)).fetchone()
        return row is not None and row[1] == state and (row[0] == generation or state == "")

    def raise_generation(self, changed: bool) -> None:
        """Begin a new state if the set of photos or a vector has changed (inside `writing`)."""
        if changed:
            self._db.execute(
                "INSERT INTO states VALUES (?, ?)",
                (self.generation() + 1, secrets.token_hex(_STATE_BYTES)),
            )


class FailureStore(Database):
    """The failures of an open ``photos.db``."""

    def _record_failure(self, file: Found, state: State, reason: str, transient: bool) -> None:
        """Store why a file is not in the collection."""
        row = (file.path, state, reason, file.size, file.mtime_ns, int(transient))
        self._db.execute(
            "INSERT OR REPLACE INTO failures "
            "(path, state, reason, size, mtime_ns, transient, checksum) "
            "VALUES (CAST(? AS TEXT), ?, CAST(? AS TEXT), ?, ?, ?, ?)",
            (raw_path(file.path), state, raw_path(reason), *row[3:], row_checksum(row)),
        )

    def forget_failures(self, paths: Sequence[str]) -> None:
        """Remove the failures of files that are gone or readable again."""
        self._db.executemany(
            "DELETE FROM failures WHERE path = CAST(? AS TEXT)",
            [(raw_path(path),) for path in paths],
        )

    def failure_stats(self) -> Generator[tuple[str, State, int, int, bool], None, None]:
        """Yield (path, state, size, mtime_ns, transient) of every file that is not in the
        collection, in order of the bytes of the path.
        """
        for path, state, _, size, mtime_ns, transient in self._failures():
            yield path, state, size, mtime_ns, bool(transient)

    def failures(self) -> list[SkippedPhoto]:
        """Return every file that is not in the collection with the reason, in order of path."""
        return [SkippedPhoto(*row[:3], transient=bool(row[5])) for row in self._failures()]

    def _failures(self) -> Iterator[tuple[str, State, str, int, int, int]]:
        """Yield (path, state, reason, size, mtime_ns, transient) in order of path.

        A damaged row is left out: its file is read again by the next run.
        """
        is_old = self._format < CHECKSUMS
        later = "0, NULL" if is_old else "transient, checksum"
        sql = f"SELECT path, state, reason, size, mtime_ns, {later} FROM failures ORDER BY path"
        with self._errors():
            for *row, checksum in self._db.execute(sql):
                if is_old or checksum == row_checksum(row):
                    yield row

    def damaged_failures(self) -> list[str]:
        """Return the paths of the damaged rows of files that are not in the collection."""
        sound = {path for path, *_ in self._failures()}
        with self._errors():
            rows = self._db.execute("SELECT path FROM failures").fetchall()
        return [row[0] for row in rows if row[0] not in sound]
