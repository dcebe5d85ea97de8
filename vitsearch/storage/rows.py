"""The rows of photos in one ``photos.db``: what is selected, checked, and made of them.

A video has a row for each moment, of which the first has the path of the file, later ones that of
`vitsearch.types.moment_path`.

Rot is seen by checksums. CRC-32 finds every single damaged bit, every burst of up to 32, and all
but one in four thousand million of other damages; it is not proof against forgery. In the standard
library it is the fastest that does so: 3 GB/s, 0.6 microseconds for a vector, where BLAKE2b takes
3.
"""

import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from operator import itemgetter
from typing import Any

from vitsearch.paths import raw_path
from vitsearch.photos.columns import METADATA
from vitsearch.photos.formats import is_video
from vitsearch.types import Photo, PhotoInfo, split_moment

_HALVES = struct.Struct("<II")  # of the facts of a photo, and of its vector
CHECKSUM = "checksum"
SIDECARS = "sidecars"  # their signature, after a "/" where they say nothing
# the columns that are written for a photo, the path first, the metadata last
WRITTEN = ("path", "size", "mtime_ns", "fingerprint", "width", "height", *METADATA)
_OF_PHOTO = ("id", *WRITTEN, "label", "label_score")
_REQUIRED = {*_OF_PHOTO} - {*METADATA}
Row = Sequence[Any]
IS_FILE = "path NOT GLOB '*#t=[0-9]*.[0-9][0-9][0-9]'"  # of rows: all but later moments
ORDERS = {
    "newest": "taken_at IS NULL, taken_at DESC, mtime DESC, path",
    "path": "path",
}
_OF_FILE = "path >= CAST(? AS TEXT) AND path < CAST(? AS TEXT)"


class Outcome(Enum):
    """The outcome of storing a photo."""

    NEW = "new"
    REPLACED = "replaced"
    MOVED = "moved"
    RESTORED = "restored"
    UNCHANGED = "unchanged"
    OLDER = "older"
    UNUSABLE = "unusable"

    @property
    def is_stored(self) -> bool:
        """Whether the set of photos, or the vector of one, has changed."""
        return self in (Outcome.NEW, Outcome.REPLACED, Outcome.RESTORED)


# -- Checksums -------------------------------------------------------------------------------------


def row_checksum(values: Sequence[Any], seed: int = 0) -> int:
    """Return the checksum of the values of a row, of any types that SQLite has.

    It is that of their representation in ASCII, which every version of Python writes alike.
    """
    return zlib.crc32(b"%a" % (tuple(values),), seed)


def vector_checksum(raw: Any, generation: Any) -> int:
    """Return the checksum of a raw vector stored under a generation, -1 for values of other types.

    The generation is the start of the CRC: a page that was left at an earlier vector is found too.
    """
    if not isinstance(raw, bytes) or not isinstance(generation, int):
        return -1
    return zlib.crc32(raw, generation & 0xFFFFFFFF)


class FactsChecksum:
    """Checksums of the facts of photos, the columns of the table but ``checksum``, by their names.

    Null values at the end do not count, so that a column may be added to the table.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        names = [columns[:count] for count in range(len(columns) + 1)]
        self._seeds = [row_checksum(part) for part in names]

    def of(self, facts: Sequence[Any]) -> int:
        """Return the checksum of the values of a photo, in the order of the columns."""
        count = len(facts)
        while count and facts[count - 1] is None:
            count -= 1
        return zlib.crc32(b"%a" % (tuple(facts[:count]),), self._seeds[count])


def joined(facts: int, vector: int) -> bytes:
    """Return the eight bytes that are stored for a photo."""
    return _HALVES.pack(facts, vector)


def parts_of(checksum: Any) -> tuple[int, int]:
    """Return the checksums of facts and vector that are stored for a photo; no checksum is equal
    to -2, which stands for what cannot be read.
    """
    if not isinstance(checksum, bytes) or len(checksum) != _HALVES.size:
        return -2, -2
    facts, vector = _HALVES.unpack(checksum)
    return facts, vector


# -- Rows ------------------------------------------------------------------------------------------


def table_columns(db: sqlite3.Connection, table: str) -> list[str]:
    """Return the names of a table's columns, in order."""
    return [str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")]


class PhotoRows:
    """The columns of the table ``photos`` of one file, and the checks of its rows.

    A row as selected by ``select`` is the facts of a photo, in the order of the table, then its
    checksum. Metadata columns that an older file does not have are null. A file of before checksums
    has none to check: all of its rows are sound. Raises sqlite3.DatabaseError for a table without
    its columns.
    """

    def __init__(self, db: sqlite3.Connection, *, checksums: bool = True) -> None:
        stored = table_columns(db, "photos")
        self._columns = [name for name in stored if name != CHECKSUM]
        if not {*stored} >= _REQUIRED or not all(map(str.isidentifier, stored)):
            raise sqlite3.DatabaseError(f"malformed columns {ascii(stored)[:200]}")
        if checksums and CHECKSUM not in stored:
            raise sqlite3.DatabaseError("malformed schema: no checksums")
        self._checksums = checksums
        # of the file: path, size, time, sidecars
        signature = f"coalesce(ltrim({SIDECARS}, '/'), '')" if SIDECARS in stored else "''"
        self.stat = f"path, size, mtime_ns, {signature}"
        self._facts = FactsChecksum(self._columns)
        beyond = len(self._columns) + 1  # the place of a null that is put behind a row
        places = [
            self._columns.index(name) if name in self._columns else beyond for name in _OF_PHOTO
        ]
        self._of_photo = itemgetter(*places)
        self._identity = itemgetter(
            *(places[_OF_PHOTO.index(n)] for n in ("id", "path", "fingerprint"))
        )
        self.names = ", ".join(f'"{name}"' for name in self._columns)  # of the facts
        self.checksum = f"photos.{CHECKSUM}" if checksums else "NULL"
        self.columns = ", ".join([*(f'photos."{name}"' for name in self._columns), self.checksum])
        self.select = f"SELECT {self.columns} FROM photos"

    def photo(self, row: Row) -> Photo:
        """Return the photo of a selected row."""
        photo_id, path, size, mtime_ns, fingerprint, width, height, *rest, label, score = (
            self._of_photo((*row, None))
        )
        info = PhotoInfo(width, height, dict(zip(METADATA, rest, strict=True)))
        return Photo(photo_id, path, size, mtime_ns, fingerprint, info, label, score)

    def has_own_facts(self, row: Row) -> bool:
        """Return whether the facts of a selected row are from its photo's file alone."""
        signature = row[self._columns.index(SIDECARS)] if SIDECARS in self._columns else None
        return not signature or str(signature).startswith("/")

    def identity(self, row: Row) -> tuple[int, str, bytes]:
        """Return the id, the path and the fingerprint of a selected row."""
        photo_id, path, fingerprint = self._identity(row)
        return photo_id, path, fingerprint

    def facts_are_sound(self, row: Row) -> bool:
        """Return whether the facts of a selected row are what was stored."""
        facts = row[: len(self._columns)]
        return not self._checksums or self._facts.of(facts) == parts_of(row[len(facts)])[0]

    def is_sound(self, row: Row, generation: Any, raw: Any) -> bool:
        """Return whether a selected row and its vector are what was stored."""
        if not self._checksums:
            return True
        vector = vector_checksum(raw, generation)
        return vector >= 0 and joined(self._facts.of(row[:-1]), vector) == row[-1]

    def vector_is_sound(self, checksum: Any, generation: Any, raw: Any) -> bool:
        """Return whether a vector is the one that the photo with this checksum was stored with."""
        return not self._checksums or vector_checksum(raw, generation) == parts_of(checksum)[1]

    def checksum_of(self, row: Row, generation: Any, raw: Any) -> bytes:
        """Return the checksum of a selected row and its vector."""
        return joined(self._facts.of(row[:-1]), vector_checksum(raw, generation))

    # -- writing -----------------------------------------------------------------------------------

    def seal(self, db: sqlite3.Connection, photo_id: int, vector: int) -> None:
        """Store the checksum of a photo's row as it is now; ``vector`` is that of its vector."""
        row = db.execute(f"{self.select} WHERE photos.id = ?", (photo_id,)).fetchone()
        checksum = joined(self._facts.of(row[:-1]), vector)
        db.execute("UPDATE photos SET checksum = ? WHERE id = ?", (checksum, photo_id))

    def update(
        self, db: sqlite3.Connection, photo_id: int, assignments: str, values: Iterable[Any]
    ) -> None:
        """Change columns of a photo; a row that was damaged before keeps a wrong checksum."""
        row = db.execute(f"{self.select} WHERE photos.id = ?", (photo_id,)).fetchone()
        if row is None:
            return
        db.execute(f"UPDATE photos SET {assignments} WHERE id = ?", (*values, photo_id))
        if self.facts_are_sound(row):
            self.seal(db, photo_id, parts_of(row[-1])[1])


# -- Moments of videos -----------------------------------------------------------------------------


def _range(file: str) -> tuple[bytes, bytes]:
    """Return the paths from which on, and before which, the later moments of a video lie."""
    return raw_path(f"{file}#t="), raw_path(f"{file}#t>")  # > comes next to =


def moments_of(db: sqlite3.Connection, file: str, table: str = "photos") -> list[tuple[int, str]]:
    """Return (id, path) of the later moments of a video, in order; none for a photo."""
    if not is_video(file):
        return []
    sql = f"SELECT id, path FROM {table} WHERE {_OF_FILE} ORDER BY path"
    return db.execute(sql, _range(file)).fetchall()


def remove_moments(db: sqlite3.Connection, file: str) -> None:
    """Remove the later moments of a video."""
    if is_video(file):
        db.execute(f"DELETE FROM photos WHERE {_OF_FILE}", _range(file))


def later_moments(db: sqlite3.Connection) -> dict[int, int]:
    """Return the ids of the later moments of all videos, each with the id of the first one."""
    rows = db.execute(f"SELECT id, path FROM photos WHERE NOT ({IS_FILE})").fetchall()
    later = [(photo_id, split_moment(path)[0]) for photo_id, path in rows]
    sql = "SELECT id FROM photos WHERE path = CAST(? AS TEXT)"
    firsts = {file: db.execute(sql, (raw_path(file),)).fetchone() for _, file in later}
    return {photo_id: firsts[file][0] for photo_id, file in later if firsts[file]}


def with_later_moments(
    db: sqlite3.Connection, labels: Sequence[tuple[int, str | None, float | None]]
) -> Iterator[tuple[int, str | None, float | None]]:
    """Yield (photo id, label, score) rows, after that of a video one for each later moment."""
    sql = "SELECT path FROM photos WHERE id = ?"
    for photo_id, label, score in labels:
        yield photo_id, label, score
        (path,) = db.execute(sql, (photo_id,)).fetchone() or ("",)
        yield from ((later, label, score) for later, _ in moments_of(db, path))


def is_older(photo: Photo, here: Photo | None, first: Photo | None) -> bool:
    """Return whether what is stored ``here`` was changed later than a photo of another collection,
    or is not the video whose ``first`` moment is stored.
    """
    if split_moment(photo.path)[1] is not None:
        return first is None or first.fingerprint != photo.fingerprint
    return here is not None and here.mtime_ns > photo.mtime_ns
