"""The rows of photos in one ``photos.db``: what is selected, checked, and made of them."""

import sqlite3
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from vitsearch.photos.columns import METADATA
from vitsearch.storage.checksums import FactsChecksum, joined, parts_of, vector_checksum
from vitsearch.types import Photo, PhotoInfo

CHECKSUM = "checksum"
SIDECARS = "sidecars"  # their signature, after a "/" where they say nothing
# the columns that are written for a photo, the path first, the metadata last
WRITTEN = ("path", "size", "mtime_ns", "fingerprint", "width", "height", *METADATA)
_OF_PHOTO = ("id", *WRITTEN, "label", "label_score")
_REQUIRED = {*_OF_PHOTO} - {*METADATA}
Row = Sequence[Any]


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
