"""What a person writes as labels: names, synonyms, and names below names; and the labels that a
person gave to photos, as folder names or in a CSV file (ground truth).
"""

import codecs
import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from vitsearch.arrays import Vectors
from vitsearch.errors import QueryError
from vitsearch.paths import composed
from vitsearch.types import LEVEL_SEPARATOR

NOTHING = "none of these"
_LEVEL = re.compile(r"(?<!\S)>(?!\S)")  # signs stand by themselves: "E=mc2" is a name
_SIGN = re.compile(r"(?<!\S)(:?=)(?!\S)")


@dataclass(frozen=True, slots=True)
class Label:
    """One label: its name, with `` > `` between the levels, and the words of its prompts."""

    name: str
    words: tuple[str, ...]


def parse_labels(labels: Sequence[str | Label]) -> tuple[Label, ...]:
    """Return the labels, parsed.

    Raises QueryError for no label, an empty or a repeated one, or one with an empty part.
    """
    if isinstance(labels, str):
        raise QueryError(f"labels are a list of strings, not one string: [{labels!r}, ...]")
    parsed = tuple(label if isinstance(label, Label) else _parse(label) for label in labels)
    if not parsed:
        raise QueryError("there is no label: give at least two, such as --labels 'cat,dog'")
    names = [label.name for label in parsed]
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubled:
        raise QueryError(f"a label is given twice: {', '.join(doubled[:5])}: give each once")
    if NOTHING in names:
        raise QueryError(
            f"the label {NOTHING!r} is kept for the background class: name yours otherwise"
        )
    return _disambiguated(parsed)


def _parse(text: str) -> Label:
    name, sign, words = (*_SIGN.split(text, maxsplit=1), "", "")[:3]
    levels = [level.strip() for level in _LEVEL.split(name)]
    synonyms = [word.strip() for word in words.split("|")] if sign else []
    if not text.strip():
        raise QueryError("a label is empty: take out the doubled comma or the blank entry")
    if not all(levels) or not all(synonyms):
        raise QueryError(
            f"the label {text.strip()!r} has an empty part: write 'animal > cat = kitten | tabby'"
        )
    prompted = synonyms if sign == ":=" else [levels[-1], *synonyms]
    return Label(LEVEL_SEPARATOR.join(levels), tuple(dict.fromkeys(prompted)))


def _disambiguated(labels: tuple[Label, ...]) -> tuple[Label, ...]:
    """Return the labels, those that would share their prompts with the parent's name added.

    An example is "crane", the bird and the machine.
    """
    counts = Counter(label.words for label in labels)
    return tuple(_with_parent(label) if counts[label.words] > 1 else label for label in labels)


def _with_parent(label: Label) -> Label:
    parent, separator, _ = label.name.rpartition(LEVEL_SEPARATOR)
    if not separator:
        return label
    kind = parent.rpartition(LEVEL_SEPARATOR)[2]
    return Label(label.name, tuple(f"{word}, a kind of {kind}" for word in label.words))


def _below(parent: str, level: str) -> str:
    return f"{parent}{LEVEL_SEPARATOR}{level}"


class Tree:
    """The levels of a list of labels: a probability for every name at and above them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._children: dict[str, dict[str, list[int]]] = {}
        for position, name in enumerate(names):
            path = list(accumulate(name.split(LEVEL_SEPARATOR), _below))
            for parent, child in pairwise(["", *path]):
                self._children.setdefault(parent, {}).setdefault(child, []).append(position)

    @property
    def is_flat(self) -> bool:
        """Whether no label is below another."""
        return len(self._children) <= 1

    def descend(self, probabilities: Vectors, at_least: float) -> tuple[str, float] | None:
        """Return the deepest name that is at least this probable, and its probability, or None.

        The way down is by the most probable child. ``probabilities`` are those of the labels
        ``(classes,)``; that of a name above labels is the sum of theirs.
        """
        deepest, parent, positions = None, "", list(range(len(self.names)))
        while children := self._below(parent, positions):
            name, members = max(
                children.items(), key=lambda child: float(probabilities[child[1]].sum())
            )
            probability = min(1.0, float(probabilities[members].sum()))
            if probability < at_least:
                break
            deepest = (name, probability)
            if name == parent:
                break
            parent, positions = name, members
        return deepest

    def _below(self, name: str, positions: list[int]) -> Mapping[str, list[int]]:
        """Return the children of a name; a label with labels below it is a child of itself too."""
        children = self._children.get(name, {})
        itself = [position for position in positions if self.names[position] == name]
        return {**children, name: itself} if children and itself else children


log = logging.getLogger("vitsearch")
# -- Ground truth ----------------------------------------------------------------------------------


FOLDERS = "folders"


def read_labels(source: str, paths: Sequence[str]) -> dict[str, str]:
    """Return the labels of those of these paths that have one, in the order of ``paths``.

    ``paths`` are relative to the photo folder, with ``/``. ``source`` is "folders" (a photo's label
    is the name of the folder that holds it; photos outside any folder have none) or a CSV file
    whose first line names the columns ``path`` and ``label``, in any case, separated by commas,
    semicolons or tabs, in UTF-8 or UTF-16; paths match composed or decomposed, with ``/`` or
    ``\\``. Rows that match no photo are logged. Raises QueryError where the file
    cannot be read, or where no photo has a label.
    """
    truth = _by_folder(paths) if source == FOLDERS else _by_file(Path(source), paths)
    labels = {path: truth[path] for path in paths if path in truth}
    if not labels:
        reason = (
            "no photo lies in a folder of its own"
            if source == FOLDERS
            else f"no path in {source} is a photo of the collection"
        )
        raise QueryError(f"there are no labels: {reason} (paths are relative to the photo folder)")
    return labels


def _by_folder(paths: Sequence[str]) -> dict[str, str]:
    return {path: path.split("/")[-2] for path in paths if "/" in path}


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    path: str
    label: str


def _by_file(file: Path, paths: Sequence[str]) -> dict[str, str]:
    """Return the labels of a CSV file by path; raises QueryError that names the faulty line.

    Rows that match no photo are logged: their number and the first three.
    """
    labels: dict[str, str] = {}
    photos, unmatched = _PhotoNames(paths), []
    for row in _rows(file):
        path = photos.find(row.path)
        if path is None:
            unmatched.append(row.path)
        elif labels.setdefault(path, row.label) != row.label:
            raise QueryError(
                f"{file}, line {row.line}: {path} is labelled {labels[path]!r} and "
                f"{row.label!r}: keep one"
            )
    if unmatched and labels:
        examples = ", ".join(map(repr, unmatched[:3])) + (", ..." if len(unmatched) > 3 else "")
        log.warning(f"{len(unmatched)} rows of {file} match no photo ({examples})")
    return labels


class _PhotoNames:
    """Finds photos by the ways in which people and programs write their paths."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = set(paths)
        # composed, since a Mac writes names decomposed that people type composed
        self._composed = {composed(path): path for path in reversed(paths)}

    def find(self, written: str) -> str | None:
        """Return the path of the photo that is meant, None if there is none."""
        for text in dict.fromkeys((written, _as_windows_text(written))):
            for path in dict.fromkeys((text, _plain(text), _plain(text.replace("\\", "/")))):
                if path in self._paths:
                    return path
                if photo := self._composed.get(composed(path)):
                    return photo
        return None


def _plain(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/".join(["", *parts] if path.startswith("/") else parts)


def _as_windows_text(text: str) -> str:
    """Return a text whose bytes are not UTF-8 as one of Windows in Western Europe."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return text


def _rows(file: Path) -> Iterator[_Row]:
    lines = io.StringIO(_text(file), newline="")
    try:
        rows = csv.reader(lines, delimiter=_delimiter(lines), strict=True)
        header = [name.strip().lower() for name in next(rows, [])]
        missing = {"path", "label"} - set(header)
        if missing:
            raise QueryError(
                f"{file} has no column {' and no column '.join(sorted(missing))}: its first "
                "line must be path,label"
            )
        columns = header.index("path"), header.index("label")
        for row in filter(None, rows):
            path, label = (row[column] if column < len(row) else "" for column in columns)
            if not path or not label.strip():
                raise QueryError(f"{file}, line {rows.line_num}: the path or the label is empty")
            yield _Row(rows.line_num, path, _as_windows_text(label.strip()))
    except csv.Error as error:
        raise QueryError(
            f"{file} is no CSV file ({error}): its first line must be path,label"
        ) from error


def _text(file: Path) -> str:
    """Return the text of a file in UTF-8 or UTF-16; bytes that are not UTF-8 become surrogates, as
    in the names of files. Raises QueryError where it cannot be read.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise QueryError(
            f"cannot read the labels in {file} ({error.strerror}): give a CSV "
            "file, or the word folders"
        ) from error
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return data.decode("utf-16", "replace")
    if b"\0" in data[:4]:  # as spreadsheets write it without a mark
        return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def _delimiter(lines: io.StringIO) -> str:
    """Return what separates the columns: a comma, or a semicolon or tab where the header has it."""
    header = lines.readline()
    lines.seek(0)
    return max(",;\t", key=header.count)
