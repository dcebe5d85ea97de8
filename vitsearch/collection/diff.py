"""Compares the files of a folder with a collection: what a run of indexing has to do.

Whether a missing photo has only moved is decided when its content is met again, by
`vitsearch.storage.store.PhotoStore.keep`.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Generic, TypeVar

from vitsearch.errors import CollectionError, VitsearchError
from vitsearch.paths import raw_path
from vitsearch.photos import WalkOptions
from vitsearch.photos.formats import named_suffixes
from vitsearch.photos.walk import walk
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, State

Known = TypeVar("Known", bound=tuple[Any, ...])  # begins with the path


class DiskQueue:
    """A queue of files in a temporary file, so that a million of them take no memory.

    ``folder`` is where the temporary file lies (None: the system's folder for them). It is created
    with the first entry, and is gone when the process ends.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, file: Found) -> None:
        """Add a file at the end."""
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115  closed by `close`
        self._file.write(json.dumps(file).encode() + b"\n")
        self._count += 1

    def __iter__(self) -> Iterator[Found]:
        if self._file is not None:
            self._file.seek(0)
            yield from (Found(*json.loads(line)) for line in self._file)

    def close(self) -> None:
        """Delete the temporary file and its entries."""
        if self._file is not None:
            self._file.close()
        self._file, self._count = None, 0


@dataclass
class FolderDiff:
    """The files to read (``todo``) and to record as skipped (``refused``), and counts.

    ``missing`` are the paths of photos whose files are gone, ``stale_failures`` those of recorded
    failures whose files are gone.
    """

    seen: int = 0
    known: int = 0
    unchanged: int = 0
    skipped: int = 0
    still_failed: int = 0
    todo: DiskQueue = field(default_factory=DiskQueue)
    refused: DiskQueue = field(default_factory=DiskQueue)
    missing: set[str] = field(default_factory=set)
    stale_failures: list[str] = field(default_factory=list)

    @property
    def loses_all(self) -> bool:
        """Whether every photo of the collection would leave it."""
        return self.known > 0 and len(self.missing) == self.known

    def close(self) -> None:
        """Delete the temporary files."""
        self.todo.close()
        self.refused.close()


def diff_folder(
    files: Iterable[Found],
    photos: Iterable[tuple[str, int, int]],
    failures: Iterable[tuple[str, State, int, int]],
    *,
    unreadable: Sequence[str] = (),
    retry: bool = False,
    folder: str | os.PathLike[str] | None = None,
) -> FolderDiff:
    """Return what is to be done with the files of a folder.

    ``photos`` are (path, size, mtime_ns), ``failures`` (path, state, size, mtime_ns) as stored. All
    three come in the order of the bytes of their paths and are read once, side by side, so that
    unchanged files take no memory. A file is read again only if its size or time has changed; a
    failed one also with ``retry``. What is at or below an ``unreadable`` path may still exist and
    does not count as missing; that list may grow while ``files`` are read. ``folder`` is for
    temporary files. Raises VitsearchError if the files come in another order, CollectionError if
    the rows do.
    """
    diff = FolderDiff(todo=DiskQueue(folder), refused=DiskQueue(folder))
    in_photos, in_failures = _Cursor(photos), _Cursor(failures)
    for file in _in_order(files):
        diff.seen += 1
        _classify(diff, file, in_photos.at(file.path), in_failures.at(file.path), retry)
    in_photos.finish()
    in_failures.finish()
    diff.known = in_photos.count
    diff.missing = {path for path in in_photos.passed if not _under(path, unreadable)}
    diff.stale_failures = [path for path in in_failures.passed if not _under(path, unreadable)]
    return diff


def _classify(
    diff: FolderDiff,
    file: Found,
    photo: tuple[str, int, int] | None,
    failure: tuple[str, State, int, int] | None,
    retry: bool,
) -> None:
    """Count a file as unchanged, or add it to the queue that it belongs to."""
    stat = (file.size, file.mtime_ns)
    if file.problem is not None:
        diff.skipped += 1
        if failure is None or failure[1:] != ("skipped", *stat):
            diff.refused.append(file)
    elif photo is not None and photo[1:] == stat:
        diff.unchanged += 1
    elif failure is not None and failure[1:] == ("failed", *stat) and not retry:
        diff.still_failed += 1
    else:
        diff.todo.append(file)


class _Cursor(Generic[Known]):
    """Reads rows in order of path alongside the files; ``passed`` are the paths without a file."""

    def __init__(self, rows: Iterable[Known]) -> None:
        self._rows = iter(rows)
        self.count = 0
        self.passed: list[str] = []
        self._last = ""
        self._next: Known | None = self._advance()

    def at(self, path: str) -> Known | None:
        """Return the row of a path, or None, and pass the rows before it."""
        while (row := self._next) is not None:
            if row[0] == path:
                self._next = self._advance()
                return row
            if _ascends(path, row[0]):
                return None
            self.passed.append(row[0])
            self._next = self._advance()
        return None

    def finish(self) -> None:
        """Pass all remaining rows."""
        while self._next is not None:
            self.passed.append(self._next[0])
            self._next = self._advance()

    def _advance(self) -> Known | None:
        row = next(self._rows, None)
        if row is not None:
            if self.count and not _ascends(self._last, row[0]):
                raise CollectionError(
                    f"photos.db is damaged ({row[0]!r} is out of order): `vitsearch verify` says "
                    "more; nothing was changed"
                )
            self._last = row[0]
            self.count += 1
        return row


def _in_order(files: Iterable[Found]) -> Iterator[Found]:
    """Yield the files while their paths ascend: in another order photos would count as missing."""
    last = ""
    for file in files:
        if not _ascends(last, file.path):
            raise VitsearchError(
                f"the folder was listed out of order ({last!r} before {file.path!r}): run "
                "again; nothing was changed"
            )
        last = file.path
        yield file


def _ascends(path: str, later: str) -> bool:
    """Return whether a path comes before a later one in the order of their bytes."""
    # next to an ASCII text, the order of the characters is that of the bytes
    return path < later if later.isascii() else raw_path(path) < raw_path(later)


def _under(path: str, folders: Sequence[str]) -> bool:
    return any(folder in ("", ".", path) or path.startswith(f"{folder}/") for folder in folders)


class FolderScan:
    """One walk of a photo folder, which lists files lazily and forgets those that are unchanged."""

    def __init__(self, root: Path, options: WalkOptions) -> None:
        self.root = root
        self._unreadable: list[str] = []
        self._files: Iterator[Found] = walk(
            root, options, on_unreadable=lambda path, reason: self._unreadable.append(path)
        )

    def ensure_not_empty(self) -> None:
        """Raise CollectionError if the folder holds no photo file."""
        first = next(self._files, None)
        if first is None:
            count = len(self._unreadable)
            note = f" ({count} folders could not be read)" if count else ""
            raise CollectionError(
                f"no photos found in {self.root}{note}: looked for {named_suffixes()}"
            )
        self._files = chain([first], self._files)

    def plan(self, store: PhotoStore, *, retry: bool, folder: str | os.PathLike[str]) -> FolderDiff:
        """Return what has to be done for the collection in ``store``.

        ``folder`` is for temporary files.
        """
        with closing(store.stats()) as photos, closing(store.failure_stats()) as failures:
            return diff_folder(
                self._files,
                photos,
                failures,
                unreadable=self._unreadable,
                retry=retry,
                folder=folder,
            )


def guard_against_emptying(
    diff: FolderDiff, photos: Path, folder: Path, *, last_root: str, root: str
) -> None:
    """Raise CollectionError rather than empty a collection by mistake.

    All photos are missing if a disk is not mounted or another folder was named.

    ``root`` is the text of the photo folder's path, ``last_root`` the one that the collection in
    ``folder`` was last indexed from.
    """
    if not diff.loses_all:
        return
    if diff.seen == 0:
        raise CollectionError(
            f"{photos} holds no photos now, its collection holds {diff.known}: is the disk "
            "mounted? nothing was removed; "
            f"to start over delete {folder}"
        )
    if last_root != root and folder.resolve().parent != photos.resolve():
        raise CollectionError(
            f"{folder} is the collection of {last_root}, and none of its {diff.known} photos is "
            f"in {photos}: "
            "name that folder, or another --collection DIR; nothing was removed"
        )
