"""How the photos of a collection are decoded: whole, or JPEGs at a reduced size where the encoder
needs no more.
"""

import math
from dataclasses import dataclass

from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionError
from vitsearch.photos import MAX_PIXELS
from vitsearch.storage.store import PhotoStore

_FACT = "decode"
_MIXED = (
    "photos decoded whole and at a reduced size are now in one collection: their scores may "
    "differ by 0.005"
)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How photos are decoded: the most pixels, and whether JPEGs are decoded whole though the
    encoder asks for less.
    """

    max_pixels: int
    exact: bool = False

    def at_least(self, encoder: ImageEncoder) -> int | None:
        """Return the pixels that each side of a JPEG keeps, or None to decode it whole."""
        return None if self.exact else encoder.decode_at_least


def decode_limit(seconds: float | None) -> float | None:
    """Return the seconds that decoding one photo may take, None for no limit; raises
    CollectionError for any other value.
    """
    if seconds is None or (isinstance(seconds, int | float) and 0 < seconds < math.inf):
        return seconds
    raise CollectionError(
        "the time limit for decoding a photo must be a finite number of "
        f"seconds above 0, got {seconds!r}"
    )


def choose_decoding(
    store: PhotoStore, exact: bool | None = None, max_pixels: int = MAX_PIXELS
) -> Decoding:
    """Return how photos are decoded for a collection: as asked, or else as those in it; JPEGs of a
    new one at a reduced size.

    Versions that recorded nothing decoded whole.
    """
    if exact is None:
        stored = store.get_meta(_FACT)
        exact = stored == "exact" or (stored is None and store.count() > 0)
    return Decoding(max_pixels, exact)


def record_decoding(store: PhotoStore, decoding: Decoding) -> str:
    """Record how the photos of this run are decoded; return a line to show a person where the
    collection begins to mix both ways.

    It is a fact of the database beside the vectors, not of the encoder's fingerprint: the vectors
    of one photo decoded both ways have a cosine of 0.995 or more, so they may be compared, and an
    older collection can still be opened.
    """
    now = "exact" if decoding.exact else "scaled"
    before = (
        now
        if store.get_meta(_FACT) is None and not store.count()
        else store.get_meta(_FACT) or "exact"
    )
    wanted = now if before == now else "mixed"
    if store.get_meta(_FACT) == wanted:
        return ""
    with store.writing():
        store.set_meta(_FACT, wanted)
    return _MIXED if wanted == "mixed" else ""
