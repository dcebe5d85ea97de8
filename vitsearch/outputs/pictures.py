"""Small pictures of photos, decoded ahead, for what is drawn of them; and pictures in a terminal:
by the graphics of Kitty, of iTerm2 and of sixel, else by half blocks.
"""

import base64
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from vitsearch.errors import PhotoError
from vitsearch.photos import prefetch_map, thumbnail
from vitsearch.photos.decode import open_photo
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.types import Photo


def small_pictures(
    paths: Sequence[str], *, root: Path, photos: Mapping[str, Photo], side: int
) -> Iterator[Image.Image | PhotoError]:
    """Yield a picture of each photo, its longest side at most ``side`` pixels, or why it cannot be
    read; paths are relative to ``root``, and ``photos`` has those that are indexed by path.
    """
    with PhotoDecoder() as decoder:

        def load(path: str) -> Image.Image | PhotoError:
            indexed = photos.get(path)
            time = indexed.time if indexed else None
            try:
                with open_photo(root, path, indexed) as file:
                    image = decoder.decode_file(file, at=time, name=path, at_least=side)
                return thumbnail(image, side)
            except PhotoError as error:
                return error

        yield from prefetch_map(load, paths, workers=4, buffer=8, on_stop=decoder.close)


# -- Pictures in a terminal ------------------------------------------------------------------------


KINDS = ("kitty", "iterm2", "sixel", "blocks")
ROWS, COLUMNS = 10, 36  # cells of the terminal that a picture takes at most
CELL = (10, 20)  # pixels of a cell, where the terminal does not say
SIDE = 480  # pixels of the longest side of a picture that is sent whole
_CHUNK = 4096  # bytes of base64 in one command of Kitty
_ANSWER_SECONDS = 0.3
_COLOURS = 255
_RUN = re.compile(rb"(.)\1{3,}", re.DOTALL)
_PROGRAMS = {
    "kitty": "kitty",
    "ghostty": "kitty",
    "iTerm.app": "iterm2",
    "WezTerm": "iterm2",
    "vscode": "iterm2",
    "mintty": "iterm2",
    "rio": "iterm2",
}
_TERMINALS = {"xterm-kitty": "kitty", "xterm-ghostty": "kitty", "foot": "sixel", "mlterm": "sixel"}


def kind_of_terminal(
    environment: Mapping[str, str], attributes: Callable[[], str] = lambda: ""
) -> str:
    """Return one of `KINDS` for the terminal of an environment; ``attributes`` asks the terminal
    itself where that says nothing (see `device_attributes`).
    """
    if environment.get("TMUX") or environment.get("STY"):
        return "blocks"  # they pass no pictures on, unless told so
    known = _PROGRAMS.get(environment.get("TERM_PROGRAM", ""))
    known = known or _TERMINALS.get(environment.get("TERM", ""))
    if known or environment.get("KITTY_WINDOW_ID"):
        return known or "kitty"
    return "sixel" if "4" in attributes().strip("\x1b[?c").split(";")[1:] else "blocks"


def device_attributes() -> str:
    """Return what the terminal answers to the query of its attributes (DA1), "" where it does not
    within 0.3 s; among them 4 stands for sixel.
    """
    try:
        import select
        import termios
        import tty
    except ImportError:  # Windows
        return ""
    answer = b""
    with suppress(OSError, termios.error):  # which is no OSError: the terminal is gone
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return ""
        keyboard = sys.stdin.fileno()
        former = termios.tcgetattr(keyboard)
        try:
            tty.setcbreak(keyboard)
            os.write(sys.stdout.fileno(), b"\x1b[c")
            while not answer.endswith(b"c"):
                if not select.select([keyboard], [], [], _ANSWER_SECONDS)[0]:
                    return ""
                answer += os.read(keyboard, 64)
        finally:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, former)
    return answer.decode("ascii", "replace")


def cells_of(width: int, height: int, cell: tuple[int, int] = CELL) -> tuple[int, int]:
    """Return how many columns and rows a picture takes."""
    aspect = width * cell[1] / (max(height, 1) * cell[0])  # columns for a row
    rows = min(ROWS, COLUMNS / aspect)
    return max(1, min(COLUMNS, round(rows * aspect))), max(1, round(rows))


def drawn(picture: Image.Image, kind: str, *, true_colour: bool = True) -> bytes:
    """Return what draws a picture in a terminal where the cursor is, without a line's end; half
    blocks take 256 colours without ``true_colour``.
    """
    columns, rows = cells_of(*picture.size)
    if kind == "kitty":
        return _kitty(_png(picture), columns, rows)
    if kind == "iterm2":
        content = _png(picture)
        size = f"size={len(content)};width={columns};height={rows}"
        head = f"\x1b]1337;File=inline=1;{size};preserveAspectRatio=1:".encode()
        return head + base64.b64encode(content) + b"\x07"
    if kind == "sixel":
        return _sixel(picture.resize((columns * CELL[0], rows * CELL[1])))
    return _blocks(picture.resize((columns, 2 * rows)), true_colour)


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _kitty(content: bytes, columns: int, rows: int) -> bytes:
    text = base64.b64encode(content)
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    first = f"a=T,f=100,q=2,c={columns},r={rows},"
    commands = [
        b"\x1b_G%sm=%d;%s\x1b\\" % (first.encode() if not number else b"", more, chunk)
        for number, chunk in enumerate(chunks)
        for more in [int(number + 1 < len(chunks))]
    ]
    return b"".join(commands)


def _sixel(picture: Image.Image) -> bytes:
    """Return a picture as sixel: bands of six rows, each colour of a band by itself."""
    reduced = picture.convert("RGB").quantize(_COLOURS)
    pixels, (width, height) = np.asarray(reduced), picture.size
    levels = np.array(reduced.getpalette()).reshape(-1, 3) * 100 // 255
    out = [b'\x1bPq"1;1;%d;%d' % (width, height)]
    out += [b"#%d;2;%d;%d;%d" % (number, *level) for number, level in enumerate(levels.tolist())]
    for top in range(0, height, 6):
        band = pixels[top : top + 6]
        bits = 1 << np.arange(len(band))[:, None]
        lines = [
            b"#%d%s"
            % (
                colour,
                _RUN.sub(_counted, (63 + ((band == colour) * bits).sum(0)).astype("u1").tobytes()),
            )
            for colour in np.unique(band).tolist()
        ]
        out.append(b"$".join(lines) + b"-")
    return b"".join(out) + b"\x1b\\"


def _counted(run: re.Match[bytes]) -> bytes:
    return b"!%d%s" % (len(run[0]), run[1])


def _blocks(picture: Image.Image, true_colour: bool) -> bytes:
    """Return a picture as upper half blocks, whose ground is the pixel below."""
    pixels = np.asarray(picture.convert("RGB"))
    lines = []
    for above, below in zip(pixels[::2], pixels[1::2], strict=True):
        cells = [
            f"\x1b[38;{_colour(top, true_colour)}m\x1b[48;{_colour(bottom, true_colour)}m▀"
            for top, bottom in zip(above.tolist(), below.tolist(), strict=True)
        ]
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines).encode()


def _colour(pixel: list[int], true_colour: bool) -> str:
    if true_colour:
        return "2;{};{};{}".format(*pixel)
    red, green, blue = (round(value / 255 * 5) for value in pixel)
    return f"5;{16 + 36 * red + 6 * green + blue}"
