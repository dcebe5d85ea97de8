"""Bursts of changes below a folder, as the system tells of them (watchfiles)."""

import threading
from collections.abc import Iterator
from pathlib import Path

from watchfiles import watch

QUIET = 1.0  # seconds without a change, after which a burst of them is over
MAX_BURST = 5.0  # seconds: what goes on for longer is told in parts


def bursts(root: Path, folder: Path, stop: threading.Event, *, tick: float) -> Iterator[bool]:
    """Yield True after a burst of changes that may be of photos, and False every ``tick`` seconds,
    until ``stop`` is set. ``folder`` is the collection's.

    Raises OSError or RuntimeError where the system tells of no more changes.
    """
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
