"""A shard set: its Parquet files, open for reading (`ShardSet`) and for writing (`ShardWriter`)."""

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from vitsearch.arrays import Halves
from vitsearch.errors import CollectionError
from vitsearch.paths import raw_path
from vitsearch.photos.columns import METADATA, Column
from vitsearch.shards.manifest import MANIFEST, Manifest, ShardRow, read_manifest
from vitsearch.shards.storage import Storage
from vitsearch.types import PhotoInfo, SkippedPhoto
from vitsearch.untrusted import guarded

# -- The columns of a shard (Apache Parquet) -------------------------------------------------------


def arrow_type(column: Column) -> pyarrow.DataType:
    """Return the type in which Arrow and Parquet hold a metadata column."""
    if column.kind != "number":
        return pyarrow.string()
    return pyarrow.int64() if column.integer else pyarrow.float64()


def schema_of(dim: int) -> pyarrow.Schema:
    """Return the columns of a shard with vectors of ``dim`` numbers."""
    return pyarrow.schema(
        [
            pyarrow.field("id", pyarrow.int64(), nullable=False),
            pyarrow.field("path", pyarrow.string(), nullable=False),
            ("path_bytes", pyarrow.binary()),
            ("fingerprint", pyarrow.binary(16)),
            ("vector", pyarrow.list_(pyarrow.float16(), dim)),
            ("width", pyarrow.int32()),
            ("height", pyarrow.int32()),
            *((name, arrow_type(column)) for name, column in METADATA.items()),
            pyarrow.field("size", pyarrow.int64(), nullable=False),
            pyarrow.field("mtime_ns", pyarrow.int64(), nullable=False),
            ("label", pyarrow.string()),
            ("label_score", pyarrow.float64()),
            ("error", pyarrow.string()),
        ]
    )


def check_schema(schema: pyarrow.Schema, dim: int, name: str) -> None:
    """Raise CollectionError unless the columns are those of a shard with vectors of ``dim``
    numbers; metadata columns may be missing, as in a shard that was written before them.
    """
    for field in schema_of(dim):
        index = schema.get_field_index(field.name)
        if index < 0 and field.name in METADATA:
            continue
        if index < 0 or not schema.field(index).type.equals(field.type):
            kind = "no such column" if index < 0 else f"it is {schema.field(index).type}"
            raise CollectionError(
                f"{name} is not a shard of this set: its column {field.name} should be "
                f"{field.type} "
                f"({kind}); remove it"
            )


@contextmanager
def errors(name: str) -> Iterator[None]:
    """Turn the errors of a damaged Parquet file into a CollectionError of one line."""
    repair = "remove it, and run `vitsearch embed` again"
    with guarded(CollectionError, name, repair, problem="cannot be read as a shard"):
        yield


def rows_of(file: pyarrow.parquet.ParquetFile, size: int) -> int:
    """Return the number of rows of a Parquet file of ``size`` bytes; raises ValueError for a footer
    that says more than can be in it, since runs of equal rows take no bytes and any time.
    """
    count = int(file.metadata.num_rows)
    if not 0 <= count <= size // MIN_ROW_BYTES:
        raise ValueError(f"it says that it has {count:,} rows in {size:,} bytes")
    return count


# -- Reading ---------------------------------------------------------------------------------------

BLOCK = 4096  # rows held at a time
MIN_ROW_BYTES = 4  # of a shard: an id alone has 8 that do not get smaller
MAX_BLOCK_BYTES = 1 << 29  # of the rows held at a time
FOLDER = "shards"
LISTING = "listing"


class ShardSet:
    """The shards below one folder or URL. A shard is read when it is used, and held in memory only
    while it is read.

    Raises CollectionError where there is no shard set, or a file of it cannot be read.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage, self.name = storage, storage.name
        if not storage.exists(MANIFEST):
            raise CollectionError(
                f"no shards in {self.name}: `vitsearch embed SOURCE {self.name}` makes them"
            )
        self.manifest: Manifest = read_manifest(storage.read(MANIFEST), self.name)

    def finished(self) -> list[int]:
        """Return the numbers of the shards that are there, in order."""
        names = self.storage.names(FOLDER)
        matches = (re.fullmatch(r"(\d{6,})\.parquet", name, re.ASCII) for name in names)
        return sorted(int(match[1]) for match in matches if match)

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not there yet, in order."""
        there = set(self.finished())
        return [number for number in range(self.manifest.shards) if number not in there]

    def blocks(
        self, numbers: Sequence[int] | None = None, size: int = BLOCK
    ) -> Iterator[tuple[list[ShardRow], Halves]]:
        """Yield the photos in order, a block at a time, with their ``(n, dim)`` float16 unit rows;
        ``numbers``: of these shards only.
        """
        for number in self.finished() if numbers is None else numbers:
            name = shard_name(number)
            yield from read_shard(
                self.storage.read(name), self.manifest.dim, f"{self.name}/{name}", size=size
            )

    def vectors(self, numbers: Sequence[int], size: int = BLOCK) -> Iterator[Halves]:
        """Yield the ``(n, dim)`` float16 unit rows of these shards as `blocks` does, without the
        facts of their photos, which take several times as long to read.
        """
        for number in numbers:
            name = f"{self.name}/{shard_name(number)}"
            data = self.storage.read(shard_name(number))
            for photos in _photos(data, self.manifest.dim, name, size, ["error", "vector"]):
                yield _halves(photos.column("vector"), self.manifest.dim, name)

    def failures(self, numbers: Sequence[int] | None = None) -> Iterator[SkippedPhoto]:
        """Yield the files that are not photos, with the reason, in order."""
        for skipped, _ in self.failed_rows(numbers):
            yield skipped

    def failed_rows(
        self, numbers: Sequence[int] | None = None
    ) -> Iterator[tuple[SkippedPhoto, ShardRow]]:
        """Yield what `failures` yields, each with its row."""
        for number in self.finished() if numbers is None else numbers:
            name = shard_name(number)
            yield from read_failures(
                self.storage.read(name), self.manifest.dim, f"{self.name}/{name}"
            )

    def counts(self, numbers: Sequence[int] | None = None) -> tuple[int, int]:
        """Return how many photos and how many failures there are."""
        photos = failed = 0
        for number in self.finished() if numbers is None else numbers:
            name = shard_name(number)
            with self.storage.opened(name) as file:
                good, bad = count_rows(file, self.manifest.dim, f"{self.name}/{name}")
            photos, failed = photos + good, failed + bad
        return photos, failed


def shard_name(number: int) -> str:
    """Return the name of a shard, below the set's folder."""
    return f"{FOLDER}/{number:06d}.parquet"


def read_shard(
    data: bytes, dim: int, name: str, *, size: int
) -> Iterator[tuple[list[ShardRow], Halves]]:
    """Yield the photos of a shard in blocks of at most ``size`` rows with their ``(n, dim)``
    vectors; raises CollectionError.
    """
    with errors(name):
        for photos in _photos(data, dim, name, size):
            yield _rows(photos), _halves(photos.column("vector"), dim, name)


def _photos(
    data: bytes, dim: int, name: str, size: int, columns: list[str] | None = None
) -> Iterator[pyarrow.RecordBatch]:
    """Yield blocks of the rows of a shard that are photos."""
    with errors(name):
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        check_schema(file.schema_arrow, dim, name)
        rows_of(file, len(data))
        for batch in file.iter_batches(batch_size=size, columns=columns):
            if batch.nbytes > MAX_BLOCK_BYTES:
                raise ValueError(f"{batch.num_rows:,} rows have {batch.nbytes:,} bytes")
            photos = batch.filter(pyarrow.compute.is_null(batch.column("error")))
            if photos.num_rows:
                yield photos


def read_failures(data: bytes, dim: int, name: str) -> Iterator[tuple[SkippedPhoto, ShardRow]]:
    """Yield the rows of a shard that are not photos, with their reason."""
    with errors(name):
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        check_schema(file.schema_arrow, dim, name)
        rows_of(file, len(data))
        table = file.read(columns=[name for name in file.schema_arrow.names if name != "vector"])
        failed = table.filter(pyarrow.compute.is_valid(table.column("error")))
        for row in _rows(failed):
            yield SkippedPhoto(row.path, "failed", row.error or ""), row


def count_rows(file: BinaryIO, dim: int, name: str) -> tuple[int, int]:
    """Return how many photos and how many errors a shard holds, from its footer and its column of
    errors.
    """
    with errors(name):
        opened = pyarrow.parquet.ParquetFile(file)
        check_schema(opened.schema_arrow, dim, name)
        total = rows_of(opened, file.seek(0, os.SEEK_END))
        failed = total - opened.read(columns=["error"]).column("error").null_count if total else 0
        return total - failed, failed


def _halves(column: pyarrow.FixedSizeListArray, dim: int, name: str) -> Halves:
    if column.null_count:
        raise CollectionError(
            f"{name} is damaged (a photo without a vector): remove it, and "
            "run `vitsearch embed` again"
        )
    values = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float16).reshape(-1, dim)


def _rows(batch: Any) -> list[ShardRow]:
    names = [name for name in batch.schema.names if name != "vector"]
    columns = [batch.column(name).to_pylist() for name in names]
    return [_row(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _row(stored: dict[str, Any]) -> ShardRow:
    info = None
    if stored["width"] is not None:
        metadata = {name: stored.get(name) for name in METADATA}
        info = PhotoInfo(stored["width"], stored["height"], metadata)
    path = stored["path"]
    if stored["path_bytes"] is not None:
        path = stored["path_bytes"].decode("utf-8", "surrogateescape")
    names = ("size", "mtime_ns", "fingerprint", "label", "label_score", "error")
    facts = {name: stored[name] for name in names}
    if not isinstance(path, str) or facts["size"] is None or facts["mtime_ns"] is None:
        raise ValueError("a row without a path, a size or a time")
    return ShardRow(photo_id=stored["id"], path=path, info=info, **facts)


# -- Writing: the manifest first, then each complete shard -----------------------------------------


class ShardWriter:
    """A shard set, open for writing; shards may be written in any order, and more than once."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self.storage, self.manifest = storage, manifest

    @classmethod
    def create(cls, storage: Storage, manifest: Manifest) -> "ShardWriter":
        """Begin a shard set where there is at most a listing; raises CollectionError where there
        are other files.
        """
        if set(storage.names("")) - {LISTING}:
            raise CollectionError(
                f"{storage.name} holds files already: name a new place for "
                "the shards, or remove them"
            )
        storage.write(MANIFEST, manifest.to_bytes())
        return cls(storage, manifest)

    @classmethod
    def resume(cls, shards: ShardSet) -> "ShardWriter":
        """Return the writer of a shard set that is not complete."""
        return cls(shards.storage, shards.manifest)

    def write(self, number: int, rows: Sequence[ShardRow], vectors: Halves) -> None:
        """Write one shard; ``vectors`` has a row for each row without an error, in their order."""
        if vectors.ndim != 2 or vectors.shape[1] != self.manifest.dim:
            name, dim = self.storage.name, self.manifest.dim
            raise CollectionError(
                f"vectors of shape {vectors.shape} do not fit {name}: it holds {dim} numbers each"
            )
        self.write_table(number, shard_table(rows, vectors))

    def write_table(self, number: int, table: pyarrow.Table) -> None:
        """Write one shard, as `shard_table` returns it."""
        self.storage.write(shard_name(number), table_bytes(table))

    def finish(self) -> None:
        """Mark the manifest as complete; raises CollectionError where a shard is missing."""
        missing = ShardSet(self.storage).missing()
        if missing:
            raise CollectionError(
                f"{self.storage.name} lacks {len(missing)} shards (the first is {missing[0]}): "
                "run `vitsearch embed` again"
            )
        if not self.manifest.complete:
            self.manifest = replace(self.manifest, complete=True)
            self.storage.write(MANIFEST, self.manifest.to_bytes())


def shard_table(rows: Sequence[ShardRow], vectors: Halves) -> pyarrow.Table:
    """Return rows as a table; ``vectors`` has one row ``(dim,)`` for each row without an error, in
    their order.

    Raises ValueError where they are not as many.
    """
    return with_vectors(facts_table(rows), vectors)


def facts_table(rows: Sequence[ShardRow]) -> pyarrow.Table:
    """Return rows as a table of every column but the vector."""
    schema = schema_of(1)
    schema = schema.remove(schema.get_field_index("vector"))
    columns = [
        pyarrow.array([_value(row, field.name) for row in rows], field.type) for field in schema
    ]
    return pyarrow.Table.from_arrays(columns, schema=schema)


def with_vectors(facts: pyarrow.Table, vectors: Halves) -> pyarrow.Table:
    """Return a table of facts with the vectors of its rows without an error, in their order; raises
    ValueError for another number.
    """
    has_error = pyarrow.compute.is_valid(facts.column("error"))
    lacks = np.asarray(has_error.to_numpy(zero_copy_only=False), dtype=bool)
    photos = int((~lacks).sum())
    if photos != len(vectors):
        raise ValueError(f"{photos} photos have {len(vectors)} vectors")
    dim = vectors.shape[1]
    padded = np.zeros((len(lacks), dim), dtype=np.float16)
    padded[~lacks] = vectors
    column = pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(padded.reshape(-1)), dim, mask=pyarrow.array(lacks)
    )
    schema = schema_of(dim)
    columns = {name: facts.column(name) for name in facts.schema.names} | {"vector": column}
    return pyarrow.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def keep_vectors(table: pyarrow.Table, stored: bytes) -> pyarrow.Table:
    """Return a shard's new rows, but those that are ``stored`` where a photo that had a vector has
    an error now.
    """
    old = pyarrow.parquet.read_table(pyarrow.BufferReader(stored)).select(table.column_names)
    failed, good = table.column("error").is_valid(), old.column("error").is_null()
    lost = pyarrow.compute.and_(failed, good).to_numpy()
    rows = np.arange(len(table)) + len(table) * lost
    return pyarrow.concat_tables([table, old.cast(table.schema)]).take(rows).combine_chunks()


def table_bytes(table: pyarrow.Table) -> bytes:
    """Return the Parquet file of a table of rows with their vectors."""
    file = io.BytesIO()
    compression = {name: "ZSTD" for name in table.schema.names if name != "vector"}
    compression["vector.list.element"] = "NONE"  # vectors do not get smaller
    repeated = [name for name, column in METADATA.items() if column.kind == "text"]
    dictionaries = ["label", *repeated, "error"]
    pyarrow.parquet.write_table(table, file, compression=compression, use_dictionary=dictionaries)
    return file.getvalue()


def _value(row: ShardRow, name: str) -> Any:
    if name in ("width", "height"):
        return getattr(row.info, name) if row.info else None
    if name in METADATA:
        return row.info[name] if row.info else None
    if name == "id":
        return row.photo_id
    if name == "path_bytes":
        return None if as_text(row.path) == row.path else raw_path(row.path)
    value = getattr(row, name)
    return as_text(value) if isinstance(value, str) else value


def as_text(name: str) -> str:
    """Return a name as text that Parquet holds: bytes that are not UTF-8 are written out, as in
    ``\\xff``.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
