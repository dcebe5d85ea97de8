"""The folder that ``clip-retrieval inference`` writes and its ``index`` and ``back`` read
(github.com/rom1504/clip-retrieval).

img_emb/img_emb_0.npy           float16 (n, dim) unit rows
metadata/metadata_0.parquet     n rows; row i describes the photo of vector i: image_path, ...
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import map_npy
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionError
from vitsearch.interop.base import (
    Block,
    Source,
    export_folder,
    manifest_of,
    photo_blocks,
    read_manifest,
    write_manifest,
)
from vitsearch.interop.importer import ImportOptions, ImportReport, import_vectors
from vitsearch.shards.manifest import MANIFEST
from vitsearch.storage.reader import StoredCollection
from vitsearch.types import OnProgress, Progress, no_progress
from vitsearch.untrusted import guarded

if TYPE_CHECKING:
    from vitsearch.interop.parquet import MetadataWriter

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
    _need_parquet()
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
    _need_parquet()
    from vitsearch.interop.parquet import count_rows

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
    from vitsearch.interop.parquet import read_rows

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
    from vitsearch.interop.parquet import MetadataWriter

    with (
        open(folder / "img_emb" / f"img_emb_{number}.npy", "wb") as vectors,
        MetadataWriter(folder / "metadata" / f"metadata_{number}.parquet", root) as metadata,
    ):
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(vectors, header)
        yield vectors, metadata


def _need_parquet() -> None:
    try:
        import vitsearch.interop.parquet  # noqa: F401
    except ImportError as error:
        raise CollectionError(
            "clip-retrieval's metadata is Parquet, which needs an extra: pip install "
            "'vitsearch[parquet]'"
        ) from error
