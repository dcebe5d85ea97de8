"""Ground truth: the labels that a person gave, as folder names or in a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

from vitsearch.errors import QueryError

FOLDERS = "folders"


def read_labels(source: str, paths: Sequence[str]) -> dict[str, str]:
    """Return the labels of those of these paths that have one, in the order of ``paths``.

    ``paths`` are relative to the photo folder, with ``/``. ``source`` is "folders" (a photo's label
    is the name of the folder that holds it; photos outside any folder have none) or a CSV file
    whose first line names the columns ``path`` and ``label``. Raises QueryError where the file
    cannot be read, or where no photo has a label.
    """
    truth = _by_folder(paths) if source == FOLDERS else _by_file(Path(source))
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


def _by_file(file: Path) -> dict[str, str]:
    """Return the labels of a CSV file by path; raises QueryError that names the faulty line."""
    labels: dict[str, str] = {}
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            rows = csv.DictReader(lines, strict=True)
            missing = {"path", "label"} - set(rows.fieldnames or ())
            if missing:
                raise QueryError(
                    f"{file} has no column {' and no column '.join(sorted(missing))}: its first "
                    "line must be path,label"
                )
            for row in rows:
                path, label = row["path"], (row["label"] or "").strip()
                if not path or not label:
                    raise QueryError(
                        f"{file}, line {rows.line_num}: the path or the label is empty"
                    )
                if labels.setdefault(path, label) != label:
                    raise QueryError(
                        f"{file}, line {rows.line_num}: {path} is labelled {labels[path]!r} and "
                        f"{label!r}: keep one"
                    )
    except OSError as error:
        raise QueryError(
            f"cannot read the labels in {file} ({error.strerror}): give a CSV "
            "file, or the word folders"
        ) from error
    except csv.Error as error:
        raise QueryError(
            f"{file} is no CSV file ({error}): its first line must be path,label"
        ) from error
    return labels
