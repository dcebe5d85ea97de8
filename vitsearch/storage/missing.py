"""What a collection misses: what the last walk of the photo folder met and did not take, and the
devices that it was on; and photos whose files are gone, put aside with their vectors and back again
when the files are.

Those put aside lie in tables of their own, so that no query has to leave them out, and keep their
ids. Rows are copied with their checksums, and one that is damaged is deleted instead of coming
back.
"""

import logging
import os
import sqlite3
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from vitsearch.arrays import Halves
from vitsearch.paths import raw_path
from vitsearch.storage.database import Database
from vitsearch.storage.rows import (
    IS_FILE,
    PhotoRows,
    Row,
    joined,
    moments_of,
    parts_of,
    vector_checksum,
)
from vitsearch.storage.schema import CHECKSUMS, forget_texts
from vitsearch.types import Found, LeftOut, PhotoInfo

WALKED = "walked"  # an empty file of a collection's folder, as old as its last complete walk
MAX_LOOKED_AT = 2_000  # folders whose time is looked at before a search


# -- What the last walk met ------------------------------------------------------------------------


def mark_walked(root: Path, folder: Path, time_ns: int, *, is_first: bool) -> None:
    """Record that the walk that began at a time has been dealt with, where that can be written.

    The first run makes the collection's folder after its walk has begun, which changes the root.
    """
    with suppress(OSError):
        if is_first:
            time_ns = max(time_ns, root.stat().st_mtime_ns)
        (folder / WALKED).touch()
        os.utime(folder / WALKED, ns=(time_ns, time_ns))


def changed_folders(root: Path, folder: Path, known: Iterable[str]) -> list[str]:
    """Return which of the root (``""``) and the ``known`` folders in it got or lost files since the
    last walk, by one stat of each of the first `MAX_LOOKED_AT`; none where there is no record.
    """
    changed = []
    with suppress(OSError):
        walked = (folder / WALKED).stat().st_mtime_ns
        for name in ["", *(name for name in known if name)][:MAX_LOOKED_AT]:
            with suppress(OSError, ValueError):
                if (root / name).stat().st_mtime_ns > walked:
                    changed.append(name)
    return changed


class WalkedFolders:
    """The facts about the folders of an open ``photos.db``; what writes is called inside
    `PhotoStore.writing`.

    The next run writes them anew, so rows that are damaged are only passed over.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def left_out(self) -> list[LeftOut]:
        """Return what the last run left out, in order of path."""
        rows = self._rows("SELECT path, reason, detail, files FROM left_out ORDER BY path, reason")
        return [LeftOut(*row) for row in rows if [*map(type, row)] == [str, str, str, int]]

    def companions(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """Return the files beside photos that belong to them, by the photo's path, each list in
        order; a photo without any is left out.
        """
        companions: dict[str, list[str]] = {}
        sql = "SELECT path FROM left_out WHERE reason = 'companion' AND detail = CAST(? AS TEXT) "
        for path in dict.fromkeys(paths):
            rows = self._rows(f"{sql} ORDER BY path", raw_path(path))
            if names := [name for (name,) in rows if isinstance(name, str)]:
                companions[path] = names
        return companions

    def mounts(self) -> dict[str, int]:
        """Return the device numbers of the root (``""``) and of the folders on other devices, as
        the last run found them.
        """
        rows = self._rows("SELECT path, device FROM folders ORDER BY path")
        return {
            path: int(device)
            for path, device in rows
            if isinstance(path, str) and isinstance(device, str) and device.isdecimal()
        }

    def put_left_out(self, entries: Iterable[LeftOut]) -> None:
        """Store what this run left out, in place of what the last one did."""
        db = self._database._db
        db.execute("DELETE FROM left_out")
        # an index is no change of the format: older code keeps it too
        db.execute(
            "CREATE INDEX IF NOT EXISTS left_out_companions ON left_out(detail) "
            "WHERE reason = 'companion'"
        )
        db.executemany(
            "INSERT OR REPLACE INTO left_out VALUES (CAST(? AS TEXT), ?, CAST(? AS TEXT), ?)",
            [(raw_path(path), reason, raw_path(detail), n) for path, reason, detail, n in entries],
        )

    def put_mounts(self, mounts: Mapping[str, int]) -> None:
        """Store the device numbers of this run."""
        db = self._database._db
        db.execute("DELETE FROM folders")
        db.executemany(
            "INSERT INTO folders VALUES (CAST(? AS TEXT), ?)",
            [(raw_path(path), str(device)) for path, device in mounts.items()],
        )

    def _rows(self, sql: str, *values: bytes) -> list[tuple[Any, ...]]:
        if self._database._format < CHECKSUMS:
            return []
        with self._database._errors():
            return self._database._db.execute(sql, values).fetchall()


log = logging.getLogger("vitsearch")
# -- Photos put aside ------------------------------------------------------------------------------


_CACHE = -64_000  # kB of SQLite's pages: many photos move from one place of the file to another
_BATCH = 500  # SQLite limits the parameters of a statement


class PhotosAside:
    """The photos of an open ``photos.db`` that were put aside; what writes is called inside
    `PhotoStore.writing`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def _db(self) -> sqlite3.Connection:
        return self._database._db

    @property
    def _rows(self) -> PhotoRows:
        return self._database._rows

    @property
    def _there(self) -> bool:
        return self._database._format >= CHECKSUMS

    # -- writing -----------------------------------------------------------------------------------

    def put(self, paths: Sequence[str]) -> int:
        """Put photos aside by path, videos with all of their moments, and return how many there
        were.
        """
        self._db.execute(f"PRAGMA cache_size = {_CACHE}")
        self._db.execute("PRAGMA secure_delete = ON")  # `purge` must leave no copy behind
        names, since = self._rows.names, _iso(datetime.now(UTC))
        rows = [(raw_path(path),) for path in paths]
        rows += [(raw_path(row[1]),) for path in paths for row in moments_of(self._db, path)]
        self._db.executemany(
            f"INSERT OR REPLACE INTO missing_photos ({names}, checksum, since) "
            f"SELECT {names}, checksum, ? FROM photos WHERE path = CAST(? AS TEXT)",
            [(since, *row) for row in rows],
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO missing_vectors SELECT photo_id, generation, vector "
            "FROM vectors WHERE photo_id = (SELECT id FROM photos WHERE path = CAST(? AS TEXT))",
            rows,
        )
        sql = "DELETE FROM photos WHERE path = CAST(? AS TEXT)"
        count = self._db.executemany(sql, rows[: len(paths)]).rowcount
        self._db.executemany(sql, rows[len(paths) :])
        return count

    def restore(self, paths: Sequence[str]) -> int:
        """Bring back the photos that had these paths, which no photo has now, under the next
        generation, and return how many there were.
        """
        self._db.execute(f"PRAGMA cache_size = {_CACHE}")
        sql = "SELECT id FROM missing_photos WHERE path = CAST(? AS TEXT)"
        ids = [row[0] for path in paths for row in self._db.execute(sql, (raw_path(path),))]
        count = sum(
            self._restore(ids[start : start + _BATCH]) for start in range(0, len(ids), _BATCH)
        )
        ids = [row[0] for path in paths for row in moments_of(self._db, path, "missing_photos")]
        for start in range(0, len(ids), _BATCH):
            self._restore(ids[start : start + _BATCH])
        return count

    def restore_as(self, file: Found, fingerprint: bytes) -> bool:
        """Bring back a photo with the content of a file, under the file's path, and return whether
        there was one.
        """
        condition = (
            f"photos.fingerprint = ? AND photos.{IS_FILE} "
            "ORDER BY photos.path <> CAST(? AS TEXT), since DESC LIMIT 1"
        )
        for row, raw in self._sound(condition, (fingerprint, raw_path(file.path))):
            before = self._rows.photo(row).path
            self._restore_row(row, raw, file)
            for photo_id, path in moments_of(self._db, before, "missing_photos"):
                name = file.path + path.removeprefix(before)
                for moment in self._sound("photos.id = ?", (photo_id,)):
                    self._restore_row(*moment, file._replace(path=name))
            return True
        return False

    def _restore_row(self, row: Row, raw: bytes, file: Found) -> None:
        """Bring back a row with the path and stat of a file."""
        photo_id, generation = row[0], self._database.generation() + 1
        names = values = self._rows.names
        file_names = ("CAST(? AS TEXT)", "?", "?")
        for name, mark in zip(("path", "size", "mtime_ns"), file_names, strict=True):
            values = values.replace(f'"{name}"', mark)
        self._db.execute(
            f"INSERT INTO photos ({names}) SELECT {values} FROM missing_photos WHERE id = ?",
            (raw_path(file.path), file.size, file.mtime_ns, photo_id),
        )
        self._move_vectors([photo_id], generation)
        self._rows.seal(self._db, photo_id, vector_checksum(raw, generation))

    def _restore(self, ids: Sequence[int]) -> int:
        """Bring back at most `_BATCH` photos by id, and return how many of them were sound."""
        names, generation = self._rows.names, self._database.generation() + 1
        sound = [
            (joined(parts_of(row[-1])[0], vector_checksum(raw, generation)), row[0])
            for row, raw in self._sound(f"photos.id IN ({','.join('?' * len(ids))})", ids)
        ]
        self._db.executemany(
            f"INSERT INTO photos ({names}, checksum) SELECT {names}, ? FROM missing_photos "
            "WHERE id = ?",
            sound,
        )
        self._move_vectors([photo_id for _, photo_id in sound], generation)
        if len(sound) < len(ids):
            log.warning(
                f"{len(ids) - len(sound):,} photos that were put aside are damaged: the next "
                "`vitsearch index` embeds them again"
            )
            self._db.executemany("DELETE FROM missing_photos WHERE id = ?", [(i,) for i in ids])
        return len(sound)

    def _move_vectors(self, ids: Sequence[int], generation: int) -> None:
        self._db.executemany(
            "INSERT INTO vectors SELECT photo_id, ?, vector FROM missing_vectors "
            "WHERE photo_id = ?",
            [(generation, photo_id) for photo_id in ids],
        )
        self._db.executemany("DELETE FROM missing_photos WHERE id = ?", [(i,) for i in ids])

    def purge(self, *, days: int = 0) -> int:
        """Delete the photos that were put aside at least so many days ago, and return how many;
        what they were is overwritten in the file.
        """
        before = _iso(datetime.now(UTC) - timedelta(days=days))
        sql = f"DELETE FROM missing_photos WHERE since <= ? AND {IS_FILE}"
        with self._database._errors():
            self._db.execute("PRAGMA secure_delete = ON")
            count = self._db.execute(sql, (before,)).rowcount
            self._db.execute("DELETE FROM missing_photos WHERE since <= ?", (before,))
            if count:
                forget_texts(self._db)
            return count

    # -- reading -----------------------------------------------------------------------------------

    def stats(self) -> Generator[tuple[str, int, int, str], None, None]:
        """Yield (path, size, mtime_ns, sidecars) of every file in order of the bytes of the
        path.
        """
        sql = f"SELECT {self._rows.stat} FROM missing_photos WHERE {IS_FILE} ORDER BY path"
        last = b""
        with self._database._errors():
            for row in self._db.execute(sql) if self._there else ():
                # rows are checked when they come back; here a damaged path must not be in the way
                path = raw_path(row[0]) if isinstance(row[0], str) else b""
                if path > last:
                    last = path
                    yield row

    def count(self) -> tuple[int, str | None]:
        """Return how many photos are put aside, and since when the first of them (ISO 8601)."""
        if not self._there:
            return 0, None
        with self._database._errors():
            sql = f"SELECT count(*), min(since) FROM missing_photos WHERE {IS_FILE}"
            number, since = self._db.execute(sql).fetchone()
        return int(number), None if since is None else str(since)

    def content(self, fingerprint: bytes) -> tuple[PhotoInfo | None, Halves] | None:
        """Return the facts of a photo with this content (None where some are from its sidecars) and
        its vector, or None.
        """
        with self._database._errors():
            for row, raw in self._sound("photos.fingerprint = ?", (fingerprint,)):
                vector = np.frombuffer(raw, dtype="<f2").astype(np.float16)
                unmixed = self._rows.has_own_facts(row)
                return self._rows.photo(row).info if unmixed else None, vector
        return None

    def _sound(
        self, condition: str, values: Sequence[int | bytes]
    ) -> Generator[tuple[Row, bytes], None, None]:
        """Yield (row, raw vector) of the photos that are what was stored."""
        sql = (
            f"SELECT {self._rows.columns}, generation, vector FROM missing_photos AS photos "
            f"JOIN missing_vectors ON photo_id = photos.id WHERE {condition}"
        )
        for *row, generation, raw in self._db.execute(sql, values):
            if self._rows.is_sound(row, generation, raw):
                yield row, raw


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
