"""Compares the files of a folder with a collection: what a run of indexing has to do; and waits for
changes in it, as the system tells of them (watchfiles).

Whether a missing photo has only moved is decided when its content is met again, by
`vitsearch.storage.store.PhotoStore.keep`.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Generic, TypeVar

from vitsearch.collection.absence import UNREADABLE, Absence
from vitsearch.errors import CollectionError, VitsearchError
from vitsearch.paths import raw_path
from vitsearch.photos import WalkOptions
from vitsearch.photos.formats import WITHOUT_READER, is_video, named_suffixes
from vitsearch.photos.walk import WalkRecord, path_matcher, walk
from vitsearch.storage import QUEUE
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, LeftOut, State

log = logging.getLogger("vitsearch")
MIN_WARNED = 20  # photos from which a run says that it puts most of them aside
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
            self._file = TemporaryFile(  # noqa: SIM115  closed by `close`
                dir=self._folder, prefix=QUEUE, suffix=".new"
            )
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
    """The files to read (photos in ``todo``, and ``videos``) and to record as skipped
    (``refused``), and counts.

    ``returning`` are the paths of photos that were put aside and whose files are back as they were,
    ``missing`` those of photos without a file, ``stale_failures`` those of recorded failures
    without one. ``out_of_reach`` are the missing that may still exist, each with its reason, and
    ``left_out`` is what the walk met and did not take.
    """

    seen: int = 0
    known: int = 0
    unchanged: int = 0
    skipped: int = 0
    still_failed: int = 0
    todo: DiskQueue = field(default_factory=DiskQueue)
    videos: DiskQueue = field(default_factory=DiskQueue)
    refused: DiskQueue = field(default_factory=DiskQueue)
    returning: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    stale_failures: list[str] = field(default_factory=list)
    out_of_reach: dict[str, Absence] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def read_later(self, file: Found) -> None:
        """Add a file to those to read."""
        (self.videos if is_video(file.path) else self.todo).append(file)

    @property
    def gone(self) -> set[str]:
        """The missing photos that are to be put aside."""
        return self.missing - self.out_of_reach.keys()

    @property
    def staying(self) -> dict[str, Absence]:
        """The missing photos that stay, each with the reason; a photo that was moved is not one."""
        return {path: reason for path, reason in self.out_of_reach.items() if path in self.missing}

    @property
    def loses_all(self) -> bool:
        """Whether no photo of the collection has its file, and none is in a folder that cannot be
        read.
        """
        unreadable = any(absence.reason == "unreadable" for absence in self.out_of_reach.values())
        return self.known > 0 and len(self.missing) == self.known and not unreadable

    def close(self) -> None:
        """Delete the temporary files."""
        self.todo.close()
        self.videos.close()
        self.refused.close()


@dataclass(frozen=True, slots=True)
class StoredRows:
    """What a collection knows of its folder, each in the order of the bytes of the paths.

    ``photos`` and ``aside`` (photos that were put aside) are (path, size, mtime_ns, sidecars),
    ``failures`` (path, state, size, mtime_ns, whether it may pass).
    """

    photos: Iterable[tuple[str, int, int, str]] = ()
    failures: Iterable[tuple[str, State, int, int, bool]] = ()
    aside: Iterable[tuple[str, int, int, str]] = ()


def diff_folder(
    files: Iterable[Found],
    stored: StoredRows,
    *,
    retry: bool = False,
    reread: Callable[[str], bool] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> FolderDiff:
    """Return what is to be done with the files of a folder.

    Files and rows come in the order of the bytes of their paths and are read once, side by side, so
    that unchanged files take no memory. A file is read again only if its size or time has changed,
    or those of its sidecars, or if ``reread`` says so of its path; a failed one also with
    ``retry``, and where its reason may pass. ``folder`` is for temporary files. Raises
    VitsearchError if the files come in another order, CollectionError if the rows do.
    """
    diff = FolderDiff(todo=DiskQueue(folder), videos=DiskQueue(folder), refused=DiskQueue(folder))
    photos, failures = _Cursor(stored.photos), _Cursor(stored.failures)
    aside = _Cursor(stored.aside)
    for file in _in_order(files):
        diff.seen += 1
        photo, failure = photos.at(file.path), failures.at(file.path)
        before = aside.at(file.path)
        if reread is not None and file.problem is None and reread(file.path):
            diff.read_later(file)
        elif before is not None and photo is None and failure is None and _is_same(before, file):
            diff.returning.append(file.path)
        else:
            _classify(diff, file, photo, failure, retry)
    photos.finish()
    failures.finish()
    diff.known = photos.count
    diff.missing = set(photos.passed)
    diff.stale_failures = failures.passed
    return diff


def _is_same(row: tuple[str, int, int, str], file: Found) -> bool:
    return file.problem is None and row[1:] == (file.size, file.mtime_ns, file.sidecars)


def _classify(
    diff: FolderDiff,
    file: Found,
    photo: tuple[str, int, int, str] | None,
    failure: tuple[str, State, int, int, bool] | None,
    retry: bool,
) -> None:
    """Count a file as unchanged, or add it to the queue that it belongs to."""
    stat = (file.size, file.mtime_ns)
    if file.problem is not None:
        diff.skipped += 1
        if failure is None or failure[1:4] != ("skipped", *stat):
            diff.refused.append(file)
    elif photo is not None and _is_same(photo, file):
        diff.unchanged += 1
    elif failure is not None and failure[1:] == ("failed", *stat, False) and not retry:
        diff.still_failed += 1
    else:
        diff.read_later(file)


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


class FolderScan:
    """One walk of a photo folder, which lists files lazily and forgets those that are unchanged.

    ``record`` is what it met and did not take.
    """

    def __init__(self, root: Path, options: WalkOptions) -> None:
        self.root, self.record = root, WalkRecord()
        self._files: Iterator[Found] = walk(root, options, record=self.record)

    def ensure_not_empty(self) -> None:
        """Raise CollectionError if the folder holds no photo file."""
        first = next(self._files, None)
        if first is None:
            count = sum(entry.reason in UNREADABLE for entry in self.record.left_out)
            note = f" ({count} folders could not be read)" if count else ""
            raise CollectionError(
                f"no photos found in {self.root}{note}: looked for {named_suffixes()}"
            )
        self._files = chain([first], self._files)

    def first_photos(self, count: int) -> list[Found]:
        """Return the first photos that can be opened, at most ``count``; they stay to be listed."""
        listed, photos = [], []
        for file in self._files:
            listed.append(file)
            if file.problem is None and not is_video(file.path):
                photos.append(file)
            if len(photos) >= count:
                break
        self._files = chain(listed, self._files)
        return photos

    def plan(
        self,
        store: PhotoStore,
        *,
        retry: bool = False,
        reread: str | None = None,
        folder: str | os.PathLike[str],
    ) -> FolderDiff:
        """Return what has to be done for the collection in ``store``.

        ``reread`` is a glob of paths to read again, ``folder`` is for temporary files.
        """
        with (
            closing(store.stats()) as photos,
            closing(store.failure_stats()) as failures,
            closing(store.aside.stats()) as aside,
        ):
            diff = diff_folder(
                self._files,
                StoredRows(photos, failures, aside),
                retry=retry,
                reread=None if reread is None else path_matcher([reread]),
                folder=folder,
            )
        extensions = sorted(self.record.extensions.items())
        counted = [
            LeftOut(_glob(suffix), "extension", WITHOUT_READER.get(suffix, ""), n)
            for suffix, n in extensions
        ]
        diff.left_out = [*self.record.left_out, *counted]
        return diff


def _glob(suffix: str) -> str:
    return f"*.{suffix}" if suffix else "*"


def guard_against_emptying(
    diff: FolderDiff, photos: Path, folder: Path, *, last_root: str, root: str
) -> None:
    """Raise CollectionError rather than empty a collection by mistake.

    All photos are missing if a disk is not mounted or another folder was named. ``root`` is the
    text of the photo folder's path, ``last_root`` the one that the collection in ``folder`` was
    last indexed from.
    """
    if not diff.loses_all:
        return
    if diff.seen == 0:
        excluded = any(each.reason == "excluded" for each in diff.left_out)
        question = "is --exclude meant to leave all out" if excluded else "is the disk mounted"
        raise CollectionError(
            f"{photos} holds no photos now, its collection holds {diff.known}: {question}? "
            f"nothing was removed; to start over delete {folder}"
        )
    if last_root != root and folder.resolve().parent != photos.resolve():
        raise CollectionError(
            f"{folder} is the collection of {last_root}, and none of its {diff.known} photos is "
            f"in {photos}: "
            "name that folder, or another --collection DIR; nothing was removed"
        )


def guard_against_loss(count: int, total: int, photos: Path, *, days: int, accepted: bool) -> None:
    """Say beforehand that ``count`` of ``total`` photos, most of them, are put aside for ``days``;
    raises CollectionError where all would be, as when a disk is away and a file or two lie where it
    is mounted, unless that is ``accepted``.
    """
    if count and count == total and not accepted:
        raise CollectionError(
            f"none of the {total:,} photos of the collection is in {photos} now, and no other file "
            "there could be read: is the disk mounted? nothing was removed; --accept-missing puts "
            "them aside"
        )
    if total >= MIN_WARNED and 2 * count > total:
        what = f"kept for {days} days should they come back" if days else "not kept"
        log.warning(
            f"{count:,} of {total:,} photos are gone from {photos} and leave the results, {what}: "
            "is a disk away?"
        )


# -- Changes as the system tells of them -----------------------------------------------------------


QUIET = 1.0  # seconds without a change, after which a burst of them is over
MAX_BURST = 5.0  # seconds: what goes on for longer is told in parts


def bursts(root: Path, folder: Path, stop: threading.Event, *, tick: float) -> Iterator[bool]:
    """Yield True after a burst of changes that may be of photos, and False every ``tick`` seconds,
    until ``stop`` is set. ``folder`` is the collection's.

    Raises ImportError without watchfiles, OSError or RuntimeError where the system tells of no more
    changes.
    """
    from watchfiles import watch

    changes = watch(
        root,
        watch_filter=lambda _, path: _is_of_photos(path, root, folder),
        debounce=int(1000 * MAX_BURST),
        step=int(1000 * QUIET),
        stop_event=stop,
        rust_timeout=int(1000 * tick),
        yield_on_timeout=True,
        raise_interrupt=True,
        ignore_permission_denied=True,
    )
    yield from map(bool, changes)


def _is_of_photos(path: str, root: Path, folder: Path) -> bool:
    """Return whether a change may be one of photos: not of the collection itself, nor hidden."""
    changed = Path(path)
    if changed.is_relative_to(folder):
        return False
    inside = changed.relative_to(root) if changed.is_relative_to(root) else changed
    return not any(part.startswith(".") for part in inside.parts)
