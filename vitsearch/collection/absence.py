"""Which of the photos without a file are gone, and which only lie where this run cannot see.

A photo is out of reach, and not gone, if a folder above it could not be read, is empty now, or is
on another device than it was, as when a disk is away or another one is mounted in its place.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from vitsearch.photos.walk import WalkRecord
from vitsearch.types import LeftOut

UNREADABLE = ("unreadable", "path too long")  # the reasons of `LeftOut` that are not a choice
MAX_KINDS = 5  # of files that are named in one line
Reason = Literal["unreadable", "empty", "disk"]
_TEXTS: Mapping[Reason, str] = {
    "unreadable": "could not be read",
    "empty": "is empty now (if that is right: --accept-missing)",
    "disk": "is on another disk than before, or its disk is away (if that is right: "
    "--accept-missing)",
}


@dataclass(frozen=True, slots=True)
class Absence:
    """Why photos are out of reach, and the folder (``""``: the root) that it is true of."""

    folder: str
    reason: Reason


@dataclass(slots=True)
class Reach:
    """What a walk could see of the folder ``root``.

    ``record`` is its own, ``mounts`` the device numbers that the last run noted (empty: none did),
    ``changed`` the folders with another number now, or with none.
    """

    record: WalkRecord
    mounts: Mapping[str, int]
    root: str
    changed: frozenset[str] = frozenset()
    _chosen: set[str] = field(default_factory=set)
    _absent: dict[str, Absence] = field(default_factory=dict)
    _known: dict[str, Absence | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in self.record.left_out:
            path = entry.path.rstrip("/")
            if entry.reason in UNREADABLE:
                self._absent[path] = Absence(path, "unreadable")
            else:
                self._chosen.add(path)
        self._absent |= {path: Absence(path, "empty") for path in self.record.empty}
        before, now = self.mounts, self.record.mounts
        folders = before.keys() | now.keys() if before else ()
        self.changed = frozenset(path for path in folders if before.get(path) != now.get(path))

    def absences(self, paths: Iterable[str]) -> dict[str, Absence]:
        """Return those of the paths that are out of reach, each with the reason."""
        return {path: absence for path in paths if (absence := self._of(path)) is not None}

    def mounts_after(
        self, out_of_reach: Iterable[Absence], known: Mapping[str, int]
    ) -> dict[str, int]:
        """Return the device numbers for the next run to compare with.

        ``out_of_reach`` has an entry for each photo, ``known`` counts all photos of a changed
        folder. A folder most of whose photos are there is the same disk with another number; one
        that most are missing from keeps the number that it had, so that they stay.
        """
        lost = Counter(absence.folder for absence in out_of_reach if absence.reason == "disk")
        after = dict(self.record.mounts)
        for folder in self.changed:
            if 2 * lost[folder] > known[folder]:
                after.pop(folder, None)
                if folder in self.mounts:
                    after[folder] = self.mounts[folder]
        return after

    def _of(self, path: str) -> Absence | None:
        if path in self._absent:
            return self._absent[path]
        folder = path.rpartition("/")[0]
        if path in self._chosen:
            return None
        if folder not in self._known:
            self._known[folder] = self._of_folder(folder)
        return self._known[folder]

    def _of_folder(self, folder: str) -> Absence | None:
        above = [*_upwards(folder)]
        if not self._chosen.isdisjoint(above):
            return None
        for each in above:
            if each in self._absent:
                return self._absent[each]
        mount = next(
            (each for each in above if each in self.mounts or each in self.record.mounts), ""
        )
        if mount in self.changed or self._changed_since(above, mount):
            return Absence(mount, "disk")
        return None

    def _changed_since(self, folders: list[str], mount: str) -> bool:
        """Return whether these folders are on another device now than when they were walked, as
        when a disk was unmounted meanwhile.
        """
        for folder in folders:
            with suppress(OSError):
                return os.stat(os.path.join(self.root, folder)).st_dev != self.record.mounts[mount]
        return True


def _upwards(folder: str) -> Iterable[str]:
    """Yield a folder and those above it, the root (``""``) last."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
    yield ""


def describe(absences: Iterable[Absence]) -> list[str]:
    """Return a line for each folder whose photos are out of reach, given one entry for a photo."""
    return [
        f"{absence.folder or 'the folder'} {_TEXTS[absence.reason]}; {count:,} of its photos stay "
        "in the collection"
        for absence, count in Counter(absences).items()
    ]


def left_out_now(paths: Iterable[str], entries: Iterable[LeftOut]) -> dict[LeftOut, int]:
    """Return the folders that are left out by default in which some of the paths are, and how many
    are in each.
    """
    reasons = ("recycle bin", "snapshots", "previews", "hidden")
    folders = {entry.path.rstrip("/"): entry for entry in entries if entry.reason in reasons}
    above = (next(filter(folders.get, _upwards(path)), None) for path in paths) if folders else ()
    return Counter(folders[folder] for folder in above if folder is not None)


def count_left_out(entries: Iterable[LeftOut]) -> dict[str, dict[str, int]]:
    """Return how much was left out for each reason (``left_out``), and how many files for each
    extension (``extensions``), the most first.
    """
    reasons: Counter[str] = Counter()
    extensions: Counter[str] = Counter()
    for entry in entries:
        reasons[entry.reason] += entry.files
        if entry.reason == "extension":
            extensions[entry.path] += entry.files
    return {"left_out": _largest_first(reasons), "extensions": _largest_first(extensions)}


def left_out_line(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return one line on what was left out, given the counts of `count_left_out`."""
    words = {
        "excluded": "by --exclude",
        "recycle bin": "recycle bins",
        "previews": "folders of previews",
        "link": "links",
        "extension": "of other kinds",
        "companion": "beside their photo",
    }
    parts = [f"{count:,} {words.get(name, name)}" for name, count in counts["left_out"].items()]
    kinds = [
        f"{name.removeprefix('*') or 'no extension'} {count:,}"
        for name, count in counts["extensions"].items()
    ]
    if len(kinds) > MAX_KINDS:
        kinds[MAX_KINDS:] = [f"{len(kinds) - MAX_KINDS:,} more"]
    return f"left out: {', '.join(parts)}" + (f" ({', '.join(kinds)})" if kinds else "")


def _largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
