"""The rows of videos in ``photos.db``: one for each moment, of which the first has the path of the
file, later ones that of `vitsearch.types.moment_path`.
"""

import sqlite3
from collections.abc import Iterator, Sequence

from vitsearch.paths import raw_path
from vitsearch.photos.formats import is_video
from vitsearch.types import Photo, split_moment

IS_FILE = "path NOT GLOB '*#t=[0-9]*.[0-9][0-9][0-9]'"  # of rows: all but later moments
_OF_FILE = "path >= CAST(? AS TEXT) AND path < CAST(? AS TEXT)"


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
    db: sqlite3.Connection, labels: Sequence[tuple[int, str, float]]
) -> Iterator[tuple[int, str, float]]:
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
