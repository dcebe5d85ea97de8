"""Photos, and what is said about them, as a page shows them."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vitsearch.types import Photo
from vitsearch.web.pages.url import PageQuery, address

# the longest side of a photo in a grid, in CSS pixels, before the grid fits it into its row
BOX = 320
LARGE = 1280  # and of a photo by itself


@dataclass(frozen=True, slots=True)
class Tile:
    """A photo as a page shows it: ``box`` are the width and height of its picture, ``detail`` a
    word about it instead of the score.
    """

    photo_id: int
    name: str
    path: str
    alt: str
    box: tuple[int, int]
    score: float | None = None
    detail: str = ""

    @property
    def shape(self) -> int:
        """Ten times its width over its height, as far as a grid goes along with it: the name of a
        class of app.css.
        """
        return min(40, max(4, round(10 * self.box[0] / self.box[1])))


def tile(
    photo: Photo,
    score: float | None = None,
    *,
    detail: str = "",
    side: int = BOX,
    shows_exif: bool = False,
) -> Tile:
    """Return a photo as a page shows it."""
    name = photo.path.rpartition("/")[2]
    taken_at = photo.info["taken_at"]
    day = f", {spoken_date(str(taken_at))}" if shows_exif and taken_at else ""
    label = f", {photo.label}" if photo.label else ""
    return Tile(
        photo.photo_id,
        name,
        photo.path,
        f"{name}{label}{day}",
        fitted(photo.info.width, photo.info.height, side),
        score,
        detail,
    )


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the width and height of a picture whose longest side has this length; 1 at least."""
    longest = max(width, height, 1)
    return max(1, round(width * side / longest)), max(1, round(height * side / longest))


def thumbnail(photo_id: int, side: int) -> str:
    """Return the address of a small picture of a photo."""
    return f"/api/photos/{photo_id}/thumbnail?size={side}"


def image(photo_id: int) -> str:
    """Return the address of a whole photo."""
    return f"/api/photos/{photo_id}/image"


def photo_address(photo_id: int, asked: PageQuery | None = None) -> str:
    """Return the address of a photo's page, from which the search goes on."""
    return address(f"/photos/{photo_id}", asked.pairs(page=True) if asked else [])


def spoken_date(taken_at: str) -> str:
    """Return a date of ISO 8601 as it is said: 14 July 2019, 18:30."""
    try:
        when = datetime.fromisoformat(taken_at)
    except ValueError:
        return taken_at
    return f"{when.day} {when:%B %Y, %H:%M}"


def size_text(count: int) -> str:
    """Return a number of bytes as people say it."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:,.0f} {unit}" if amount >= 10 or unit == "bytes" else f"{amount:.1f} {unit}"


def counted(count: int, one: str, many: str) -> str:
    """Return a number of things: 1 photo, 1,200 photos."""
    return f"{count:,} {one if count == 1 else many}"


def clean(value: Any) -> Any:
    """Return a value as a page may hold it: bytes of a name that are no UTF-8, controls and marks
    that turn the direction become U+FFFD.
    """
    if (
        not isinstance(value, str)
        or hasattr(value, "__html__")
        or (value.isascii() and value.isprintable())
    ):
        return value  # what is markup already was cleaned in its parts
    return "".join(
        "\ufffd"
        if unicodedata.category(char) in ("Cc", "Cs", "Cf") and char not in "\n\t\u200d\u200c"
        else char
        for char in value
    )


def is_clean(text: str) -> bool:
    """Return whether a text comes back from a form as it was sent."""
    return bool(clean(text) == text and text == text.strip() and "\n" not in text)
