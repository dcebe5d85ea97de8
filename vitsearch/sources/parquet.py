"""Photos in Parquet files."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from vitsearch.errors import CollectionError, PhotoError
from vitsearch.photos.decode import fingerprint_of
from vitsearch.sources.files import named_files
from vitsearch.sources.names import identity, protocol_of, relative
from vitsearch.sources.source import Entry, content, refusal, words
from vitsearch.types import raw_path

CONTENT_COLUMNS = ("image", "bytes", "jpg")
NAME_COLUMNS = ("path", "key", "__key__")
_BATCH = 4096  # names held at a time
_PHOTOS = 16  # photos of a row group decoded at a time


def content_column(schema: pyarrow.Schema) -> str | None:
    """Return the column with the photos' bytes, or the field of a struct; None where there is none."""
    for name in CONTENT_COLUMNS:
        place = schema.get_field_index(name)
        kind = schema.field(place).type if place >= 0 else None
        if kind is not None and pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            name, kind = f"{name}.bytes", kind.field("bytes").type
        if kind is not None and _is_bytes(kind):
            return name
    return None


def _is_bytes(kind: Any) -> bool:
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) or pyarrow.types.is_binary_view(kind))


def is_text(schema: pyarrow.Schema, name: str) -> bool:
    """Return whether there is a column of text of this name."""
    place = schema.get_field_index(name)
    kind = schema.field(place).type if place >= 0 else None
    return kind is not None and (
        pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_string_view(kind) or _is_bytes(kind)
    )


@contextmanager
def opened(name: str) -> Iterator[pyarrow.parquet.ParquetFile]:
    """Open a local Parquet file or one at a URL for the block; raises CollectionError for whatever is wrong with it."""
    try:
        with ExitStack() as stack:
            source: Any = name
            if protocol_of(name) is None and not os.path.isfile(name):  # a pipe would be waited for
                raise FileNotFoundError(name)
            if protocol_of(name) is not None:
                from vitsearch.sources.remote import opened as opened_remote

                source = stack.enter_context(opened_remote(name))
            yield stack.enter_context(pyarrow.parquet.ParquetFile(source))
    except CollectionError:
        raise
    except FileNotFoundError as error:
        raise CollectionError(f"there is no {name}: check the spelling and the numbers") from error
    except Exception as error:  # clients of object stores raise classes of their own
        raise CollectionError(f"{name} cannot be read as Parquet ({words(error)}): write it again with the tool that made it") from error


@dataclass(frozen=True, slots=True)
class ParquetPhotos:
    """Photos whose bytes are in Parquet files, in the order of the files and their rows, which is the one in which they can be read.

    A row is known by its ``path``, ``key`` or ``__key__``, or else as ``FILE.parquet/ROW``, counted from 0 with leading zeros. ``column``
    has the bytes.
    """

    name: str
    column: str

    def entries(self) -> Iterator[Entry]:
        folder, files = named_files(self.name, "parquet")

        def rows() -> Iterator[Entry]:
            return (entry for file in files for entry in self._rows(file, relative(folder, file)))

        _check_unique(lambda: (entry.path for entry in rows()), self.name)
        yield from rows()

    def _rows(self, file: str, short: str) -> Iterator[Entry]:
        with opened(file) as parquet:
            if content_column(parquet.schema_arrow) != self.column:
                raise CollectionError(f"{file} has no column {self.column} with photos, as the files before it: name it by itself")
            named = next((name for name in NAME_COLUMNS if is_text(parquet.schema_arrow, name)), None)
            count = parquet.metadata.num_rows
            digits, modified = len(str(max(0, count - 1))), _modified_ns(file)
            for row, name in enumerate(texts(parquet, named) if named else repeat(None, count)):
                path = identity(name) if name else None
                yield Entry(path or f"{short}/{row:0{digits}d}", 0, modified, file, row)

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        for run in _runs(entries):
            done = 0
            try:
                for answer in self._read_run(run):
                    yield answer
                    done += 1
            except CollectionError as error:
                yield from [PhotoError(str(error))] * (len(run) - done)

    def _read_run(self, run: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        """Yield the photos of entries in ascending rows of one file; each row group is read once, and only those that hold one."""
        file = run[0].container
        if file is None:
            yield from (refusal(entry) or PhotoError("not in a Parquet file") for entry in run)
            return
        with opened(file) as parquet:
            found = _values(parquet, self.column, [entry.place or 0 for entry in run])
            for entry in run:
                value = next(found, None)
                yield refusal(entry) or (content(value) if value is not None else PhotoError("its row in the Parquet file has no photo"))


def _values(parquet: pyarrow.parquet.ParquetFile, column: str, rows: Sequence[int]) -> Iterator[bytes | None]:
    """Yield the values of a binary column in ascending rows; ends at the first row that is behind the last."""
    metadata = parquet.metadata
    starts = list(accumulate((metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)), initial=0))
    wanted = [row for row in rows if row < starts[-1]]
    for group in range(metadata.num_row_groups):
        here = [row - starts[group] for row in wanted if starts[group] <= row < starts[group + 1]]
        if here:
            yield from _values_of_group(parquet.iter_batches(batch_size=_PHOTOS, row_groups=[group], columns=[column]), here)


def _values_of_group(batches: Iterator[pyarrow.RecordBatch], rows: Sequence[int]) -> Iterator[bytes | None]:
    start, place = 0, 0
    for batch in batches:
        values = batch.column(0)
        if pyarrow.types.is_struct(values.type):
            values = pyarrow.compute.struct_field(values, "bytes")
        while place < len(rows) and rows[place] < start + batch.num_rows:
            yield values[rows[place] - start].as_py()
            place += 1
        if place == len(rows):
            return
        start += batch.num_rows


def _runs(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Yield the parts of entries that are ascending rows of one file."""
    start = 0
    for place in range(1, len(entries) + 1):
        before, here = entries[place - 1], entries[place] if place < len(entries) else None
        if here is None or here.container != before.container or (here.place or 0) <= (before.place or 0):
            yield entries[start:place]
            start = place


def _check_unique(paths: Callable[[], Iterator[str]], name: str) -> None:
    """Raise CollectionError that names a path which comes twice; holds 8 bytes a path."""
    hashes = np.fromiter(map(_hash, paths()), dtype=np.uint64)
    hashes.sort()
    twice = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen: set[str] = set()
    for path in (path for path in paths() if _hash(path) in twice) if twice else ():
        if path in seen:
            raise CollectionError(f"{name} has {path!r} twice, and a photo is known by its path: give the rows names of their own")
        seen.add(path)


def _hash(path: str) -> int:
    return int.from_bytes(fingerprint_of(raw_path(path))[:8], "little")


def texts(parquet: pyarrow.parquet.ParquetFile, column: str) -> Iterator[str]:
    """Yield the values of a column of text or of its bytes; null is an empty one."""
    for batch in parquet.iter_batches(batch_size=_BATCH, columns=[column]):
        yield from (value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value or "" for value in batch[0].to_pylist())


def _modified_ns(file: str) -> int:
    if protocol_of(file) is None:
        return os.stat(file).st_mtime_ns
    from vitsearch.sources.remote import modified_ns

    return modified_ns(file)
