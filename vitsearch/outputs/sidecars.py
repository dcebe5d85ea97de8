"""The labels of photos for other programs: as keywords in XMP sidecars, which photo managers read,
and as names of folders and files, readable, stable between runs, and unique.
"""

import hashlib
import os
import re
import shutil
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from vitsearch.outputs.xmp import EMPTY, HOLLOWS, NAMESPACE, PREFIXES, Hollow, NotXmp, Packet
from vitsearch.paths import caseless
from vitsearch.records import atomic_file
from vitsearch.types import LEVEL_SEPARATOR, Prediction

_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL
)
_MARKED = re.compile(r".*~[0-9a-f]{8}", re.DOTALL)
_MAX_FOLDER_LENGTH, _MAX_FILE_LENGTH = 120, 240  # bytes, of the 255 that file systems accept


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """Return a relative path with ``/`` for each label: one folder per level.

    Two labels never share a folder, not even where case is ignored. A level that some file system
    would not accept as a folder name, or that differs from another by case alone, is cleaned and
    marked with a hash of the original ("AC_DC~3f0c9a1e").
    """
    levels = {label: tuple(label.split(LEVEL_SEPARATOR)) for label in labels}
    nodes = {branch[:depth] for branch in levels.values() for depth in range(1, len(branch) + 1)}
    alike = Counter((node[:-1], caseless(node[-1])) for node in nodes)
    names = {
        node: _safe(node[-1]) if alike[node[:-1], caseless(node[-1])] == 1 else _marked(node[-1])
        for node in nodes
    }
    return {
        label: "/".join(names[branch[: depth + 1]] for depth in range(len(branch)))
        for label, branch in levels.items()
    }


def _safe(level: str) -> str:
    """Return the name of a level's folder.

    It is the level itself where every file system accepts it and it does not look marked.
    """
    is_safe = (
        _readable(level) == level
        and level
        and not level.startswith(".")
        and not _RESERVED.fullmatch(level)
        and len(level.encode()) <= _MAX_FOLDER_LENGTH
        and not _MARKED.fullmatch(caseless(level))
    )
    return level if is_safe else _marked(level)


def _marked(level: str) -> str:
    mark = hashlib.sha256(level.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    start = _readable(level).encode()[: _MAX_FOLDER_LENGTH - 9].decode("utf-8", "ignore")
    bare = not start or start.startswith(".") or _RESERVED.fullmatch(start)
    return f"{'_' if bare else ''}{start}~{mark}"


def _readable(level: str) -> str:
    """Return a level without the characters that some file system, shell or screen rejects."""
    chars = ("_" if char in '/\\:*?"<>|' or _is_control(char) else char for char in level)
    return "".join(chars).strip().rstrip(". ")


def _is_control(char: str) -> bool:
    joins = char in "\u200c\u200d"  # they hold emoji and words together
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and not joins


def target_paths(
    paths_by_label: Mapping[str, Sequence[str]], is_occupied: Callable[[str], bool]
) -> dict[str, str]:
    """Return the photo's path for each target, a relative path with ``/`` in the folder.

    ``paths_by_label`` are the paths of each label's photos; ``is_occupied`` says whether a target
    holds something that must stay.
    """
    folders = folder_names(paths_by_label)
    branches = [name.split("/") for name in folders.values()]
    used = {
        caseless("/".join(branch[:depth]))
        for branch in branches
        for depth in range(1, len(branch) + 1)
    }
    photos_by_target: dict[str, str] = {}
    for label, paths in sorted(paths_by_label.items()):
        alike = Counter(caseless(os.path.basename(path)) for path in paths)
        for path in sorted(paths):
            name = os.path.basename(path)
            name = _with_folders(path) if alike[caseless(name)] > 1 else name
            target = next(
                target
                for target in _numbered(folders[label], name)
                if caseless(target) not in used and not is_occupied(target)
            )
            used.add(caseless(target))
            photos_by_target[target] = path
    return photos_by_target


def _with_folders(path: str) -> str:
    """Return a file's name preceded by the names of its folders, as many as fit."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    while len(parts) > 1 and len(os.fsencode("__".join(parts))) > _MAX_FILE_LENGTH:
        parts = parts[1:]
    return "__".join(parts)


def _numbered(folder: str, name: str) -> Iterable[str]:
    stem, ending = os.path.splitext(name)
    yield f"{folder}/{name}"
    for number in count(2):
        yield f"{folder}/{stem} ({number}){ending}"


# -- Sidecars --------------------------------------------------------------------------------------


MAX_BYTES = 16 * 1024 * 1024  # of a sidecar; even a long history of edits is shorter

_SUBJECT = ("http://purl.org/dc/elements/1.1/", "subject")
_LIGHTROOM = ("http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject")
_DIGIKAM = ("http://www.digikam.org/ns/1.0/", "TagsList")
_LABELS, _SCORES = (NAMESPACE, "labels"), (NAMESPACE, "scores")
_ADDED = {
    _SUBJECT: (NAMESPACE, "addedSubject"),
    _LIGHTROOM: (NAMESPACE, "addedHierarchicalSubject"),
    _DIGIKAM: (NAMESPACE, "addedTagsList"),
}
# which of these lists were there and empty, and how: "dc:subject list/"
_HOLLOW = (NAMESPACE, "emptyBefore")

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class SidecarReport:
    """How many sidecars a run wrote, and how many were right already.

    ``problems`` are (path of the photo, reason); their sidecars were not changed.
    """

    written: int
    unchanged: int
    problems: tuple[tuple[str, str], ...]


def write_sidecars(
    predictions: Sequence[Prediction], *, root: str | os.PathLike[str], photos: Iterable[str] = ()
) -> SidecarReport:
    """Write all labels of each photo as keywords into its XMP sidecar, never into the photo.

    Paths are relative to ``root``. The levels of a label are keywords in ``dc:subject``; one with
    levels is also in ``lr:hierarchicalSubject`` ("animal|dog") and ``digiKam:TagsList``
    ("animal/dog"). The sidecar is PHOTO.jpg.xmp, or PHOTO.xmp where that exists and no other file
    shares its name. It records which keywords were added: labelling again replaces those, and never
    a keyword of the user's. ``photos`` are further paths that were labelled, without a result: they
    lose the keywords of an earlier run. A sidecar that is not XMP stays.
    """
    labels: dict[str, list[Prediction]] = {path: [] for path in photos}
    for prediction in predictions:
        labels.setdefault(prediction.path, []).append(prediction)
    run = _Run(os.fspath(root))
    for path in sorted(labels):
        run.write(path, labels[path])
    return SidecarReport(run.written, run.unchanged, tuple(run.problems))


@dataclass(slots=True)
class _Run:
    root: str
    written: int = 0
    unchanged: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    listed: tuple[str, "_Folder"] | None = None

    def write(self, path: str, labels: Sequence[Prediction]) -> None:
        try:
            folder, name = os.path.split(os.path.join(self.root, path))
            if not os.path.isfile(os.path.join(folder, name)):
                raise FileNotFoundError("the photo is gone: index again")
            if self.listed is None or self.listed[0] != folder:  # photos come in order of path
                self.listed = folder, _Folder(folder)
            sidecar = self.listed[1].sidecar_of(name)
            before = _read(os.path.join(folder, sidecar)) if sidecar else None
            if before is None and not labels:
                return
            after = labelled(EMPTY if before is None else before, labels)
            if after == before:
                self.unchanged += 1
                return
            _write(os.path.join(folder, sidecar or f"{name}.xmp"), after)
            self.written += 1
        except NotXmp as error:
            self.problems.append((path, f"its sidecar {sidecar} is left as it is: {error}"))
        except OSError as error:
            reason = error.strerror and f"its sidecar cannot be written ({error.strerror})"
            self.problems.append((path, reason or str(error)))


class _Folder:
    """The sidecars of one folder."""

    def __init__(self, folder: str) -> None:
        names = sorted(os.listdir(folder), reverse=True)  # "a.xmp" wins over "a.XMP"
        self._sidecars: dict[str, str] = {}
        self._stems: Counter[str] = Counter()
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() == ".xmp":
                self._sidecars[stem] = name
            else:  # a raw photo, a film: the sidecar may be theirs
                self._stems[stem.casefold()] += 1

    def sidecar_of(self, photo: str) -> str | None:
        """Return the name of a photo's sidecar, None where it has none."""
        stem = os.path.splitext(photo)[0]
        alone = self._stems[stem.casefold()] == 1
        return self._sidecars.get(photo) or (self._sidecars.get(stem) if alone else None)


def labelled(data: bytes, labels: Sequence[Prediction]) -> bytes:
    """Return a packet with these labels in place of an earlier run's; raises NotXmp."""
    packet = Packet(data)
    best: dict[str, float] = {}
    for prediction in reversed(labels):
        if cleaned := LEVEL_SEPARATOR.join(_levels(prediction.label)):
            best[cleaned] = prediction.score
    names = list(reversed(best))
    keywords = _keywords([name.split(LEVEL_SEPARATOR) for name in names], packet)
    hollows = _hollows(packet)
    for name, added in _ADDED.items():
        ours, there = packet.items(added), packet.items(name)
        users = set(there) - set(ours)
        new = [keyword for keyword in keywords[name] if keyword not in users]
        if new != ours or not set(new) <= set(there):
            hollow = hollows.pop(name, "") if ours else packet.hollow(name)
            packet.replace(name, ours, new, "Seq" if name == _DIGIKAM else "Bag", hollow=hollow)
            _set(packet, added, new)
            if hollow and new:
                hollows[name] = hollow
    _set(
        packet,
        _HOLLOW,
        [f"{PREFIXES[name[0]]}:{name[1]} {hollows[name]}" for name in _ADDED if name in hollows],
    )
    _set(packet, _LABELS, names)
    _set(packet, _SCORES, [f"{best[name]:.4f}" for name in names])
    return packet.edited()


def _hollows(packet: Packet) -> dict[tuple[str, str], Hollow]:
    """Return the recorded form of each list that was empty before our keywords were added."""
    recorded = set(packet.items(_HOLLOW))
    return {
        name: hollow
        for name in _ADDED
        for hollow in HOLLOWS
        if f"{PREFIXES[name[0]]}:{name[1]} {hollow}" in recorded
    }


def _set(packet: Packet, name: tuple[str, str], items: Sequence[str]) -> None:
    before = packet.items(name)
    if before != items:
        packet.replace(name, before, items, "Seq")


def _keywords(labels: Sequence[Sequence[str]], packet: Packet) -> dict[tuple[str, str], list[str]]:
    """Return the keywords of labels (each its levels) for each list, in order.

    A label without levels goes into a list of paths only where there are other paths: digiKam then
    reads no other list.
    """
    keywords: dict[tuple[str, str], list[str]] = defaultdict(list)
    keywords[_SUBJECT] = list(dict.fromkeys(level for levels in labels for level in levels))
    for name, sign in ((_LIGHTROOM, "|"), (_DIGIKAM, "/")):
        of_user = set(packet.items(name)) - set(packet.items(_ADDED[name]))
        if of_user or any(len(levels) > 1 for levels in labels):
            paths = (sign.join(level.replace(sign, "-") for level in path) for path in labels)
            keywords[name] = list(dict.fromkeys(paths))
    return keywords


def _levels(label: str) -> list[str]:
    """Return the levels of a label as keywords: without what XML cannot hold, in single spaces."""
    return [
        level
        for part in label.split(LEVEL_SEPARATOR)
        if (level := " ".join(_NOT_XML.sub("\ufffd", part).split()))
    ]


def _read(file: str) -> bytes:
    if not os.path.isfile(file):
        raise NotXmp("it is no file, or a broken link")
    with open(file, "rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise NotXmp(f"it is larger than {MAX_BYTES // 1024**2} MB")
    return data


def _write(file: str, data: bytes) -> None:
    """Write a sidecar aside and rename it; where it is a link, the file that it leads to."""
    path = Path(os.path.realpath(file))
    replaces = path.exists()  # then it holds the user's work: first the new one is on the disk
    with atomic_file(path, sync=replaces) as aside:
        aside.write_bytes(data)
        if replaces:
            shutil.copymode(path, aside)
