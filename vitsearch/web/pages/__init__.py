"""The pages that a person sees: photos as they show them, with their addresses and the texts about
them.
"""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vitsearch.photos.columns import clock
from vitsearch.photos.formats import PLAYED, suffix_of
from vitsearch.types import Photo

# the longest side of a photo in a grid, in CSS pixels, before the grid fits it into its row
BOX = 320
LARGE = 1280  # and of a photo by itself


@dataclass(frozen=True, slots=True)
class Tile:
    """A photo in a grid: ``box`` is the width and height of its picture, ``size`` of the photo,
    ``detail`` a word about it in place of the score, ``moment`` the time of one in a video, and
    ``plays`` the address from which a browser plays it.
    """

    photo_id: int
    name: str
    path: str
    alt: str
    box: tuple[int, int]
    size: tuple[int, int]
    score: float | None = None
    detail: str = ""
    moment: str = ""
    plays: str = ""

    @property
    def shape(self) -> int:
        """Ten times its width over its height, within the limits of a grid: part of the name of a
        class in app.css.
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
    """Return the tile of a photo."""
    name, moment = photo.file.rpartition("/")[2], clock(photo.time)
    taken_at = photo.info["taken_at"]
    day = f", {spoken_date(str(taken_at))}" if shows_exif and taken_at else ""
    label = f", {photo.label}" if photo.label else ""
    return Tile(
        photo.photo_id,
        name,
        photo.file,
        f"{name}{f' at {moment}' if moment else ''}{label}{day}",
        fitted(photo.info.width, photo.info.height, side),
        (photo.info.width, photo.info.height),
        score,
        detail,
        moment,
        video(photo.photo_id, photo.time) if shows_exif and _plays(photo) else "",
    )


def _plays(photo: Photo) -> bool:
    return photo.time is not None and suffix_of(photo.file) in PLAYED


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the width and height, at least 1, of a picture whose longest side is ``side``."""
    longest = max(width, height, 1)
    return max(1, round(width * side / longest)), max(1, round(height * side / longest))


def thumbnail(photo_id: int, side: int) -> str:
    """Return the address of a small picture of a photo."""
    return f"/api/photos/{photo_id}/thumbnail?size={side}"


def image(photo_id: int) -> str:
    """Return the address of a whole photo."""
    return f"/api/photos/{photo_id}/image"


def video(photo_id: int, seconds: float | None) -> str:
    """Return the address of a moment of a whole video (W3C Media Fragments URI 1.0)."""
    return f"{image(photo_id)}#t={seconds:g}" if seconds is not None else image(photo_id)


def spoken_date(taken_at: str) -> str:
    """Return a date of ISO 8601 as people write it: 14 July 2019, 18:30."""
    try:
        when = datetime.fromisoformat(taken_at)
    except ValueError:
        return taken_at
    day = f"{when.day} {when:%B %Y}"
    return f"{day}, {when:%H:%M}" if "T" in taken_at else day


def size_text(count: int) -> str:
    """Return a number of bytes as people write it: 1.2 MB."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:,.0f} {unit}" if amount >= 10 or unit == "bytes" else f"{amount:.1f} {unit}"


def counted(count: int, singular: str, plural: str) -> str:
    """Return a number of things: 1 photo, 1,200 photos."""
    return f"{count:,} {singular if count == 1 else plural}"


def clean(value: Any) -> Any:
    """Return a value as a page may hold it: bytes of a name that are not UTF-8, controls and marks
    that change the direction of text become U+FFFD.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value  # the parts of markup have been cleaned already
    if value.isascii() and value.isprintable():
        return value
    return "".join("\ufffd" if _is_hidden(char) else char for char in value)


def _is_hidden(char: str) -> bool:
    if char in "\n\t\u200d\u200c":
        return False
    return unicodedata.category(char) in ("Cc", "Cs", "Cf")


def is_clean(text: str) -> bool:
    """Return whether a form sends a text back unchanged."""
    return bool(clean(text) == text and text == text.strip() and "\n" not in text)
