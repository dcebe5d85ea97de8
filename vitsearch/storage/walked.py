"""What the last walk of a photo folder met and did not take, and the devices that it was on."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitsearch.paths import raw_path
from vitsearch.storage.database import Database
from vitsearch.storage.schema import CHECKSUMS
from vitsearch.types import LeftOut

WALKED = "walked"  # an empty file of a collection's folder, as old as its last complete walk
MAX_LOOKED_AT = 2_000  # folders whose time is looked at before a search


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
