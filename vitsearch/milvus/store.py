"""Reads the photos of a collection in Milvus, and its candidates for a search."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vitsearch.arrays import Halves, Ids, Vectors
from vitsearch.errors import CollectionError, CollectionNotFound, QueryError
from vitsearch.filters.tree import And, Comparison, Filter, IsNull, Or
from vitsearch.milvus import (
    LARGE,
    SAMPLE,
    Sample,
    both,
    count_months,
    count_years,
    last_ids,
    sample,
)
from vitsearch.milvus.filter import milvus_filter
from vitsearch.milvus.schema import PHOTO_FIELDS, CollectionMetadata, MilvusUri, photo_of
from vitsearch.paths import raw_path
from vitsearch.photos.columns import COLUMNS
from vitsearch.types import Photo, SkippedPhoto, StoredRow, split_moment

if TYPE_CHECKING:
    from vitsearch.milvus.client import Connection

MAX_RESULTS = 16_384  # of one search
MAX_ITERATED = 1_000_000  # of one iterator, which servers have
TYPES = (
    "AUTOINDEX", "FLAT", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "HNSW", "HNSW_SQ", "SCANN", "DISKANN",
)  # fmt: skip
MANY = 5000  # rows of a month, above which only the days are read that are wanted
MIN_EF = 128  # the least number of candidates that a search of a graph keeps
PROBED = 8  # one list in so many is read
DEFAULT_LISTS = 128  # of an index that does not record how many it has


class MilvusStore:
    """One collection of Milvus, open for reading, with the reading methods of `PhotoStore`.

    A reader of Milvus has no snapshot: it may see what is pushed meanwhile, and may see it some
    seconds late. Every method raises CollectionError if Milvus does not answer.
    """

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.uri = connection.uri
        self.metadata: CollectionMetadata = connection.metadata()
        connection.load()
        fields = connection.fields()
        self.photo_fields = ["id", *(name for name in PHOTO_FIELDS if name in fields)]
        self._sampled_rows: tuple[tuple[int, int], list[StoredRow]] | None = None
        self._sampled_photos: tuple[tuple[int, int], list[Photo]] | None = None

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
        connection = connect(uri, consistency="Bounded")
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
        later = "time > 0" if "time" in self.connection.fields() else ""
        return self.count() - (self.connection.count(later) if later else 0)

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

    def rows(self, ids: Sequence[int]) -> list[StoredRow]:
        """Return (id, path, raw vector, fingerprint) of the photos with these ids.

        The order is arbitrary, and ids that are not in the collection are left out.
        """
        columns = ["id", "path", "fingerprint", "vector"]
        return [_stored(row) for row in self.connection.among(ids, columns)]

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

    # -- the whole of it ---------------------------------------------------------------------------

    @property
    def is_large(self) -> bool:
        """Whether it has so many photos that what takes them all is answered from a sample."""
        return self.count() > LARGE

    def sampled(self, columns: Sequence[str], where: Filter | None = None) -> Sample:
        """Return columns, the id among them, of all rows that match a filter; of a large collection
        those of a sample.
        """
        condition = self.condition(where) if where else ""
        return sample(self.connection, columns, condition, SAMPLE if self.is_large else LARGE)

    def sampled_rows(self) -> list[StoredRow]:
        """Return `rows` of a sample of a large collection, in order of id, of a video the first
        moment; they are read once in a state of the collection.
        """
        state = self.generation(), self.count()
        if self._sampled_rows is None or self._sampled_rows[0] != state:
            columns = ["id", "path", "fingerprint", "vector"]
            stored = [_stored(row) for row in self.sampled(columns).rows]
            self._sampled_rows = state, [row for row in stored if split_moment(row[1])[1] is None]
        return self._sampled_rows[1]

    def sampled_photos(self) -> list[Photo]:
        """Return the photos of `sampled_rows`, in order of path; they are read once in a state of
        the collection.
        """
        state = self.generation(), self.count()
        if self._sampled_photos is None or self._sampled_photos[0] != state:
            photos = [photo_of(row) for row in self.sampled(self.photo_fields).rows]
            first = [photo for photo in photos if photo.file == photo.path]
            self._sampled_photos = state, sorted(first, key=lambda photo: raw_path(photo.path))
        return self._sampled_photos[1]

    def sampled_ids(self, where: Filter) -> set[int]:
        """Return the ids of those photos of `sampled_rows` that match a filter."""
        rows = self.sampled_rows()
        within = f"id <= {rows[-1][0]}" if rows else ""
        pages = self.connection.pages(["id"], both(self.condition(where), within))
        # later moments of videos match too
        return {row[0] for row in rows} & {row["id"] for page in pages for row in page}

    def newest(
        self, where: Filter | None, periods: Sequence[tuple[str, int]], start: int, stop: int
    ) -> list[int]:
        """Return the ids from ``start`` to ``stop`` of the rows that match a filter, in the order
        of ``ids_where(order="newest")``.

        ``periods`` are its `months_where`: only those are read that the ids are from, and of one
        with very many photos only the days.
        """
        ids: list[int] = []
        begin = 0
        for name, count in periods:
            low, high = max(0, start - begin), min(count, stop - begin)
            begin += count
            if low >= high:
                continue
            if count > MANY and len(name) == len("2019-07"):
                ids += self.newest(where, self._days(name, where), low, high)
            else:
                inside = self.ids_where(_in_period(name, where), order="newest")
                ids += inside[low:high].tolist()
        return ids

    def _days(self, month: str, where: Filter | None) -> list[tuple[str, int]]:
        """Return the days of a month with their numbers of rows, the newest first."""
        names = [f"{month}-{day:02}" for day in range(31, 0, -1)] + [f"{month}-"]
        filters = [_in_period(name, where) for name in names]
        return [*zip(names, map(self.count_where, filters), strict=True)]

    def last_ids(self, where: Filter | None, count: int) -> list[int]:
        """Return the ``count`` highest ids of the rows that match a filter, the highest first."""
        return last_ids(self.connection, count, self.condition(where) if where else "")

    def first_moments(self, where: Filter | None) -> Filter | None:
        """Return a filter that of videos leaves the first moment only."""
        if self.count_files() == self.count():
            return where
        first = Or((IsNull("time"), Comparison("time", "<=", 0)))
        return And((where, first)) if where else first

    def count_where(self, where: Filter) -> int:
        """Return the number of rows that match a filter."""
        return self.connection.count(self.condition(where))

    def months_where(self, where: Filter) -> list[tuple[str, int]]:
        """Return the months in which the photos of a filter were taken, as
        `PhotoStore.months_where`.
        """
        condition = self.condition(where)
        if self.is_large:
            return count_months(self.connection, condition)
        pages = self.connection.pages(["id", "taken_at"], condition)
        counts = Counter((row["taken_at"] or "")[:7] for page in pages for row in page)
        return sorted(counts.items(), reverse=True)

    def distinct(self, columns: Sequence[str]) -> dict[str, list[str]]:
        """Return the different values of columns of texts, of ``path`` the folders; those of a
        sample of a large collection, except years.
        """
        known = [name for name in columns if name in self.connection.fields()]
        if known == ["year"] and self.is_large:
            return {"year": [str(year) for year in count_years(self.connection)]}
        rows: Iterator[dict[str, Any]] = (
            ({name: COLUMNS[name].of(photo) for name in known} for photo in self.sampled_photos())
            if self.is_large
            else (row for page in self.connection.pages(["id", *known]) for row in page)
        )
        values: dict[str, set[str]] = {name: set() for name in known}
        for row in rows:
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
                np.array([row["vector"] for row in page]),
            )

    def halves(self, raw: Sequence[bytes]) -> Halves:
        """Return ``(n, dim)`` float16 rows of raw vectors."""
        return np.frombuffer(b"".join(raw), dtype="<f2").reshape(len(raw), -1).astype(np.float16)


def _in_period(name: str, where: Filter | None) -> Filter:
    """Return a filter of a month that `count_months` names, of a day (2019-07-14), or of what in a
    month is of no day (2019-07-).
    """
    year, month, day = (*name.split("-"), "", "")[:3]
    parts: list[Filter] = [Comparison("year", "=", int(year)) if year else IsNull("year")]
    if year:
        parts.append(Comparison("month", "=", int(month)) if month else IsNull("month"))
    if len(name) > len("2019-07"):
        parts.append(Comparison("taken_at", "=" if day else "<", name))
    return And((*parts, where) if where else tuple(parts))


def _stored(row: dict[str, Any]) -> StoredRow:
    return (
        row["id"],
        row["path"],
        row["vector"].astype("<f2").tobytes(),
        bytes.fromhex(row["fingerprint"]),
    )


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

    def __init__(self, connection: "Connection", condition: str = "") -> None:
        self._connection, self._condition = connection, condition

    @property
    def limit(self) -> int:
        """How many candidates can be asked for."""
        return MAX_RESULTS if self._connection.uri.file else MAX_ITERATED

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
        if len(ids) < count and len(ids) < self.count <= max(count, MAX_RESULTS):
            pages = self._connection.pages(["id"], self._condition)
            ids = np.array([row["id"] for page in pages for row in page], dtype=np.int64)
        # counting the rows of a condition takes as long as searching them, so a full result just
        # means that there may be more
        return ids, (len(ids) == count < self.limit) or len(ids) < self.count

    def _search(self, queries: Vectors, limit: int, *, exhaustive: bool = False) -> list[Ids]:
        params = search_params(self._connection.index(), limit, exhaustive=exhaustive)
        connection, condition = self._connection, self._condition
        if limit <= MAX_RESULTS:
            return connection.search(queries, limit, condition=condition, params=params)
        return [
            connection.nearest(query, limit, condition=condition, params=params)
            for query in queries
        ]
