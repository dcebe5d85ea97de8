"""Datasets of the Hugging Face library `datasets`: their pictures as photos, and results as a
dataset.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitsearch.errors import CollectionError, needing
from vitsearch.photos.formats import format_of
from vitsearch.records import atomic_write
from vitsearch.types import SearchResult
from vitsearch.untrusted import reason

with needing(("datasets",), "datasets of Hugging Face need the package", "datasets"):
    from datasets import Dataset, Image

_DIGITS = 8  # so that the order of the paths is that of the rows


def save_photos(
    dataset: Dataset, folder: str | os.PathLike[str], *, column: str = "image"
) -> list[Path]:
    """Write the pictures of a dataset into a folder, to be indexed, and return their files.

    Each is named by its row, ``00000012.jpg``, with the bytes that the dataset holds; what is there
    already stays. Rows without a picture are left out. Raises CollectionError for a column that is
    not one of pictures, and for a picture that is not on this machine.
    """
    features = dataset.features
    if column not in features or not isinstance(features[column], Image):
        known = ", ".join(name for name in features if isinstance(features[name], Image))
        raise CollectionError(
            f"the dataset has no column {column!r} of pictures: it has {known or 'none at all'}"
        )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    files = []
    for row, stored in enumerate(dataset.cast_column(column, Image(decode=False))[column]):
        data = _bytes(stored, row)
        if data is None:
            continue
        kind = format_of(data[:4096])
        file = target / f"{row:0{_DIGITS}d}.{kind.suffixes[0] if kind else 'jpg'}"
        if not file.exists():
            atomic_write(file, data, sync=False)
        files.append(file)
    return files


def select_results(dataset: Dataset, results: Sequence[SearchResult]) -> Dataset:
    """Return the rows of a dataset that results are of, in their order, with a column ``score``.

    The photos must be those of `save_photos`; raises CollectionError for one that is not, and for a
    dataset that has a column ``score`` already.
    """
    if "score" in dataset.column_names:
        raise CollectionError(
            "the dataset has a column 'score' already: rename it first "
            "(dataset.rename_column('score', 'old_score'))"
        )
    rows = [_row(result.path, len(dataset)) for result in results]
    return dataset.select(rows).add_column("score", [result.score for result in results])


def _bytes(stored: Any, row: int) -> bytes | None:
    if stored is None:
        return None
    if stored["bytes"] is not None:
        return bytes(stored["bytes"])
    try:
        return Path(stored["path"]).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        raise CollectionError(
            f"the picture of row {row}, {stored['path']}, cannot be read on this machine "
            f"({reason(error)}): load the dataset with its pictures in it"
        ) from error


def _row(path: str, rows: int) -> int:
    stem = path.rpartition("/")[2].partition(".")[0]
    if not stem.isdecimal() or int(stem) >= rows:
        raise CollectionError(
            f"{path} is not a photo that save_photos wrote: it names them by their rows"
        )
    return int(stem)
