"""Files of FAISS: read by any name, memory-mapped where the system and the index allow it."""

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import faiss as _faiss

from vitsearch.index import LISTS
from vitsearch.index.faiss_index import FaissIndex, applicable

faiss: Any = _faiss  # its type stubs lack half of what is used here
_MAPPED: int = getattr(faiss, "IO_FLAG_MMAP_IFC", 0)  # older versions read the file into memory
# finds lists that were left on disk; cannot be combined with the other flag
_SAME_FOLDER: int = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY


def read_faiss_index(path: Path, *, search: Mapping[str, float] | None = None) -> FaissIndex:
    """Return the index in a file, memory-mapped where the system and the index allow it.

    Lists on disk lie beside it. The file must have been checked before: FAISS trusts what it reads.
    Raises RuntimeError when FAISS cannot read it.
    """
    index = _read(path)
    return FaissIndex(index, search=applicable(index, search or {}))


def _read(path: Path) -> Any:
    has_lists = (path.parent / LISTS).exists()
    flags = _SAME_FOLDER if has_lists else _MAPPED
    with named(path) as name:
        if name is not None:
            quiet = silenced() if has_lists else contextlib.nullcontext()
            # of a file system without shared maps, or a file that cannot be read at all
            skipped = (TypeError,) if has_lists else (TypeError, RuntimeError)
            with contextlib.suppress(*skipped), quiet:
                return _with_own_lists(faiss.read_index(name, flags), path)
    with open(path, "rb") as file:
        return _with_own_lists(faiss.read_index(faiss.PyCallbackIOReader(file.read)), path)


def _with_own_lists(index: Any, path: Path) -> Any:
    """Return an index whose lists on disk, if any, are the whole file beside it.

    Raises RuntimeError for another: an index may name any file of this machine, and reading one
    that is shorter than it says would end the process.
    """
    try:
        lists = faiss.downcast_InvertedLists(faiss.extract_index_ivf(index).invlists)
    except RuntimeError:
        return index
    if isinstance(lists, faiss.OnDiskInvertedLists):
        beside = path.parent / LISTS
        size = os.path.getsize(beside) if beside.exists() else -1
        if Path(lists.filename).name != LISTS or size < lists.totsize:
            raise RuntimeError(f"its lists are not those in {LISTS}")
    return index


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep what FAISS prints about lists on disk off standard output inside the block."""
    library = ctypes.CDLL(None)
    library.fflush(None)
    stdout, devnull = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 1)
        yield
    finally:
        library.fflush(None)
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(devnull)


@contextlib.contextmanager
def named(path: Path) -> Iterator[str | None]:
    """Yield a name by which FAISS can open a file, or None: it takes only names in UTF-8.

    On Linux that is a path through the open folder's descriptor, so that FAISS finds the lists
    beside the file too.
    """
    by_number = Path("/proc/self/fd")
    if by_number.exists() and path.name.isascii():
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            yield f"{by_number}/{folder}/{path.name}"
        finally:
            os.close(folder)
        return
    yield str(path) if os.name == "posix" or str(path).isascii() else None
