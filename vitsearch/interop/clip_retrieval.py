"""The folder that ``clip-retrieval inference`` writes and its ``index`` and ``back`` read
(github.com/rom1504/clip-retrieval).

img_emb/img_emb_0.npy           float16 (n, dim) unit rows
metadata/metadata_0.parquet     n rows; row i describes the photo of vector i: image_path, ...
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from vitsearch.arrays import map_npy
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionError
from vitsearch.interop.base import (
    BLOCK,
    Block,
    Row,
    Source,
    export_folder,
    manifest_of,
    photo_blocks,
    read_manifest,
    write_manifest,
)
from vitsearch.interop.importer import ImportOptions, ImportReport, import_vectors
from vitsearch.paths import raw_path
from vitsearch.photos.columns import METADATA
from vitsearch.shards.files import arrow_type, as_text
from vitsearch.shards.manifest import MANIFEST
from vitsearch.storage import StoredCollection
from vitsearch.types import OnProgress, Photo, Progress, no_progress
from vitsearch.untrusted import guarded

LAYOUT = "clip-retrieval"
SHARD = 1_000_000
_DEFAULTS = ImportOptions()
_NAMES = frozenset({MANIFEST, "img_emb", "metadata"})


def export_clip_retrieval(
    collection: StoredCollection,
    folder: str | os.PathLike[str],
    *,
    shard_size: int = SHARD,
    progress: OnProgress = no_progress,
) -> int:
    """Write a collection as clip-retrieval's folder, and return how many photos it holds.

    Vectors are float16, photos in order of path, at most ``shard_size`` in one file. The metadata
    has ``image_path`` (absolute, which is what ``clip-retrieval back`` opens), ``path`` (relative
    to the photo folder), ``path_bytes`` (only for names that are not UTF-8), ``width``, ``height``,
    the metadata columns, ``fingerprint``, ``label`` and ``score``. ``vitsearch.json`` names the
    encoder. The folder is written under another name and renamed; an earlier export there is
    replaced. Raises CollectionError.
    """
    if shard_size < 1:
        raise CollectionError("a file must hold at least 1 photo: give a shard size of 1 or more")
    with export_folder(Path(folder), _NAMES) as aside, collection.store.reading():
        total = collection.store.count_files()
        (aside / "img_emb").mkdir()
        (aside / "metadata").mkdir()
        photos, done, root = collection.store.photos(), 0, os.path.abspath(collection.root)
        # the reader sorts the files by name
        digits = len(str(max(0, ceil(total / shard_size) - 1)))
        for number, start in enumerate(range(0, total, shard_size)):
            count = min(shard_size, total - start)
            name, shape = f"{number:0{digits}d}", (count, collection.config.dim)
            with _shard(aside, name, root=root, shape=shape) as (vectors, metadata):
                for block, halves in photo_blocks(collection.store, photos, count):
                    vectors.write(np.ascontiguousarray(halves, dtype="<f2").data)
                    metadata.write(block)
                    done += len(block)
                    progress(Progress("exporting", done, total))
        write_manifest(aside, manifest_of(collection, LAYOUT, total))
    return total


def import_clip_retrieval(
    folder: str | os.PathLike[str],
    photos: str | os.PathLike[str],
    *,
    collection: str | os.PathLike[str] | None = None,
    encoder: str | ImageEncoder | None = None,
    options: ImportOptions = _DEFAULTS,
    progress: OnProgress = no_progress,
) -> ImportReport:
    """Import the vectors in clip-retrieval's folder into the collection of a photo folder, which is
    created where there is none.

    ``encoder`` is the name or object of the encoder that made them; None: the one in
    ``vitsearch.json``, or else the collection's. Only the photos that are compared to check it are
    embedded. Photos that are missing, changed or unreadable are counted and named in the report.
    Raises CollectionError, CollectionLocked, EncoderError or EncoderMismatch, after any of which
    the collection is as it was.
    """
    source = read_clip_retrieval(Path(folder))
    return import_vectors(
        source, photos, collection=collection, encoder=encoder, options=options, progress=progress
    )


def read_clip_retrieval(folder: Path) -> Source:
    """Return the vectors of clip-retrieval's folder; raises CollectionError where its files do not
    fit each other.
    """
    manifest = read_manifest(folder)
    is_export = manifest is not None
    pairs = _pairs(folder)
    count, dim = 0, manifest.dim if manifest else 0
    for npy, parquet in pairs:
        vectors, rows = _mapped(npy), count_rows(parquet, is_export=is_export)
        if len(vectors) != rows:
            raise CollectionError(
                f"{npy} holds {len(vectors):,} vectors, {parquet.name} {rows:,} rows: which is "
                "which cannot be told"
            )
        dim = dim or vectors.shape[1]
        if vectors.shape[1] != dim:
            raise CollectionError(
                f"{npy} holds vectors of {vectors.shape[1]} numbers, expected {dim}: "
                "export again with one encoder"
            )
        count += rows
    return Source(str(folder), count, dim, manifest, lambda: _blocks(pairs, is_export))


def _blocks(pairs: list[tuple[Path, Path]], is_export: bool) -> Iterator[Block]:
    for npy, parquet in pairs:
        vectors, start = _mapped(npy), 0
        for rows in read_rows(parquet, is_export=is_export):
            part = np.asarray(vectors[start : start + len(rows)])
            if len(part) != len(rows):
                raise CollectionError(
                    f"{parquet} has more rows than {npy.name} vectors: write both again"
                )
            yield rows, part
            start += len(rows)


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return the shards as (vectors, metadata), in order of their number."""
    arrays = _numbered(folder / "img_emb", "img_emb", "npy")
    tables = _numbered(folder / "metadata", "metadata", "parquet")
    if not arrays:
        raise CollectionError(
            f"{folder} holds no img_emb/img_emb_0.npy: give the output folder of "
            "`clip-retrieval inference`"
        )
    for number in sorted(arrays.keys() ^ tables.keys()):
        have, lack = ("vectors", "metadata") if number in arrays else ("metadata", "vectors")
        raise CollectionError(
            f"{folder}: part {number} has {have} but no {lack}: complete the "
            "folder, or remove that part"
        )
    return [(arrays[number], tables[number]) for number in sorted(arrays)]


def _numbered(folder: Path, stem: str, ending: str) -> dict[int, Path]:
    try:
        files = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise CollectionError(
            f"{folder} cannot be read ({error.strerror}): check its permissions"
        ) from error
    pattern = re.compile(rf"{stem}_(\d+)\.{ending}", re.ASCII)
    matches = ((pattern.fullmatch(file.name), file) for file in files)
    return {int(match[1]): file for match, file in matches if match}


def _mapped(file: Path) -> NDArray[Any]:
    """Return the ``(n, dim)`` floats of a .npy file, memory-mapped; raises CollectionError for
    anything else, such as a pickle.
    """
    with guarded(CollectionError, file, "write it again", problem="cannot be read as an array"):
        array = map_npy(file)
    if array.ndim != 2 or array.dtype.kind != "f" or array.shape[1] < 1:
        raise CollectionError(
            f"{file} holds no rows of floating-point numbers: write it again as float16 or "
            "float32 (n, dim)"
        )
    return array


@contextmanager
def _shard(
    folder: Path, number: str, *, root: str, shape: tuple[int, int]
) -> "Iterator[tuple[BinaryIO, MetadataWriter]]":
    """Yield the two open files of one shard; ``root`` is the absolute path of the photo folder,
    ``shape`` that of all its vectors.
    """
    with (
        open(folder / "img_emb" / f"img_emb_{number}.npy", "wb") as vectors,
        MetadataWriter(folder / "metadata" / f"metadata_{number}.parquet", root) as metadata,
    ):
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(vectors, header)
        yield vectors, metadata


# -- The metadata, in Apache Parquet ---------------------------------------------------------------


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
