"""What changes of stored photos: facts and vectors that are read again, names of places."""

from collections.abc import Mapping

import numpy as np

from vitsearch.arrays import Halves
from vitsearch.photos.columns import METADATA
from vitsearch.storage.checksums import vector_checksum
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo, PhotoInfo, Value


def known_content(store: PhotoStore, fingerprint: bytes) -> tuple[PhotoInfo | None, Halves] | None:
    """Return the facts of a photo with this content (None where all that have it have facts from
    sidecars) and its vector, or None; photos that were put aside come last.
    """
    sql = f"{store._rows.select} WHERE fingerprint = ? ORDER BY path"
    with store._errors():
        rows = store._db.execute(sql, (fingerprint,)).fetchall()
    rows = [row for row in rows if store._rows.facts_are_sound(row)]
    if not rows:
        return store.aside.content(fingerprint)
    unmixed = next((row for row in rows if store._rows.has_own_facts(row)), None)
    vector = store.vector(store._rows.identity(rows[0])[0])
    return unmixed and store._rows.photo(unmixed).info, vector


def put_metadata(store: PhotoStore, photo_id: int, values: Mapping[str, Value | None]) -> None:
    """Store metadata columns of a photo by name (inside `writing`); the others stay."""
    names = [name for name in METADATA if name in values]
    assignments = ", ".join(f"{name} = ?" for name in names)
    store._rows.update(store._db, photo_id, assignments, [values[name] for name in names])


def put_vector(store: PhotoStore, path: str, vector: Halves | None) -> bool:
    """Give the photo at a path, whose content is the same, a new vector under the next
    generation, and return whether it differs.
    """
    photo = store.photo_at(path)
    if photo is None or vector is None or not np.isfinite(vector).all():
        return False
    raw, generation = vector.astype("<f2").tobytes(), store.generation() + 1
    if raw == store.vector(photo.photo_id).astype("<f2").tobytes():
        return False
    values = (generation, raw, photo.photo_id)
    sql = "UPDATE vectors SET generation = ?, vector = ? WHERE photo_id = ?"
    store._db.execute(sql, values)
    store._rows.seal(store._db, photo.photo_id, vector_checksum(raw, generation))
    return True


def unnamed_places(store: PhotoStore, after: int, count: int) -> list[Photo]:
    """Return at most so many photos with a position and without a country, by ids beyond
    ``after``.
    """
    condition = "latitude IS NOT NULL AND country IS NULL AND id > ? ORDER BY id LIMIT ?"
    return list(store._select(f"WHERE {condition}", after, count))
