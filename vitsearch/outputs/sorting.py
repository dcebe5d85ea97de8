"""Sorting photos into one folder per label, as links or copies, with a manifest of them."""

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
from vitsearch.outputs.sidecars import target_paths
from vitsearch.records import atomic_file, atomic_write, read_record
from vitsearch.types import Prediction

# -- The manifest: what earlier runs made ----------------------------------------------------------

MANIFEST = ".vitsearch-sorted.json"
FORMAT = 1
MAX_BYTES = 2_000_000_000  # of the manifest: a photo takes about 250


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """One link or copy of a photo (an absolute path), and how to recognise it.

    Nothing of the user's may be mistaken for it. ``link`` is the target of a link, "" for a copy;
    ``size`` and the times are those of a copy and of its photo when it was made.
    """

    photo: str
    link: str = ""
    size: int = 0
    mtime_ns: int = 0
    photo_mtime_ns: int = 0

    def is_at(self, path: str) -> bool:
        """Whether the file at a path is this one, unchanged."""
        try:
            if self.link:
                return os.readlink(path) == self.link
            facts = os.lstat(path)
        except (OSError, ValueError):
            return False
        return stat.S_ISREG(facts.st_mode) and (facts.st_size, facts.st_mtime_ns) == (
            self.size,
            self.mtime_ns,
        )

    def may_go(self, path: str) -> bool:
        """Whether the file at a path can be removed without loss.

        A copy may be all that is left of its photo.
        """
        return self.is_at(path) and (bool(self.link) or os.path.isfile(self.photo))

    def is_of(self, root: str, path: str) -> bool:
        """Whether its photo lies below a folder.

        A link to a photo that has moved belongs to the folder that it points into now.
        """
        if _is_below(self.photo, root):
            return True
        # as when the disk with both is mounted elsewhere
        moved = bool(self.link) and not os.path.lexists(self.photo)
        return moved and _is_below(
            os.path.normpath(os.path.join(os.path.dirname(path), self.link)), root
        )


def _is_below(path: str, folder: str) -> bool:
    return os.path.normcase(path).startswith(os.path.normcase(os.path.join(folder, "")))


def path_of(folder: str, name: str) -> str:
    """Return the path of a name, which is relative to the folder with ``/``."""
    return os.path.join(folder, *name.split("/"))


@dataclass(frozen=True, slots=True)
class _Manifest:
    made: dict[str, LinkRecord]
    format: int = FORMAT

    def __post_init__(self) -> None:
        if invalid := next((name for name in self.made if not _is_inside(name)), None):
            raise ValueError(f"an entry {invalid!r}")


def read_manifest(target: str) -> dict[str, LinkRecord]:
    """Return what earlier runs made, by name in the folder.

    Raises VitsearchError for a damaged manifest, so that nothing is removed by mistake.
    """
    try:
        return read_record(
            _Manifest,
            Path(target, MANIFEST),
            error=VitsearchError,
            repair="restore it, or sort into another folder; nothing was removed",
            max_bytes=MAX_BYTES,
        ).made
    except FileNotFoundError:
        return {}


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return (
        len(parts) > 1
        and "\0" not in name
        and not {"", ".", ".."} & set(parts)
        and not any("\\" in part for part in parts[:-1])
    )


def write_manifest(target: str, records: Mapping[str, LinkRecord]) -> None:
    """Replace the manifest in one step, and create its folder where there is none.

    Raises VitsearchError.
    """
    entries = {name: asdict(records[name]) for name in sorted(records)}
    text = json.dumps({"format": FORMAT, "made": entries}, indent=1, ensure_ascii=True)
    try:
        os.makedirs(target, exist_ok=True)
        atomic_write(Path(target, MANIFEST), text + "\n")
    except OSError as error:
        raise VitsearchError(
            f"cannot sort into {target} ({error.strerror}): name another folder, or free some space"
        ) from error


# -- The run: makes links or copies, and removes those that no longer apply ------------------------

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class SortReport:
    """What a run of sorting did, in links or copies; a photo counts once for each of its labels.

    ``made`` are new or updated, ``unchanged`` were right already, ``removed`` no longer applied.
    ``problems`` are (path, reason): photos, by their path, that could not be sorted, and earlier
    copies, by their name in the folder, that were not removed.
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
    """Put a link to each photo, or a copy, into ``folder/<label>/``, and return the report.

    What an earlier run made of these photos is removed where it no longer applies. Paths of
    ``predictions`` are relative to ``root``; what was made of photos that are not below it stays.
    Of a label "animal > dog" each level is a folder. Links are relative, so that they hold where a
    disk with both folders is mounted elsewhere. A name that two photos of a label share gets the
    photos' folders in front ("2019__dog.jpg"), a name in use gets a number ("dog (2).jpg").
    ``.vitsearch-sorted.json`` records what was made: all else in the folder is the user's, and is
    neither replaced nor removed. Raises VitsearchError for an unsuitable folder (see
    `check_target`), one without support for links, and one that cannot be written.
    """
    check_target(folder, root)
    target, photos = os.path.realpath(folder), os.path.realpath(root)
    records = read_manifest(target)
    before = {
        name: record
        for name, record in records.items()
        if record.is_of(photos, path_of(target, name))
    }
    others = {name: record for name, record in records.items() if name not in before}
    paths_by_label, problems = _paths_by_label(predictions, photos)
    photo_by_name = target_paths(
        paths_by_label,
        lambda name: (
            os.path.lexists(path_of(target, name)) and not _replaceable(target, name, before)
        ),
    )
    return _Sorting(target, photos, before, others, problems).run(photo_by_name, copy)


def check_target(folder: str | os.PathLike[str], root: str | os.PathLike[str]) -> None:
    """Raise VitsearchError unless photos of ``root`` may be sorted into this folder.

    It need not exist yet. It must be a folder that can be written, neither the photo folder nor one
    above it; inside the photo folder it would be indexed, unless its name begins with a dot.
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
            f"cannot sort into {folder}: the photo folder {root} lies in "
            "it; name a folder beside it"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise VitsearchError(
            f"cannot sort into {folder}: no permission to write in {there}; name another folder"
        )
    read_manifest(os.fspath(target))


def _parts_below(path: Path, root: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Return the parts of a path below a folder, () for the folder itself, None outside it."""
    for above in (path, *path.parents):
        with suppress(OSError):
            if os.path.samefile(above, root):
                return path.relative_to(above).parts
    return None


def _paths_by_label(
    predictions: Sequence[Prediction], photos: str
) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Return the paths of each label's photos in order, and the problem of each missing photo."""
    paths = {prediction.path for prediction in predictions}
    gone = {path for path in paths if not os.path.isfile(os.path.join(photos, path))}
    paths_by_label: dict[str, list[str]] = defaultdict(list)
    for path, label in sorted({(each.path, each.label) for each in predictions}):
        if path not in gone:
            paths_by_label[label].append(path)
    return paths_by_label, [(path, "the photo is gone: index again") for path in sorted(gone)]


@dataclass(slots=True)
class _Sorting:
    """One run: what was made before of these photos, and of others, by name in the folder."""

    target: str
    photos: str
    before: dict[str, LinkRecord]
    others: dict[str, LinkRecord]
    problems: list[tuple[str, str]]
    real: dict[str, str] = field(default_factory=dict)

    def run(self, photo_by_name: Mapping[str, str], copy: bool) -> SortReport:
        if not photo_by_name and not self.before:
            return SortReport(0, 0, 0, tuple(self.problems))
        planned = {name: self._planned(name, path, copy) for name, path in photo_by_name.items()}
        # recorded before it is made: after a crash, the next run recognises its files
        write_manifest(self.target, self.others | planned | self.before)
        now = dict(self.before)
        try:
            removed = self._remove(now, [name for name in self.before if name not in planned])
            done = Counter(
                self._make(now, name, planned[name], path) for name, path in photo_by_name.items()
            )
        finally:
            write_manifest(self.target, self.others | now)
        return SortReport(done["made"], done["unchanged"], removed, tuple(self.problems))

    def _planned(self, name: str, path: str, copy: bool) -> LinkRecord:
        photo = os.path.join(self.photos, path)
        if not copy:
            parent, base = os.path.split(photo)
            real = os.path.join(self._real(parent), base)  # ".." in a link starts at real folders
            return LinkRecord(photo, _relative(real, os.path.dirname(path_of(self.target, name))))
        if not os.path.isfile(photo):
            return LinkRecord(photo)
        facts = os.stat(photo)
        return LinkRecord(photo, "", facts.st_size, facts.st_mtime_ns, facts.st_mtime_ns)

    def _remove(self, now: dict[str, LinkRecord], stale: Iterable[str]) -> int:
        """Remove what no longer applies, and return how many files that were.

        A copy whose photo is gone stays; what the user has changed is the user's from now on.
        """
        removed = 0
        for name in stale:
            record, file = self.before[name], path_of(self.target, name)
            if not record.is_at(file) or not self._is_real(file):
                del now[name]
            elif not record.may_go(file):
                self.problems.append(
                    (name, f"kept this copy: its photo is not at {record.photo} any more")
                )
            else:
                try:
                    os.unlink(file)
                except OSError as error:
                    self.problems.append((name, f"cannot be removed ({error.strerror})"))
                    continue
                del now[name]
                removed += 1
                self._remove_empty(os.path.dirname(file))
        return removed

    def _remove_empty(self, folder: str) -> None:
        with suppress(OSError):  # not empty
            while folder != self.target:
                os.rmdir(folder)
                folder = os.path.dirname(folder)

    def _make(self, now: dict[str, LinkRecord], name: str, record: LinkRecord, path: str) -> str:
        """Make a link or copy unless it exists, and return "made", "unchanged" or "failed"."""
        file, earlier = path_of(self.target, name), self.before.get(name)
        if (
            earlier
            and earlier.is_at(file)
            and (earlier.photo, earlier.link, earlier.photo_mtime_ns)
            == (record.photo, record.link, record.photo_mtime_ns)
        ):
            return "unchanged"
        try:
            now[name] = record  # also where the run is interrupted here
            now[name] = self._put(file, name, record)
        except OSError as error:
            del now[name]
            if earlier:
                now[name] = earlier
            if record.link and (
                error.errno in _NO_LINKS or getattr(error, "winerror", None) == 1314
            ):
                raise VitsearchError(
                    f"cannot make links in {self.target} ({error.strerror}): sort into it with "
                    "copies (--copy)"
                ) from error
            self.problems.append((path, f"cannot be put at {name} ({error.strerror or error})"))
            return "failed"
        return "made"

    def _put(self, file: str, name: str, record: LinkRecord) -> LinkRecord:
        """Write a link or a copy aside and rename it; raises OSError."""
        folder = os.path.dirname(file)
        if not self._is_real(file):
            raise NotADirectoryError(
                errno.ENOTDIR, f"{os.path.dirname(name)} leads out of the folder by a link"
            )
        os.makedirs(folder, exist_ok=True)
        try:
            with atomic_file(Path(file), sync=False) as aside:
                if record.link:
                    os.symlink(record.link, aside)
                else:
                    shutil.copy2(record.photo, aside)
                if os.path.lexists(file) and not _replaceable(self.target, name, self.before):
                    raise FileExistsError(errno.EEXIST, "another file has come there: run it again")
        finally:
            self._remove_empty(folder)
        facts = os.lstat(file)
        return (
            record
            if record.link
            else LinkRecord(
                record.photo, "", facts.st_size, facts.st_mtime_ns, record.photo_mtime_ns
            )
        )

    def _is_real(self, file: str) -> bool:
        """Whether a file's folders are folders of the target, not the user's links to elsewhere."""
        folder = os.path.dirname(file)
        return os.path.normcase(self._real(folder)) == os.path.normcase(folder)

    def _real(self, folder: str) -> str:
        """Return the real path of a folder, resolved once per run: many photos share one."""
        if folder not in self.real:
            self.real[folder] = os.path.realpath(folder)
        return self.real[folder]


def _replaceable(target: str, name: str, before: Mapping[str, LinkRecord]) -> bool:
    return name in before and before[name].may_go(path_of(target, name))


def _relative(photo: str, folder: str) -> str:
    try:
        return os.path.relpath(photo, folder)
    except ValueError:  # on another drive of Windows
        return photo
