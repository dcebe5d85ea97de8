"""Contact sheets: photos with captions on a page, a picture (PNG, JPEG) or a single HTML file."""

import base64
import html
import io
import os
import urllib.parse
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from PIL import Image, ImageDraw

from vitsearch.errors import PhotoError, VitsearchError
from vitsearch.outputs import (
    INK,
    MAT,
    MISSING,
    PAGE,
    QUIET,
    RULE,
    choose_type,
    draw_line,
    picture_bytes,
    readable,
    wrapped,
    write_page,
)
from vitsearch.outputs.pictures import small_pictures
from vitsearch.photos import thumbnail
from vitsearch.types import Photo

MAX_TILES = 1000
SUFFIXES = (".png", ".jpg", ".jpeg", ".html", ".htm")

# the layout of the picture, in pixels
_SIDE, _GAP, _MARGIN, _PADDING = 232, 20, 36, 10
_TITLE, _CAPTION, _NAME, _LINE, _WHO = 26, 18, 15, 25, 80
RIGHT, WRONG = "#1a6fb5", "#b3470b"  # nearly everyone can distinguish blue and orange


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of a caption: who gives a photo which label, its score, and whether it is right.

    ``right`` is None where that is not known.
    """

    who: str
    label: str
    score: float | None = None
    right: bool | None = None


Caption = str | Sequence[Verdict]
Section = tuple[str, Sequence[tuple[str, Caption]]]


@dataclass(frozen=True, slots=True)
class _Tile:
    """One photo as drawn; ``picture`` is None, with a ``reason``, where it cannot be read."""

    path: str
    name: str
    caption: Caption
    picture: Image.Image | None
    reason: str = ""


def write_sheet(
    path: Path,
    sections: Sequence[Section],
    *,
    root: Path,
    title: str | None = None,
    photos: Mapping[str, Photo] | None = None,
) -> None:
    """Write a contact sheet to a ``.png``, ``.jpg`` or ``.html`` file.

    ``sections`` are (title, tiles) and a tile is (path of the photo, caption); paths are relative
    to ``root``, as in search results. The file's name stands beside the caption, which is one line,
    or a row for each `Verdict`. A photo that cannot be read becomes a grey tile with the reason;
    so does one that is not as it was indexed, where ``photos`` has it by path, and otherwise one
    whose link leads out of the root (see `vitsearch.photos.decode`).
    ``title`` is the heading of an HTML sheet; without it the window has the first section's title.
    The file appears complete or not at all. Raises VitsearchError for another suffix, for
    more than 1,000 photos, and when it cannot be written.
    """
    writers: dict[str, Callable[[list[tuple[str, list[_Tile]]]], bytes]] = {
        ".png": partial(_as_picture, format_name="PNG"),
        ".jpg": partial(_as_picture, format_name="JPEG"),
        ".jpeg": partial(_as_picture, format_name="JPEG"),
        ".html": partial(_as_html, folder=path.parent, root=root, title=title),
        ".htm": partial(_as_html, folder=path.parent, root=root, title=title),
    }
    check_suffix(path)
    count = sum(len(tiles) for _, tiles in sections)
    if count > MAX_TILES:
        raise VitsearchError(
            f"a contact sheet holds at most {MAX_TILES:,} photos, not "
            f"{count:,}; ask for fewer results"
        )
    write_page(path, writers[path.suffix.lower()](_load(sections, root, photos or {})), "sheet")


def check_suffix(path: Path) -> None:
    """Raise VitsearchError unless a sheet can have this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise VitsearchError(
            f"a contact sheet is a .png, .jpg or .html file, not {path.name!r}; name it so"
        )


def _load(
    sections: Sequence[Section], root: Path, photos: Mapping[str, Photo]
) -> list[tuple[str, list[_Tile]]]:
    names = short_names({path for _, tiles in sections for path, _ in tiles})
    paths = [path for _, tiles in sections for path, _ in tiles]
    # twice the size on the page, for screens of high density
    pictures = small_pictures(paths, root=root, photos=photos, side=2 * _SIDE)
    return [
        (title, [_tile(path, names[path], caption, next(pictures)) for path, caption in tiles])
        for title, tiles in sections
    ]


def _tile(path: str, name: str, caption: Caption, picture: Image.Image | PhotoError) -> _Tile:
    if isinstance(picture, PhotoError):
        return _Tile(path, name, caption, None, str(picture))
    return _Tile(path, name, caption, picture)


def short_names(paths: Collection[str]) -> dict[str, str]:
    """Return for each path its last part, with as many folders before it as tell it from the other
    paths that end in the same way.
    """
    names: dict[str, str] = {}
    left, depth = set(paths), 1
    while left:
        ends = {path: "/".join(path.split("/")[-depth:]) for path in left}
        count = Counter(ends.values())
        told_apart = {path: end for path, end in ends.items() if count[end] == 1 or end == path}
        names |= told_apart
        left -= told_apart.keys()
        depth += 1
    return {path: readable(name) for path, name in names.items()}


# -- As a picture ----------------------------------------------------------------------------------


def _as_picture(sections: list[tuple[str, list[_Tile]]], format_name: str) -> bytes:
    page = _draw_page(sections)
    try:
        return picture_bytes(page, format_name)
    except (OSError, ValueError) as error:
        raise VitsearchError(
            f"the contact sheet of {page.width} x {page.height} pixels cannot be saved as "
            f"{format_name}; try .html"
        ) from error


def _draw_page(sections: list[tuple[str, list[_Tile]]]) -> Image.Image:
    columns = _columns([len(tiles) for _, tiles in sections])
    row = _SIDE + (_rows(sections) + 1) * _LINE + _PADDING + _GAP
    heights = [_TITLE + 2 * _GAP + row * -(-len(tiles) // columns) for _, tiles in sections]
    width = 2 * _MARGIN + columns * (_SIDE + _GAP) - _GAP
    page = Image.new(
        "RGB", (width, sum(heights) + 2 * _MARGIN - _GAP if sections else 2 * _MARGIN), PAGE
    )
    top = _MARGIN
    for (title, tiles), height in zip(sections, heights, strict=True):
        _draw_title(page, title, top, first=top == _MARGIN)
        for number, tile in enumerate(tiles):
            left = _MARGIN + number % columns * (_SIDE + _GAP)
            _draw_tile(page, tile, left, top + _TITLE + 2 * _GAP - 4 + number // columns * row)
        top += height
    return page


def _columns(counts: Sequence[int]) -> int:
    """Return how many photos stand side by side: three to five, in large sheets eight to ten, so
    that the fewest places stay empty; where it is equal, the most.
    """
    largest = max(counts, default=1)
    if largest <= 3:
        return 3
    choices = range(5, 2, -1) if largest <= 50 else range(10, 7, -1)
    return min(choices, key=lambda columns: sum(-count % columns for count in counts))


def _rows(sections: list[tuple[str, list[_Tile]]]) -> int:
    """Return how many rows the longest caption has."""
    captions = [tile.caption for _, tiles in sections for tile in tiles]
    return max((1 if isinstance(each, str) else len(each) for each in captions), default=1)


def _draw_title(page: Image.Image, title: str, top: int, *, first: bool) -> None:
    draw, width = ImageDraw.Draw(page), page.width - 2 * _MARGIN
    if not first:
        y = top - _GAP // 2
        draw.line((_MARGIN, y, _MARGIN + width, y), fill=RULE, width=1)
    baseline = top + _GAP // 2 + _TITLE
    draw_line(draw, (_MARGIN, baseline), title, size=_TITLE, width=width, fill=INK)


def _draw_tile(page: Image.Image, tile: _Tile, left: int, top: int) -> None:
    draw = ImageDraw.Draw(page)
    mat = Image.new("RGB", (_SIDE, _SIDE), MISSING if tile.picture is None else MAT)
    if tile.picture is not None:
        small = thumbnail(tile.picture, _SIDE)
        mat.paste(small, ((_SIDE - small.width) // 2, (_SIDE - small.height) // 2))
    page.paste(mat, (left, top), _rounded_mask())
    if tile.picture is None:
        reason, font = choose_type(tile.reason, _NAME)
        for number, line in enumerate(wrapped(reason, font, _SIDE - 4 * _PADDING)[:6]):
            corner = (left + 2 * _PADDING, top + 4 * _PADDING + number * 22)
            draw.text(corner, line, fill=QUIET, font=font, anchor="ls")
    below, name = top + _SIDE + _LINE, tile.name
    if isinstance(tile.caption, str):
        draw_line(draw, (left + 2, below), tile.caption, size=_CAPTION, width=_SIDE, fill=INK)
        draw_line(draw, (left + 2, below + _LINE - 3), name, size=_NAME, width=_SIDE, fill=QUIET)
        return
    draw_line(draw, (left + 2, below), name, size=_NAME, width=_SIDE, fill=QUIET)
    for number, verdict in enumerate(tile.caption, start=1):
        _draw_verdict(draw, verdict, left + 2, below + number * _LINE)


def _draw_verdict(draw: ImageDraw.ImageDraw, verdict: Verdict, left: int, base: int) -> None:
    """Draw a row: who, what, the score, and a tick or a cross."""
    score = "" if verdict.score is None else f"{verdict.score:.2f}"
    draw_line(draw, (left, base), verdict.who, size=_NAME, width=_WHO - 6, fill=QUIET)
    reserved = 62 if score else 24 if verdict.right is not None else 2
    draw_line(
        draw,
        (left + _WHO, base),
        verdict.label,
        size=_NAME,
        width=_SIDE - _WHO - reserved,
        fill=INK,
    )
    draw_line(draw, (left + _SIDE - 54, base), score, size=_NAME, width=_SIDE, fill=QUIET)
    if verdict.right is not None:
        x, y = left + _SIDE - 17, base - 11
        tick, cross = [(x, y + 6), (x + 4, y + 10), (x + 12, y)], [(x + 1, y), (x + 11, y + 10)]
        draw.line(tick if verdict.right else cross, fill=RIGHT if verdict.right else WRONG, width=2)
        if not verdict.right:
            draw.line([(x + 1, y + 10), (x + 11, y)], fill=WRONG, width=2)


@lru_cache(maxsize=1)
def _rounded_mask() -> Image.Image:
    # drawn large and reduced, because Pillow's corners have steps
    mask = Image.new("L", (4 * _SIDE, 4 * _SIDE))
    ImageDraw.Draw(mask).rounded_rectangle(
        (0, 0, 4 * _SIDE - 1, 4 * _SIDE - 1), radius=32, fill=255
    )
    return mask.resize((_SIDE, _SIDE), Image.Resampling.BOX)


# -- As HTML ---------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --page: #faf9f7; --mat: #ecebe7; --ink: #1f2328;
  --quiet: #6b7078; --rule: #dddbd5;
  --right: #1a6fb5; --wrong: #b3470b; }
@media (prefers-color-scheme: dark) {
  :root { --page: #17181a; --mat: #232528; --ink: #eceae6; --quiet: #9a9fa6; --rule: #33363a;
    --right: #6cb4f0; --wrong: #f0965a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1500px; padding: 1.5rem;
  background: var(--page); color: var(--ink);
  font: 15px/1.4 system-ui, sans-serif; }
section + section { border-top: 1px solid var(--rule); margin-top: 2rem; }
h1 { font-size: 1.7rem; font-weight: 600; margin: .6rem 0 1.6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.4rem; font-weight: 600; margin: 1.2rem 0 .9rem; overflow-wrap: anywhere; }
.grid { display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 190px), 1fr)); }
figure { margin: 0; min-width: 0; }
.photo { display: flex; align-items: center; justify-content: center; aspect-ratio: 1;
  overflow: hidden; border-radius: 10px;
  background: var(--mat); color: var(--quiet); text-decoration: none; }
.photo:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
img { display: block; width: 100%; height: 100%; object-fit: contain; }
.reason { padding: 1rem; overflow-wrap: anywhere; }
figcaption { padding: .45rem .1rem 0; }
figcaption span { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.name { color: var(--quiet); font-size: .85rem; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
th, td { padding: .05rem .4rem .05rem 0; text-align: left; vertical-align: baseline;
  font-weight: 400; }
th { width: 1%; color: var(--quiet); white-space: nowrap; }
td { overflow-wrap: anywhere; }
.score, .sign { width: 1%; overflow-wrap: normal; white-space: nowrap; }
.score { color: var(--quiet); font-variant-numeric: tabular-nums; }
.sign { padding-right: 0; font-weight: 700; }
.right { color: var(--right); }
.wrong { color: var(--wrong); }
""".strip()


def _as_html(
    sections: list[tuple[str, list[_Tile]]], folder: Path, root: Path, title: str | None
) -> bytes:
    body = "\n".join(_html_section(name, tiles, folder, root) for name, tiles in sections)
    heading = html.escape(readable(title or (sections[0][0] if sections else "Photos")))
    if title:
        body = f"<h1>{heading}</h1>\n{body}"
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    return page.encode("utf-8")


def _html_section(title: str, tiles: list[_Tile], folder: Path, root: Path) -> str:
    figures = "\n".join(_html_tiles(tiles, folder, root))
    return (
        f"<section>\n<h2>{html.escape(readable(title))}</h2>\n<div "
        f'class="grid">\n{figures}\n</div>\n</section>'
    )


def _html_tiles(tiles: list[_Tile], folder: Path, root: Path) -> Iterator[str]:
    for tile in tiles:
        name, full_path = html.escape(tile.name), html.escape(readable(tile.path))
        named = f'<span class="name" title="{full_path}">{name}</span>'
        if tile.picture is None:
            inside = f'<span class="reason">{html.escape(readable(tile.reason))}</span>'
        else:
            inside = (
                f'<img src="{_data_url(tile.picture)}" '
                f'alt="{html.escape(_alternative(tile))}" loading="lazy">'
            )
        yield (
            '<figure><a class="photo" '
            f'href="{html.escape(_link(root / tile.path, folder))}">{inside}</a>'
            f"<figcaption>{_html_caption(tile.caption, named)}</figcaption></figure>"
        )


def _alternative(tile: _Tile) -> str:
    """Return the alternative text of a photo: its name and who gives it which label."""
    caption = () if isinstance(tile.caption, str) else tile.caption
    verdicts = ", ".join(f"{verdict.who} {verdict.label}" for verdict in caption)
    return readable(tile.name + (f": {verdicts}" if verdicts else ""))


def _html_caption(caption: Caption, named: str) -> str:
    if isinstance(caption, str):
        return f"<span>{html.escape(readable(caption))}</span>{named}"
    return f"{named}<table>{''.join(map(_html_verdict, caption))}</table>" if caption else named


def _html_verdict(verdict: Verdict) -> str:
    score = "" if verdict.score is None else f"{verdict.score:.2f}"
    sign = {
        None: "",
        True: '<b class="right" title="right">✓</b>',
        False: '<b class="wrong" title="wrong">✗</b>',
    }[verdict.right]
    who, label = html.escape(readable(verdict.who)), html.escape(readable(verdict.label))
    return (
        f'<tr><th scope="row">{who}</th><td>{label}</td><td class="score">{score}</td><td '
        f'class="sign">{sign}</td></tr>'
    )


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _link(photo: Path, folder: Path) -> str:
    """Return the photo's address relative to the sheet's folder, so that both can move together."""
    absolute = os.path.abspath(photo)
    try:
        relative = os.path.relpath(absolute, os.path.abspath(folder))
    except ValueError:  # another drive, on Windows
        return "file:///" + urllib.parse.quote(os.fsencode(absolute.replace(os.sep, "/")))
    return "./" + urllib.parse.quote(os.fsencode(relative.replace(os.sep, "/")))
