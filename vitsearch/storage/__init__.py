"""The truth on disk: the folder of a collection and its configuration; protocols for reading one,
wherever its photos and vectors are stored; and what it keeps to from its first run on: the first
entries of its database, the threshold of look-alikes, and how photos are decoded, at full size, or
JPEGs at the size that the encoder needs; with their ICC profiles applied, or as versions did that
ignored these. Its photos and vectors in SQLite are in the modules here.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from vitsearch.arrays import Halves, Ids, Vectors
from vitsearch.encoders.base import MAX_DIM, EncoderIdentity, ImageEncoder
from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.filters.tree import Filter
from vitsearch.index.recipe import Recipe
from vitsearch.index.snapshot import finish_replacing, remove_snapshot
from vitsearch.paths import shell_word
from vitsearch.photos import MAX_PIXELS
from vitsearch.photos.decode import Colours
from vitsearch.photos.profiles import prepared
from vitsearch.records import atomic_write, read_record, remove_unfinished, to_json
from vitsearch.storage.filesystem import HELD, disk_errors
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo, SkippedPhoto, StoredRow

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


# -- Reading ---------------------------------------------------------------------------------------


class StoredRows(Protocol):
    """Reads stored vectors: `PhotoStore` or `MilvusStore`."""

    def rows(self, ids: Sequence[int]) -> list[StoredRow]:
        """Return the rows of the photos with these ids."""

    def halves(self, raw: Sequence[bytes]) -> Halves:
        """Return ``(n, dim)`` float16 rows of raw vectors."""


class PhotoReader(StoredRows, Protocol):
    """The reading half of `PhotoStore`, where the methods are documented."""

    def close(self) -> None: ...
    def reading(self) -> AbstractContextManager[None]: ...
    def get_meta(self, name: str) -> bytes | int | str | None: ...
    def generation(self) -> int: ...
    def state(self) -> str: ...
    def count(self) -> int: ...
    def count_files(self) -> int: ...
    def moments(self) -> dict[int, int]: ...
    def failures(self) -> list[SkippedPhoto]: ...
    def photos(self, *, moments: bool = False) -> Iterator[Photo]: ...
    def photo_at(self, path: str) -> Photo | None: ...
    def photos_with(self, fingerprint: bytes) -> list[Photo]: ...
    def vector(self, photo_id: int) -> Halves: ...
    def ids_where(self, where: Filter, *, order: str = "id") -> Ids: ...
    def count_where(self, where: Filter) -> int: ...
    def months_where(self, where: Filter) -> list[tuple[str, int]]: ...
    def distinct(self, columns: Sequence[str]) -> dict[str, list[str]]: ...
    def vector_batches(self) -> Iterator[tuple[Ids, Halves]]: ...


class StoredCollection(Protocol):
    """An open collection on disk: its photo folder, its own folder, and its contents."""

    @property
    def root(self) -> Path: ...
    @property
    def folder(self) -> Path: ...
    @property
    def config(self) -> CollectionConfig: ...
    @property
    def store(self) -> PhotoStore: ...


# -- A new collection ------------------------------------------------------------------------------


# The least cosine of two versions of a picture: resized, saved again, or slightly cropped. For mini
# it is the lowest without a false pair in 499,500 pairs of photos, and finds 81 % of the copies
# (benchmarks/lookalikes.py).
THRESHOLDS = {"mini": 0.94, "colour": 0.999}
THRESHOLD = 0.96  # of CLIP-like models, not measured
LOOKALIKE = "lookalike"  # name of the collection's stored threshold
DTYPE_REASON = "dtype"  # name of the stored line that says why the number format is what it is


def lookalike_threshold(encoder: str) -> float:
    """Return the cosine from which two photos show the same view, for an encoder of this name."""
    return THRESHOLDS.get(encoder, THRESHOLD)


def stored_lookalike_threshold(store: PhotoReader, encoder: str) -> float:
    """Return that cosine as a collection of this encoder has it stored, or else as for its name."""
    stored = store.get_meta(LOOKALIKE)
    return float(stored) if isinstance(stored, str) else lookalike_threshold(encoder)


def create_collection(
    folder: Path, root: Path, encoder: ImageEncoder, recipe: Recipe
) -> CollectionConfig:
    """Write the first ``collection.json`` of a collection, and return its contents."""
    config = CollectionConfig(
        encoder=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        dtype=encoder.dtype,
        dim=encoder.dim,
        recipe=recipe.to_dict(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        root=root_text(root),
    )
    write_collection_config(folder, config)
    return config


def start_database(store: PhotoStore, folder: Path, encoder: str, golden: Vectors) -> None:
    """Store the encoder's golden vectors and the threshold of look-alikes in a new database.

    An index beside it belongs to an earlier database and is removed. A database that has golden
    vectors stays as it is. Call it inside `PhotoStore.writing`.
    """
    if store.get_meta("golden") is None:
        remove_snapshot(folder / MAIN_INDEX)
        remove_snapshot(folder / DELTA_INDEX)
        store.set_meta("golden", golden.astype("<f4").tobytes())
        store.set_meta(LOOKALIKE, str(lookalike_threshold(encoder)))


def remove_leftovers(folder: Path) -> None:
    """Put in order what a killed run left in a collection's folder, whose writer this process is.

    Files of others, such as the map that a server is just writing, stay.
    """
    for name in (MAIN_INDEX, DELTA_INDEX):
        finish_replacing(folder / name)
    for prefix in (".collection.json.", f".{HELD}.", QUEUE):
        remove_unfinished(folder, prefix=prefix)


def root_text(root: Path) -> str:
    """Return the absolute path of the photos as text that JSON can represent."""
    path = os.path.abspath(root)
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# -- Decoding --------------------------------------------------------------------------------------


_NAME = "decode"  # of the stored value: exact, scaled or mixed
_WHERE = "decoder"  # of the stored value: device, or mixed; none where all was on the CPU
_COLOURS = "colours"  # of the stored value: srgb, or mixed; none where profiles were ignored
RAW, SRGB, MIXED = "raw", "srgb", "mixed"
CPU, DEVICE = "cpu", "device"
_MIXED = (
    "photos decoded whole and at a reduced size are now in one collection: their scores may "
    "differ by 0.005"
)
_MIXED_COLOURS = (
    "ICC profiles are applied from now on, and some photos were embedded without: "
    "`vitsearch index PHOTOS --reread` embeds them again"
)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How photos are decoded: the cap on pixels, whether JPEGs keep their full size, whether ICC
    profiles are applied, whether photos that are known are embedded again for that, and whether
    JPEGs are decoded on the model's device.
    """

    max_pixels: int
    exact: bool = False
    managed: bool = True
    again: bool = False
    on_device: bool = False

    @property
    def colours(self) -> Colours:
        """How a picture is decoded that `prepare` is given."""
        return "profile" if self.managed else "raw"

    def at_least(self, encoder: ImageEncoder) -> int | None:
        """Return the least side of a decoded JPEG in pixels, None for the full size."""
        return None if self.exact else encoder.decode_at_least

    @staticmethod
    def prepare(encoder: ImageEncoder, image: Image.Image) -> Any:
        """Return the encoder's input for a decoded picture."""
        return prepared(image, encoder.prepare, resizes=encoder.only_resizes)


def choose_decoding(
    store: PhotoStore,
    exact: bool | None = None,
    max_pixels: int = MAX_PIXELS,
    *,
    again: bool = False,
) -> Decoding:
    """Return how photos are decoded for a collection: as requested, or else like those in it.

    In a new collection JPEGs are decoded at a reduced size, and ICC profiles are applied. Versions
    of vitsearch that did not record it decoded at full size and ignored profiles; with ``again``
    all photos are read again, so that it may change.
    """
    if exact is None:
        stored = store.get_meta(_NAME)
        exact = stored == "exact" or (stored is None and store.count() > 0)
    colours = store.get_meta(_COLOURS)
    differs = colours != SRGB and store.count() > 0
    managed = again or colours is not None or not differs
    return Decoding(max_pixels, exact, managed, again=again and differs)


def record_decoding(store: PhotoStore, decoding: Decoding) -> str:
    """Record how the photos of this run are decoded, and return a warning if both ways get mixed.

    It is recorded in the database and is not part of the encoder's fingerprint: the vectors of a
    photo decoded both ways have a cosine of 0.995 or more, so they can be compared, and an older
    collection can still be opened.
    """
    stored = store.get_meta(_NAME)
    current = "exact" if decoding.exact else "scaled"
    before = stored or ("exact" if store.count() else current)
    recorded = current if before == current else MIXED
    notes = [_MIXED] if recorded == MIXED != stored else []
    colours = stored_colours(store)
    if decoding.managed is not (colours == SRGB) and colours != MIXED:
        if store.count():
            notes += [] if decoding.again else [_MIXED_COLOURS]
            colours = MIXED
        else:
            colours = SRGB if decoding.managed else RAW
    where, stored_where = DEVICE if decoding.on_device else CPU, store.get_meta(_WHERE)
    if where != (stored_where or (CPU if store.count() else where)):
        where = MIXED
    with store.writing():
        if (stored_where or CPU) != where:
            store.set_meta(_WHERE, where)
        if stored != recorded:
            store.set_meta(_NAME, recorded)
        if store.get_meta(_COLOURS) != colours != RAW:
            store.set_meta(_COLOURS, colours)
    return "; ".join(notes)


def record_alike(store: PhotoStore) -> None:
    """Record that a run has embedded every photo again, with its ICC profile."""
    with store.writing():
        store.set_meta(_COLOURS, SRGB)


def stored_colours(store: PhotoReader) -> str:
    """Return ``srgb`` where ICC profiles were applied to the photos of a collection, ``raw`` where
    they were ignored, ``mixed`` where some were.
    """
    return str(store.get_meta(_COLOURS) or RAW)
