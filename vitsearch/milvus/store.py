"""The photos of a collection in Milvus, read as those of a database on disk are."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.milvus.facts import Facts
from vitsearch.milvus.filter import milvus_filter
from vitsearch.milvus.place import Place
from vitsearch.milvus.rows import OF_PHOTO, photo_of
from vitsearch.types import Photo, SkippedPhoto, raw_path
from vitsearch.where import Where
from vitsearch.where.tree import Comparison

if TYPE_CHECKING:
    from vitsearch.milvus.connection import Connection

Half = NDArray[np.float16]
Ids = NDArray[np.int64]


class MilvusStore:
    """One collection of Milvus, open for reading; its methods are those of the same names of `PhotoStore`.

    Milvus holds no state still for a reader: what is pushed meanwhile may be seen. Every method raises CollectionError where it does not
    answer.
    """

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.place = connection.place
        self.facts: Facts = connection.facts()
        connection.load()

    @classmethod
    def open(cls, place: Place) -> "MilvusStore":
        """Return the store of a collection that exists; raises CollectionNotFound or CollectionError."""
        from vitsearch.milvus import connect

        if place.file and not place.file.exists():
            raise CollectionNotFound(f"there is no file {place.file} of Milvus Lite: push a shard set into it with `vitsearch push`")
        connection = connect(place)
        try:
            if not connection.exists():
                raise CollectionNotFound(
                    f"there is no collection {place.name} at {place.address}: push a shard set there with `vitsearch push`"
                )
            return cls(connection)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self.connection.close()

    def reading(self) -> AbstractContextManager[None]:
        """Run the block; Milvus has no state that would stay as it is."""
        return nullcontext()

    def fact(self, name: str) -> bytes | int | str | None:
        """Return one named fact, or None."""
        known: dict[str, bytes | int | str] = {
            "golden": self.facts.golden_vectors().astype("<f4").tobytes(),
            "decode": self.facts.decoding,
        }
        return known.get(name)

    def generation(self) -> int:
        """Return the number of the last push."""
        return self.connection.generation()

    def count(self) -> int:
        """Return the number of photos."""
        return self.connection.count()

    def failures(self) -> list[SkippedPhoto]:
        """Return no failures: they stay in the shard set."""
        return []

    def photos(self) -> Iterator[Photo]:
        """Yield every photo in order of path; the facts of all are held in memory."""
        photos = [photo_of(row) for page in self.connection.pages(["id", *OF_PHOTO]) for row in page]
        yield from sorted(photos, key=lambda photo: raw_path(photo.path))

    def photo_at(self, path: str) -> Photo | None:
        """Return the photo at a path, or None."""
        return next(iter(self._photos(milvus_filter(Comparison("path", "=", path)))), None)

    def photos_with(self, fingerprint: bytes) -> list[Photo]:
        """Return the photos whose content has this fingerprint, in order of path."""
        return self._photos(f'fingerprint == "{fingerprint.hex()}"')

    def _photos(self, condition: str) -> list[Photo]:
        found = [photo_of(row) for page in self.connection.pages(["id", *OF_PHOTO], condition) for row in page]
        return sorted(found, key=lambda photo: raw_path(photo.path))

    def vector(self, photo_id: int) -> Half:
        """Return the stored vector of one photo."""
        rows = self.rows([photo_id])
        if not rows:
            raise CollectionError(f"{self.place}: there is no photo {photo_id} any more")
        return self.halves([rows[0][2]])[0]

    def rows(self, ids: Sequence[int]) -> list[tuple[int, str, bytes, bytes]]:
        """Return (id, path, raw vector, fingerprint) of those ids that are in the collection, in no promised order."""
        found = self.connection.among(ids, ["id", "path", "fingerprint", "vector"])
        return [(row["id"], row["path"], _raw(row), bytes.fromhex(row["fingerprint"])) for row in found]

    def ids_where(self, where: Where) -> Ids:
        """Return the ids of the photos that a filter leaves, in order."""
        found = [row["id"] for page in self.connection.pages(["id"], milvus_filter(where)) for row in page]
        return np.array(sorted(found), dtype=np.int64)

    def vector_batches(self, *, since: int = -1, size: int = 4096) -> Iterator[tuple[Ids, Half]]:
        """Yield (ids, ``(n, dim)`` float16 rows) in order of id; ``since`` and ``size`` are those of `PhotoStore` and not used."""
        for page in self.connection.pages(["id", "vector"]):
            yield np.array([row["id"] for row in page], dtype=np.int64), self.halves([_raw(row) for row in page])

    def halves(self, raw: Sequence[bytes]) -> Half:
        """Return ``(n, dim)`` float16 rows of raw vectors."""
        return np.frombuffer(b"".join(raw), dtype="<f2").reshape(len(raw), -1).astype(np.float16)


def _raw(row: dict[str, Any]) -> bytes:
    return np.asarray(row["vector"], dtype="<f2").tobytes()
