"""The list of photos of each shard, written once: a Parquet file beside the shards."""

import io
from collections.abc import Iterator
from itertools import islice

import pyarrow
import pyarrow.parquet

from vitsearch.errors import CollectionError
from vitsearch.photos.sources import Entry
from vitsearch.shards.files import LISTING, errors
from vitsearch.shards.storage import Storage

_SCHEMA = pyarrow.schema(
    [
        ("path", pyarrow.binary()),  # the bytes of the file system, which may not be UTF-8
        ("size", pyarrow.int64()),
        ("mtime_ns", pyarrow.int64()),
        ("container", pyarrow.string()),
        ("place", pyarrow.int64()),
        ("problem", pyarrow.string()),
    ]
)


def listing_name(shard: int) -> str:
    """Return the name of a shard's list."""
    return f"{LISTING}/{shard:06d}.parquet"


def write_listing(storage: Storage, entries: Iterator[Entry], shard_size: int) -> Iterator[int]:
    """Write the list of each shard in turn; yield after each the number of photos so far."""
    done = 0
    for shard, part in enumerate(iter(lambda: list(islice(entries, shard_size)), [])):
        rows = [(entry.path.encode("utf-8", "surrogateescape"), *_rest(entry)) for entry in part]
        columns = [
            pyarrow.array(values, field.type)
            for values, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)
        ]
        file = io.BytesIO()
        pyarrow.parquet.write_table(
            pyarrow.Table.from_arrays(columns, schema=_SCHEMA), file, compression="zstd"
        )
        storage.write(listing_name(shard), file.getvalue())
        done += len(part)
        yield done


def _rest(entry: Entry) -> tuple[int, int, str | None, int | None, str | None]:
    return entry.size, entry.mtime_ns, entry.container, entry.position, entry.problem


def read_listing(storage: Storage, shard: int, start: int, stop: int) -> list[Entry]:
    """Return the photos for rows ``start`` to ``stop`` of a shard.

    Raises CollectionError where the list is missing or damaged.
    """
    name = f"{storage.name}/{listing_name(shard)}"
    data = storage.read(listing_name(shard))
    try:
        with errors(name):
            table = pyarrow.parquet.read_table(pyarrow.BufferReader(data), schema=_SCHEMA)
            table = table.slice(start, stop - start)
    except CollectionError as error:
        raise CollectionError(
            f"{name} is damaged: what is to be embedded cannot be told; embed into another place"
        ) from error
    rows = zip(*(table.column(field.name).to_pylist() for field in _SCHEMA), strict=True)
    return [Entry(path.decode("utf-8", "surrogateescape"), *rest) for path, *rest in rows]
