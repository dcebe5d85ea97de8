"""Reads the photos of a collection in Milvus, and its candidates for a search."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vitsearch.arrays import Halves, Ids, Vectors
from vitsearch.errors import CollectionError, CollectionNotFound, QueryError
from vitsearch.filters.tree import Comparison, Filter
from vitsearch.milvus.filter import milvus_filter
from vitsearch.milvus.metadata import CollectionMetadata
from vitsearch.milvus.rows import PHOTO_FIELDS, photo_of
from vitsearch.milvus.uri import MilvusUri
from vitsearch.paths import raw_path
from vitsearch.photos.columns import COLUMNS
from vitsearch.types import Photo, SkippedPhoto, split_moment

if TYPE_CHECKING:
    from vitsearch.milvus.client import Connection

MAX_RESULTS = 16_384  # for one query
TYPES = (
    "AUTOINDEX", "FLAT", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "HNSW", "HNSW_SQ", "SCANN", "DISKANN",
)  # fmt: skip
MAX_READ = 200_000  # rows whose texts are read for the words of queries
MIN_EF = 128  # the least number of candidates that a search of a graph keeps
PROBED = 8  # one list in so many is read
DEFAULT_LISTS = 128  # of an index that does not record how many it has


class MilvusStore:
    """One collection of Milvus, open for reading, with the reading methods of `PhotoStore`.

    A reader of Milvus has no snapshot: it may see what is pushed meanwhile. Every method raises
    CollectionError if Milvus does not answer.
    """

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.uri = connection.uri
        self.metadata: CollectionMetadata = connection.metadata()
        connection.load()
        fields = connection.fields()
        self.photo_fields = ["id", *(name for name in PHOTO_FIELDS if name in fields)]

    @classmethod
    def open(cls, uri: MilvusUri) -> "MilvusStore":
        """Return the store of an existing collection.

        Raises CollectionNotFound or CollectionError.
        """
        from vitsearch.milvus import connect

        if uri.file and not uri.file.exists():
            raise CollectionNotFound(
                f"there is no file {uri.file} of Milvus Lite: push a shard set into it with "
                "`vitsearch push`"
            )
        connection = connect(uri)
        try:
            if not connection.exists():
                raise CollectionNotFound(
                    f"there is no collection {uri.name} at {uri.address}: push a shard set "
                    "there with `vitsearch push`"
                )
            return cls(connection)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self.connection.close()

    def reading(self) -> AbstractContextManager[None]:
        """Run the block; Milvus offers no snapshot to read from."""
        return nullcontext()

    def get_meta(self, name: str) -> bytes | int | str | None:
        """Return the value stored under a name, or None."""
        known: dict[str, bytes | int | str] = {
            "golden": self.metadata.identity.golden.astype("<f4").tobytes(),
            "decode": self.metadata.decoding,
            "colours": self.metadata.colours,
        }
        return known.get(name)

    def generation(self) -> int:
        """Return the number of the last push."""
        return self.connection.generation()

    def state(self) -> str:
        """Return an empty text: a collection in Milvus has no identity beside its generation."""
        return ""

    def count(self) -> int:
        """Return the number of photos."""
        return self.connection.count()

    def failures(self) -> list[SkippedPhoto]:
        """Return an empty list: failures stay in the shard set."""
        return []

    def count_files(self) -> int:
        """Return the number of photos, a video counted once."""
        return self.count() - len(self._later_moments())

    def moments(self) -> dict[int, int]:
        """Return the ids of the later moments of videos, each with the id of the first one."""
        later = self._later_moments()
        firsts = {file: self.photo_at(file) for file in {*later.values()}}
        return {each: first.photo_id for each, file in later.items() if (first := firsts[file])}

    def _later_moments(self) -> dict[int, str]:
        """Return the ids of the later moments of videos, each with the path of the file."""
        if "time" not in self.connection.fields():
            return {}
        pages = self.connection.pages(["id", "path"], "time > 0")
        rows = [(row["id"], split_moment(row["path"])) for page in pages for row in page]
        return {photo_id: file for photo_id, (file, time) in rows if time is not None}

    def photos(self, *, moments: bool = False) -> Iterator[Photo]:
        """Yield every photo in order of path, of a video the first moment, or all ``moments``; all
        of them are held in memory.
        """
        for photo in self._photos(""):
            if moments or photo.file == photo.path:
                yield photo

    def photo_at(self, path: str) -> Photo | None:
        """Return the photo at a path, or None."""
        return next(iter(self._photos(milvus_filter(Comparison("path", "=", path)))), None)

    def photos_with(self, fingerprint: bytes) -> list[Photo]:
        """Return the photos whose content has this fingerprint, in order of path."""
        return self._photos(f'fingerprint == "{fingerprint.hex()}"')

    def _photos(self, condition: str) -> list[Photo]:
        pages = self.connection.pages(self.photo_fields, condition)
        photos = [photo_of(row) for page in pages for row in page]
        return sorted(photos, key=lambda photo: raw_path(photo.path))

    def vector(self, photo_id: int) -> Halves:
        """Return the stored vector of one photo."""
        rows = self.rows([photo_id])
        if not rows:
            raise CollectionError(f"{self.uri}: there is no photo {photo_id} any more")
        return self.halves([rows[0][2]])[0]

    def rows(self, ids: Sequence[int]) -> list[tuple[int, str, bytes, bytes]]:
        """Return (id, path, raw vector, fingerprint) of the photos with these ids.

        The order is arbitrary, and ids that are not in the collection are left out.
        """
        rows = self.connection.among(ids, ["id", "path", "fingerprint", "vector"])
        return [
            (row["id"], row["path"], _raw(row), bytes.fromhex(row["fingerprint"])) for row in rows
        ]

    def condition(self, where: Filter) -> str:
        """Return a filter in the language of Milvus.

        Raises QueryError for a filter that Milvus cannot express, or for a column that the
        collection was made without.
        """
        missing = sorted((where.columns() & COLUMNS.keys()) - self.connection.fields())
        if missing:
            raise QueryError(
                f"{self.uri} was made before there was a column {missing[0]}: push into another "
                "--collection NAME to filter by it"
            )
        return milvus_filter(where)

    def ids_where(self, where: Filter, *, order: str = "id") -> Ids:
        """Return the ids of the photos that match a filter, in ascending order, by ``path``, or the
        ``newest`` first, as `PhotoStore.ids_where`.
        """
        columns = {"id": ["id"], "path": ["id", "path"]}.get(
            order, ["id", "path", "taken_at", "mtime"]
        )
        rows = [
            row for page in self.connection.pages(columns, self.condition(where)) for row in page
        ]
        rows.sort(key=lambda row: row["id"] if order == "id" else raw_path(row["path"]))
        if order == "newest":
            rows.sort(key=lambda row: (row["taken_at"] or "", row["mtime"]), reverse=True)
        return np.array([row["id"] for row in rows], dtype=np.int64)

    def months_where(self, where: Filter) -> list[tuple[str, int]]:
        """Return the months in which the photos of a filter were taken, as
        `PhotoStore.months_where`.
        """
        pages = self.connection.pages(["id", "taken_at"], self.condition(where))
        counts = Counter((row["taken_at"] or "")[:7] for page in pages for row in page)
        return sorted(counts.items(), reverse=True)

    def distinct(self, columns: Sequence[str]) -> dict[str, list[str]]:
        """Return the different values of columns of texts, of ``path`` the folders; none of a
        collection of more than `MAX_READ` photos, which Milvus would have to send.
        """
        known = [name for name in columns if name in self.connection.fields()]
        values: dict[str, set[str]] = {name: set() for name in known}
        if self.count() > MAX_READ:
            return {}
        for page in self.connection.pages(["id", *known]):
            for row in page:
                for name in known:
                    text = "" if row[name] is None else str(row[name])
                    values[name].add(text.rpartition("/")[0] if name == "path" else text)
        return {name: sorted(texts - {""}) for name, texts in values.items()}

    def vector_batches(self, *, since: int = -1, size: int = 4096) -> Iterator[tuple[Ids, Halves]]:
        """Yield (ids, ``(n, dim)`` float16 rows) in order of id.

        ``since`` and ``size`` are those of `PhotoStore`; they are ignored.
        """
        for page in self.connection.pages(["id", "vector"]):
            yield (
                np.array([row["id"] for row in page], dtype=np.int64),
                self.halves([_raw(row) for row in page]),
            )

    def halves(self, raw: Sequence[bytes]) -> Halves:
        """Return ``(n, dim)`` float16 rows of raw vectors."""
        return np.frombuffer(b"".join(raw), dtype="<f2").reshape(len(raw), -1).astype(np.float16)


def _raw(row: dict[str, Any]) -> bytes:
    return np.asarray(row["vector"], dtype="<f2").tobytes()


def build_params(index_type: str, rows: int) -> dict[str, int]:
    """Return the build parameters of an index over this many rows.

    Raises CollectionError for an unknown type.
    """
    if index_type not in TYPES:
        raise CollectionError(f"there is no index {index_type!r}: one of {', '.join(TYPES)}")
    lists = int(min(65_536, max(16, 4 * rows**0.5)))
    if index_type.startswith("HNSW"):
        return {"M": 16, "efConstruction": 200}
    return {"nlist": lists} if index_type.startswith("IVF") or index_type == "SCANN" else {}


def search_params(
    index: Mapping[str, Any], limit: int, *, exhaustive: bool = False
) -> dict[str, int]:
    """Return the search effort for ``limit`` results; with ``exhaustive`` all lists are read."""
    kind = str(index.get("index_type", ""))
    if kind.startswith("HNSW") or kind == "AUTOINDEX":
        return {"ef": min(32_768, max(MIN_EF, 2 * limit))}
    if kind.startswith("IVF") or kind == "SCANN":
        lists = int(index.get("nlist") or DEFAULT_LISTS)
        return {"nprobe": lists if exhaustive else max(1, -(-lists // PROBED))}
    return {"search_list": min(65_535, max(MIN_EF, 2 * limit))} if kind == "DISKANN" else {}


class Candidates:
    """The candidates that Milvus proposes among the rows that match a condition.

    There are at most ``limit`` for a query.
    """

    limit = MAX_RESULTS

    def __init__(self, connection: "Connection", condition: str = "") -> None:
        self._connection, self._condition = connection, condition

    @cached_property
    def count(self) -> int:
        """The number of rows that match the condition."""
        return self._connection.count(self._condition)

    def candidates_for(self, queries: Vectors, count: int) -> list[tuple[Ids, bool]]:
        """Return for each of the ``(m, dim)`` queries up to ``count`` ids, best first, and whether
        there are other rows.
        """
        count = min(count, self.limit)
        batch = self._search(queries, count)
        return [
            self._completed(ids, query, count) for ids, query in zip(batch, queries, strict=True)
        ]

    def _completed(self, ids: Ids, query: Vectors, count: int) -> tuple[Ids, bool]:
        """Return the candidates, with more of them if an approximate index has given too few."""
        if len(ids) < count and len(ids) < self.count:
            ids = self._search(query[None], count, exhaustive=True)[0]
        if len(ids) < count and len(ids) < self.count <= self.limit:
            pages = self._connection.pages(["id"], self._condition)
            ids = np.array([row["id"] for page in pages for row in page], dtype=np.int64)
        # counting the rows of a condition takes as long as searching them, so a full result just
        # means that there may be more
        return ids, (len(ids) == count < self.limit) or len(ids) < self.count

    def _search(self, queries: Vectors, limit: int, *, exhaustive: bool = False) -> list[Ids]:
        params = search_params(self._connection.index(), limit, exhaustive=exhaustive)
        return self._connection.search(queries, limit, condition=self._condition, params=params)
