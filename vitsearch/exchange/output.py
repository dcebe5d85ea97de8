"""Where an export goes: a folder that is written aside and renamed when it is whole."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitsearch.errors import CollectionError
from vitsearch.exchange.passport import PASSPORT


@contextmanager
def written_aside(folder: Path, names: frozenset[str]) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that takes its place when the block ends well, and is removed when it does not.

    ``names`` are those of the files and folders of an export: only a folder of nothing else is replaced, and only if it has a
    ``vitsearch.json``. Raises CollectionError for another folder, and where the disk refuses.
    """
    _check_replaceable(folder, names)
    with _disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # a name of ours: nothing of the user's is in the way
    try:
        with _disk_errors(folder):
            (holder / "new").mkdir()
            yield holder / "new"
            _put_in_place(holder, folder)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _put_in_place(holder: Path, folder: Path) -> None:
    if folder.exists():
        os.rename(folder, holder / "old")
    try:
        os.rename(holder / "new", folder)
    except OSError:
        if (holder / "old").exists():
            os.rename(holder / "old", folder)
        raise


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CollectionError(f"cannot write {folder} ({error.strerror or error}): free some space or choose another place") from error


def _check_replaceable(folder: Path, names: frozenset[str]) -> None:
    if not folder.name:
        raise CollectionError(f"cannot write to {folder}: name a new folder")
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise CollectionError(f"{folder} is there already and no folder: choose another place")
    held = {entry.name for entry in folder.iterdir()}
    if held and (PASSPORT not in held or held - names):
        raise CollectionError(f"{folder} holds other files ({min(held - names, default='no ' + PASSPORT)}): choose a new folder")
