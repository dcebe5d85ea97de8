"""The metadata of clip-retrieval, in Apache Parquet; the one module that imports pyarrow."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from vitsearch.errors import CollectionError
from vitsearch.interop.base import BLOCK, Row
from vitsearch.paths import raw_path
from vitsearch.photos.columns import METADATA
from vitsearch.shards.files import arrow_type, as_text
from vitsearch.types import Photo
from vitsearch.untrusted import guarded

SCHEMA = pyarrow.schema(
    [
        ("image_path", pyarrow.string()),
        ("path", pyarrow.string()),
        ("path_bytes", pyarrow.binary()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        *((name, arrow_type(column)) for name, column in METADATA.items()),
        ("fingerprint", pyarrow.string()),
        ("label", pyarrow.string()),
        ("score", pyarrow.float64()),
    ]
)
_EXPORTED = ("path", "path_bytes", "fingerprint", "label", "score")


class MetadataWriter:
    """Writes the photos of one shard, a block at a time; ``root`` is the absolute path of their
    folder.
    """

    def __init__(self, file: Path, root: str) -> None:
        self._root = root
        self._writer = pyarrow.parquet.ParquetWriter(file, SCHEMA)

    def __enter__(self) -> "MetadataWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, photos: Sequence[Photo]) -> None:
        """Append one row a photo."""
        self._writer.write_table(
            pyarrow.Table.from_pylist([self._row(photo) for photo in photos], SCHEMA)
        )

    def _row(self, photo: Photo) -> dict[str, Any]:
        path = as_text(photo.path)
        return {
            "image_path": as_text(os.path.join(self._root, photo.path)),
            "path": path,
            "path_bytes": None if path == photo.path else raw_path(photo.path),
            "width": photo.info.width,
            "height": photo.info.height,
            **{name: photo.info[name] for name in METADATA},
            "fingerprint": photo.fingerprint.hex(),
            "label": None if photo.label is None else as_text(photo.label),
            "score": photo.label_score,
        }


def count_rows(file: Path, *, is_export: bool) -> int:
    """Return the number of rows of a metadata file; raises CollectionError where it is damaged or
    lacks a column.
    """
    with _errors(file), pyarrow.parquet.ParquetFile(file) as opened:
        needed = ["image_path", *(_EXPORTED if is_export else ())]
        missing = [name for name in needed if name not in opened.schema_arrow.names]
        if missing:
            present = ", ".join(opened.schema_arrow.names[:8])
            raise CollectionError(
                f"{file} has no column {missing[0]} (it has {present}): which vector is "
                "which photo cannot be told"
            )
        return int(opened.metadata.num_rows)


def read_rows(file: Path, *, is_export: bool) -> Iterator[list[Row]]:
    """Yield the rows of a metadata file in blocks; ``is_export``: an export of vitsearch, whose
    paths are relative to the photo folder.
    """
    columns = list(_EXPORTED) if is_export else ["image_path"]
    with _errors(file), pyarrow.parquet.ParquetFile(file) as opened:
        for batch in opened.iter_batches(batch_size=BLOCK, columns=columns):
            rows = batch.to_pylist()
            if is_export:
                yield [_exported_row(row) for row in rows]
            else:
                yield [Row(_path(row["image_path"])) for row in rows]


def _exported_row(row: dict[str, Any]) -> Row:
    path = _path(row["path_bytes"] or row["path"])
    fingerprint = bytes.fromhex(row["fingerprint"]) if row["fingerprint"] else None
    if isinstance(row["label"], str) and isinstance(row["score"], int | float):
        return Row(path, fingerprint, row["label"], float(row["score"]))
    return Row(path, fingerprint)


def _path(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | bytes):
        raise ValueError(f"a path is of type {type(value).__name__}")
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


@contextmanager
def _errors(file: Path) -> Iterator[None]:
    repair = "write it again with the tool that made it"
    with guarded(CollectionError, file, repair, problem="cannot be read as Parquet"):
        yield
