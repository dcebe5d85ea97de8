"""Files for people and other programs: contact sheets, sidecars, folders; here is what all drawn
pages share (colours, lines of text in any script, writing to disk), and confusion matrices as a
picture, true labels in rows, answers in columns.
"""

import contextlib
import io
import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
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


# -- Confusion matrices ----------------------------------------------------------------------------


Counts = NDArray[np.int64]

MAX_LABELS = 200
# nearly everyone can distinguish blue and orange
EMPTY, RIGHT, WRONG = (240, 238, 233), (17, 82, 147), (178, 64, 6)
_MARGIN, _GAP, _TITLE, _TEXT = 36, 56, 26, 15
_MAX_NAME_WIDTH = 170  # of a label, in pixels


def write_confusion(path: Path, labels: Sequence[str], matrices: Mapping[str, Counts]) -> None:
    """Write confusion matrices, by title, to a ``.png`` file.

    A matrix is ``(n, n)`` counts in the order of ``labels``, true labels in rows and answers in
    columns. A cell's colour is its share of its row, blue on the diagonal (right) and orange
    elsewhere (wrong). The file appears complete or not at all. Raises VitsearchError for another
    suffix, more than 200 labels, and when it cannot be written.
    """
    check_confusion(path, len(labels))
    for matrix in matrices.values():
        if matrix.shape != (len(labels), len(labels)):
            raise ValueError(f"expected ({len(labels)}, {len(labels)}) counts, got {matrix.shape}")
    write_page(path, picture_bytes(_page(labels, matrices), "PNG"), "confusion matrix")


def check_confusion(path: Path, labels: int) -> None:
    """Raise VitsearchError unless a matrix of so many labels can be written under this name."""
    if path.suffix.lower() != ".png":
        raise VitsearchError(f"a confusion matrix is a .png file, not {path.name!r}; name it so")
    if not path.parent.is_dir():
        raise VitsearchError(
            f"cannot write {str(path)!r}: there is no folder {path.parent}; name another place for "
            "the confusion matrix"
        )
    if labels > MAX_LABELS:
        raise VitsearchError(
            f"a confusion matrix is drawn of at most {MAX_LABELS} labels, "
            f"not {labels:,}; give fewer"
        )


@dataclass(frozen=True, slots=True)
class _Grid:
    """The measures of a matrix, in pixels: its cells, the room for names, and the font size."""

    cell: int
    left: int
    above: int
    text: int
    side: int

    @classmethod
    def of(cls, labels: Sequence[str], title: int) -> "_Grid":
        """Return the measures for these labels, at least as wide as a title."""
        cell = next(
            size
            for limit, size in ((4, 84), (8, 64), (14, 48), (24, 38), (60, 30), (MAX_LABELS, 18))
            if len(labels) <= limit
        )
        text = min(_TEXT, cell - 4)
        widest = min(
            _MAX_NAME_WIDTH,
            max(
                (round(choose_type(label, text)[1].getlength(label)) for label in labels), default=0
            ),
        )
        above = 24 if widest <= cell - 8 else widest + 14
        left = widest + 14
        if len(labels) <= 4:
            cell = max(cell, -(-(title - left) // max(1, len(labels))))
        return cls(cell, left, above, text, len(labels))

    @property
    def width(self) -> int:
        """The width of the matrix with the names beside it."""
        return self.left + self.cell * self.side + 1

    @property
    def height(self) -> int:
        """The height of the matrix with the names above it."""
        return self.above + self.cell * self.side + 1


def _page(labels: Sequence[str], matrices: Mapping[str, Counts]) -> Image.Image:
    titles = max(
        (
            round(choose_type(title_text, _TITLE)[1].getlength(title_text))
            for title_text in matrices
        ),
        default=0,
    )
    grid = _Grid.of(labels, titles)
    top = _MARGIN + _TITLE + 24
    width = 2 * _MARGIN + len(matrices) * (grid.width + _GAP) - _GAP
    page = Image.new("RGB", (max(width, 460), top + grid.height + 64 + _MARGIN // 2), PAGE)
    draw = ImageDraw.Draw(page)
    for number, (title, counts) in enumerate(matrices.items()):
        left = _MARGIN + number * (grid.width + _GAP)
        draw_line(
            draw, (left, _MARGIN + _TITLE - 4), title, size=_TITLE, width=grid.width, fill=INK
        )
        _draw_names(page, labels, grid, (left, top))
        _draw_cells(draw, counts, grid, (left + grid.left, top + grid.above))
    _draw_key(draw, (_MARGIN, top + grid.height + 40))
    return page


def _draw_names(
    page: Image.Image, labels: Sequence[str], grid: _Grid, origin: tuple[int, int]
) -> None:
    """Draw the labels beside the rows and above the columns, turned upright where too long."""
    draw, (left, top) = ImageDraw.Draw(page), origin
    for number, label in enumerate(labels):
        letters, font = choose_type(label, grid.text)
        short = fit(letters, font, _MAX_NAME_WIDTH)
        middle = number * grid.cell + grid.cell // 2
        x, y = left + grid.left, top + grid.above
        draw.text((x - 8, y + middle), short, fill=INK, font=font, anchor="rm")
        if grid.above <= 24:
            draw.text((x + middle, y - 8), short, fill=INK, font=font, anchor="ms")
            continue
        strip = Image.new("RGB", (grid.above - 8, grid.text + 8), PAGE)
        ImageDraw.Draw(strip).text((0, strip.height // 2), short, fill=INK, font=font, anchor="lm")
        page.paste(strip.rotate(90, expand=True), (x + middle - strip.height // 2, top))


def _draw_cells(
    draw: ImageDraw.ImageDraw, counts: Counts, grid: _Grid, origin: tuple[int, int]
) -> None:
    totals = counts.sum(axis=1)
    for (row, column), count in np.ndenumerate(counts):
        x, y = origin[0] + column * grid.cell, origin[1] + row * grid.cell
        ground = shade(count / totals[row] if count else 0.0, right=row == column)
        draw.rectangle((x, y, x + grid.cell - 2, y + grid.cell - 2), fill=ground)
        if not count and row != column:
            continue
        text = f"{count:,}" if totals[row] else ""
        size = 18
        if grid.cell < 48:
            size = min(size, grid.text, int(1.5 * (grid.cell - 4) / max(1, len(text))))
        letters, font = choose_type(text, size)
        middle = (x + (grid.cell - 1) // 2, y + (grid.cell - 1) // 2)
        draw.text(middle, letters, fill=ink_on(ground), font=font, anchor="mm")


def shade(share: float, *, right: bool) -> tuple[int, int, int]:
    """Return the colour of a cell that holds this share of its row, from 0 to 1."""
    full = RIGHT if right else WRONG
    depth = 0.1 + 0.9 * share if share else 0.0  # one photo of many still shows
    red, green, blue = (
        round(low + (high - low) * depth) for low, high in zip(EMPTY, full, strict=True)
    )
    return red, green, blue


def ink_on(ground: tuple[int, int, int]) -> str:
    """Return black or white, whichever has the higher contrast (relative luminance, WCAG 2)."""
    linear = [
        (value / 255 / 12.92) if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4
        for value in ground
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # the higher one always reaches a contrast of 4.5
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def _draw_key(draw: ImageDraw.ImageDraw, origin: tuple[int, int]) -> None:
    """Draw the legend: rows, columns and colours."""
    x, base = origin
    draw_line(draw, origin, "rows: truth, columns: answer", size=_TEXT, width=400, fill=QUIET)
    base += 24
    for word, right in (("right", True), ("wrong", False)):
        for step in range(1, 6):
            draw.rectangle((x, base - 12, x + 13, base + 1), fill=shade(step / 5, right=right))
            x += 14
        draw_line(draw, (x + 8, base), word, size=_TEXT, width=100, fill=QUIET)
        x += 72
    draw_line(draw, (x, base), "(colour: share of the row)", size=_TEXT, width=260, fill=QUIET)
