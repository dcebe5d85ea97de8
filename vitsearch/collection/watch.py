"""A photo folder whose collection follows it: new photos are searchable in seconds."""

import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Unpack

from vitsearch.collection.update import index_folder
from vitsearch.errors import CollectionLocked, VitsearchError
from vitsearch.options import IndexKeywords
from vitsearch.storage.config import collection_folder, photo_root
from vitsearch.types import IndexReport, OnProgress, no_progress

log = logging.getLogger("vitsearch")
EVERY = 600.0  # seconds between walks through a folder that tells its changes: it may miss some
EVERY_UNTOLD = 10.0  # of one that does not, such as another machine's
_TICK = 2.0  # seconds between looks at the clock
MOUNTS = Path("/proc/self/mounts")
REMOTE = {
    *("9p", "afs", "ceph", "cifs", "nfs", "nfs4", "smb3", "smbfs"),
    *("fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
}
CHANGES = ("indexed", "moved", "restored", "removed")


def watch_folder(
    photos: str | os.PathLike[str],
    *,
    collection: str | os.PathLike[str] | None = None,
    poll: float | None = None,
    stop: threading.Event | None = None,
    progress: OnProgress = no_progress,
    **options: Unpack[IndexKeywords],
) -> Iterator[IndexReport]:
    """Index a folder as `index_folder` does, and again after each burst of changes, until ``stop``
    is set; yields the report of the first run and of every later one that changed something.

    The folder is also walked every ten minutes, since not all file systems tell of all changes; one
    that tells of none (another machine's) every ten seconds, or every ``poll`` seconds. What the
    first run cannot do is raised; where a later one cannot go on (a disk is away, the collection is
    being written to), a remark says so once, and it is tried again.
    """
    root, stop = photo_root(photos), stop or threading.Event()
    folder = collection_folder(root, collection)
    run = partial(index_folder, root, collection=collection, progress=progress, **options)
    report, trouble = run(), ""
    failed = report.failed
    yield report
    for is_due in _ticks(root, folder, poll, stop):
        if not is_due and not trouble:
            continue
        try:
            report = run()
        except VitsearchError as error:
            if str(error) != trouble and not isinstance(error, CollectionLocked):
                log.warning(f"{error} (it is tried again)")
            trouble = str(error)
            continue
        trouble = ""
        if any(getattr(report, name) for name in CHANGES) or report.failed != failed:
            failed = report.failed
            yield report


def _ticks(root: Path, folder: Path, poll: float | None, stop: threading.Event) -> Iterator[bool]:
    """Yield every two seconds or after a burst of changes whether it is time to walk again."""
    is_told = poll is None and not is_remote(root)
    every = poll or (EVERY if is_told else EVERY_UNTOLD)
    bursts = _bursts(root, folder, stop) if is_told else _pauses(every, stop)
    walked = -math.inf  # what came while the first run ended was told to nobody
    while not stop.is_set():
        try:
            has_changed = next(bursts, None)
        except (ImportError, OSError, RuntimeError) as error:
            reason = "pip install 'vitsearch[watch]'" if isinstance(error, ImportError) else error
            log.warning(
                f"{root} is walked every {EVERY_UNTOLD:g} s, its changes not told ({reason})"
            )
            every = EVERY_UNTOLD
            bursts = _pauses(every, stop)
            continue
        if has_changed is None:  # it was stopped
            return
        is_due = has_changed or time.monotonic() - walked >= every
        if is_due:
            walked = time.monotonic()
        yield is_due


def _pauses(every: float, stop: threading.Event) -> Iterator[bool]:
    """Yield False every two seconds, or ``every`` seconds where that is less."""
    while not stop.wait(min(_TICK, every)):
        yield False


def _bursts(root: Path, folder: Path, stop: threading.Event) -> Iterator[bool]:
    """Yield whether there were changes, every two seconds or after a burst of them."""
    from vitsearch.collection.bursts import bursts

    yield from bursts(root, folder, stop, tick=_TICK)


def is_remote(root: Path, mounts: Path = MOUNTS) -> bool:
    """Return whether a folder is on a file system of another machine, which tells nothing of the
    changes there; False where the system has no list of mounts.
    """
    try:
        rows = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return False
    absolute = root.resolve()
    above = [
        (len(mount.parts), kind)
        for mount, kind in (
            (Path(row[1].replace("\\040", " ")), row[2]) for row in rows if len(row) > 2
        )
        if absolute.is_relative_to(mount)
    ]
    return bool(above) and max(above)[1] in REMOTE
