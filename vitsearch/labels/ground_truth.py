"""Ground truth: the labels that a person gave, as folder names or in a CSV file."""

import codecs
import csv
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitsearch.errors import QueryError
from vitsearch.paths import composed

log = logging.getLogger("vitsearch")
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
