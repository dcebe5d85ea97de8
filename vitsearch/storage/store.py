"""The truth on disk: photos, vectors and failures in one SQLite file.

Paths are TEXT whose bytes are those of the file name, so that names which are not valid UTF-8
survive; Python sees them as ``str`` with surrogate escapes. Each committed change of a vector or of
the set of photos raises ``generation`` by one, by which a derived index knows whether it is
current.
"""

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import numpy as np

from vitsearch.arrays import Halves, Ids
from vitsearch.errors import CollectionError
from vitsearch.filters import Filter, prepare
from vitsearch.paths import raw_path
from vitsearch.photos.columns import METADATA
from vitsearch.storage.fingerprints import Fingerprints
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
    """What became of a photo that was offered to a store."""

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
    """One open ``photos.db``; one writer at a time, any number of readers (WAL).

    Every method raises CollectionError where SQLite reports damage, a full disk, or a file that may
    not be written.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._has_meta = False
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
        except (
            sqlite3.Error,
            UnicodeDecodeError,
        ) as error:  # the message of a damaged schema may itself be no UTF-8
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
        """Run the block as one transaction: all of it is stored, or none."""
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
        """Run the block on one unchanging state of the file, whatever a writer does meanwhile."""
        with self._errors():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute("COMMIT")

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file, so that one file holds everything."""
        with self._errors():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- writing (inside `writing`) ----------------------------------------------------------------

    def raise_generation(self, changed: bool) -> None:
        """Raise the generation by one where the set of photos or a vector changed."""
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

        The same content at its path is unchanged, and at a path in ``gone`` it has moved from there
        (which leaves ``gone``): id and vector stay. Anything else is stored with its vector and
        label, under the generation that follows; where the vector is None or not finite, nothing is
        (UNUSABLE). Size and time are those of the file just read. With ``newest`` they are what
        another collection holds: then the same content only gets the label where it has none, and
        of two contents the file that was changed last wins (OLDER: the photo that was offered).
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
        self, found: Found, fingerprint: bytes, info: PhotoInfo, *, vector: Halves, generation: int
    ) -> int:
        """Insert or replace the photo at a path with its vector, forget its failure and its label,
        and return its id.
        """
        values = (
            found.size,
            found.mtime_ns,
            fingerprint,
            info.width,
            info.height,
            *(info[name] for name in METADATA),
        )
        row = self._db.execute(
            PUT_PHOTO,
            (raw_path(found.path), *values),
        ).fetchone()
        self._db.execute(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
            (row[0], generation, vector.astype("<f2").tobytes()),
        )
        self.forget_failures([found.path])
        return int(row[0])

    def touch_photo(self, photo_id: int, found: Found) -> None:
        """Give a photo the path and stat of a file with the same content; its vector
        and id stay.
        """
        self._db.execute(
            "UPDATE photos SET path = CAST(? AS TEXT), size = ?, mtime_ns = ? WHERE id = ?",
            (raw_path(found.path), found.size, found.mtime_ns, photo_id),
        )
        self.forget_failures([found.path])

    def put_failure(self, found: Found, state: State, reason: str) -> int:
        """Store why a file is not in the collection, remove the photo that had this path before,
        and return how many that were.
        """
        removed = self.remove_photos([found.path])
        self._db.execute(
            "INSERT OR REPLACE INTO failures VALUES (CAST(? AS TEXT), ?, CAST(? AS TEXT), ?, ?)",
            (raw_path(found.path), state, raw_path(reason), found.size, found.mtime_ns),
        )
        return removed

    def remove_photos(self, paths: Sequence[str]) -> int:
        """Remove photos and their vectors by path, and return how many there were."""
        return sum(
            self._db.execute(
                "DELETE FROM photos WHERE path = CAST(? AS TEXT)", (raw_path(path),)
            ).rowcount
            for path in paths
        )

    def forget_failures(self, paths: Sequence[str]) -> None:
        """Remove entries of files that are gone or well again."""
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
        """Store one named fact."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # -- reading -----------------------------------------------------------------------------------

    def get_meta(self, name: str) -> bytes | int | str | None:
        """Return one named fact, or None."""
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
        with self._errors():
            return int(
                self._db.execute(
                    "SELECT count(*) FROM vectors WHERE generation > ?", (generation,)
                ).fetchone()[0]
            )

    def stats(self) -> Generator[tuple[str, int, int], None, None]:
        """Yield (path, size, mtime_ns) of every photo in order of the bytes of the path."""
        with self._errors():
            yield from self._db.execute("SELECT path, size, mtime_ns FROM photos ORDER BY path")

    def failure_stats(self) -> Generator[tuple[str, State, int, int], None, None]:
        """Yield (path, state, size, mtime_ns) of every file that is not in the collection, in order
        of the bytes of the path.
        """
        with self._errors():
            yield from self._db.execute(
                "SELECT path, state, size, mtime_ns FROM failures ORDER BY path"
            )

    def failures(self) -> list[SkippedPhoto]:
        """Return every file that is not in the collection with the reason, in order of path."""
        with self._errors():
            return [
                SkippedPhoto(*row)
                for row in self._db.execute(
                    "SELECT path, state, reason FROM failures ORDER BY path"
                )
            ]

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
        with self._errors():
            row = self._db.execute(
                f"{self._select_photos} WHERE path = CAST(? AS TEXT)",
                (raw_path(path),),
            ).fetchone()
        return _photo(row) if row else None

    def photos_with(self, fingerprint: bytes) -> list[Photo]:
        """Return the photos whose content has this fingerprint, in order of path."""
        with self._errors():
            rows = self._db.execute(
                f"{self._select_photos} WHERE fingerprint = ? ORDER BY path",
                (fingerprint,),
            )
            return [_photo(row) for row in rows]

    def vector(self, photo_id: int) -> Halves:
        """Return the stored vector of one photo."""
        with self._errors():
            row = self._db.execute(
                "SELECT vector FROM vectors WHERE photo_id = ?", (photo_id,)
            ).fetchone()
        if row is None:
            raise CollectionError(
                f"{self.path}: photo {photo_id} has no vector: run `vitsearch verify`"
            )
        return self.halves([row[0]])[0]

    def rows(self, ids: Sequence[int]) -> list[tuple[int, str, bytes, bytes]]:
        """Return (id, path, raw vector, fingerprint) of those ids that are in the collection, in no
        promised order.
        """
        found: list[tuple[int, str, bytes, bytes]] = []
        with self._errors():
            for start in range(0, len(ids), 500):  # SQLite limits the parameters of one statement
                part = [int(photo_id) for photo_id in ids[start : start + 500]]
                marks = ",".join("?" * len(part))
                sql = (
                    "SELECT id, path, vector, fingerprint FROM photos JOIN vectors ON photo_id "
                    f"= id WHERE id IN ({marks})"
                )
                found.extend(self._db.execute(sql, part))
        return found

    def ids_where(self, where: Filter) -> Ids:
        """Return the ids of the photos that a filter leaves, in order."""
        condition, values = where.sql()
        with self._errors():
            if not self._has_meta:
                prepare(self._db)
                self._has_meta = True
            rows = self._db.execute(
                f"SELECT id FROM photo_facts WHERE {condition} ORDER BY id", values
            )
            return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def vector_batches(self, *, since: int = -1, size: int = 4096) -> Iterator[tuple[Ids, Halves]]:
        """Yield (ids, ``(n, dim)`` float16 rows) in order of id, of the vectors stored after
        generation ``since``.
        """
        with self._errors():
            where = (
                "WHERE generation > ? ORDER BY photo_id"
                if since >= 0
                else "WHERE ? < 0 ORDER BY photo_id"
            )
            cursor = self._db.execute(f"SELECT photo_id, vector FROM vectors {where}", (since,))
            while rows := cursor.fetchmany(size):
                if rows[0][0] < 1:
                    raise CollectionError(f"{self.path} is damaged (a number below 1): {RESTORE}")
                yield (
                    np.array([row[0] for row in rows], dtype=np.int64),
                    self.halves([row[1] for row in rows]),
                )

    def halves(self, raw: Sequence[bytes]) -> Halves:
        """Return ``(n, dim)`` float16 rows of raw vectors; raises CollectionError where they are
        not n of one length.
        """
        if (
            not all(isinstance(vector, bytes) and len(vector) == len(raw[0]) for vector in raw)
            or len(raw[0]) % 2
        ):
            raise CollectionError(
                f"{self.path} is damaged (vectors of different lengths): {RESTORE}"
            )
        return np.frombuffer(b"".join(raw), dtype="<f2").reshape(len(raw), -1).astype(np.float16)

    def check(self) -> list[str]:
        """Return what SQLite's own integrity check and the link between photos and vectors find
        wrong; empty when sound.
        """
        with self._errors():
            found = [row[0] for row in self._db.execute("PRAGMA integrity_check") if row[0] != "ok"]
            lost = self._db.execute(
                "SELECT count(*) FROM photos LEFT JOIN vectors ON photo_id = "
                "id WHERE photo_id IS NULL"
            ).fetchone()[0]
            sizes = self._db.execute(
                "SELECT count(DISTINCT length(vector)) FROM vectors"
            ).fetchone()[0]
        if lost:
            found.append(f"{lost} photos have no vector")
        if sizes > 1:
            found.append("vectors have different lengths")
        return found


def _photo(row: tuple) -> Photo:  # type: ignore[type-arg]
    photo_id, path, size, mtime_ns, fingerprint, width, height, *values, label, score = row
    info = PhotoInfo(width, height, dict(zip(METADATA, values, strict=True)))
    return Photo(photo_id, path, size, mtime_ns, fingerprint, info, label, score)
