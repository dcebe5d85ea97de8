"""The files that are not in a collection, and why; what the last walk of the photo folder met and
did not take, and the devices that it was on.
"""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitsearch.paths import raw_path
from vitsearch.storage.database import Database
from vitsearch.storage.rows import row_checksum
from vitsearch.storage.schema import CHECKSUMS
from vitsearch.types import Found, LeftOut, SkippedPhoto, State

WALKED = "walked"  # an empty file of a collection's folder, as old as its last complete walk
MAX_LOOKED_AT = 2_000  # folders whose time is looked at before a search


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
