"""What all drawn pages share: colours, lines of text in any script, and writing to disk."""

import contextlib
import io
import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vitsearch.errors import VitsearchError
from vitsearch.records import atomic_write

PAGE, MAT, MISSING = "#faf9f7", "#ecebe7", "#d5d4d0"
INK, QUIET, RULE = "#1f2328", "#6b7078", "#dddbd5"
# Pillow's default font, the same everywhere, has English letters only; for others these are tried,
# and then whatever lies in the folders of fonts
_SYSTEM_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc"),
    *("Arial Unicode.ttf", "arial.ttf"),
)
_FONT_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
_MAX_FONTS = 500
log = logging.getLogger("vitsearch")
_DASHES = str.maketrans("–—−", "---")
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def write_page(path: Path, content: bytes, what: str) -> None:
    """Write a file aside and rename it, so that it appears complete or not at all.

    Raises VitsearchError, whose text calls the file ``what``.
    """
    try:
        atomic_write(path, content, sync=False)
    except OSError as error:
        raise VitsearchError(
            f"cannot write {str(path)!r}: {error.strerror or error}; name "
            f"another place for the {what}"
        ) from error


def picture_bytes(page: Image.Image, format_name: str) -> bytes:
    """Return a page as the content of a PNG or JPEG file.

    Raises OSError or ValueError where it is too large for the format.
    """
    buffer = io.BytesIO()
    options = {"optimize": True} if format_name == "PNG" else {"quality": 90, "subsampling": 0}
    page.save(buffer, format_name, **options)
    return buffer.getvalue()


def readable(text: str) -> str:
    """Return text that every font and encoding accepts: no line breaks, no lone surrogates."""
    valid = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    printable = (char if char.isprintable() or char == "\u200d" else " " for char in valid)
    return " ".join("".join(printable).split())


def draw_line(
    draw: ImageDraw.ImageDraw,
    position: tuple[int, int],
    text: str,
    *,
    size: int,
    width: int,
    fill: str,
) -> None:
    """Draw a line of text, its left end on the baseline at ``position``.

    It is shortened in the middle to fit ``width`` pixels.
    """
    letters, font = choose_type(text, size)
    draw.text(position, fit(letters, font, width), fill=fill, font=font, anchor="ls")


def choose_type(text: str, size: int) -> tuple[str, Font]:
    """Return the text and the first font that has all its letters.

    If there is none, it is Pillow's default font, with plain letters and "?" for the rest, and one
    remark says so.
    """
    letters = readable(text)[:400].translate(_DASHES)
    default = _default_font(size)
    for font in _fonts(size):
        if all(_is_drawable(char, font) for char in set(letters)):
            return letters, font
    _remark_once()
    decomposed = unicodedata.normalize("NFKD", letters)
    plain = [char for char in decomposed if not unicodedata.combining(char)]
    return "".join(char if _is_drawable(char, default) else "?" for char in plain), default


@lru_cache(maxsize=8)
def _default_font(size: int) -> Font:
    return ImageFont.load_default(size)


def _fonts(size: int) -> Iterator[Font]:
    """Yield Pillow's font, then those of the machine; each is opened once, where it is needed."""
    yield _default_font(size)
    yield from _system_fonts(size)
    yield from _further_fonts(size)


@lru_cache(maxsize=8)
def _system_fonts(size: int) -> list[Font]:
    return _opened(_SYSTEM_FONTS, size)


@lru_cache(maxsize=8)
def _further_fonts(size: int) -> list[Font]:
    return _opened(_font_files(), size)


def _opened(files: Iterable[str], size: int) -> list[Font]:
    fonts: list[Font] = []
    for file in files:
        with contextlib.suppress(OSError, ImportError):
            fonts.append(ImageFont.truetype(file, size))
    return fonts


@lru_cache(maxsize=1)
def _font_files() -> list[str]:
    """Return the files of fonts that this machine has, in order, regular ones first."""
    folders = (Path(folder).expanduser() for folder in _FONT_FOLDERS)
    files = (
        os.path.join(where, name)
        for folder in folders
        for where, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith((".ttf", ".ttc", ".otf"))
    )
    first = islice(files, _MAX_FONTS)
    return sorted(
        first, key=lambda file: ("bold" in file.lower() or "italic" in file.lower(), file)
    )


@lru_cache(maxsize=1)
def _remark_once() -> None:
    log.warning(
        "no font of this machine has all letters of the names: they are drawn as ?; a sheet named "
        ".html shows them, or install a font, such as Noto Sans CJK"
    )


def _is_drawable(char: str, font: Font) -> bool:
    # a font draws the same sign for every letter that it lacks
    return char == " " or bytes(font.getmask(char)) != bytes(font.getmask("\uffff"))


def fit(letters: str, font: Font, width: int) -> str:
    """Return the letters, shortened to ``width`` pixels: "..." replaces what does not fit.

    The start and the end stay.
    """
    if font.getlength(letters) <= width:
        return letters
    for length in range(len(letters) - 1, 0, -1):
        tail = length // 3
        shorter = (
            letters[: length - tail].rstrip() + "..." + letters[len(letters) - tail :].lstrip()
        )
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
