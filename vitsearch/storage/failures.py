"""The files that are not in a collection, and why."""

from collections.abc import Generator, Iterator, Sequence

from vitsearch.paths import raw_path
from vitsearch.storage.checksums import row_checksum
from vitsearch.storage.database import Database
from vitsearch.storage.schema import CHECKSUMS
from vitsearch.types import Found, SkippedPhoto, State


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
