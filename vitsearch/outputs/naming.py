"""What the folders and files of sorted photos are called: readable, the same on every run, and
never one name for two things.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count

from vitsearch.types import LEVEL_SEPARATOR

_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL
)
_MARKED = re.compile(r".*~[0-9a-f]{8}", re.DOTALL)
_MAX_FOLDER_LENGTH, _MAX_FILE_LENGTH = (
    120,
    240,
)  # bytes of a name, of the 255 that file systems take


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """Return a relative path with ``/`` for each label: one folder a level, never one for two
    labels, also where case is ignored.

    A level that is no good name for a folder somewhere, or is the same as another but for case, is
    made one and marked by a hash of what it was ("AC_DC~3f0c9a1e").
    """
    levels = {label: tuple(label.split(LEVEL_SEPARATOR)) for label in labels}
    nodes = {branch[:depth] for branch in levels.values() for depth in range(1, len(branch) + 1)}
    alike = Counter((node[:-1], _key(node[-1])) for node in nodes)
    names = {
        node: _safe(node[-1]) if alike[node[:-1], _key(node[-1])] == 1 else _marked(node[-1])
        for node in nodes
    }
    return {
        label: "/".join(names[branch[: depth + 1]] for depth in range(len(branch)))
        for label, branch in levels.items()
    }


def _safe(level: str) -> str:
    """Return the name of a level's folder: the level itself where every file system takes it and it
    does not look marked.
    """
    usual = (
        _readable(level) == level
        and level
        and not level.startswith(".")
        and not _RESERVED.fullmatch(level)
    )
    return (
        level
        if usual
        and len(level.encode()) <= _MAX_FOLDER_LENGTH
        and not _MARKED.fullmatch(_key(level))
        else _marked(level)
    )


def _marked(level: str) -> str:
    mark = hashlib.sha256(level.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    start = _readable(level).encode()[: _MAX_FOLDER_LENGTH - 9].decode("utf-8", "ignore")
    bare = not start or start.startswith(".") or _RESERVED.fullmatch(start)
    return f"{'_' if bare else ''}{start}~{mark}"


def _readable(level: str) -> str:
    """Return a level without what some file system, shell or screen cannot take in a name."""
    return (
        "".join("_" if char in '/\\:*?"<>|' or _is_control(char) else char for char in level)
        .strip()
        .rstrip(". ")
    )


def _is_control(char: str) -> bool:
    joins = char in "\u200c\u200d"  # they hold emoji and words together
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and not joins


def _key(name: str) -> str:
    """Return what two names have in common that some file system takes for one: case and
    composition do not count.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def places_of(
    wanted: Mapping[str, Sequence[str]], is_taken: Callable[[str], bool]
) -> dict[str, str]:
    """Return for each place in the folder, a relative path with ``/``, the path of the photo that
    goes there.

    ``wanted`` are the paths of each label's photos; ``is_taken`` says whether a place holds
    something that must stay.
    """
    folders = folder_names(wanted)
    branches = [name.split("/") for name in folders.values()]
    used = {
        _key("/".join(branch[:depth])) for branch in branches for depth in range(1, len(branch) + 1)
    }
    found: dict[str, str] = {}
    for label, paths in sorted(wanted.items()):
        alike = Counter(_key(os.path.basename(path)) for path in paths)
        for path in sorted(paths):
            name = os.path.basename(path)
            name = _with_folders(path) if alike[_key(name)] > 1 else name
            place = next(
                place
                for place in _numbered(folders[label], name)
                if _key(place) not in used and not is_taken(place)
            )
            used.add(_key(place))
            found[place] = path
    return found


def _with_folders(path: str) -> str:
    """Return a file's name with the names of its folders in front, of as many as fit."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    while len(parts) > 1 and len(os.fsencode("__".join(parts))) > _MAX_FILE_LENGTH:
        parts = parts[1:]
    return "__".join(parts)


def _numbered(folder: str, name: str) -> Iterable[str]:
    stem, ending = os.path.splitext(name)
    yield f"{folder}/{name}"
    for number in count(2):
        yield f"{folder}/{stem} ({number}){ending}"
