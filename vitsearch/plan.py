"""What a run of indexing has to do: the files of a folder held against what its collection holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vitsearch.types import Found, State

Stat = tuple[int, int]


@dataclass
class Plan:
    """Files to read (``todo``), to record as skipped (``refused``), photos whose files are gone (``missing``), and counts.

    ``stale_failures`` are paths of recorded failures whose files are gone.
    """

    seen: int = 0
    known: int = 0
    unchanged: int = 0
    skipped: int = 0
    still_failed: int = 0
    todo: list[Found] = field(default_factory=list)
    refused: list[Found] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    stale_failures: list[str] = field(default_factory=list)

    @property
    def loses_all(self) -> bool:
        """True when every photo of a collection would leave it."""
        return self.known > 0 and len(self.missing) == self.known


def make_plan(
    files: Iterable[Found],
    photos: Mapping[str, Stat],
    failures: Mapping[str, tuple[State, int, int]],
    *,
    unreadable: Sequence[str] = (),
    retry: bool = False,
) -> Plan:
    """Return the plan for files found, given the (size, mtime_ns) of photos and the (state, size, mtime_ns) of failures by path.

    A file is read again only when its size or time changed; a failed one also with ``retry``. What is at or below an
    ``unreadable`` path may still be there, and is not taken for gone.
    """
    plan, seen = Plan(known=len(photos)), set()
    for found in files:
        seen.add(found.path)
        stat = (found.size, found.mtime_ns)
        if found.problem is not None:
            plan.skipped += 1
            if failures.get(found.path) != ("skipped", *stat):
                plan.refused.append(found)
        elif photos.get(found.path) == stat:
            plan.unchanged += 1
        elif failures.get(found.path) == ("failed", *stat) and not retry:
            plan.still_failed += 1
        else:
            plan.todo.append(found)
    plan.seen = len(seen)
    plan.missing = {path for path in photos if path not in seen and not _under(path, unreadable)}
    plan.stale_failures = [path for path in failures if path not in seen and not _under(path, unreadable)]
    return plan


def _under(path: str, folders: Sequence[str]) -> bool:
    return any(folder in ("", ".", path) or path.startswith(f"{folder}/") for folder in folders)
