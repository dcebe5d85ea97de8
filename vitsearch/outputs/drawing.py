"""What every drawn page shares: its colours, lines of type in any script, and the way to disk."""

import contextlib
import io
import unicodedata
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vitsearch.errors import VitsearchError
from vitsearch.records import atomic_write

PAGE, MAT, INK, QUIET, RULE, MISSING = (
    "#faf9f7",
    "#ecebe7",
    "#1f2328",
    "#6b7078",
    "#dddbd5",
    "#d5d4d0",
)
# Pillow's own font, the same everywhere, has English letters only; these are asked for others
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
)
_DASHES = str.maketrans("–—−", "---")
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def write_page(path: Path, content: bytes, what: str) -> None:
    """Write a file aside and rename it, so that it appears whole or not at all; raises
    VitsearchError, in which it is called ``what``.
    """
    try:
        atomic_write(path, content, sync=False)
    except OSError as error:
        raise VitsearchError(
            f"cannot write {str(path)!r}: {error.strerror or error}; name another place for the "
            f"{what}"
        ) from error


def picture_bytes(page: Image.Image, format_name: str) -> bytes:
    """Return a page as the content of a PNG or JPEG file; raises OSError or ValueError where it is
    too large for the format.
    """
    buffer = io.BytesIO()
    page.save(
        buffer,
        format_name,
        **({"optimize": True} if format_name == "PNG" else {"quality": 90, "subsampling": 0}),
    )
    return buffer.getvalue()


def readable(text: str) -> str:
    """Return text that any font and encoding can take: no line breaks, no lone surrogates."""
    valid = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return " ".join(
        "".join(char if char.isprintable() or char == "\u200d" else " " for char in valid).split()
    )


def draw_line(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    *,
    size: int,
    width: int,
    fill: str,
) -> None:
    """Draw one line of text, its left end on the baseline at ``place``, shortened in the middle to
    fit ``width`` pixels.
    """
    letters, font = choose_type(text, size)
    draw.text(place, fit(letters, font, width), fill=fill, font=font, anchor="ls")


def choose_type(text: str, size: int) -> tuple[str, Font]:
    """Return the text and the first font that has all its letters; else Pillow's own, with plain
    letters and "?" for the rest.
    """
    letters = readable(text)[:400].translate(_DASHES)
    own = _own_font(size)
    for font in (own, *_system_fonts(size)):
        if all(_is_drawable(char, font) for char in set(letters)):
            return letters, font
    plain = [
        char for char in unicodedata.normalize("NFKD", letters) if not unicodedata.combining(char)
    ]
    return "".join(char if _is_drawable(char, own) else "?" for char in plain), own


@lru_cache(maxsize=8)
def _own_font(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache(maxsize=8)
def _system_fonts(size: int) -> list[Font]:
    fonts: list[Font] = []
    for name in _SYSTEM_FONTS:
        with contextlib.suppress(OSError, ImportError):
            fonts.append(ImageFont.truetype(name, size))
    return fonts


def _is_drawable(char: str, font: Font) -> bool:
    # a font draws one and the same sign for every letter that it has not
    return char == " " or bytes(font.getmask(char)) != bytes(font.getmask("\uffff"))


def fit(letters: str, font: Font, width: int) -> str:
    """Return the letters, their middle replaced by … until they are no wider than ``width`` pixels:
    the start and the ending stay.
    """
    if font.getlength(letters) <= width:
        return letters
    for kept in range(len(letters) - 1, 0, -1):
        tail = kept // 3
        shorter = letters[: kept - tail].rstrip() + "..." + letters[len(letters) - tail :].lstrip()
        if font.getlength(shorter) <= width:
            return shorter
    return ""


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """Return the text in lines no wider than ``width`` pixels."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(fit(word, font, width))
    return lines
