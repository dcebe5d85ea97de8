"""A shard set, open for reading."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from vitsearch.errors import CollectionError
from vitsearch.shards.manifest import MANIFEST, Manifest, read_manifest
from vitsearch.shards.rows import ShardRow
from vitsearch.shards.schema import INFO, Half, check_schema, errors
from vitsearch.shards.storage import Storage
from vitsearch.types import PhotoInfo, SkippedPhoto

BLOCK = 4096  # rows held at a time
FOLDER = "shards"
LISTING = "listing"


class ShardSet:
    """The shards below one folder or URL; each is read when it is asked for, and held while it is read.

    Raises CollectionError where there is no shard set, or a file of it cannot be read.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage, self.name = storage, storage.name
        if not storage.exists(MANIFEST):
            raise CollectionError(f"no shards in {self.name}: `vitsearch embed SOURCE {self.name}` makes them")
        self.manifest: Manifest = read_manifest(storage.read(MANIFEST), self.name)

    def finished(self) -> list[int]:
        """Return the numbers of the shards that are there, in order."""
        named = (re.fullmatch(r"(\d{6,})\.parquet", name, re.ASCII) for name in self.storage.names(FOLDER))
        return sorted(int(match[1]) for match in named if match)

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not there yet, in order."""
        there = set(self.finished())
        return [number for number in range(self.manifest.shards) if number not in there]

    def blocks(self, numbers: Sequence[int] | None = None, size: int = BLOCK) -> Iterator[tuple[list[ShardRow], Half]]:
        """Yield the photos in order, a block at a time, with their ``(n, dim)`` float16 unit rows; ``numbers``: of these shards only."""
        for number in self.finished() if numbers is None else numbers:
            name = shard_name(number)
            yield from read_shard(self.storage.read(name), self.manifest.dim, f"{self.name}/{name}", size=size)

    def failures(self, numbers: Sequence[int] | None = None) -> Iterator[SkippedPhoto]:
        """Yield the files that are no photos, with the reason, in order."""
        for skipped, _ in self.failed_rows(numbers):
            yield skipped

    def failed_rows(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[SkippedPhoto, ShardRow]]:
        """Yield what `failures` yields, each with its row."""
        for number in self.finished() if numbers is None else numbers:
            name = shard_name(number)
            yield from read_failures(self.storage.read(name), self.manifest.dim, f"{self.name}/{name}")

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


def read_shard(data: bytes, dim: int, name: str, *, size: int) -> Iterator[tuple[list[ShardRow], Half]]:
    """Yield the photos of a shard in blocks of at most ``size`` rows with their ``(n, dim)`` vectors; raises CollectionError."""
    with errors(name):
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        check_schema(file.schema_arrow, dim, name)
        for batch in file.iter_batches(batch_size=size):
            photos = batch.filter(pyarrow.compute.is_null(batch.column("error")))
            if photos.num_rows:
                yield _rows(photos), _halves(photos.column("vector"), dim, name)


def read_failures(data: bytes, dim: int, name: str) -> Iterator[tuple[SkippedPhoto, ShardRow]]:
    """Yield the rows of a shard that are no photos, with their reason."""
    with errors(name):
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        check_schema(file.schema_arrow, dim, name)
        table = file.read(columns=[column for column in file.schema_arrow.names if column != "vector"])
        for row in _rows(table.filter(pyarrow.compute.is_valid(table.column("error")))):
            yield SkippedPhoto(row.path, "failed", row.error or ""), row


def count_rows(file: BinaryIO, dim: int, name: str) -> tuple[int, int]:
    """Return how many photos and how many errors a shard holds; its footer is read, and the errors where that does not count them."""
    with errors(name):
        opened = pyarrow.parquet.ParquetFile(file)
        check_schema(opened.schema_arrow, dim, name)
        total = int(opened.metadata.num_rows)
        failed = total - opened.read(columns=["error"]).column("error").null_count if total else 0
        return total - failed, failed


def _halves(column: pyarrow.FixedSizeListArray, dim: int, name: str) -> Half:
    if column.null_count:
        raise CollectionError(f"{name} is damaged (a photo without a vector): remove it, and run `vitsearch embed` again")
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float16).reshape(-1, dim)


def _rows(batch: Any) -> list[ShardRow]:
    names = [name for name in batch.schema.names if name != "vector"]
    columns = [batch.column(name).to_pylist() for name in names]
    return [_row(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _row(stored: dict[str, Any]) -> ShardRow:
    info = None if stored["width"] is None else PhotoInfo(*(stored[name] for name in INFO))
    path = stored["path"] if stored["path_bytes"] is None else stored["path_bytes"].decode("utf-8", "surrogateescape")
    facts = {name: stored[name] for name in ("size", "mtime_ns", "fingerprint", "label", "label_score", "error")}
    return ShardRow(photo_id=stored["id"], path=path, info=info, **facts)
