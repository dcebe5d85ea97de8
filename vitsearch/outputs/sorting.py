"""The one run that makes the links or copies and takes out those that no longer hold."""

import errno
import json
import os
import shutil
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vitsearch.errors import VitsearchError
from vitsearch.outputs.naming import places_of
from vitsearch.records import atomic_file, atomic_write, read_record
from vitsearch.types import Prediction

# -- What earlier runs made in a folder of sorted photos -------------------------------------------

MANIFEST = ".vitsearch-sorted.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """One link or copy: of which photo (an absolute path), and how to know it again, so that
    nothing of the user's is taken for it.

    ``link`` is what a link says, "" for a copy; ``size`` and the times are those of a copy and of
    its photo when it was made.
    """

    photo: str
    link: str = ""
    size: int = 0
    mtime_ns: int = 0
    photo_mtime_ns: int = 0

    def is_at(self, place: str) -> bool:
        """Whether this is what lies there, unchanged."""
        try:
            if self.link:
                return os.readlink(place) == self.link
            facts = os.lstat(place)
        except (OSError, ValueError):
            return False
        return stat.S_ISREG(facts.st_mode) and (facts.st_size, facts.st_mtime_ns) == (
            self.size,
            self.mtime_ns,
        )

    def may_go(self, place: str) -> bool:
        """Whether removing what lies there loses nothing: a copy may be all that is left of its
        photo.
        """
        return self.is_at(place) and (bool(self.link) or os.path.isfile(self.photo))

    def is_of(self, root: str, place: str) -> bool:
        """Whether its photo lies below a folder; a link to a photo that has moved is of the folder
        that it leads into now.
        """
        if _is_below(self.photo, root):
            return True
        moved = bool(self.link) and not os.path.lexists(
            self.photo
        )  # the disk of both is mounted elsewhere
        return moved and _is_below(
            os.path.normpath(os.path.join(os.path.dirname(place), self.link)), root
        )


def _is_below(path: str, folder: str) -> bool:
    return os.path.normcase(path).startswith(os.path.normcase(os.path.join(folder, "")))


def path_of(target: str, place: str) -> str:
    """Return the path of a place, which is relative to the folder with ``/``."""
    return os.path.join(target, *place.split("/"))


@dataclass(frozen=True, slots=True)
class _Manifest:
    made: dict[str, LinkRecord]
    format: int = FORMAT

    def __post_init__(self) -> None:
        if wrong := next((name for name in self.made if not _is_inside(name)), None):
            raise ValueError(f"an entry {wrong!r}")


def read_manifest(target: str) -> dict[str, LinkRecord]:
    """Return what earlier runs made; raises VitsearchError for a manifest that is damaged, so that
    nothing is removed by mistake.
    """
    try:
        return read_record(
            _Manifest,
            Path(target, MANIFEST),
            error=VitsearchError,
            repair="restore it, or sort into another folder; nothing was removed",
        ).made
    except FileNotFoundError:
        return {}


def _is_inside(place: str) -> bool:
    names = place.split("/")
    return (
        len(names) > 1
        and "\0" not in place
        and not {"", ".", ".."} & set(names)
        and not any("\\" in name for name in names[:-1])
    )


def write_manifest(target: str, made: Mapping[str, LinkRecord]) -> None:
    """Replace the manifest in one step, and make its folder where there is none; raises
    VitsearchError.
    """
    entries = {place: asdict(made[place]) for place in sorted(made)}
    text = json.dumps({"format": FORMAT, "made": entries}, indent=1, ensure_ascii=True)
    try:
        os.makedirs(target, exist_ok=True)
        atomic_write(Path(target, MANIFEST), text + "\n")
    except OSError as error:
        raise VitsearchError(
            f"cannot sort into {target} ({error.strerror}): name another folder, or free some space"
        ) from error


# -- The one run that makes the links or copies and takes out those that no longer hold ------------

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class SortReport:
    """What one run of sorting did, in links or copies; a photo of several labels counts once for
    each.

    ``made`` are new or brought up to date, ``unchanged`` were right already, ``removed`` no longer
    held. ``problems`` are (path, reason): photos, by their path, that could not be sorted, and
    earlier copies, by their place in the folder, that were not removed.
    """

    made: int
    unchanged: int
    removed: int
    problems: tuple[tuple[str, str], ...]


def sort_into_folders(
    folder: str | os.PathLike[str],
    predictions: Sequence[Prediction],
    *,
    root: str | os.PathLike[str],
    copy: bool = False,
) -> SortReport:
    """Put a link to each photo, or a copy, into ``folder/<label>/``, and take out what an earlier
    run put there of these photos.

    Paths of ``predictions`` are relative to ``root``; what holds still, and what was made of photos
    that are not below it, stays. Of a label "animal > dog" each level is a folder. Links are
    relative, so that they hold where a disk with both folders is mounted elsewhere. A name that two
    photos of a label share gets the photos' folders in front ("2019__dog.jpg"), one that is taken a
    number ("dog (2).jpg"). ``.vitsearch-sorted.json`` says what was made: all else in the folder is
    the user's, and is neither replaced nor removed. Raises VitsearchError for a folder that will
    not do (see `check_target`), one that takes no links, and one that cannot be written.
    """
    check_target(folder, root)
    target, photos = os.path.realpath(folder), os.path.realpath(root)
    known = read_manifest(target)
    before = {
        place: made for place, made in known.items() if made.is_of(photos, path_of(target, place))
    }
    others = {place: made for place, made in known.items() if place not in before}
    wanted, problems = _wanted(predictions, photos)
    places = places_of(
        wanted,
        lambda place: (
            os.path.lexists(path_of(target, place)) and not _replaceable(target, place, before)
        ),
    )
    return _Sorting(target, photos, before, others, problems).run(places, copy)


def check_target(folder: str | os.PathLike[str], root: str | os.PathLike[str]) -> None:
    """Raise VitsearchError unless photos of ``root`` may be sorted into this folder, which need not
    be there yet.

    It must be a folder that can be written, neither the photo folder nor one above it; inside the
    photo folder it would be indexed, unless its name begins with a dot.
    """
    if not os.fspath(folder):
        raise VitsearchError("the name of the folder to sort into is empty: name a folder")
    target = Path(os.path.realpath(folder))
    there = next((above for above in (target, *target.parents) if os.path.lexists(above)), target)
    if not there.is_dir():
        raise VitsearchError(
            f"cannot sort into {folder}: {there} is a file, not a folder; name another folder"
        )
    inside = _parts_below(target, root)
    if inside is not None and not any(part.startswith(".") for part in inside):
        raise VitsearchError(
            f"cannot sort into {folder}: it lies in the photo folder and would be indexed; name "
            f"one outside {root}"
        )
    if ".vitsearch" in (inside or ()) or (target / "collection.json").exists():
        raise VitsearchError(
            f"cannot sort into {folder}: it holds a collection; name another folder"
        )
    if _parts_below(Path(os.path.realpath(root)), target) is not None:
        raise VitsearchError(
            f"cannot sort into {folder}: the photo folder {root} lies in it; name a folder beside "
            "it"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise VitsearchError(
            f"cannot sort into {folder}: no permission to write in {there}; name another folder"
        )
    read_manifest(os.fspath(target))


def _parts_below(path: Path, root: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Return the names that lead from a folder to a path below it, () for itself, None where the
    path is not below it.
    """
    for above in (path, *path.parents):
        with suppress(OSError):
            if os.path.samefile(above, root):
                return path.relative_to(above).parts
    return None


def _wanted(
    predictions: Sequence[Prediction], photos: str
) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Return the paths of each label's photos in order, and the photos that are not there."""
    gone = {
        path
        for path in {one.path for one in predictions}
        if not os.path.isfile(os.path.join(photos, path))
    }
    wanted: dict[str, list[str]] = defaultdict(list)
    for path, label in sorted(
        {(one.path, one.label) for one in predictions if one.path not in gone}
    ):
        wanted[label].append(path)
    return wanted, [(path, "the photo is gone: index again") for path in sorted(gone)]


@dataclass(slots=True)
class _Sorting:
    """One run: what was there before of these photos, and of others (place -> what was made)."""

    target: str
    photos: str
    before: dict[str, LinkRecord]
    others: dict[str, LinkRecord]
    problems: list[tuple[str, str]]
    real: dict[str, str] = field(default_factory=dict)

    def run(self, places: Mapping[str, str], copy: bool) -> SortReport:
        if not places and not self.before:
            return SortReport(0, 0, 0, tuple(self.problems))
        plan = {place: self._planned(place, path, copy) for place, path in places.items()}
        # said before it is made: after a crash, the next run knows its own
        write_manifest(
            self.target,
            self.others
            | self.before
            | {place: made for place, made in plan.items() if place not in self.before},
        )
        now = dict(self.before)
        try:
            removed = self._remove(now, [place for place in self.before if place not in plan])
            done = Counter(
                self._make(now, place, plan[place], path) for place, path in places.items()
            )
        finally:
            write_manifest(self.target, self.others | now)
        return SortReport(done["made"], done["unchanged"], removed, tuple(self.problems))

    def _planned(self, place: str, path: str, copy: bool) -> LinkRecord:
        photo = os.path.join(self.photos, path)
        if not copy:
            parent, name = os.path.split(photo)
            real = os.path.join(
                self._real(parent), name
            )  # ".." of a link counts from where folders really are
            return LinkRecord(photo, _relative(real, os.path.dirname(path_of(self.target, place))))
        facts = os.stat(photo) if os.path.isfile(photo) else None
        return (
            LinkRecord(photo, "", facts.st_size, facts.st_mtime_ns, facts.st_mtime_ns)
            if facts
            else LinkRecord(photo)
        )

    def _remove(self, now: dict[str, LinkRecord], stale: Iterable[str]) -> int:
        """Remove what no longer holds; a copy whose photo is gone stays, and what the user changed
        is the user's from now on.
        """
        removed = 0
        for place in stale:
            made, file = self.before[place], path_of(self.target, place)
            if not made.is_at(file) or not self._is_real(file):
                del now[place]
            elif not made.may_go(file):
                self.problems.append(
                    (place, f"kept this copy: its photo is not at {made.photo} any more")
                )
            else:
                try:
                    os.unlink(file)
                except OSError as error:
                    self.problems.append((place, f"cannot be removed ({error.strerror})"))
                    continue
                del now[place]
                removed += 1
                self._remove_empty(os.path.dirname(file))
        return removed

    def _remove_empty(self, folder: str) -> None:
        with suppress(OSError):  # not empty
            while folder != self.target:
                os.rmdir(folder)
                folder = os.path.dirname(folder)

    def _make(self, now: dict[str, LinkRecord], place: str, made: LinkRecord, path: str) -> str:
        """Make one link or copy unless it is there, and return how that went."""
        file, old = path_of(self.target, place), self.before.get(place)
        if (
            old
            and old.is_at(file)
            and (old.photo, old.link, old.photo_mtime_ns)
            == (made.photo, made.link, made.photo_mtime_ns)
        ):
            return "unchanged"
        try:
            now[place] = made  # also where it is cut short here
            now[place] = self._put(file, place, made)
        except OSError as error:
            del now[place]
            if old:
                now[place] = old
            if made.link and (error.errno in _NO_LINKS or getattr(error, "winerror", None) == 1314):
                raise VitsearchError(
                    f"cannot make links in {self.target} ({error.strerror}): sort into it with "
                    "copies (--copy)"
                ) from error
            self.problems.append((path, f"cannot be put at {place} ({error.strerror or error})"))
            return "failed"
        return "made"

    def _put(self, file: str, place: str, made: LinkRecord) -> LinkRecord:
        """Write a link or a copy aside and rename it; raises OSError."""
        folder = os.path.dirname(file)
        if not self._is_real(file):
            raise NotADirectoryError(
                errno.ENOTDIR, f"{os.path.dirname(place)} leads out of the folder by a link"
            )
        os.makedirs(folder, exist_ok=True)
        try:
            with atomic_file(Path(file), sync=False) as aside:
                if made.link:
                    os.symlink(made.link, aside)
                else:
                    shutil.copy2(made.photo, aside)
                if os.path.lexists(file) and not _replaceable(self.target, place, self.before):
                    raise FileExistsError(errno.EEXIST, "another file has come there: run it again")
        finally:
            self._remove_empty(folder)
        facts = os.lstat(file)
        return (
            made
            if made.link
            else LinkRecord(made.photo, "", facts.st_size, facts.st_mtime_ns, made.photo_mtime_ns)
        )

    def _is_real(self, file: str) -> bool:
        """Whether the folders down to a file are folders of the target, not links of the user's to
        elsewhere.
        """
        folder = os.path.dirname(file)
        return os.path.normcase(self._real(folder)) == os.path.normcase(folder)

    def _real(self, folder: str) -> str:
        """Return the real path of a folder, which is asked of the disk once a run: many photos
        share one.
        """
        if folder not in self.real:
            self.real[folder] = os.path.realpath(folder)
        return self.real[folder]


def _replaceable(target: str, place: str, before: Mapping[str, LinkRecord]) -> bool:
    return place in before and before[place].may_go(path_of(target, place))


def _relative(photo: str, folder: str) -> str:
    try:
        return os.path.relpath(photo, folder)
    except ValueError:  # on another drive of Windows
        return photo
