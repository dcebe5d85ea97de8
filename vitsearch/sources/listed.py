"""Photos that Parquet files name."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow
import pyarrow.compute

from vitsearch.errors import CollectionError, PhotoError
from vitsearch.sources.files import named_files
from vitsearch.sources.folder import read_local
from vitsearch.sources.names import below, identity, protocol_of, relative
from vitsearch.sources.parquet import ParquetPhotos, content_column, is_text, opened, texts
from vitsearch.sources.source import Entry, Source, refusal, why
from vitsearch.types import raw_path

_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs"})  # of which rows may name objects
_BATCH = 4096  # names held as objects at a time


@dataclass(frozen=True, slots=True)
class ParquetPaths:
    """Files that Parquet files name in a column ``path``, in the order of the bytes of their paths.

    Names are relative to ``folder``, that of the Parquet files, absolute, or URLs; those below the folder become relative to it. The names
    of all are held while they are put in order.
    """

    name: str
    folder: str

    def entries(self) -> Iterator[Entry]:
        _, files = named_files(self.name, "parquet")
        last = None
        for path in _in_order([path for file in files for path in self._named(file)]):
            if path == last:
                raise CollectionError(f"{self.name} names {path!r} twice, and a photo is known by its path: remove one of the rows")
            yield self._entry(path)
            last = path

    def _named(self, file: str) -> Iterator[pyarrow.Array]:
        with opened(file) as parquet:
            if not is_text(parquet.schema_arrow, "path"):
                raise CollectionError(f"{file} has no column path with names of files, as the files before it: name it by itself")
            paths = (raw_path(self._path(given)) for given in texts(parquet, "path"))
            while batch := list(islice(paths, _BATCH)):
                yield pyarrow.array(batch, pyarrow.large_binary())

    def _path(self, given: str) -> str:
        """Return a name relative to the folder where it lies below it, and else whole."""
        if protocol_of(given) is not None:
            return relative(self.folder, given)
        path = identity(given)
        if path is not None or not given or "\0" in given:
            return path or given
        if protocol_of(self.folder) is not None and given.startswith("/"):
            return given
        return relative(self.folder, _joined(self.folder, given))

    def _entry(self, path: str) -> Entry:
        place, problem = self._place(path)
        if problem is not None:
            return Entry(path, 0, 0, problem=problem)
        if protocol_of(place) is not None:
            return Entry(path, 0, 0)
        try:
            facts = os.stat(place)
        except (OSError, ValueError):
            return Entry(path, 0, 0)  # reading it will say why
        return Entry(path, facts.st_size, facts.st_mtime_ns)

    def _place(self, path: str) -> tuple[str, str | None]:
        """Return the file or URL of a path, and why it is not to be read."""
        protocol = protocol_of(path)
        if not path:
            return path, "its row in the Parquet file has no path"
        if protocol is not None:
            return path, None if protocol in _STORES else f"{protocol}:// is not read from a list; download it, or give one of s3, gs, az"
        if path.startswith("/") and protocol_of(self.folder) is not None:
            return path, "an absolute path of another machine"
        return path if os.path.isabs(path) else below(self.folder, path), None

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        start = 0
        places = [self._place(entry.path) for entry in entries]
        kinds = [None if problem else protocol_of(place) for place, problem in places]
        for end in range(1, len(entries) + 1):
            if end == len(entries) or kinds[end] != kinds[start]:
                yield from _read_files([place for place, _ in places[start:end]], entries[start:end], kinds[start])
                start = end


def _read_files(places: Sequence[str], entries: Sequence[Entry], protocol: str | None) -> Iterator[bytes | PhotoError]:
    if protocol is None:
        yield from (read_local(entry, place) for entry, place in zip(entries, places, strict=True))
        return
    try:
        from vitsearch.sources.remote import filesystem, read_objects

        fs, _ = filesystem(places[0])
    except (CollectionError, ImportError) as error:
        yield from (refusal(entry) or why(error) for entry in entries)
        return
    yield from read_objects(fs, [str(fs._strip_protocol(place)) for place in places], entries)


def _joined(folder: str, path: str) -> str:
    """Return the name of a path that leads out of its folder."""
    protocol = protocol_of(folder)
    if protocol is None:
        return os.path.normpath(os.path.join(folder, path)).replace(os.sep, "/")
    start = folder.index("://") + 3
    return folder[:start] + os.path.normpath("/" + folder[start:] + "/" + path).replace(os.sep, "/").lstrip("/")


def _in_order(parts: list[pyarrow.Array]) -> Iterator[str]:
    names = pyarrow.chunked_array(parts, pyarrow.large_binary()).combine_chunks()
    order = pyarrow.compute.sort_indices(names)
    for start in range(0, len(order), _BATCH):
        for value in names.take(order[start : start + _BATCH]):
            yield value.as_py().decode("utf-8", "surrogateescape")


def open_parquet(name: str) -> Source:
    """Return the photos in Parquet files, or those that they name; raises CollectionError where a file has neither."""
    folder, files = named_files(name, "parquet")
    with opened(files[0]) as file:
        column = content_column(file.schema_arrow)
        if column is not None:
            return ParquetPhotos(name, column)
        if is_text(file.schema_arrow, "path"):
            return ParquetPaths(name, folder)
        held = ", ".join(file.schema_arrow.names[:8])
    raise CollectionError(
        f"{files[0]} has no photos (it has {held}): they are read from a column image, bytes or jpg, or from files named in a column path"
    )
