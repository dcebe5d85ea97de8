"""What a run of indexing has to do: the files of a folder held against what its
collection holds.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, Any, Generic, TypeVar

from vitsearch.errors import CollectionError, VitsearchError
from vitsearch.paths import raw_path
from vitsearch.types import Found, State

Known = TypeVar("Known", bound=tuple[Any, ...])  # begins with the path


class DiskQueue:
    """Files to do, in order, in a temporary file: a million of them take no memory, and it is gone
    when the process is.

    ``folder`` is where the file lies (None: the system's place for them). It is made with the first
    entry.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, found: Found) -> None:
        """Add one file at the end."""
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115  closed by `close`
        self._file.write(
            json.dumps([found.path, found.size, found.mtime_ns, found.problem]).encode() + b"\n"
        )
        self._count += 1

    def __iter__(self) -> Iterator[Found]:
        if self._file is not None:
            self._file.seek(0)
            yield from (Found(*json.loads(line)) for line in self._file)

    def close(self) -> None:
        """Give the file back; what was in it is gone."""
        if self._file is not None:
            self._file.close()
        self._file, self._count = None, 0


@dataclass
class FolderDiff:
    """Files to read (``todo``), to record as skipped (``refused``), photos whose files are gone
    (``missing``), and counts.

    ``stale_failures`` are paths of recorded failures whose files are gone.
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
        """True when every photo of a collection would leave it."""
        return self.known > 0 and len(self.missing) == self.known

    def close(self) -> None:
        """Give the temporary files back."""
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
    """Return the plan for files found, given (path, size, mtime_ns) of photos and (path, state,
    size, mtime_ns) of failures.

    All three come in the order of the bytes of their paths, and are read once, side by side:
    nothing of an unchanged file is kept. A file is read again only when its size or time changed; a
    failed one also with ``retry``. What is at or below an ``unreadable`` path may still be there,
    and is not taken for gone; that list may still be growing while ``files`` are read. ``folder``
    is for temporary files. Raises VitsearchError where the files come in another order,
    CollectionError where the rows do.
    """
    plan = FolderDiff(todo=DiskQueue(folder), refused=DiskQueue(folder))
    in_photos, in_failures = _Cursor(photos), _Cursor(failures)
    for found in _in_order(files):
        plan.seen += 1
        _place(plan, found, in_photos.at(found.path), in_failures.at(found.path), retry)
    in_photos.finish()
    in_failures.finish()
    plan.known = in_photos.count
    plan.missing = {path for path in in_photos.passed if not _under(path, unreadable)}
    plan.stale_failures = [path for path in in_failures.passed if not _under(path, unreadable)]
    return plan


def _place(
    plan: FolderDiff,
    found: Found,
    photo: tuple[str, int, int] | None,
    failure: tuple[str, State, int, int] | None,
    retry: bool,
) -> None:
    """Count one file, or put it where it is to be done."""
    stat = (found.size, found.mtime_ns)
    if found.problem is not None:
        plan.skipped += 1
        if failure is None or failure[1:] != ("skipped", *stat):
            plan.refused.append(found)
    elif photo is not None and photo[1:] == stat:
        plan.unchanged += 1
    elif failure is not None and failure[1:] == ("failed", *stat) and not retry:
        plan.still_failed += 1
    else:
        plan.todo.append(found)


class _Cursor(Generic[Known]):
    """Rows in order of path, read as far as the files have come; ``passed`` are the paths that no
    file had.
    """

    def __init__(self, rows: Iterable[Known]) -> None:
        self._rows = iter(rows)
        self.count = 0
        self.passed: list[str] = []
        self._last = ""
        self._next: Known | None = self._advance()

    def at(self, path: str) -> Known | None:
        """Return the row of a path, or None; rows before it are passed."""
        while (row := self._next) is not None:
            if row[0] == path:
                self._next = self._advance()
                return row
            if _rises(path, row[0]):
                return None
            self.passed.append(row[0])
            self._next = self._advance()
        return None

    def finish(self) -> None:
        """Pass all that is left."""
        while self._next is not None:
            self.passed.append(self._next[0])
            self._next = self._advance()

    def _advance(self) -> Known | None:
        row = next(self._rows, None)
        if row is not None:
            if self.count and not _rises(self._last, row[0]):
                raise CollectionError(
                    f"photos.db is damaged ({row[0]!r} is out of order): `vitsearch verify` says "
                    "more; nothing was changed"
                )
            self._last = row[0]
            self.count += 1
        return row


def _in_order(files: Iterable[Found]) -> Iterator[Found]:
    """Pass files on while their paths rise: with any other order photos that are there would be
    taken for gone.
    """
    last = ""
    for found in files:
        if not _rises(last, found.path):
            raise VitsearchError(
                f"the folder was listed out of order ({last!r} before {found.path!r}): run "
                "again; nothing was changed"
            )
        last = found.path
        yield found


def _rises(path: str, later: str) -> bool:
    """Tell whether a path comes before a later one; where one of them is plain ASCII, characters
    are in the order of their bytes.
    """
    return path < later if later.isascii() else raw_path(path) < raw_path(later)


def _under(path: str, folders: Sequence[str]) -> bool:
    return any(folder in ("", ".", path) or path.startswith(f"{folder}/") for folder in folders)
