"""The text in stored photos: the column ``text`` with its index, and the places of its words.

The places, and why a text could not be read, are stored by the content of a file, so that they stay
with a photo wherever it moves, and go when the last photo of that content does.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress

from vitsearch.errors import CollectionError
from vitsearch.photos.formats import is_video
from vitsearch.photos.text import PhotoText
from vitsearch.storage.rows import IS_FILE
from vitsearch.storage.schema import has_text_index
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo

_UNREAD = f"text IS NULL AND {IS_FILE}"
_FAILED = "SELECT fingerprint FROM text_places WHERE problem IS NOT NULL"
_BATCH = 500


def check_text_index(store: PhotoStore) -> None:
    """Raise CollectionError where a file open for writing cannot have an index of texts."""
    if not has_text_index(store._db):
        raise CollectionError(
            f"the SQLite {sqlite3.sqlite_version} of this Python has no FTS5, in which text is "
            "searched: use another build of Python"
        )


def without_text(store: PhotoStore, *, retry: bool = False) -> Iterator[Photo]:
    """Yield the photos whose text was not read yet, no videos, in order of id; with ``retry`` also
    those of which it could not be read. Others may be stored meanwhile.
    """
    condition = _UNREAD if retry else f"{_UNREAD} AND fingerprint NOT IN ({_FAILED})"
    last = 0
    while batch := list(
        store._select(f"WHERE {condition} AND id > ? ORDER BY id LIMIT ?", last, _BATCH)
    ):
        last = batch[-1].photo_id
        yield from (photo for photo in batch if not is_video(photo.path))


def put_text(store: PhotoStore, fingerprint: bytes, text: PhotoText) -> None:
    """Store the text of all photos with this content (inside `writing`)."""
    _put_places(store, fingerprint, text.packed(), None)
    rows = store._db.execute("SELECT id FROM photos WHERE fingerprint = ?", (fingerprint,))
    for (photo_id,) in rows.fetchall():
        store._rows.update(store._db, photo_id, "text = ?", (text.text,))


def put_text_problem(store: PhotoStore, fingerprint: bytes, reason: str) -> None:
    """Store why the text of photos with this content could not be read (inside `writing`)."""
    _put_places(store, fingerprint, b"", reason)


def text_of(store: PhotoStore, photo: Photo) -> PhotoText | None:
    """Return the text of a photo with the places of its words; None where it has none, or its
    places are not known, as of photos that came by shards.
    """
    text = photo.info["text"]
    if not text or not has_text_index(store._db):
        return None
    sql = "SELECT places FROM text_places WHERE fingerprint = ?"
    with store._errors():
        row = store._db.execute(sql, (photo.fingerprint,)).fetchone()
    with suppress(ValueError, TypeError):
        return PhotoText.unpacked(str(text), row[0])
    return None


def put_places_of(store: PhotoStore, source: PhotoStore, photo: Photo) -> None:
    """Store the places of a photo's words as another collection has them (inside `writing`)."""
    if text := text_of(source, photo):
        _put_places(store, photo.fingerprint, text.packed(), None)


def _put_places(store: PhotoStore, fingerprint: bytes, places: bytes, problem: str | None) -> None:
    sql = "INSERT OR REPLACE INTO text_places VALUES (?, ?, ?)"
    store._db.execute(sql, (fingerprint, places, problem))
