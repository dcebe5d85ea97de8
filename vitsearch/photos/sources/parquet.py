"""Photos whose bytes are in Parquet files, and photos in files that Parquet files name."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice, repeat
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from vitsearch.errors import CollectionError, PhotoError
from vitsearch.paths import raw_path
from vitsearch.photos.decode import fingerprint_of
from vitsearch.photos.sources.files import named_files
from vitsearch.photos.sources.source import (
    CAPTION_COLUMNS,
    Entry,
    Source,
    Urls,
    below,
    checked,
    error_text,
    identity,
    protocol_of,
    read_error,
    read_local,
    readable,
    rejection,
    relative,
)
from vitsearch.photos.sources.web import fetched

CONTENT_COLUMNS = ("image", "bytes", "jpg")
LINK_COLUMNS = ("url", "URL")
NAME_COLUMNS = ("path", "key", "__key__")
_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs"})
_BATCH = 4096  # names held as objects at a time
_PHOTOS = 16  # photos of a row group decoded at a time


def content_column(schema: pyarrow.Schema) -> str | None:
    """Return the column with the photos' bytes, or the field of a struct; None for none."""
    for name in CONTENT_COLUMNS:
        index = schema.get_field_index(name)
        kind = schema.field(index).type if index >= 0 else None
        if (
            kind is not None
            and pyarrow.types.is_struct(kind)
            and kind.get_field_index("bytes") >= 0
        ):
            name, kind = f"{name}.bytes", kind.field("bytes").type
        if kind is not None and _is_bytes(kind):
            return name
    return None


def _is_bytes(kind: Any) -> bool:
    return bool(
        pyarrow.types.is_binary(kind)
        or pyarrow.types.is_large_binary(kind)
        or pyarrow.types.is_binary_view(kind)
    )


def is_text(schema: pyarrow.Schema, name: str) -> bool:
    """Return whether there is a column of text of this name."""
    index = schema.get_field_index(name)
    kind = schema.field(index).type if index >= 0 else None
    return kind is not None and (
        pyarrow.types.is_string(kind)
        or pyarrow.types.is_large_string(kind)
        or pyarrow.types.is_string_view(kind)
        or _is_bytes(kind)
    )


@contextmanager
def opened(name: str) -> Iterator[pyarrow.parquet.ParquetFile]:
    """Open a Parquet file, local or at a URL, for the block; raises CollectionError."""
    try:
        with ExitStack() as stack:
            source: Any = name
            if protocol_of(name) is None and not os.path.isfile(name):  # a pipe would be waited for
                raise FileNotFoundError(name)
            if protocol_of(name) is not None:
                from vitsearch.photos.sources.remote import opened as opened_remote

                source = stack.enter_context(opened_remote(name))
            yield stack.enter_context(pyarrow.parquet.ParquetFile(source))
    except CollectionError:
        raise
    except FileNotFoundError as error:
        raise CollectionError(f"there is no {name}: check the spelling and the numbers") from error
    except Exception as error:  # clients of object stores raise classes of their own
        raise CollectionError(
            f"{name} cannot be read as Parquet ({error_text(error)}): write it again "
            "with the tool that made it"
        ) from error


@dataclass(frozen=True, slots=True)
class ParquetPhotos:
    """Photos whose bytes are in Parquet files, in the order of the files and their rows, which is
    the one in which they can be read.

    A row is known by its ``path``, ``key`` or ``__key__``, or else as ``FILE.parquet/ROW``, counted
    from 0 with leading zeros. ``column`` has the bytes.
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
                raise CollectionError(
                    f"{file} has no column {self.column} with photos, as the files before it: "
                    "name it by itself"
                )
            named = next(
                (name for name in NAME_COLUMNS if is_text(parquet.schema_arrow, name)), None
            )
            count = parquet.metadata.num_rows
            digits, modified = len(str(max(0, count - 1))), _modified_ns(file)
            names = texts(parquet, named) if named else repeat(None, count)
            for row, (name, caption) in enumerate(zip(names, _captions(parquet), strict=True)):
                path = identity(name) if name else None
                path = path or f"{short}/{row:0{digits}d}"
                yield Entry(path, 0, modified, file, row, caption=readable(caption))

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        for run in _runs(entries):
            done = 0
            try:
                for photo in self._read_run(run):
                    yield photo
                    done += 1
            except CollectionError as error:
                yield from [PhotoError(str(error))] * (len(run) - done)

    def _read_run(self, run: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        """Yield the photos of entries in ascending rows of one file; each row group is read once,
        and only those that hold one.
        """
        file = run[0].container
        if file is None:
            yield from (rejection(entry) or PhotoError("not in a Parquet file") for entry in run)
            return
        with opened(file) as parquet:
            photos = _values(parquet, self.column, [entry.position or 0 for entry in run])
            for entry in run:
                value = next(photos, None)
                yield rejection(entry) or (
                    checked(value)
                    if value is not None
                    else PhotoError("its row in the Parquet file has no photo")
                )


def _values(
    parquet: pyarrow.parquet.ParquetFile, column: str, rows: Sequence[int]
) -> Iterator[bytes | None]:
    """Yield the values of a binary column in ascending rows, up to the first behind the last."""
    metadata = parquet.metadata
    starts = list(
        accumulate(
            (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)),
            initial=0,
        )
    )
    existing = [row for row in rows if row < starts[-1]]
    for group in range(metadata.num_row_groups):
        here = [row - starts[group] for row in existing if starts[group] <= row < starts[group + 1]]
        if here:
            yield from _values_of_group(
                parquet.iter_batches(batch_size=_PHOTOS, row_groups=[group], columns=[column]), here
            )


def _values_of_group(
    batches: Iterator[pyarrow.RecordBatch], rows: Sequence[int]
) -> Iterator[bytes | None]:
    start, done = 0, 0
    for batch in batches:
        values = batch.column(0)
        if pyarrow.types.is_struct(values.type):
            values = pyarrow.compute.struct_field(values, "bytes")
        while done < len(rows) and rows[done] < start + batch.num_rows:
            yield values[rows[done] - start].as_py()
            done += 1
        if done == len(rows):
            return
        start += batch.num_rows


def _runs(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Yield the parts of entries that are ascending rows of one file."""
    start = 0
    for end in range(1, len(entries) + 1):
        before, here = entries[end - 1], entries[end] if end < len(entries) else None
        if (
            here is None
            or here.container != before.container
            or (here.position or 0) <= (before.position or 0)
        ):
            yield entries[start:end]
            start = end


def _check_unique(paths: Callable[[], Iterator[str]], name: str) -> None:
    """Raise CollectionError that names a path which comes twice; holds 8 bytes a path."""
    hashes = np.fromiter(map(_hash, paths()), dtype=np.uint64)
    hashes.sort()
    twice = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen: set[str] = set()
    for path in (path for path in paths() if _hash(path) in twice) if twice else ():
        if path in seen:
            raise CollectionError(
                f"{name} has {path!r} twice, and a photo is known by its path: give the rows "
                "names of their own"
            )
        seen.add(path)


def _hash(path: str) -> int:
    return int.from_bytes(fingerprint_of(raw_path(path))[:8], "little")


def texts(parquet: pyarrow.parquet.ParquetFile, column: str) -> Iterator[str]:
    """Yield the values of a column of text or of its bytes; null is an empty one."""
    for batch in parquet.iter_batches(batch_size=_BATCH, columns=[column]):
        yield from (
            value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value or ""
            for value in batch[0].to_pylist()
        )


def _captions(parquet: pyarrow.parquet.ParquetFile) -> Iterator[str | None]:
    """Yield the caption of each row, None where no column has them."""
    column = next((name for name in CAPTION_COLUMNS if is_text(parquet.schema_arrow, name)), None)
    return texts(parquet, column) if column else repeat(None, parquet.metadata.num_rows)


def _modified_ns(file: str) -> int:
    if protocol_of(file) is None:
        return os.stat(file).st_mtime_ns
    from vitsearch.photos.sources.remote import modified_ns

    return modified_ns(file)


@dataclass(frozen=True, slots=True)
class ParquetPaths:
    """Files that Parquet files name in a column ``path``, in the order of the bytes of their paths.

    Names are relative to ``folder``, that of the Parquet files, absolute, or URLs; those below the
    folder become relative to it. The names of all are held while they are put in order.
    """

    name: str
    folder: str

    def entries(self) -> Iterator[Entry]:
        _, files = named_files(self.name, "parquet")
        last = None
        for path in _in_order([path for file in files for path in self._named(file)]):
            if path == last:
                raise CollectionError(
                    f"{self.name} names {path!r} twice, and a photo is known by its path: remove "
                    "one of the rows"
                )
            yield self._entry(path)
            last = path

    def _named(self, file: str) -> Iterator[pyarrow.Array]:
        with opened(file) as parquet:
            if not is_text(parquet.schema_arrow, "path"):
                raise CollectionError(
                    f"{file} has no column path with names of files, as the files "
                    "before it: name it by itself"
                )
            paths = (raw_path(self._path(name)) for name in texts(parquet, "path"))
            while batch := list(islice(paths, _BATCH)):
                yield pyarrow.array(batch, pyarrow.large_binary())

    def _path(self, name: str) -> str:
        """Return a name relative to the folder where it lies below it, else as it is."""
        if protocol_of(name) is not None:
            return relative(self.folder, name)
        path = identity(name)
        if path is not None or not name or "\0" in name:
            return path or name
        if protocol_of(self.folder) is not None and name.startswith("/"):
            return name
        return relative(self.folder, _joined(self.folder, name))

    def _entry(self, path: str) -> Entry:
        location, problem = self._resolve(path)
        if problem is not None:
            return Entry(path, 0, 0, problem=problem)
        if protocol_of(location) is not None:
            return Entry(path, 0, 0)
        try:
            facts = os.stat(location)
        except (OSError, ValueError):
            return Entry(path, 0, 0)  # reading it will say why
        return Entry(path, facts.st_size, facts.st_mtime_ns)

    def _resolve(self, path: str) -> tuple[str, str | None]:
        """Return the file or URL of a path, and why it is not to be read."""
        protocol = protocol_of(path)
        if not path:
            return path, "its row in the Parquet file has no path"
        if protocol is not None:
            return (
                path,
                None
                if protocol in _STORES
                else (
                    f"{protocol}:// is not read from a list; download it, or give one of s3, gs, az"
                ),
            )
        if path.startswith("/") and protocol_of(self.folder) is not None:
            return path, "an absolute path of another machine"
        return path if os.path.isabs(path) else below(self.folder, path), None

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        start = 0
        locations = [self._resolve(entry.path) for entry in entries]
        kinds = [None if problem else protocol_of(location) for location, problem in locations]
        for end in range(1, len(entries) + 1):
            if end == len(entries) or kinds[end] != kinds[start]:
                yield from _read_files(
                    [location for location, _ in locations[start:end]],
                    entries[start:end],
                    kinds[start],
                )
                start = end


def _read_files(
    locations: Sequence[str], entries: Sequence[Entry], protocol: str | None
) -> Iterator[bytes | PhotoError]:
    if protocol is None:
        yield from (
            read_local(entry, location) for entry, location in zip(entries, locations, strict=True)
        )
        return
    try:
        from vitsearch.photos.sources.remote import filesystem, read_objects

        fs, _ = filesystem(locations[0])
    except (CollectionError, ImportError) as error:
        yield from (rejection(entry) or read_error(error) for entry in entries)
        return
    yield from read_objects(
        fs, [str(fs._strip_protocol(location)) for location in locations], entries
    )


def _joined(folder: str, path: str) -> str:
    """Return the name of a path that leads out of its folder."""
    protocol = protocol_of(folder)
    if protocol is None:
        return os.path.normpath(os.path.join(folder, path)).replace(os.sep, "/")
    start = folder.index("://") + 3
    return folder[:start] + os.path.normpath("/" + folder[start:] + "/" + path).replace(
        os.sep, "/"
    ).lstrip("/")


def _in_order(parts: list[pyarrow.Array]) -> Iterator[str]:
    names = pyarrow.chunked_array(parts, pyarrow.large_binary()).combine_chunks()
    order = pyarrow.compute.sort_indices(names)
    for start in range(0, len(order), _BATCH):
        for value in names.take(order[start : start + _BATCH]):
            yield value.as_py().decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class LinkedPhotos:
    """Photos at the addresses in a column of Parquet files, in the order of the rows, each once; 8
    bytes of each are held in a set. ``private`` allows addresses of private networks.
    """

    name: str
    column: str
    private: bool

    def entries(self) -> Iterator[Entry]:
        seen: set[int] = set()
        for file in named_files(self.name, "parquet")[1]:
            for url, caption in self._links(file):
                digest = _hash(url)
                if url and digest not in seen:
                    seen.add(digest)
                    yield Entry(url, 0, 0, caption=readable(caption))

    def _links(self, file: str) -> Iterator[tuple[str, str | None]]:
        with opened(file) as parquet:
            if not is_text(parquet.schema_arrow, self.column):
                raise CollectionError(
                    f"{file} has no column {self.column}, as the files before it: name it by itself"
                )
            yield from zip(texts(parquet, self.column), _captions(parquet), strict=True)

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        return fetched(entries, private=self.private)


def open_parquet(name: str, urls: Urls = "none") -> Source:
    """Return the photos in Parquet files, or those that they name; raises CollectionError where a
    file has neither, or has addresses and ``urls`` is "none".
    """
    folder, files = named_files(name, "parquet")
    with opened(files[0]) as file:
        column = content_column(file.schema_arrow)
        if column is not None:
            return ParquetPhotos(name, column)
        if is_text(file.schema_arrow, "path"):
            return ParquetPaths(name, folder)
        link = next((name for name in LINK_COLUMNS if is_text(file.schema_arrow, name)), None)
        if link is not None and urls == "none":
            raise CollectionError(
                f"{files[0]} names photos by addresses in its column {link}: they are fetched from "
                "the web with --allow-urls"
            )
        if link is not None:
            return LinkedPhotos(name, link, urls == "private")
        held = ", ".join(file.schema_arrow.names[:8])
    raise CollectionError(
        f"{files[0]} has no photos (it has {held}): they are read from a column image, bytes or "
        "jpg, or from files named in a column path"
    )
