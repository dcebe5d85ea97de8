"""What earlier runs made in a folder of sorted photos, so that nothing of the user's is taken for it."""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vitsearch.errors import VitsearchError

MANIFEST = ".vitsearch-sorted.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Made:
    """One link or copy: of which photo (an absolute path), and how to know it again, so that nothing of the user's is taken for it.

    ``link`` is what a link says, "" for a copy; ``size`` and the times are those of a copy and of its photo when it was made.
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
        return stat.S_ISREG(facts.st_mode) and (facts.st_size, facts.st_mtime_ns) == (self.size, self.mtime_ns)

    def may_go(self, place: str) -> bool:
        """Whether removing what lies there loses nothing: a copy may be all that is left of its photo."""
        return self.is_at(place) and (bool(self.link) or os.path.isfile(self.photo))

    def is_of(self, root: str, place: str) -> bool:
        """Whether its photo lies below a folder; a link to a photo that has moved is of the folder that it leads into now."""
        if _is_below(self.photo, root):
            return True
        moved = bool(self.link) and not os.path.lexists(self.photo)  # the disk of both is mounted elsewhere
        return moved and _is_below(os.path.normpath(os.path.join(os.path.dirname(place), self.link)), root)


def _is_below(path: str, folder: str) -> bool:
    return os.path.normcase(path).startswith(os.path.normcase(os.path.join(folder, "")))


def path_of(target: str, place: str) -> str:
    """Return the path of a place, which is relative to the folder with ``/``."""
    return os.path.join(target, *place.split("/"))


def read_manifest(target: str) -> dict[str, Made]:
    """Return what earlier runs made; raises VitsearchError for a manifest that is damaged, so that nothing is removed by mistake."""
    file = Path(target, MANIFEST)
    try:
        stored = json.loads(file.read_bytes())
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']!r}")
        made = {place: Made(**facts) for place, facts in stored["made"].items()}
        if wrong := next((place for place, one in made.items() if not _is_sound(place, one)), None):
            raise ValueError(f"an entry {wrong!r}")
        return made
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise VitsearchError(f"cannot read {file} ({error.strerror}): check its permissions, or sort into another folder") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise VitsearchError(
            f"{file} is damaged ({' '.join(str(error).split())[:120]}): restore it, or sort into another folder; nothing was removed"
        ) from error


def _is_sound(place: str, made: Made) -> bool:
    texts = isinstance(made.photo, str) and isinstance(made.link, str)
    numbers = all(type(number) is int for number in (made.size, made.mtime_ns, made.photo_mtime_ns))
    names = place.split("/")
    inside = len(names) > 1 and "\0" not in place and not {"", ".", ".."} & set(names) and not any("\\" in name for name in names[:-1])
    return texts and numbers and inside


def write_manifest(target: str, made: Mapping[str, Made]) -> None:
    """Replace the manifest in one step, and make its folder where there is none; raises VitsearchError."""
    file = os.path.join(target, MANIFEST)
    text = json.dumps({"format": FORMAT, "made": {place: asdict(made[place]) for place in sorted(made)}}, indent=1, ensure_ascii=True)
    try:
        os.makedirs(target, exist_ok=True)
        with open(f"{file}.new", "w", encoding="ascii") as out:
            out.write(text + "\n")
            out.flush()
            os.fsync(out.fileno())
        os.replace(f"{file}.new", file)
    except OSError as error:
        raise VitsearchError(f"cannot sort into {target} ({error.strerror}): name another folder, or free some space") from error
