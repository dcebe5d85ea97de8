"""What a collection keeps to from its first run on: its ``collection.json`` and the first entries
of the database, the threshold of look-alikes, and how photos are decoded: at full size, or JPEGs at
the size that the encoder needs; with their ICC profiles applied, or as versions did that ignored
these.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from vitsearch.arrays import Vectors
from vitsearch.encoders.base import ImageEncoder
from vitsearch.index.recipe import Recipe
from vitsearch.index.snapshot import finish_replacing, remove_snapshot
from vitsearch.photos import MAX_PIXELS
from vitsearch.photos.decode import Colours
from vitsearch.photos.profiles import prepared
from vitsearch.records import remove_unfinished
from vitsearch.storage import (
    DELTA_INDEX,
    MAIN_INDEX,
    QUEUE,
    CollectionConfig,
    write_collection_config,
)
from vitsearch.storage.filesystem import HELD
from vitsearch.storage.reader import PhotoReader
from vitsearch.storage.store import PhotoStore

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
