"""The index folder on disk: a copy of the vectors to map and search, derived from the collection's
database and safe to delete.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids
from vitsearch.errors import IndexDamaged, RecipeError
from vitsearch.index.base import LISTS, Candidates, VectorIndex
from vitsearch.index.device import Tell, on_device
from vitsearch.index.exact import ExactIndex
from vitsearch.index.manifest import (
    MANIFEST,
    FileFacts,
    Manifest,
    check_file,
    damaged,
    facts_of,
    read_manifest,
    write_manifest,
)
from vitsearch.index.recipe import Recipe

VECTORS = "vectors.f16"
IDS = "ids.i64"
FAISS = "index.faiss"
FILES = (VECTORS, IDS, FAISS, LISTS)
CAGRA = "CAGRA"  # a factory string of ours: FAISS builds that graph on a GPU
_TRIES = 20


@dataclass(frozen=True, slots=True, eq=False)
class IndexSnapshot:
    """An open index folder: its manifest, its memory-mapped rows in order of id, and the index over
    them.

    ``ids`` is ``(n,)`` int64, ``vectors`` ``(n, dim)`` float16. ``degraded`` says in one line why
    the index is an exact one where the recipe asks for another, else it is None.
    """

    manifest: Manifest
    ids: Ids
    vectors: Halves
    index: VectorIndex
    degraded: str | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.manifest.count

    @property
    def dim(self) -> int:
        """The length of a row."""
        return self.manifest.dim

    @property
    def recipe(self) -> Recipe:
        """The recipe that the folder was built by."""
        return self.manifest.recipe

    @property
    def generation(self) -> int:
        """The collection's count of changes when the folder was built."""
        return self.manifest.generation

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder of the vectors."""
        return self.manifest.fingerprint

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return what the index proposes for one ``(dim,)`` unit query: at most ``min(k, n)`` rows,
        to be scored again by the caller.
        """
        return self.index.search(query, k)

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return what `search` returns for each of the ``(m, dim)`` queries."""
        return self.index.search_batch(queries, k)


def manifest_stamp(folder: Path) -> tuple[int, int, int] | None:
    """Return a value that changes when an index folder is replaced, None where there is none."""
    try:
        status = os.stat(folder / MANIFEST)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def build_snapshot(
    folder: Path,
    batches: Iterable[tuple[Ids, Halves]],
    *,
    recipe: Recipe,
    dim: int,
    generation: int,
    fingerprint: str,
    asked: Recipe | None = None,
    since: int = -1,
) -> None:
    """Write an index folder over batches of ``(b,)`` ascending int64 ids and ``(b, dim)`` float16
    unit rows.

    ``asked`` is the recipe for which ``recipe`` was chosen, ``since`` the generation after which
    the rows are. The folder is written beside ``folder`` and renamed into its place when complete,
    so a reader sees the old one or the new one; what a killed build left is removed. Raises
    RecipeError (a bad factory string, FAISS missing) and OSError (a full disk), after either of
    which the old folder is as it was.
    """
    check_recipe(recipe, dim)
    aside, old = _beside(folder, "new"), _beside(folder, "old")
    _remove(aside)
    _remove(old)
    try:
        aside.mkdir(parents=True)
        ids, vectors = _write_rows(aside, batches, dim)
        if len(ids):
            _write_faiss(aside, recipe, vectors, ids)
        files = {name: facts_of(aside / name) for name in FILES if (aside / name).exists()}
        write_manifest(
            aside,
            Manifest(
                recipe,
                generation,
                len(ids),
                dim,
                fingerprint,
                files,
                asked.to_dict() if asked else {},
                since=since,
            ),
        )
        _sync_folder(aside)
        _put_in_place(aside, folder, old)
    except BaseException:
        _remove(aside)
        raise


def remove_snapshot(folder: Path) -> None:
    """Remove an index folder where there is one."""
    _remove(folder)


def open_snapshot(
    folder: Path, *, device: str = "cpu", tell: Tell = lambda _: None
) -> IndexSnapshot:
    """Return the index folder, opened read-only and memory-mapped.

    ``device`` is where its index is searched: "cpu", "cuda", "cuda:1", or "auto" for a GPU where
    the recipe asks for one; ``tell`` is given a line where a GPU was asked for in vain
    (`on_device`). Raises IndexDamaged when a file is missing, cut or altered; see ``check_file``
    for what is read to know that.
    """
    for _ in range(_TRIES):
        stamp = manifest_stamp(folder)
        try:
            snapshot: IndexSnapshot | IndexDamaged = _open(folder)
        except IndexDamaged as error:
            snapshot = error
        except OSError as error:  # gone between the check and the opening
            snapshot = damaged(
                Path(error.filename or folder), f"cannot be opened: {error.strerror}"
            )
        if manifest_stamp(folder) == stamp and (stamp or not _beside(folder, "old").exists()):
            break
        time.sleep(0.002)  # a build is putting a new folder in its place
    if isinstance(snapshot, IndexDamaged):
        raise snapshot
    index = on_device(
        snapshot.index,
        snapshot.recipe,
        device=device,
        vectors=snapshot.vectors,
        ids=snapshot.ids,
        tell=tell,
    )
    return replace(snapshot, index=index)


def verify_snapshot(folder: Path, *, whole: bool = True) -> Manifest:
    """Check the files of an index folder without opening the index, and return its manifest.

    Every byte is read where ``whole`` is set, else what `open_snapshot` reads. Raises IndexDamaged.
    """
    manifest = read_manifest(folder)
    _check_files(folder, manifest, whole=whole)
    if whole and not (np.diff(_mapped(folder / IDS, np.dtype("<i8"), (manifest.count,))) > 0).all():
        raise damaged(folder / IDS, "is not in order")
    return manifest


def check_recipe(recipe: Recipe, dim: int) -> None:
    """Raise RecipeError where the recipe cannot be built: a bad factory string for this dimension,
    or FAISS is missing.
    """
    if recipe.kind in ("exact", "auto"):
        return
    try:
        from vitsearch.index.faiss_index import check_factory
    except ImportError as error:
        if recipe.is_exact:
            return
        raise RecipeError(
            f"recipe {recipe.name!r} needs FAISS, which is not installed: pip install "
            "'vitsearch[faiss]'"
        ) from error
    if recipe.factory == CAGRA:
        from vitsearch.index.gpu import check_cagra

        check_cagra(recipe)
        return
    check_factory(recipe, dim)


def _open(folder: Path) -> IndexSnapshot:
    manifest = verify_snapshot(folder, whole=False)
    ids = _mapped(folder / IDS, np.dtype("<i8"), (manifest.count,))
    vectors = _mapped(folder / VECTORS, np.dtype("<f2"), (manifest.count, manifest.dim))
    exact = ExactIndex(vectors, ids)
    if FAISS not in manifest.files:
        missing = manifest.count and not manifest.recipe.is_exact
        return IndexSnapshot(
            manifest,
            ids,
            vectors,
            exact,
            "index.faiss was not built; the search is exact" if missing else None,
        )
    index, problem = _open_faiss(folder, manifest)
    return IndexSnapshot(
        manifest, ids, vectors, index or exact, None if manifest.recipe.is_exact else problem
    )


def _write_rows(
    folder: Path, batches: Iterable[tuple[Ids, Halves]], dim: int
) -> tuple[Ids, Halves]:
    last, count = -1, 0
    with open(folder / VECTORS, "wb") as vectors, open(folder / IDS, "wb") as numbers:
        for ids, rows in batches:
            if rows.shape != (len(ids), dim) or rows.dtype != np.float16:
                raise ValueError(
                    f"expected ({len(ids)}, {dim}) float16 vectors, got {rows.dtype} {rows.shape}"
                )
            if not (np.diff(ids, prepend=last) > 0).all():
                raise ValueError("ids must ascend from 0")  # FAISS keeps -1 for "none"
            vectors.write(np.ascontiguousarray(rows, dtype="<f2").data)
            numbers.write(np.ascontiguousarray(ids, dtype="<i8").data)
            last, count = (int(ids[-1]) if len(ids) else last), count + len(ids)
        _sync(vectors)
        _sync(numbers)
    return _mapped(folder / IDS, np.dtype("<i8"), (count,)), _mapped(
        folder / VECTORS, np.dtype("<f2"), (count, dim)
    )


def _write_faiss(folder: Path, recipe: Recipe, vectors: Halves, ids: Ids) -> None:
    if recipe.kind == "exact":
        return
    try:
        from vitsearch.index.faiss_index import build_faiss_index, few_rows
    except ImportError:  # an exact recipe: the rows are enough
        return
    if recipe.on_disk and not few_rows(len(ids)):
        from vitsearch.index.faiss_index import write_disk_index

        write_disk_index(folder, FAISS, recipe, vectors, ids)
        return
    if recipe.factory == CAGRA:
        from vitsearch.index.gpu import build_cagra

        index = build_cagra(recipe, vectors, ids)
    else:
        index = build_faiss_index(recipe, vectors, ids)
    with open(folder / FAISS, "wb") as file:
        index.write(file)
        _sync(file)


def _open_faiss(folder: Path, manifest: Manifest) -> tuple[VectorIndex | None, str | None]:
    try:
        from vitsearch.index.faiss_index import read_faiss_index
    except ImportError:
        return (
            None,
            (
                f"FAISS is not installed, so recipe {manifest.recipe.name!r} is searched exactly: "
                "pip "
                "install 'vitsearch[faiss]'"
            ),
        )
    try:
        index = read_faiss_index(folder / FAISS, search=manifest.recipe.search)
    except (RuntimeError, RecipeError):
        return (
            None,
            (
                f"this FAISS cannot read the index of recipe {manifest.recipe.name!r}, so the "
                "search "
                "is exact; index again to rebuild it"
            ),
        )
    if len(index) != manifest.count or index.dim != manifest.dim:
        raise damaged(folder / FAISS, "does not fit the manifest")
    return index, None


def _check_files(folder: Path, manifest: Manifest, *, whole: bool) -> None:
    sizes = {VECTORS: 2 * manifest.count * manifest.dim, IDS: 8 * manifest.count}
    for name, size in sizes.items():
        facts = manifest.files.get(name, FileFacts(-1, 0, 0, 0))
        if facts.size != size:
            raise damaged(folder / name, "does not fit the manifest")
    for name in sorted(set(manifest.files) & set(FILES)):
        check_file(folder / name, manifest.files[name], whole=whole)


def _mapped(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    if 0 in shape:
        return np.empty(shape, dtype)  # an empty file cannot be mapped
    try:
        return np.memmap(file, dtype=dtype, mode="r", shape=shape)
    except (OSError, ValueError) as error:  # replaced since it was checked
        raise damaged(file, "cannot be mapped") from error


def _put_in_place(aside: Path, folder: Path, old: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, old)
    try:
        os.rename(aside, folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.rename(old, folder)
        raise
    _sync_folder(folder.parent)
    with contextlib.suppress(OSError):  # the next build tries again
        _remove(old)


def _beside(folder: Path, word: str) -> Path:
    return folder.with_name(f"{folder.name}.{word}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
