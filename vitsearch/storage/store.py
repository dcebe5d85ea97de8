"""Photos, vectors and failures in one SQLite file, from which all indexes are derived.

Paths are TEXT with the bytes of the file name, so that names which are not valid UTF-8 survive;
Python sees them as ``str`` with surrogate escapes. Each committed change of a vector or of the set
of photos raises ``generation`` by one and gives the state a new identity, which show whether a
derived index is current.
"""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitsearch.arrays import Fingerprints, Halves, Ids
from vitsearch.errors import CollectionError
from vitsearch.filters import prepare
from vitsearch.filters.tree import Filter
from vitsearch.paths import raw_path
from vitsearch.photos.columns import METADATA
from vitsearch.storage.database import FailureStore
from vitsearch.storage.missing import PhotosAside, WalkedFolders
from vitsearch.storage.rows import (
    IS_FILE,
    ORDERS,
    Outcome,
    is_older,
    later_moments,
    moments_of,
    remove_moments,
    vector_checksum,
    with_later_moments,
)
from vitsearch.storage.schema import CHECKSUMS, MOVED, OF_TAGS, PUT_PHOTO, READ_AGAIN
from vitsearch.types import Found, Photo, PhotoInfo, State, StoredRow

log = logging.getLogger("vitsearch")
MAX_PARAMETERS = 500  # of a statement of SQLite
MAX_FILTERS = 4  # whose photos a connection remembers
MAX_CHECKED = 10_000  # photos whose facts are checked before the first filter, in 60 ms


class PhotoStore(FailureStore):
    """An open ``photos.db``: its photos with their vectors, and the files that are not in it.

    Every row carries a checksum, which is checked when it is read. What does not pass is left out
    and logged once; the next run of indexing removes it and embeds the photo again. ``aside`` are
    the photos whose files are gone, ``walked`` is what the last run met and did not take.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        super().__init__(path, read_only=read_only)
        self._left_out: set[int] = set()
        self._checked_state: str | None = None
        self.aside, self.walked = PhotosAside(self), WalkedFolders(self)

    # -- writing (inside `writing`) ----------------------------------------------------------------

    def keep(
        self,
        photo: Photo,
        vector: Halves | None,
        *,
        gone: set[str] | None = None,
        newest: bool = False,
        sidecars: str | None = None,
    ) -> Outcome:
        """Store a photo as new, replaced, moved or unchanged, and return which.

        A photo with the same content at its path is unchanged. If that content is stored at a path
        in ``gone``, the photo has moved from there, and the path is removed from ``gone``; with
        ``gone``, a photo with that content that was put aside comes back. In all these cases id and
        vector stay. Any other photo is stored with its vector and label under the next
        generation, unless the vector is None or not finite (UNUSABLE). With ``sidecars``, their
        signature as it is stored, the facts are stored in all cases.

        Size and time are those of the file just read. With ``newest`` they come from another
        collection: then a photo with the same content only gets label and text, if it has none, and
        of two contents the file that was changed last wins (OLDER if that is not the new photo).
        """
        file = Found(photo.path, photo.size, photo.mtime_ns, sidecars=sidecars or "")
        info = None if sidecars is None else photo.info
        here = self.photo_at(photo.path)
        if here and here.fingerprint == photo.fingerprint:
            if not newest:
                self.touch_photo(here.photo_id, file, info)
            else:
                self._complete(here, photo)
            return Outcome.UNCHANGED
        if gone and here is None:
            same = self.photos_with(photo.fingerprint)
            if moved := next((each for each in same if each.path in gone), None):
                self.touch_photo(moved.photo_id, file, info)
                gone.discard(moved.path)
                return Outcome.MOVED
        if gone is not None and here is None and self.aside.restore_as(file, photo.fingerprint):
            if restored := self.photo_at(file.path):
                self.touch_photo(restored.photo_id, file, info)
            return Outcome.RESTORED
        if newest and is_older(photo, here, self.photo_at(photo.file)):
            return Outcome.OLDER
        if vector is None or not np.isfinite(vector).all():
            return Outcome.UNUSABLE
        remove_moments(self._db, file.path)
        photo_id = self.put_photo(
            file, photo.fingerprint, photo.info, vector=vector, generation=self.generation() + 1
        )
        self._label(photo_id, photo)
        return Outcome.REPLACED if here else Outcome.NEW

    def _complete(self, here: Photo, photo: Photo) -> None:
        """Give a photo the label and the text of one with the same content, where it has none."""
        if here.label is None:
            self._label(here.photo_id, photo)
        if here.info["text"] is None and photo.info["text"] is not None:
            values = (photo.info["text"],)
            self._rows.update(self._db, here.photo_id, "text = ?", values)

    def _label(self, photo_id: int, photo: Photo) -> None:
        if photo.label is not None and photo.label_score is not None:
            self.put_labels([(photo_id, photo.label, photo.label_score)])

    def put_photo(
        self, file: Found, fingerprint: bytes, info: PhotoInfo, *, vector: Halves, generation: int
    ) -> int:
        """Insert or replace the photo at a path with its vector, and return its id.

        An earlier failure or label is removed.
        """
        facts = (file.size, file.mtime_ns, fingerprint, info.width, info.height)
        values = (*facts, *(info[name] for name in METADATA), raw_path(file.sidecars))
        photo_id = int(self._db.execute(PUT_PHOTO, (raw_path(file.path), *values)).fetchone()[0])
        raw = vector.astype("<f2").tobytes()
        self._db.execute(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", (photo_id, generation, raw)
        )
        self._rows.seal(self._db, photo_id, vector_checksum(raw, generation))
        self.forget_failures([file.path])
        return photo_id

    def touch_photo(self, photo_id: int, file: Found, info: PhotoInfo | None = None) -> None:
        """Give a photo the path and stat of a file with the same content, and with ``info`` its
        metadata and the signature of its sidecars; id and vector stay, and the later moments of a
        video come along.
        """
        row = self._db.execute("SELECT path FROM photos WHERE id = ?", (photo_id,)).fetchone()
        for moment_id, name in moments_of(self._db, row[0]) if row else []:
            path = raw_path(file.path + name.removeprefix(row[0]))
            self._rows.update(self._db, moment_id, MOVED, (path, file.size, file.mtime_ns))
        values: list[Any] = [raw_path(file.path), file.size, file.mtime_ns]
        if info is not None:
            values += [raw_path(file.sidecars), *(info[name] for name in OF_TAGS)]
        self._rows.update(self._db, photo_id, MOVED if info is None else READ_AGAIN, values)
        self.forget_failures([file.path])

    def put_failure(
        self, file: Found, state: State, reason: str, *, transient: bool = False
    ) -> int:
        """Store why a file is not in the collection, and put aside the photo that had its path.

        A ``transient`` reason may pass without a change of the file. Returns the number of photos
        put aside.
        """
        removed = self.aside.put([file.path])
        self._record_failure(file, state, reason, transient)
        return removed

    def remove_photos(self, paths: Sequence[str]) -> int:
        """Remove photos and their vectors by path, and return how many there were."""
        sql = "DELETE FROM photos WHERE path = CAST(? AS TEXT)"
        return sum(self._db.execute(sql, (raw_path(path),)).rowcount for path in paths)

    def put_labels(self, labels: Sequence[tuple[int, str | None, float | None]]) -> None:
        """Store (photo id, label, score) rows in place of earlier ones; of a video for all."""
        for photo_id, label, score in with_later_moments(self._db, labels):
            self._rows.update(
                self._db,
                photo_id,
                "label = CAST(? AS TEXT), label_score = ?",
                (None if label is None else raw_path(label), score),
            )

    # -- reading -----------------------------------------------------------------------------------

    def count(self) -> int:
        """Return the number of vectors: of photos, and of moments of videos."""
        with self._errors():
            return int(self._db.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def count_files(self) -> int:
        """Return the number of photos, a video counted once."""
        with self._errors():
            rows = self._db.execute(f"SELECT count(*) FROM photos WHERE {IS_FILE}")
            return int(rows.fetchone()[0])

    def moments(self) -> dict[int, int]:
        """Return the ids of the later moments of videos, each with the id of the first one."""
        with self._errors():
            return later_moments(self._db)

    def count_below(self, folder: str) -> int:
        """Return the number of photos in a folder and below; ``""`` is the root."""
        if not folder:
            return self.count()
        sql = "SELECT count(*) FROM photos WHERE path > CAST(? AS TEXT) AND path < CAST(? AS TEXT)"
        with self._errors():
            ends = (raw_path(f"{folder}/"), raw_path(f"{folder}0"))  # 0 comes next to /
            return int(self._db.execute(sql, ends).fetchone()[0])

    def ids(self) -> Ids:
        """Return the ids of all photos in ascending order."""
        with self._errors():
            rows = self._db.execute("SELECT id FROM photos ORDER BY id")
            return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def count_since(self, generation: int) -> int:
        """Return the number of vectors stored after a generation."""
        sql = "SELECT count(*) FROM vectors WHERE generation > ?"
        with self._errors():
            return int(self._db.execute(sql, (generation,)).fetchone()[0])

    def stats(self) -> Generator[tuple[str, int, int, str], None, None]:
        """Yield (path, size, mtime_ns, sidecars) of all files in the order of their bytes."""
        sql = f"SELECT {self._rows.stat} FROM photos WHERE {IS_FILE} ORDER BY path"
        with self._errors():
            yield from self._db.execute(sql)

    def fingerprints(self) -> Fingerprints:
        """Return the content fingerprints of all photos and of those put aside, for membership
        tests.
        """
        missing = (
            "UNION ALL SELECT fingerprint FROM missing_photos" if self._format >= CHECKSUMS else ""
        )
        with self._errors():
            cursor = self._db.execute(
                f"SELECT fingerprint FROM photos {missing} ORDER BY fingerprint"
            )
            parts = [
                np.array([row[0] for row in rows], dtype="S16")
                for rows in iter(lambda: cursor.fetchmany(4096), [])
            ]
        return Fingerprints(np.concatenate([np.empty(0, dtype="S16"), *parts]))

    def photos(self, *, moments: bool = False) -> Iterator[Photo]:
        """Yield every photo in order of path, of a video the first moment, or all ``moments``."""
        yield from self._select("ORDER BY path" if moments else f"WHERE {IS_FILE} ORDER BY path")

    def photo_at(self, path: str) -> Photo | None:
        """Return the photo at a path, or None."""
        return next(iter(self._select("WHERE path = CAST(? AS TEXT)", raw_path(path))), None)

    def photos_with(self, fingerprint: bytes) -> list[Photo]:
        """Return the photos whose content has this fingerprint, in order of path."""
        return list(self._select("WHERE fingerprint = ? ORDER BY path", fingerprint))

    def photos_of(self, ids: Sequence[int]) -> Iterator[Photo]:
        """Yield the photos with these ids, in any order."""
        for start in range(0, len(ids), MAX_PARAMETERS):
            part = ids[start : start + MAX_PARAMETERS]
            yield from self._select(f"WHERE id IN ({', '.join('?' * len(part))})", *part)

    def _select(self, condition: str, *values: bytes | int) -> Iterator[Photo]:
        damaged: list[int] = []
        with self._errors():
            for row in self._db.execute(f"{self._rows.select} {condition}", values):
                if self._rows.facts_are_sound(row):
                    yield self._rows.photo(row)
                else:
                    damaged.append(row[0])
        self.leave_out(damaged)

    def leave_out(self, photo_ids: Sequence[int]) -> None:
        """Log, once for each, that photos are left out since their rows are damaged or lost.

        The next run of indexing then checks every row.
        """
        new = [photo_id for photo_id in photo_ids if photo_id not in self._left_out]
        if new:
            self._left_out.update(new)
            self.ask_for_mending()
            log.warning(
                f"{self.path} is damaged: {self.named(new)} left out: run `vitsearch index` to "
                "embed again what is in the folder"
            )

    def named(self, photo_ids: Sequence[int]) -> str:
        """Return the number of photos and the first few paths, which may themselves be damaged."""
        names = []
        for photo_id in photo_ids[:3]:
            row = self._db.execute("SELECT path FROM photos WHERE id = ?", (photo_id,)).fetchone()
            names.append(ascii(row[0])[:200] if row else f"number {photo_id}")
        more = ", ..." if len(photo_ids) > 3 else ""
        return f"{len(photo_ids)} photos ({', '.join(names)}{more})"

    def vector(self, photo_id: int) -> Halves:
        """Return the stored vector of one photo; raises CollectionError if it is damaged."""
        rows = self.rows([photo_id])
        if not rows:
            raise CollectionError(
                f"{self.path}: photo {photo_id} has no vector: run `vitsearch verify`"
            )
        return self.halves([rows[0][2]])[0]

    def rows_with(self, vectors: Mapping[int, tuple[bytes, int]]) -> list[StoredRow]:
        """Return the `rows` whose raw vectors and generations, by id, are those stored here."""
        rows: list[StoredRow] = []
        with self._errors():
            for start in range(0, len(vectors), MAX_PARAMETERS):
                part = [*vectors][start : start + MAX_PARAMETERS]
                marks = ",".join("?" * len(part))
                for row in self._db.execute(f"{self._rows.select} WHERE id IN ({marks})", part):
                    raw, generation = vectors[row[0]]
                    if self._rows.is_sound(row, generation, raw):
                        number, path, fingerprint = self._rows.identity(row)
                        rows.append((number, path, raw, fingerprint))
        return rows

    def rows(self, ids: Sequence[int]) -> list[StoredRow]:
        """Return (id, path, raw vector, fingerprint) of the photos with these ids.

        The order is arbitrary, and ids that are not in the collection are left out.
        """
        rows: list[StoredRow] = []
        damaged: list[int] = []
        with self._errors():
            for start in range(0, len(ids), MAX_PARAMETERS):
                part = [int(photo_id) for photo_id in ids[start : start + MAX_PARAMETERS]]
                for *row, generation, raw in self._db.execute(
                    f"SELECT {self._rows.columns}, generation, vector FROM photos JOIN vectors "
                    f"ON photo_id = id WHERE id IN ({','.join('?' * len(part))})",
                    part,
                ):
                    if self._rows.is_sound(row, generation, raw):
                        photo_id, path, fingerprint = self._rows.identity(row)
                        rows.append((photo_id, path, raw, fingerprint))
                    else:
                        damaged.append(row[0])
            self.leave_out(damaged)
        return rows

    def ids_where(self, where: Filter, *, order: str = "id") -> Ids:
        """Return the ids of the photos that match a filter, in ascending order, by ``path``, or the
        ``newest`` first: by date, then those without one by the time of the file.
        """
        self._check_facts()
        condition, values = where.sql()
        with self._errors():
            prepare(self._db)
            sql = f"SELECT id FROM photo_facts WHERE {condition}"
            sql += "" if order == "id" else f" ORDER BY {ORDERS[order]}"
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
            state, key = (version, self._db.total_changes), (sql, tuple(values))
            if self._db.filtered_state != state:
                self._db.filtered_state, self._db.filtered = state, {}
            ids = self._db.filtered.get(key)
            if ids is None:
                rows = (row[0] for row in self._db.execute(sql, values))
                ids = np.fromiter(rows, dtype=np.int64)
                ids = np.sort(ids) if order == "id" else ids
                others = [*self._db.filtered.items()][1 - MAX_FILTERS :]
                self._db.filtered = {**dict(others), key: ids}
            return ids

    def count_where(self, where: Filter) -> int:
        """Return the number of rows that match a filter."""
        return len(self.ids_where(where))

    def _check_facts(self) -> None:
        """Check the facts of all photos, where they are few, once in a state: a filter reads them
        inside SQLite.
        """
        state = self.state()
        if state != self._checked_state:
            if self.count() <= MAX_CHECKED:
                for _ in self._select(""):
                    pass
            self._checked_state = state

    def vector_batches(self, *, since: int = -1, size: int = 4096) -> Iterator[tuple[Ids, Halves]]:
        """Yield (ids, ``(n, dim)`` float16 rows) of the vectors stored after generation ``since``.

        They are in order of id.
        """
        # all vectors are read in the order of the table, without its index of generations
        condition = "vectors.generation > ?" if since >= 0 else "? < 0"
        sql = (
            f"SELECT photo_id, vector, vectors.generation, {self._rows.checksum} FROM vectors "
            f"JOIN photos ON photos.id = photo_id WHERE {condition} ORDER BY photo_id"
        )
        damaged: list[int] = []
        with self._errors():
            cursor = self._db.execute(sql, (since,))
            while rows := cursor.fetchmany(size):
                sound = [row for row in rows if self._rows.vector_is_sound(row[3], row[2], row[1])]
                if len(sound) < len(rows):
                    damaged += {row[0] for row in rows} - {row[0] for row in sound}
                if sound and sound[0][0] < 1:
                    raise self.damage("a number below 1")
                if sound:
                    yield (
                        np.array([row[0] for row in sound], dtype=np.int64),
                        self.halves([row[1] for row in sound]),
                    )
            self.leave_out(sorted(damaged))

    def check(self) -> list[str]:
        """Return the problems that SQLite's integrity check finds, and those of the rows."""
        with self._errors():
            problems = self.page_problems()
            count = "SELECT count(DISTINCT length(vector)) FROM vectors"
            if self._db.execute(count).fetchone()[0] > 1:
                problems.append("vectors have different lengths")
            if damaged := self.damaged_photos():
                problems.append(f"the rows of {self.named(damaged)} are damaged")
            if failures := self.damaged_failures():
                problems.append(f"the rows of {len(failures)} failures are damaged")
            if facts := self.damaged_facts():
                problems.append(f"the facts {', '.join(facts)} are damaged")
        return problems

    # -- rot ---------------------------------------------------------------------------------------

    def damaged_photos(self) -> list[int]:
        """Return the ids of the photos whose row or vector is not what was stored, in order."""
        sql = (
            f"SELECT {self._rows.columns}, generation, vector FROM photos LEFT JOIN vectors "
            "ON photo_id = photos.id ORDER BY photos.id"
        )
        with self._errors():
            return [
                row[0]
                for *row, generation, raw in self._db.execute(sql)
                if not self._rows.is_sound(row, generation, raw)
            ]

    def remove_ids(self, photo_ids: Sequence[int]) -> None:
        """Remove photos and their vectors by id; a video with its first moment, to be read anew."""
        moments = self.moments()
        rows = [(each,) for photo_id in photo_ids for each in (photo_id, moments.get(photo_id))]
        self._db.executemany("DELETE FROM photos WHERE id = ?", rows)
