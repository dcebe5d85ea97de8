"""The index folder: memory-mapped vectors and the index over them, as of one moment.

It is derived from the collection's database and safe to delete.
"""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids, mapped
from vitsearch.errors import IndexDamaged, RecipeError
from vitsearch.index import (
    FAISS,
    GENERATIONS,
    IDS,
    LISTS,
    REMOVED,
    VECTORS,
    Candidates,
    SelectiveIndex,
)
from vitsearch.index.backends import (
    ExactIndex,
    backend_for,
    check_recipe,
    faiss_is_installed,
    on_device,
    ordered_by,
    wants_gpu,
)
from vitsearch.index.manifest import (
    BLOCK,
    MANIFEST,
    CheckedBlocks,
    FileFacts,
    Manifest,
    Origin,
    check_file,
    damaged,
    facts_of,
    read_manifest,
    write_manifest,
)
from vitsearch.index.recipe import Recipe
from vitsearch.records import (
    atomic_write,
    flush,
    flush_path,
    remove_unfinished,
    replace_folder,
)

FILES = (VECTORS, IDS, GENERATIONS, FAISS, LISTS, REMOVED)
# a file of the index up to this size is read in full when it is opened, in 20 ms
WHOLE = 64 * 1024 * 1024
ALL_ROWS = Origin()
MAX_LATE, LATE = 2**24, 4  # numbers in the rows of a `LateIndex`, and queries before it is loaded
MAX_SPAN = 4  # ids for each row, from which positions are searched for: a table would be too large
_ATTEMPTS = 20  # to open a folder that is being replaced


@dataclass(frozen=True, slots=True, eq=False)
class IndexSnapshot:
    """An open index folder: its manifest, its memory-mapped rows, and the index over them.

    ``ids`` is ``(n,)`` ascending int64, ``vectors`` ``(n, dim)`` float16, of which `rows_of` and
    `exact` check what they read. Where the recipe's index cannot be used and the search is exact,
    ``degraded`` says why in one line, else it is None. ``blocks`` are those of the vectors, and
    ``scans`` says that every search reads all of them. ``removed`` are those of its `Origin`,
    ``generations`` ``(n,)`` uint32 those of the rows, None in a folder of before they were stored;
    ``ordered`` is the index with its candidates in the order of the rows, None where it has none;
    ``filtered`` is for what a search remembers of its filter, ``tables`` for where ids are.
    """

    manifest: Manifest
    ids: Ids
    vectors: Halves
    index: SelectiveIndex
    blocks: CheckedBlocks
    degraded: str | None = None
    scans: bool = False
    removed: Ids | None = None
    generations: NDArray[np.uint32] | None = None
    ordered: SelectiveIndex | None = None
    filtered: list[tuple[str, tuple[object, ...], Any, int]] = field(default_factory=list)
    tables: list[NDArray[Any]] = field(default_factory=list)

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
        """Return what the index proposes for one ``(dim,)`` unit query, at most ``min(k, n)`` rows.

        The caller computes the exact scores. Raises IndexDamaged.
        """
        return self.search_batch(query[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return what `search` returns for each of the ``(m, dim)`` queries."""
        if self.scans:
            self.blocks.check()
        return (self.index if self.ordered is None else self.ordered).search_batch(queries, k)

    def positions(self, ids: Ids) -> Ids:
        """Return the positions ``(n,)`` of rows by their ids; raises IndexDamaged for others."""
        if not len(ids):
            return np.empty(0, dtype=np.int64)
        first, span = int(self.ids[0]), int(self.ids[-1] - self.ids[0]) + 1
        inside = bool(((ids >= first) & (ids < first + span)).all())
        if span == len(self):  # none is missing between them, as in most collections
            at, known = ids - first, inside
        elif span <= MAX_SPAN * len(self) and inside:
            at = self._table(first, span)[ids - first]
            known = bool((at >= 0).all())
        else:
            at = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)
            known = np.array_equal(self.ids[at], ids)
        if not known:
            raise IndexDamaged(
                "the index holds ids that are not of its rows; index the folder again to rebuild "
                "it from the stored vectors"
            )
        return at

    def _table(self, first: int, span: int) -> Ids:
        """Return the positions of all ids from the first one on, -1 for those between them: looked
        up in a fiftieth of the time of a binary search.
        """
        if not self.tables:
            table = np.full(span, -1, dtype=np.int32 if len(self) < 2**31 else np.int64)
            table[self.ids - first] = np.arange(len(self))
            self.tables.append(table)
        return self.tables[0]

    def rows(self, positions: Ids) -> Halves:
        """Return the ``(n, dim)`` float16 rows at these positions; raises IndexDamaged."""
        first = positions * (2 * self.dim)
        last = first + (2 * self.dim - 1)
        self.blocks.check(np.concatenate([first // BLOCK, last // BLOCK]))
        return self.vectors[positions]

    def exact(self) -> ExactIndex:
        """Return an exact index over all rows; raises IndexDamaged."""
        self.blocks.check()
        return ExactIndex(self.vectors, self.ids)


class LateIndex:
    """The index of FAISS in a folder, loaded after some searches, which are done by comparing the
    rows ``exact``: loading FAISS takes longer than that where they are few.
    """

    def __init__(self, exact: SelectiveIndex, folder: Path, manifest: Manifest) -> None:
        self.dim, self._index = exact.dim, exact
        self._folder, self._manifest, self._opened_as = folder, manifest, manifest_stamp(folder)
        self._left = LATE

    def __len__(self) -> int:
        return len(self._index)

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return the ``min(k, n)`` rows nearest to one ``(dim,)`` query; raises IndexDamaged."""
        return self.search_batch(query[None], k)[0]

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return those nearest to each ``(m, dim)`` query; raises IndexDamaged."""
        if 0 <= self._left < len(queries):
            self._load()
        self._left -= len(queries)
        return self._index.search_batch(queries, k)

    def search_among(
        self, queries: NDArray[Any], k: int, allowed: NDArray[np.uint8], share: float
    ) -> list[Candidates] | None:
        """Return None: the rows that are allowed are compared."""
        return None

    def _load(self) -> None:
        self._left, file = -1, self._folder / FAISS
        try:
            check_file(file, self._manifest.files[FAISS], check_content=True)
            self._index = _read_index(self._folder, self._manifest)
        except RecipeError:
            return  # FAISS cannot read it: the rows are compared for good
        except (IndexDamaged, OSError) as error:
            if manifest_stamp(self._folder) == self._opened_as:  # else another is opened next
                raise damaged(file, "cannot be read or was altered") from error


def manifest_stamp(folder: Path) -> tuple[int, int, int] | None:
    """Return a value that changes when an index folder is replaced, None for no folder."""
    try:
        status = os.stat(f"{folder}/{MANIFEST}")  # at each search: a Path takes longer than this
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
    requested: Recipe | None = None,
    origin: Origin = ALL_ROWS,
) -> None:
    """Write an index folder over batches of ``(b,)`` ids and ``(b, dim)`` float16 unit rows.

    The int64 ids ascend over all batches. ``requested`` is the recipe that the user named where
    ``recipe`` was chosen for it, ``origin`` the collection's state that the rows are of. The folder
    is written beside ``folder`` and renamed when complete, so that a reader sees the old one or the
    new one; what a killed build left is removed. Raises RecipeError (a bad factory string, FAISS
    missing) and OSError (a full disk); the old folder is then as it was.
    """
    check_recipe(recipe, dim)
    aside, old = _beside(folder, "new"), _beside(folder, "old")
    _remove(aside)
    _remove(old)
    try:
        aside.mkdir(parents=True)
        ids, vectors = _write_rows(aside, batches, dim)
        if len(ids):
            backend_for(recipe).write(aside, recipe, vectors, ids)
        if origin.removed is not None:
            atomic_write(aside / REMOVED, origin.removed.astype("<i8").tobytes())
        if origin.generations is not None:
            generations = origin.generations(np.asarray(ids)).astype("<u4")
            atomic_write(aside / GENERATIONS, generations.tobytes())
        files = {name: facts_of(aside / name) for name in FILES if (aside / name).exists()}
        manifest = Manifest(
            recipe=recipe,
            generation=generation,
            count=len(ids),
            dim=dim,
            fingerprint=fingerprint,
            files=files,
            requested=requested.to_dict() if requested else {},
            since=origin.since,
            state=origin.state,
        )
        write_manifest(aside, manifest)
        flush_path(aside)
        _replace(aside, folder, old)
    except BaseException:
        _remove(aside)
        raise


def indexed_ids(folder: Path) -> Ids:
    """Return the ascending ids ``(n,)`` of the rows of an index folder that was checked."""
    return np.fromfile(folder / IDS, "<i8").astype(np.int64)


def remove_snapshot(folder: Path) -> None:
    """Remove an index folder if there is one; a reader sees all of it or nothing."""
    old = _beside(folder, "old")
    _remove(old)
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, old)
        _remove(old)


def finish_replacing(folder: Path) -> None:
    """Put a complete index back that a killed build left beside ``folder``, and remove the rest.

    The newer one takes its place where the build died between the two renames. Raises OSError.
    """
    beside = [_beside(folder, word) for word in ("new", "old")]
    for other in beside:
        if (other / MANIFEST).exists() and not folder.exists():
            os.rename(other, folder)
        _remove(other)
    remove_unfinished(folder)


def open_snapshot(folder: Path, *, device: str = "cpu") -> IndexSnapshot:
    """Return the index folder, opened read-only and memory-mapped.

    ``device`` is where its index is searched: "cpu", "cuda", "cuda:1", or "auto" for a GPU where
    the recipe asks for one; it is logged where no GPU can be used (`on_device`). Raises
    IndexDamaged when a file is missing, cut or altered: all of it is checked but the middle of the
    vectors, whose blocks are checked as they are read, of an index over `WHOLE`, and of a late one.
    """
    for _ in range(_ATTEMPTS):
        before = manifest_stamp(folder)
        try:
            snapshot: IndexSnapshot | IndexDamaged = _open(folder, device)
        except IndexDamaged as error:
            snapshot = error
        except OSError as error:  # gone between the check and the opening
            file = Path(error.filename or folder)
            snapshot = damaged(file, f"cannot be opened: {error.strerror}")
        if manifest_stamp(folder) == before and (before or not _beside(folder, "old").exists()):
            break
        time.sleep(0.002)  # a build is putting a new folder in its place
    if isinstance(snapshot, IndexDamaged):
        raise snapshot
    vectors, ids = snapshot.vectors, snapshot.ids
    index = on_device(snapshot.index, snapshot.recipe, device=device, vectors=vectors, ids=ids)
    scans = isinstance(index, ExactIndex | LateIndex) or index is not snapshot.index
    ordered = None if scans else ordered_by(index, vectors, ids)
    return replace(snapshot, index=index, scans=scans, ordered=ordered)


def verify_snapshot(folder: Path, *, check_content: bool = True) -> Manifest:
    """Return the manifest of an index folder after checking its files; the index is not opened.

    With ``check_content`` every byte is read, otherwise only what `open_snapshot` reads. Raises
    IndexDamaged.
    """
    manifest = read_manifest(folder)
    _check_files(folder, manifest, check_content=check_content)
    if check_content:
        ids = _mapped(folder / IDS, "<i8", (manifest.count,))
        if not (np.diff(ids) > 0).all():
            raise damaged(folder / IDS, "is not in order")
    return manifest


def _read_index(folder: Path, manifest: Manifest) -> SelectiveIndex:
    index = backend_for(manifest.recipe).open(folder, manifest.recipe)
    if len(index) != manifest.count or index.dim != manifest.dim:
        raise damaged(folder / FAISS, "does not fit the manifest")
    return index


def _open(folder: Path, device: str) -> IndexSnapshot:
    manifest = verify_snapshot(folder, check_content=False)
    recipe, count, dim = manifest.recipe, manifest.count, manifest.dim
    late = recipe.is_exact and count * dim <= MAX_LATE and not wants_gpu(recipe, device)
    late = late and "faiss" not in sys.modules and faiss_is_installed()
    for name, facts in manifest.files.items():
        is_small = name in (FAISS, LISTS) and facts.size <= WHOLE
        if name in (IDS, GENERATIONS, REMOVED) or (is_small and not late):
            check_file(folder / name, facts, check_content=True)
    ids = _mapped(folder / IDS, "<i8", (count,)).view(np.ndarray)
    vectors = _mapped(folder / VECTORS, "<f2", (count, dim)).view(np.ndarray)
    degraded: str | None = None
    index: SelectiveIndex = ExactIndex(vectors, ids)
    removed = np.fromfile(folder / REMOVED, "<i8") if REMOVED in manifest.files else None
    generations = (
        _mapped(folder / GENERATIONS, "<u4", (count,)) if GENERATIONS in manifest.files else None
    )
    blocks = CheckedBlocks(
        folder / VECTORS, manifest.files[VECTORS], vectors.view(np.uint8).ravel()
    )
    if late and FAISS in manifest.files:
        index = LateIndex(index, folder, manifest)
    elif FAISS in manifest.files:
        try:
            index = _read_index(folder, manifest)
        except RecipeError as error:
            degraded = None if recipe.is_exact else str(error)
    elif count and not recipe.is_exact:
        degraded = f"{FAISS} was not built; the search is exact"
    rows = (removed, generations)
    return IndexSnapshot(manifest, ids, vectors, index, blocks, degraded, False, *rows)


def _write_rows(
    folder: Path, batches: Iterable[tuple[Ids, Halves]], dim: int
) -> tuple[Ids, Halves]:
    last, count = -1, 0
    with open(folder / VECTORS, "wb") as row_file, open(folder / IDS, "wb") as id_file:
        for ids, rows in batches:
            if rows.shape != (len(ids), dim) or rows.dtype != np.float16:
                raise ValueError(
                    f"expected ({len(ids)}, {dim}) float16 vectors, got {rows.dtype} {rows.shape}"
                )
            if not (np.diff(ids, prepend=last) > 0).all():
                raise ValueError("ids must ascend from 0")  # FAISS keeps -1 for "none"
            row_file.write(np.ascontiguousarray(rows, dtype="<f2").data)
            id_file.write(np.ascontiguousarray(ids, dtype="<i8").data)
            last, count = (int(ids[-1]) if len(ids) else last), count + len(ids)
        for file in (row_file, id_file):
            file.flush()
            flush(file.fileno())
    ids = _mapped(folder / IDS, "<i8", (count,))
    return ids, _mapped(folder / VECTORS, "<f2", (count, dim))


def _check_files(folder: Path, manifest: Manifest, *, check_content: bool) -> None:
    sizes = {VECTORS: 2 * manifest.count * manifest.dim, IDS: 8 * manifest.count}
    if GENERATIONS in manifest.files:
        sizes[GENERATIONS] = 4 * manifest.count
    for name, size in sizes.items():
        facts = manifest.files.get(name, FileFacts(-1, 0, 0, 0))
        if facts.size != size:
            raise damaged(folder / name, "does not fit the manifest")
    for name in sorted(set(manifest.files) & set(FILES)):
        check_file(folder / name, manifest.files[name], check_content=check_content)


def _mapped(file: Path, dtype: str, shape: tuple[int, ...]) -> Any:
    try:
        return mapped(file, dtype, shape)
    except (OSError, ValueError) as error:  # replaced since it was checked
        raise damaged(file, "cannot be read") from error


def _replace(aside: Path, folder: Path, old: Path) -> None:
    replace_folder(aside, folder, old)
    flush_path(folder.parent)
    with contextlib.suppress(OSError):  # the next build tries again
        _remove(old)


def _beside(folder: Path, word: str) -> Path:
    return folder.with_name(f"{folder.name}.{word}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
