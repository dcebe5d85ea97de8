"""The truth on disk: the folder of a collection and its configuration; its photos and vectors in
SQLite are in the modules here.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitsearch.encoders.base import MAX_DIM, EncoderIdentity, ImageEncoder
from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.paths import shell_word
from vitsearch.records import atomic_write, read_record, to_json
from vitsearch.storage.filesystem import disk_errors

FORMAT = 1
FOLDER, CONFIG = ".vitsearch", "collection.json"
QUEUE = ".queue."  # how the names of a run's temporary files begin, where they need names
MAIN_INDEX, DELTA_INDEX = "index", "delta"  # the delta holds what has changed since


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """The contents of ``collection.json``: which encoder made the vectors and how they are indexed.

    ``root`` is where the photos were at the last indexing; it is a hint and may be out of date.
    """

    encoder: str
    encoder_fingerprint: str
    dtype: str
    dim: int
    recipe: dict[str, Any]
    created_at: str
    root: str
    format: int = FORMAT

    def __post_init__(self) -> None:
        if not 1 <= self.dim <= MAX_DIM or self.format < 1:
            raise ValueError("a number below 1, or too large")

    @property
    def identity(self) -> EncoderIdentity:
        """Which encoder made the vectors; its golden vectors are in the database."""
        return EncoderIdentity.from_record(self)


def photo_root(photos: str | os.PathLike[str]) -> Path:
    """Return the photo folder as a Path; raises CollectionError if it is missing or is a file."""
    if not os.fspath(photos):
        raise CollectionError(
            "the name of the photo folder is empty: name the folder, or . "
            "for the one that you are in"
        )
    root = _expanded(photos)
    if not os.path.exists(root):
        raise CollectionError(
            f"no such folder: {root}: check the spelling, or whether its disk is mounted"
        )
    if not root.is_dir():
        raise CollectionError(
            f"{root} is a file, not a folder of photos: give the folder that it lies in"
        )
    return root


def collection_folder(root: Path, collection: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the collection: ``<photos>/.vitsearch`` unless another is named."""
    if collection is None:
        return root / FOLDER
    if not os.fspath(collection):
        raise CollectionError(
            "the name of the collection's folder is empty: give --collection DIR "
            "a folder, or leave it out"
        )
    return _expanded(collection)


def locate(
    photos: str | os.PathLike[str], collection: str | os.PathLike[str] | None = None
) -> tuple[Path, Path]:
    """Return the photo folder and the folder of its collection, to be read.

    ``photos`` may also be the folder of a collection itself, such as a ``.vitsearch``: its photos
    are then in the folder above, or in that which it was indexed from. Raises CollectionError.
    """
    root = photo_root(photos)
    folder = collection_folder(root, collection)
    if collection is None and not (folder / CONFIG).exists() and (root / CONFIG).is_file():
        inside = os.path.realpath(root)
        if os.path.basename(inside) == FOLDER:
            return Path(os.path.dirname(inside)), root
        return Path(read_collection_config(root, root).root), root
    return root, folder


def collection_above(folder: Path | None = None) -> Path:
    """Return the working folder (or another), or the next folder above it, that has a collection;
    raises CollectionNotFound.
    """
    start = Path.cwd() if folder is None else folder
    for each in (start, *start.parents):
        if (each / FOLDER / CONFIG).is_file() or (each / CONFIG).is_file():
            return each
    raise CollectionNotFound(
        f"no collection in {start} or in a folder above it: name the folder of photos, or run "
        "`vitsearch index PHOTOS` first"
    )


def _expanded(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError) as error:  # an unknown ~user, or an invalid name
        raise CollectionError(
            f"no home folder for {os.fspath(path)}: write its full path"
        ) from error


def read_collection_config(folder: Path, photos: Path) -> CollectionConfig:
    """Return the configuration of the collection in a folder.

    Raises CollectionNotFound, or CollectionError for a newer or damaged one.
    """
    named = shell_word(photos)
    if folder != photos / FOLDER:
        named += f" --collection {shell_word(folder)}"
    return read_record(
        CollectionConfig,
        folder / CONFIG,
        error=CollectionError,
        repair=f"restore it from a backup, or delete {folder} and index again",
        missing=CollectionNotFound(
            f"no collection in {folder}: run `vitsearch index {named}` first"
        ),
    )


def write_collection_config(folder: Path, config: CollectionConfig) -> None:
    """Replace ``collection.json`` in one step."""
    with disk_errors(folder):
        atomic_write(folder / CONFIG, to_json(config, indent=2))


def check_encoder(folder: Path, config: CollectionConfig, encoder: ImageEncoder) -> None:
    """Raise EncoderMismatch unless the encoder is the one that made the collection's vectors."""
    advice = "index into another --collection DIR"
    if config.encoder == encoder.name:  # a version of the package with other weights
        advice += (
            " (`vitsearch index PHOTOS --collection DIR` embeds the photos again; this collection "
            "stays as it is, and finds photos by photos as before: `vitsearch similar`)"
        )
    config.identity.check(encoder, folder, advice)
