"""Find the photo files below a folder, in a fixed order, with one stat for each."""

import errno
import fnmatch
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from vitsearch.errors import VitsearchError
from vitsearch.paths import composed, raw_path
from vitsearch.photos.formats import CLIP_SUFFIXES, SUFFIXES, VIDEO, suffix_of
from vitsearch.photos.sidecars import FolderSidecars, companions_of, is_sidecar, signature_of
from vitsearch.types import Found, LeftOut, LeftOutReason

COLLECTION_FOLDER = ".vitsearch"
BROKEN_LINK = "a broken link"  # how the problem of one begins, whose target follows

# Names of folders that systems, servers and programs keep beside the photos of people. Deleted
# photos, and each photo of a snapshot, would come up again as often as there are copies.
_BY_NAME: Mapping[str, LeftOutReason] = {
    **dict.fromkeys(
        ("#recycle", "@recycle", "$recycle.bin", "network trash folder"), "recycle bin"
    ),
    **dict.fromkeys(
        ("#snapshot", "@recently-snapshot", ".snapshot", ".snapshots", "~snapshot", ".zfs"),
        "snapshots",
    ),
    **dict.fromkeys(("@eadir", "@__thumb", "@tmp", "@synoresource", "node_modules"), "hidden"),
    **dict.fromkeys(("system volume information", "lost+found", "temporary items"), "hidden"),
}
_BINS = re.compile(r"RECYCLE[RD]|\.Trash.*", re.DOTALL)  # others write these words otherwise
_PREVIEWS = (".lrdata",)  # of Lightroom
_LIBRARIES = (
    ".photoslibrary", ".photolibrary", ".migratedphotolibrary",
    ".aplibrary", ".migratedaplibrary",
)  # fmt: skip
_ORIGINALS = ("originals", "masters")  # of Photos, and of iPhoto and Aperture before it
_KINDS = {
    stat.S_IFIFO: "a pipe, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFBLK: "a device, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFDIR: "a link to a folder (follow_symlinks enters it)",
}
_BROKEN = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_OF_COMPANIONS = frozenset(suffix for suffix, entry in SUFFIXES.items() if entry.companion_of)
_MAX_CLIP_BYTES = 64_000_000  # of the seconds around a photo: a longer video stands by itself
# Folders that link to each other could be entered along as many paths as there are orders of them.
_VISITS_OF_ONE_LINK = 16
_EARLIEST, _LATEST = -(2**63), 2**63 - 1

OnUnreadable = Callable[[str, str], None]
FileId = tuple[int, int]


@dataclass(slots=True)
class WalkRecord:
    """What a walk met and did not take, and which disks it was on.

    ``left_out`` are folders and photo files, a folder with a closing ``/`` and without what is in
    it, and files that belong to a photo beside them; ``extensions`` counts the files that are not
    photos by suffix (``""``: none). ``mounts`` are the device numbers of the root (``""``) and of
    each folder on another device than the one above it, ``empty`` the folders in which there is
    nothing at all.
    """

    left_out: list[LeftOut] = field(default_factory=list)
    extensions: Counter[str] = field(default_factory=Counter)
    mounts: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """What a walk leaves out.

    ``exclude`` globs match a path relative to the root or any one name in it, files and folders.
    ``include_hidden`` brings back what `left_out_by_default` names, but never ``.vitsearch``. Links
    to files are always followed, links to folders only with ``follow_symlinks``. The folders
    ``leave_out`` are never entered.
    With ``videos`` the files of videos are taken as well as those of photos.
    """

    exclude: tuple[str, ...] = ()
    include_hidden: bool = False
    follow_symlinks: bool = False
    leave_out: frozenset[Path] = frozenset()
    videos: bool = False


def walk(
    root: Path,
    options: WalkOptions | None = None,
    *,
    on_unreadable: OnUnreadable | None = None,
    record: WalkRecord | None = None,
) -> Iterator[Found]:
    """Yield every file below ``root`` that has the suffix of a photo format, in the order of the
    bytes of their paths; one that belongs to a photo beside it (`vitsearch.photos.sidecars`) is
    only in the ``record``.

    Paths are relative to the root with ``/``; bytes that are not UTF-8 are surrogates. A file that
    should not be opened (pipe, socket, device, broken link, HEIC without its extra) carries a
    ``problem``. ``on_unreadable(path, reason)`` is called for each folder or file below the root
    that exists but cannot be read, so that the photos at or under that path do not count as
    removed; without it and without a ``record``, and for the root itself, VitsearchError is raised.
    The ``record`` is filled as the walk goes on.
    """
    if on_unreadable is None:
        on_unreadable = _refuse if record is None else lambda path, reason: None
    walking = _Walk(os.fspath(root), options or WalkOptions(), on_unreadable)
    walking.record = record or walking.record
    return walking.files()


def left_out_by_default(name: str, folder: str = "") -> LeftOutReason | None:
    """Return why a name in a folder of that name is left out by default, None for one that is not:
    hidden names, recycle bins, snapshots, previews, and all in the library of Photos, iPhoto or
    Aperture but the originals.
    """
    lowered = name.lower()
    if reason := _BY_NAME.get(lowered):
        return reason
    if _BINS.fullmatch(name):
        return "recycle bin"
    if name[:1] == ".":
        return "hidden"
    in_library = folder.lower().endswith(_LIBRARIES) and lowered not in _ORIGINALS
    return "previews" if in_library or lowered.endswith(_PREVIEWS) else None


def _refuse(path: str, reason: str) -> None:
    raise VitsearchError(f"cannot read {path!r}: {reason}; make it readable or exclude it")


# A name in a folder: its key in the order of the bytes of complete paths, the entry, and whether it
# is itself a folder (not a link to one).
_Entry = tuple[bytes, os.DirEntry[str], bool]


@dataclass(slots=True)
class _Level:
    """One open folder: its path from the root with a closing ``/``, its remaining entries (the
    next one last), its identity, and the signatures of the sidecars of its photos.
    """

    prefix: str
    entries: list[_Entry]
    identity: FileId | None
    sidecars: Mapping[str, str]
    used: Container[str]  # the names of those sidecars


@dataclass(slots=True)
class _Walk:
    root: str
    options: WalkOptions
    on_unreadable: OnUnreadable
    excluded: re.Pattern[str] | None = None
    problems: dict[str, str | None] = field(default_factory=dict)  # of each suffix of photos
    left_out: set[FileId] = field(default_factory=set)
    visits: dict[FileId, int] = field(default_factory=dict)
    levels: list[_Level] = field(default_factory=list)
    record: WalkRecord = field(default_factory=WalkRecord)

    def __post_init__(self) -> None:
        self.excluded = _pattern(self.options.exclude)
        self.problems = {suffix: entry.problem() for suffix, entry in SUFFIXES.items()}
        if self.options.videos:
            self.problems |= dict.fromkeys(VIDEO.suffixes, VIDEO.problem())
        for folder in self.options.leave_out:
            identity = _identity(os.fspath(folder))
            if identity:
                self.left_out.add(identity)

    def files(self) -> Iterator[Found]:
        self._enter_root()
        levels, excluded = self.levels, self.excluded
        while levels:
            level = levels[-1]
            if not level.entries:
                levels.pop()
                continue
            _, entry, is_folder = level.entries.pop()
            name = entry.name
            path = level.prefix + name
            if excluded is not None and self._is_excluded(entry, level.prefix):
                self._leave_out(entry, path, "excluded")
                continue
            try:
                file = self._resolve(entry, path, is_folder)
            except FileNotFoundError:  # removed since it was listed
                continue
            except OSError as error:
                self._pass_over(path, error)
                continue
            if file is not None:
                signature = level.sidecars.get(name)
                yield file._replace(sidecars=signature) if signature else file

    def _resolve(self, entry: os.DirEntry[str], path: str, is_folder: bool) -> Found | None:
        """Return the photo file that an entry is, or enter the folder that it is, or neither."""
        if is_folder:
            self._enter(entry.path, path)
            return None
        if entry.is_symlink():
            return self._follow_link(entry, path)
        suffix = suffix_of(entry.name)
        if suffix not in self.problems:
            if entry.name not in self.levels[-1].used:
                self.record.extensions[suffix] += 1
            return None
        facts = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(facts.st_mode) and _EARLIEST <= facts.st_mtime_ns <= _LATEST:
            return Found(path, facts.st_size, facts.st_mtime_ns, self.problems[suffix])
        return _described(path, facts, self.problems[suffix])

    def _follow_link(self, entry: os.DirEntry[str], path: str) -> Found | None:
        if self.options.follow_symlinks and _is_folder(entry):
            self._enter_link(entry, path)
            return None
        suffix = suffix_of(entry.name)
        if suffix in self.problems:
            return _linked(entry, path, self.problems[suffix])
        if _is_folder(entry):
            self.record.left_out.append(LeftOut(path + "/", "link"))
        else:
            self.record.extensions[suffix] += 1
        return None

    def _leave_out(self, entry: os.DirEntry[str], path: str, reason: LeftOutReason) -> None:
        """Record an entry that is not taken: a folder or a photo by its path, another file by its
        suffix.
        """
        if _is_folder(entry):
            self.record.left_out.append(LeftOut(path + "/", reason))
        elif (suffix := suffix_of(entry.name)) in self.problems:
            self.record.left_out.append(LeftOut(path, reason))
        else:
            self.record.extensions[suffix] += 1

    def _pass_over(self, path: str, error: OSError) -> None:
        detail = error.strerror or str(error)
        too_long = error.errno == errno.ENAMETOOLONG
        reason: LeftOutReason = "path too long" if too_long else "unreadable"
        self.record.left_out.append(LeftOut(path, reason, detail))
        self.on_unreadable(path, detail)

    def _enter_root(self) -> None:
        try:
            facts = os.stat(self.root)
            if not stat.S_ISDIR(facts.st_mode):
                raise VitsearchError(
                    f"{self.root!r} is a file, not a folder of photos; "
                    "name the folder that it is in"
                )
            self.levels.append(self._level(self.root, "", (facts.st_dev, facts.st_ino)))
            self.record.mounts[""] = facts.st_dev
        except FileNotFoundError:
            raise VitsearchError(f"there is no folder {self.root!r}; check the spelling") from None
        except OSError as error:
            raise VitsearchError(
                f"cannot read the folder {self.root!r}: {error.strerror or error}; make it readable"
            ) from error

    def _enter(self, folder: str, path: str) -> None:
        identity = _identity(folder)
        if identity in self.left_out:
            return
        if identity and any(level.identity == identity for level in self.levels):
            self.record.left_out.append(LeftOut(path + "/", "link"))
            return
        above = self.levels[-1].identity
        if identity and above and identity[0] != above[0]:
            self.record.mounts[path] = identity[0]
        self.levels.append(self._level(folder, path + "/", identity))

    def _enter_link(self, entry: os.DirEntry[str], path: str) -> None:
        facts = entry.stat(follow_symlinks=False)
        link = (facts.st_dev, facts.st_ino)
        self.visits[link] = self.visits.get(link, 0) + 1
        if self.visits[link] <= _VISITS_OF_ONE_LINK:
            self._enter(entry.path, path)
        else:
            self.record.left_out.append(LeftOut(path + "/", "link"))

    def _level(self, folder: str, prefix: str, identity: FileId | None) -> _Level:
        entries = self._list(folder, prefix)
        candidates = {
            entry.name: entry
            for _, entry, is_folder in entries
            if is_sidecar(entry.name) and not is_folder and not self._is_excluded(entry, prefix)
        }
        if not candidates:
            return _Level(prefix, entries, identity, {}, ())
        photos = (entry.name for _, entry, _ in entries if suffix_of(entry.name) in SUFFIXES)
        sidecars = FolderSidecars(candidates, photos)
        signatures = {
            photo: signature_of(candidates[name] for name in names)
            for photo, names in sidecars.of.items()
        }
        return _Level(prefix, entries, identity, signatures, sidecars.used)

    def _is_excluded(self, entry: os.DirEntry[str], prefix: str) -> bool:
        if self.excluded is None:
            return False
        names = (composed(entry.name), composed(prefix + entry.name))
        return any(map(self.excluded.match, names))

    def _list(self, folder: str, prefix: str) -> list[_Entry]:
        with os.scandir(folder) as listing:
            named = list(listing)
        if not named:
            self.record.empty.append(prefix.rstrip("/"))
        if not self.options.include_hidden:
            above = os.path.basename(folder if prefix else os.path.realpath(folder))
            named = [entry for entry in named if not self._is_hidden(entry, prefix, above)]
        named = self._without_companions(named, prefix)
        entries = [self._keyed(entry) for entry in named if entry.name != COLLECTION_FOLDER]
        entries.sort(key=_sort_key, reverse=True)
        return entries

    def _without_companions(
        self, named: list[os.DirEntry[str]], prefix: str
    ) -> list[os.DirEntry[str]]:
        """Return the entries of a folder but for the files that belong to a photo among them."""
        suffixes = _OF_COMPANIONS | (CLIP_SUFFIXES if self.options.videos else frozenset())
        if not any(suffix_of(entry.name) in suffixes for entry in named):
            return named
        names = (entry.name for entry in named if self._may_pair(entry, prefix))
        pairs = companions_of(names)
        for name, photo in pairs.items():
            self.record.left_out.append(LeftOut(prefix + name, "companion", prefix + photo))
        return [entry for entry in named if entry.name not in pairs]

    def _may_pair(self, entry: os.DirEntry[str], prefix: str) -> bool:
        """Return whether an entry is a file that is taken unless it is a companion."""
        suffix = suffix_of(entry.name)
        if suffix not in self.problems or not _is_file(entry):
            return False
        if suffix in CLIP_SUFFIXES and entry.stat().st_size > _MAX_CLIP_BYTES:
            return False
        return not self._is_excluded(entry, prefix)

    def _is_hidden(self, entry: os.DirEntry[str], prefix: str, folder: str) -> bool:
        reason = left_out_by_default(entry.name, folder)
        if reason is not None and entry.name != COLLECTION_FOLDER:
            self._leave_out(entry, prefix + entry.name, reason)
        return reason is not None

    def _keyed(self, entry: os.DirEntry[str]) -> _Entry:
        """Return an entry with its key: a folder's name is followed by ``/``, so ``a.jpg`` comes
        before ``a/b.jpg``, as in SQLite.
        """
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
        except OSError:  # the error is raised again, and reported, at the entry's turn
            is_folder = False
        if is_folder or (self.options.follow_symlinks and entry.is_symlink() and _is_folder(entry)):
            return raw_path(entry.name + "/"), entry, is_folder
        return entry.name.encode("utf-8", "surrogateescape"), entry, False


_sort_key = itemgetter(0)


def _pattern(globs: Sequence[str]) -> re.Pattern[str] | None:
    trimmed = [composed(glob.removeprefix("./").removeprefix("**/").strip("/")) for glob in globs]
    return (
        re.compile("|".join(fnmatch.translate(glob) for glob in trimmed if glob) or r"(?!)")
        if trimmed
        else None
    )


def path_matcher(globs: Sequence[str]) -> Callable[[str], bool]:
    """Return whether a path relative to the root is one that ``exclude`` would leave out: a glob
    matches it, a folder above it, or any one name in it.
    """
    pattern = _pattern(globs)
    if pattern is None:
        return lambda path: False

    def matches(path: str) -> bool:
        parts = composed(path).split("/")
        return any(map(pattern.match, parts)) or any(
            pattern.match("/".join(parts[:count])) for count in range(2, len(parts) + 1)
        )

    return matches


def _identity(folder: str) -> FileId | None:
    try:
        facts = os.stat(folder)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _linked(entry: os.DirEntry[str], path: str, problem: str | None) -> Found:
    try:
        return _described(path, entry.stat(), problem)
    except OSError as error:
        if error.errno not in _BROKEN:
            raise
        # the target's name may hold any byte, and a reason must be text
        broken = (
            f"{BROKEN_LINK} to {os.readlink(entry.path)!r}"
            if error.errno != errno.ELOOP
            else "a link in a loop"
        )
    facts = entry.stat(follow_symlinks=False)
    return Found(path, facts.st_size, _mtime_ns(facts), broken)


def _mtime_ns(facts: os.stat_result) -> int:
    """Return the time of the last change within 64 bits, which is what SQLite holds: a camera may
    write the year 2300.
    """
    time = facts.st_mtime_ns
    return time if _EARLIEST <= time <= _LATEST else max(_EARLIEST, min(time, _LATEST))


def _described(path: str, facts: os.stat_result, problem: str | None) -> Found:
    kind = stat.S_IFMT(facts.st_mode)
    if kind != stat.S_IFREG:
        problem = _KINDS.get(kind, "not a regular file")
    return Found(path, facts.st_size, _mtime_ns(facts), problem)
