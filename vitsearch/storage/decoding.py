"""How the photos of a collection are decoded: at full size, or JPEGs at the size that the encoder
needs; with their ICC profiles applied, or as versions did that ignored these.
"""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from vitsearch.encoders.base import ImageEncoder
from vitsearch.photos import MAX_PIXELS
from vitsearch.photos.decode import Colours
from vitsearch.photos.profiles import prepared
from vitsearch.storage.reader import PhotoReader
from vitsearch.storage.store import PhotoStore

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
