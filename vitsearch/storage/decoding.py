"""How the photos of a collection are decoded: at full size, or JPEGs at the size that the encoder
needs.
"""

from dataclasses import dataclass

from vitsearch.encoders.base import ImageEncoder
from vitsearch.photos import MAX_PIXELS
from vitsearch.storage.store import PhotoStore

_NAME = "decode"  # of the stored value: exact, scaled or mixed
_MIXED = (
    "photos decoded whole and at a reduced size are now in one collection: their scores may "
    "differ by 0.005"
)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How photos are decoded: the cap on pixels, and whether JPEGs keep their full size."""

    max_pixels: int
    exact: bool = False

    def at_least(self, encoder: ImageEncoder) -> int | None:
        """Return the least side of a decoded JPEG in pixels, None for the full size."""
        return None if self.exact else encoder.decode_at_least


def choose_decoding(
    store: PhotoStore, exact: bool | None = None, max_pixels: int = MAX_PIXELS
) -> Decoding:
    """Return how photos are decoded for a collection: as requested, or else like those in it.

    In a new collection JPEGs are decoded at a reduced size. Versions of vitsearch that did not
    record it decoded at full size.
    """
    if exact is None:
        stored = store.get_meta(_NAME)
        exact = stored == "exact" or (stored is None and store.count() > 0)
    return Decoding(max_pixels, exact)


def record_decoding(store: PhotoStore, decoding: Decoding) -> str:
    """Record how the photos of this run are decoded, and return a warning if both ways get mixed.

    It is recorded in the database and is not part of the encoder's fingerprint: the vectors of a
    photo decoded both ways have a cosine of 0.995 or more, so they can be compared, and an older
    collection can still be opened.
    """
    stored = store.get_meta(_NAME)
    current = "exact" if decoding.exact else "scaled"
    before = stored or ("exact" if store.count() else current)
    recorded = current if before == current else "mixed"
    if stored == recorded:
        return ""
    with store.writing():
        store.set_meta(_NAME, recorded)
    return _MIXED if recorded == "mixed" else ""
