"""Names of the folders and files of sorted photos: readable, stable between runs, and unique."""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count

from vitsearch.paths import caseless
from vitsearch.types import LEVEL_SEPARATOR

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
