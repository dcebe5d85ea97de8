"""A FAISS index with the photos' ids and paths beside it.

index.faiss     the vectors, float32 unit rows of inner product
ids.npy         int64 (n,), the id of each row of the index
paths.jsonl     one JSON object a line: {"id": 7, "path": "a/b.jpg", "fingerprint": "...", ...}
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import map_npy
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionError, RecipeError
from vitsearch.index.recipe import Recipe, load_recipe
from vitsearch.interop.base import (
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
from vitsearch.shards.manifest import MANIFEST
from vitsearch.storage.reader import StoredCollection
from vitsearch.types import OnProgress, Photo, Progress, no_progress
from vitsearch.untrusted import parse_json, reason

LAYOUT = "faiss"
INDEX, IDS, PATHS, PLAIN_PATHS = "index.faiss", "ids.npy", "paths.jsonl", "paths.txt"
MAX_LINE = 65_536  # bytes of JSON about one photo
_DEFAULTS = ImportOptions()
_NAMES = frozenset({MANIFEST, INDEX, IDS, PATHS})


def export_faiss(
    collection: StoredCollection,
    folder: str | os.PathLike[str],
    *,
    recipe: str | Recipe = "flat",
    progress: OnProgress = no_progress,
) -> int:
    """Write a collection as a FAISS index with ids and paths, and return how many photos it holds.

    ``recipe`` says which index; the vectors come back whole from ``flat``, ``ivf`` and ``hnsw``.
    All vectors are held in memory, photos are in order of path. The folder is written under another
    name and renamed; an earlier export there is replaced. Raises CollectionError, RecipeError.
    """
    _need_faiss()
    chosen = load_recipe(recipe) if isinstance(recipe, str) else recipe
    if chosen.kind == "auto" or chosen.on_disk:
        raise RecipeError(
            f"recipe {chosen.name!r} gives no index in one file: export with flat, hnsw, ivf or sq8"
        )
    with export_folder(Path(folder), _NAMES) as aside, collection.store.reading():
        total = collection.store.count_files()
        if not total:
            raise CollectionError(
                f"the collection in {collection.folder} is empty: run `vitsearch index` first"
            )
        ids = np.empty(total, np.int64)
        vectors = np.empty((total, collection.config.dim), np.float16)
        with open(aside / PATHS, "w", encoding="ascii") as lines:
            done = 0
            for block, halves in photo_blocks(collection.store, collection.store.photos(), total):
                rows = slice(done, done + len(block))
                ids[rows], vectors[rows] = [photo.photo_id for photo in block], halves
                lines.writelines(_line(photo) for photo in block)
                done += len(block)
                progress(Progress("exporting", done, total))
        np.save(aside / IDS, ids, allow_pickle=False)
        _write_index(aside / INDEX, chosen, vectors, ids)
        write_manifest(aside, manifest_of(collection, LAYOUT, total))
    return total


def import_faiss(
    folder: str | os.PathLike[str],
    photos: str | os.PathLike[str],
    *,
    collection: str | os.PathLike[str] | None = None,
    encoder: str | ImageEncoder | None = None,
    options: ImportOptions = _DEFAULTS,
    progress: OnProgress = no_progress,
) -> ImportReport:
    """Import the vectors in a FAISS index into the collection of a photo folder, which is created
    where there is none.

    ``folder`` holds ``index.faiss`` (or one file ``*.faiss`` or ``*.index``) and ``paths.jsonl``,
    or ``paths.txt`` with one path a line and, where the ids are not 0, 1, 2, ..., ``ids.npy`` with
    the id of each line. The rest is as in `import_clip_retrieval`. The index must hold the vectors
    themselves. FAISS reads it in a process of its own, and lists on disk only beside it.
    """
    source = read_faiss_folder(Path(folder))
    return import_vectors(
        source, photos, collection=collection, encoder=encoder, options=options, progress=progress
    )


def read_faiss_folder(folder: Path) -> Source:
    """Return the vectors of a FAISS index with their paths; raises CollectionError where they do
    not fit each other.
    """
    _need_faiss()
    from vitsearch.interop.faiss_rows import StoredRows

    manifest = read_manifest(folder)
    stored = StoredRows(_index_file(folder))
    rows = _rows(folder)
    ids = stored.ids.tolist()
    lacking = next((photo_id for photo_id in ids if photo_id not in rows), None)
    if lacking is not None:
        raise CollectionError(
            f"{folder}: the index has the id {lacking}, for which there is "
            "no path: complete the paths"
        )

    def blocks() -> Iterator[Block]:
        start = 0
        for vectors in stored.blocks():
            yield [rows[photo_id] for photo_id in ids[start : start + len(vectors)]], vectors
            start += len(vectors)

    return Source(str(folder), len(stored), stored.dim, manifest, blocks)


def _line(photo: Photo) -> str:
    record = {
        "id": photo.photo_id,
        "path": photo.path,
        "fingerprint": photo.fingerprint.hex(),
        "label": photo.label,
        "score": photo.label_score,
    }
    return json.dumps(record, ensure_ascii=True) + "\n"


def _write_index(
    file: Path, recipe: Recipe, vectors: NDArray[np.float16], ids: NDArray[np.int64]
) -> None:
    from vitsearch.index.faiss_index import build_faiss_index

    if recipe.kind == "exact":
        recipe = Recipe("flat", factory="IDMap2,Flat")
    with open(file, "wb") as out:
        build_faiss_index(recipe, vectors, ids).write(out)


def _index_file(folder: Path) -> Path:
    if (folder / INDEX).is_file():
        return folder / INDEX
    files = sorted([*folder.glob("*.faiss"), *folder.glob("*.index")])
    if len(files) != 1:
        raise CollectionError(
            f"{folder} holds {len(files)} FAISS indexes, expected one: name it {INDEX}"
        )
    return files[0]


def _rows(folder: Path) -> dict[int, Row]:
    """Return the row of each id."""
    file = folder / PATHS if (folder / PATHS).is_file() else folder / PLAIN_PATHS
    try:
        if file.name == PATHS:
            lines = file.read_text(encoding="utf-8").split("\n")
            return dict(_parsed(line) for line in lines if line.strip())
        paths = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        ids = _ids(folder / IDS).tolist() if (folder / IDS).is_file() else range(len(paths))
        if len(ids) != len(paths):
            raise ValueError(f"{len(paths):,} lines for {len(ids):,} ids")
        return {photo_id: Row(path) for photo_id, path in zip(ids, paths, strict=True)}
    except FileNotFoundError as error:
        raise CollectionError(
            f"{folder} holds neither {PATHS} nor {PLAIN_PATHS}: which vector is which photo "
            "cannot be told"
        ) from error
    except Exception as error:
        raise CollectionError(f"{file} cannot be read ({reason(error)}): write it again") from error


def _parsed(line: str) -> tuple[int, Row]:
    record: Any = parse_json(line, MAX_LINE)
    is_record = isinstance(record, dict) and isinstance(record.get("path"), str)
    if not is_record or type(record.get("id")) is not int:
        raise ValueError(f'a line is not like {{"id": 1, "path": "a.jpg"}}: {line[:60]}')
    stored, label, score = record.get("fingerprint"), record.get("label"), record.get("score")
    fingerprint = bytes.fromhex(stored) if isinstance(stored, str) else None
    if isinstance(label, str) and isinstance(score, int | float):
        return record["id"], Row(record["path"], fingerprint, label, float(score))
    return record["id"], Row(record["path"], fingerprint)


def _ids(file: Path) -> NDArray[np.int64]:
    ids = map_npy(file)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError("ids.npy does not hold a row of integers")
    return np.asarray(ids, dtype=np.int64)


def _need_faiss() -> None:
    try:
        import vitsearch.interop.faiss_rows  # noqa: F401
    except ImportError as error:
        raise CollectionError(
            "this needs FAISS, which is not installed: pip install 'vitsearch[faiss]'"
        ) from error
