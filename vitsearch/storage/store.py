"""Photos, vectors and failures in one SQLite file, from which all indexes are derived.

Paths are TEXT with the bytes of the file name, so that names which are not valid UTF-8 survive;
Python sees them as ``str`` with surrogate escapes. Each committed change of a vector or of the set
of photos raises ``generation`` by one, which shows whether a derived index is current.
"""

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import numpy as np

from vitsearch.arrays import Fingerprints, Halves, Ids
from vitsearch.errors import CollectionError
from vitsearch.filters import prepare
from vitsearch.filters.tree import Filter
from vitsearch.paths import raw_path
from vitsearch.photos.columns import METADATA
from vitsearch.storage.schema import (
    MIGRATIONS,
    PUT_PHOTO,
    RESTORE,
    add_missing_columns,
    connect,
    explain,
    select_photos,
)
from vitsearch.types import Found, Photo, PhotoInfo, SkippedPhoto, State


class Outcome(Enum):
    """The outcome of storing a photo."""

    NEW = "new"
    REPLACED = "replaced"
    MOVED = "moved"
    UNCHANGED = "unchanged"
    OLDER = "older"
    UNUSABLE = "unusable"

    @property
    def is_stored(self) -> bool:
        """Whether a vector was written."""
        return self in (Outcome.NEW, Outcome.REPLACED)


class PhotoStore:
    """An open ``photos.db``, with one writer at a time and any number of readers (WAL).

    Every method raises CollectionError if SQLite reports damage, a full disk, or a file that cannot
    be written.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._has_view = False
        if read_only and not path.exists():
            raise CollectionError(
                f"{path} is missing: restore it from a backup, or run `vitsearch index` "
                "to embed the photos again"
            )
        with self._errors():
            self._db = connect(path, read_only)
            self._migrate(read_only)
            self._select_photos = select_photos(self._db)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # the message about a damaged schema may itself not be UTF-8
            raise CollectionError(explain(self.path, error)) from error

    def _migrate(self, read_only: bool) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise CollectionError(
                f"{self.path} has format {version}, newer than this vitsearch reads "
                f"({len(MIGRATIONS)}): upgrade vitsearch"
            )
        if version == len(MIGRATIONS):
            self._db.execute("SELECT value FROM facts WHERE name = 'generation'").fetchone()
            if not read_only:
                add_missing_columns(self._db)
            return
        if read_only:
            raise CollectionError(
                f"{self.path} has an older or unfinished format {version}: run `vitsearch "
                "index` on its folder once"
            )
        for number in range(version, len(MIGRATIONS)):
            self._db.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            )

    # -- transactions ------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Run the block as one transaction: all of its changes are stored, or none."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Run the block on a snapshot of the file, whatever a writer does meanwhile."""
        with self._errors():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute("COMMIT")

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file, so that it contains everything."""
        with self._errors():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- writing (inside `writing`) ----------------------------------------------------------------

    def raise_generation(self, changed: bool) -> None:
        """Raise the generation by one if the set of photos or a vector has changed."""
        if changed:
            self._db.execute("UPDATE facts SET value = value + 1 WHERE name = 'generation'")

    def keep(
        self,
        photo: Photo,
        vector: Halves | None,
        *,
        gone: set[str] | None = None,
        newest: bool = False,
    ) -> Outcome:
        """Store a photo as new, replaced, moved or unchanged, and return which.

        A photo with the same content at its path is unchanged. If that content is stored at a path
        in ``gone``, the photo has moved from there, and the path is removed from ``gone``. In both
        cases id and vector stay. Any other photo is stored with its vector and label under the next
        generation, unless the vector is None or not finite (UNUSABLE).

        Size and time are those of the file just read. With ``newest`` they come from another
        collection: then a photo with the same content only gets the label, if it has none, and of
        two contents the file that was changed last wins (OLDER if that is not the new photo).
        """
        file = Found(photo.path, photo.size, photo.mtime_ns)
        here = self.photo_at(photo.path)
        if here and here.fingerprint == photo.fingerprint:
            if not newest:
                self.touch_photo(here.photo_id, file)
            elif here.label is None:
                self._label(here.photo_id, photo)
            return Outcome.UNCHANGED
        if gone and here is None:
            same = self.photos_with(photo.fingerprint)
            if moved := next((each for each in same if each.path in gone), None):
                self.touch_photo(moved.photo_id, file)
                gone.discard(moved.path)
                return Outcome.MOVED
        if here and newest and here.mtime_ns > photo.mtime_ns:
            return Outcome.OLDER
        if vector is None or not np.isfinite(vector).all():
            return Outcome.UNUSABLE
        photo_id = self.put_photo(
            file, photo.fingerprint, photo.info, vector=vector, generation=self.generation() + 1
        )
        self._label(photo_id, photo)
        return Outcome.REPLACED if here else Outcome.NEW

    def _label(self, photo_id: int, photo: Photo) -> None:
        if photo.label is not None and photo.label_score is not None:
            self.put_labels([(photo_id, photo.label, photo.label_score)])

    def put_photo(
        self, file: Found, fingerprint: bytes, info: PhotoInfo, *, vector: Halves, generation: int
    ) -> int:
        """Insert or replace the photo at a path with its vector, and return its id.

        An earlier failure or label is removed.
        """
        values = (
            file.size,
            file.mtime_ns,
            fingerprint,
            info.width,
            info.height,
            *(info[name] for name in METADATA),
        )
        row = self._db.execute(PUT_PHOTO, (raw_path(file.path), *values)).fetchone()
        self._db.execute(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
            (row[0], generation, vector.astype("<f2").tobytes()),
        )
        self.forget_failures([file.path])
        return int(row[0])

    def touch_photo(self, photo_id: int, file: Found) -> None:
        """Give a photo the path and stat of a file with the same content; id and vector stay."""
        self._db.execute(
            "UPDATE photos SET path = CAST(? AS TEXT), size = ?, mtime_ns = ? WHERE id = ?",
            (raw_path(file.path), file.size, file.mtime_ns, photo_id),
        )
        self.forget_failures([file.path])

    def put_failure(self, file: Found, state: State, reason: str) -> int:
        """Store why a file is not in the collection, and remove the photo that had its path.

        Returns the number of removed photos.
        """
        removed = self.remove_photos([file.path])
        self._db.execute(
            "INSERT OR REPLACE INTO failures VALUES (CAST(? AS TEXT), ?, CAST(? AS TEXT), ?, ?)",
            (raw_path(file.path), state, raw_path(reason), file.size, file.mtime_ns),
        )
        return removed

    def remove_photos(self, paths: Sequence[str]) -> int:
        """Remove photos and their vectors by path, and return how many there were."""
        sql = "DELETE FROM photos WHERE path = CAST(? AS TEXT)"
        return sum(self._db.execute(sql, (raw_path(path),)).rowcount for path in paths)

    def forget_failures(self, paths: Sequence[str]) -> None:
        """Remove the failures of files that are gone or readable again."""
        self._db.executemany(
            "DELETE FROM failures WHERE path = CAST(? AS TEXT)",
            [(raw_path(path),) for path in paths],
        )

    def put_labels(self, labels: Sequence[tuple[int, str, float]]) -> None:
        """Store (photo id, label, score) rows in place of earlier ones."""
        rows = [(raw_path(label), score, photo_id) for photo_id, label, score in labels]
        self._db.executemany(
            "UPDATE photos SET label = CAST(? AS TEXT), label_score = ? WHERE id = ?", rows
        )

    def set_meta(self, name: str, value: bytes | int | str) -> None:
        """Store a value under a name."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # -- reading -----------------------------------------------------------------------------------

    def get_meta(self, name: str) -> bytes | int | str | None:
        """Return the value stored under a name, or None."""
        with self._errors():
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def generation(self) -> int:
        """Return the number of the last committed change."""
        return int(self.get_meta("generation") or 0)

    def count(self) -> int:
        """Return the number of photos."""
        with self._errors():
            return int(self._db.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def count_since(self, generation: int) -> int:
        """Return the number of vectors stored after a generation."""
        sql = "SELECT count(*) FROM vectors WHERE generation > ?"
        with self._errors():
            return int(self._db.execute(sql, (generation,)).fetchone()[0])

    def stats(self) -> Generator[tuple[str, int, int], None, None]:
        """Yield (path, size, mtime_ns) of every photo in order of the bytes of the path."""
        with self._errors():
            yield from self._db.execute("SELECT path, size, mtime_ns FROM photos ORDER BY path")

    def failure_stats(self) -> Generator[tuple[str, State, int, int], None, None]:
        """Yield (path, state, size, mtime_ns) of every file that is not in the collection.

        They are in order of the bytes of the path.
        """
        sql = "SELECT path, state, size, mtime_ns FROM failures ORDER BY path"
        with self._errors():
            yield from self._db.execute(sql)

    def failures(self) -> list[SkippedPhoto]:
        """Return every file that is not in the collection with the reason, in order of path."""
        sql = "SELECT path, state, reason FROM failures ORDER BY path"
        with self._errors():
            return [SkippedPhoto(*row) for row in self._db.execute(sql)]

    def fingerprints(self) -> Fingerprints:
        """Return the content fingerprints of all photos, for membership tests."""
        with self._errors():
            cursor = self._db.execute("SELECT fingerprint FROM photos ORDER BY fingerprint")
            parts = [
                np.array([row[0] for row in rows], dtype="S16")
                for rows in iter(lambda: cursor.fetchmany(4096), [])
            ]
        return Fingerprints(np.concatenate([np.empty(0, dtype="S16"), *parts]))

    def photos(self) -> Iterator[Photo]:
        """Yield every photo in order of path."""
        with self._errors():
            for row in self._db.execute(f"{self._select_photos} ORDER BY path"):
                yield _photo(row)

    def photo_at(self, path: str) -> Photo | None:
        """Return the photo at a path, or None."""
        sql = f"{self._select_photos} WHERE path = CAST(? AS TEXT)"
        with self._errors():
            row = self._db.execute(sql, (raw_path(path),)).fetchone()
        return _photo(row) if row else None

    def photos_with(self, fingerprint: bytes) -> list[Photo]:
        """Return the photos whose content has this fingerprint, in order of path."""
        sql = f"{self._select_photos} WHERE fingerprint = ? ORDER BY path"
        with self._errors():
            return [_photo(row) for row in self._db.execute(sql, (fingerprint,))]

    def vector(self, photo_id: int) -> Halves:
        """Return the stored vector of one photo."""
        sql = "SELECT vector FROM vectors WHERE photo_id = ?"
        with self._errors():
            row = self._db.execute(sql, (photo_id,)).fetchone()
        if row is None:
            raise CollectionError(
                f"{self.path}: photo {photo_id} has no vector: run `vitsearch verify`"
            )
        return self.halves([row[0]])[0]

    def rows(self, ids: Sequence[int]) -> list[tuple[int, str, bytes, bytes]]:
        """Return (id, path, raw vector, fingerprint) of the photos with these ids.

        The order is arbitrary, and ids that are not in the collection are left out.
        """
        rows: list[tuple[int, str, bytes, bytes]] = []
        with self._errors():
            for start in range(0, len(ids), 500):  # SQLite limits the parameters of a statement
                part = [int(photo_id) for photo_id in ids[start : start + 500]]
                marks = ",".join("?" * len(part))
                sql = (
                    "SELECT id, path, vector, fingerprint FROM photos JOIN vectors ON photo_id "
                    f"= id WHERE id IN ({marks})"
                )
                rows.extend(self._db.execute(sql, part))
        return rows

    def ids_where(self, where: Filter) -> Ids:
        """Return the ids of the photos that match a filter, in ascending order."""
        condition, values = where.sql()
        with self._errors():
            if not self._has_view:
                prepare(self._db)
                self._has_view = True
            sql = f"SELECT id FROM photo_facts WHERE {condition} ORDER BY id"
            rows = self._db.execute(sql, values)
            return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def vector_batches(self, *, since: int = -1, size: int = 4096) -> Iterator[tuple[Ids, Halves]]:
        """Yield (ids, ``(n, dim)`` float16 rows) of the vectors stored after generation ``since``.

        They are in order of id.
        """
        # all vectors are read in the order of the table, without its index of generations
        condition = "generation > ?" if since >= 0 else "? < 0"
        sql = f"SELECT photo_id, vector FROM vectors WHERE {condition} ORDER BY photo_id"
        with self._errors():
            cursor = self._db.execute(sql, (since,))
            while rows := cursor.fetchmany(size):
                if rows[0][0] < 1:
                    raise CollectionError(f"{self.path} is damaged (a number below 1): {RESTORE}")
                yield (
                    np.array([row[0] for row in rows], dtype=np.int64),
                    self.halves([row[1] for row in rows]),
                )

    def halves(self, raw: Sequence[bytes]) -> Halves:
        """Return ``(n, dim)`` float16 rows of raw vectors.

        Raises CollectionError if their lengths differ or are odd.
        """
        same = all(isinstance(vector, bytes) and len(vector) == len(raw[0]) for vector in raw)
        if not same or len(raw[0]) % 2:
            raise CollectionError(
                f"{self.path} is damaged (vectors of different lengths): {RESTORE}"
            )
        return np.frombuffer(b"".join(raw), dtype="<f2").reshape(len(raw), -1).astype(np.float16)

    def check(self) -> list[str]:
        """Return the problems that SQLite's integrity check finds, and those of the vectors."""
        with self._errors():
            rows = self._db.execute("PRAGMA integrity_check")
            problems = [row[0] for row in rows if row[0] != "ok"]
            lost = self._db.execute(
                "SELECT count(*) FROM photos LEFT JOIN vectors ON photo_id = "
                "id WHERE photo_id IS NULL"
            ).fetchone()[0]
            sizes = self._db.execute(
                "SELECT count(DISTINCT length(vector)) FROM vectors"
            ).fetchone()[0]
        if lost:
            problems.append(f"{lost} photos have no vector")
        if sizes > 1:
            problems.append("vectors have different lengths")
        return problems


def _photo(row: tuple) -> Photo:  # type: ignore[type-arg]
    photo_id, path, size, mtime_ns, fingerprint, width, height, *values, label, score = row
    info = PhotoInfo(width, height, dict(zip(METADATA, values, strict=True)))
    return Photo(photo_id, path, size, mtime_ns, fingerprint, info, label, score)
