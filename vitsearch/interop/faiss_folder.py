"""A FAISS index with the photos' ids and paths beside it.

index.faiss     the vectors, float32 unit rows of inner product
ids.npy         int64 (n,), the id of each row of the index
paths.jsonl     one JSON object a line: {"id": 7, "path": "a/b.jpg", "fingerprint": "...", ...}

Its rows are read in a process of their own: FAISS (arXiv:2401.08281) trusts what it reads, and an
index may be a stranger's.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Ids, Vectors, map_npy, mapped
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionError, RecipeError
from vitsearch.index.faiss_files import named
from vitsearch.index.faiss_index import build_faiss_index, short_reason
from vitsearch.index.recipe import Recipe, load_recipe
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
from vitsearch.shards.manifest import MANIFEST
from vitsearch.storage import StoredCollection
from vitsearch.types import OnProgress, Photo, Progress, no_progress
from vitsearch.untrusted import CHILD_MEMORY, CHILD_SECONDS, parse_json, reason, run_in_child

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


# -- The rows of an index --------------------------------------------------------------------------


faiss: Any = _faiss  # its type stubs lack half of what is used here

COPIED_VECTORS, COPIED_IDS = "vectors.f32", "ids.i64"  # what the child leaves
BYTES_A_SECOND = 20_000_000  # that a slow disk gives
_FLAT = "give an index of whole vectors (Flat, IVF,Flat or HNSW,Flat)"
# lists on disk are looked for beside the index alone, whatever path it names, and not written to
_FLAGS: int = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY


class StoredRows:
    """The vectors and ids that an index in a file holds, copied out of it by another process.

    Raises CollectionError for a file that FAISS cannot read, that crashes it, or takes too long or
    too much memory, and for an index that does not hold the vectors themselves. ``ids`` are those
    of the rows, in the order of the rows; 0 and up where the index stores none.
    """

    def __init__(self, file: Path) -> None:
        self._copy = tempfile.TemporaryDirectory(prefix="vitsearch-")  # goes with this object
        size = _size_of(file.parent)
        read = run_in_child(
            f"{__name__}:copy_rows",
            {"file": str(file), "out": self._copy.name, "size": size},
            error=CollectionError,
            where=file,
            problem="cannot be read as a FAISS index",
            repair="write it again",
            seconds=CHILD_SECONDS + size / BYTES_A_SECOND,
            memory=CHILD_MEMORY + 3 * size,
        )
        if "refused" in read:
            raise CollectionError(f"{file} {read['refused']}: {_FLAT}")
        self.dim, count = int(read["dim"]), int(read["count"])
        copy = Path(self._copy.name)
        self._rows: Vectors = mapped(copy / COPIED_VECTORS, np.dtype(np.float32), (count, self.dim))
        self.ids: Ids = mapped(copy / COPIED_IDS, np.dtype(np.int64), (count,))

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[Vectors]:
        """Yield the ``(n, dim)`` rows in their order."""
        for start in range(0, len(self), BLOCK):
            yield self._rows[start : start + BLOCK]


def _size_of(folder: Path) -> int:
    """Return the bytes of a folder's files; raises CollectionError where one is a link that leads
    out of it, since its content would be taken for vectors.
    """
    inside = folder.resolve()
    size = 0
    for file in folder.iterdir():
        if file.is_symlink() and not file.resolve().is_relative_to(inside):
            raise CollectionError(f"{file} is a link that leads out of its folder: remove it")
        size += file.stat().st_size if file.is_file() else 0
    return size


# -- In the child ----------------------------------------------------------------------------------


def copy_rows(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the rows and the ids of an index into `COPIED_VECTORS` and `COPIED_IDS` of a folder.

    Returns their ``dim`` and ``count``, or why they are ``refused``. Raises ValueError.
    """
    stored = _read(Path(facts["file"]))
    ids, index = _unwrapped(stored)
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexHNSW):
        inner = faiss.downcast_index(inner.storage)
    if not isinstance(inner, faiss.IndexFlat | faiss.IndexIVFFlat):
        kind = type(inner).__name__
        return {"refused": f"is an {kind}, which keeps no vectors or only rounded ones"}
    count, dim = int(stored.ntotal), int(stored.d)
    if dim < 1 or 4 * count * dim > facts["size"]:
        raise ValueError("it says that it holds more than its file")
    keys = _inner_keys(index, count)
    ids = np.arange(count, dtype=np.int64) if ids is None else ids
    if len(ids) != count or len(keys) != count:
        raise ValueError(f"it holds {len(ids):,} ids of {count:,} vectors")
    Path(facts["out"], COPIED_IDS).write_bytes(ids.tobytes())
    with open(Path(facts["out"], COPIED_VECTORS), "wb") as out:
        for start in range(0, count, BLOCK):
            try:
                rows = index.reconstruct_batch(keys[start : start + BLOCK])
            except RuntimeError as error:
                problem = f"does not give its vectors back ({short_reason(error)})"
                return {"refused": problem}
            out.write(np.ascontiguousarray(rows, dtype=np.float32).data)
    return {"dim": dim, "count": count}


def _read(file: Path) -> Any:
    try:
        with named(file) as name:
            if name is not None:
                return faiss.read_index(name, _FLAGS)
        with open(file, "rb") as opened:
            return faiss.read_index(faiss.PyCallbackIOReader(opened.read))
    except RuntimeError as error:
        raise ValueError(short_reason(error)) from error
    except (OSError, MemoryError) as error:
        raise ValueError(reason(error)) from error


def _unwrapped(index: Any) -> tuple[Ids | None, Any]:
    """Return the ids of an index and what lies under them; None where it gives the rows numbers
    from 0 up.
    """
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexIDMap):  # IDMap2 is one
        ids = faiss.vector_to_array(inner.id_map).astype(np.int64)
        return ids, faiss.downcast_index(inner.index)
    if isinstance(inner, faiss.IndexIVF):
        inner.set_direct_map_type(faiss.DirectMap.Hashtable)
        return _list_ids(inner), inner
    return None, inner


def _list_ids(index: Any) -> Ids:
    lists = index.invlists
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
        for number in range(index.nlist)
    ]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def _inner_keys(index: Any, count: int) -> Ids:
    if isinstance(index, faiss.IndexIVF):
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        return _list_ids(index)
    return np.arange(count, dtype=np.int64)
