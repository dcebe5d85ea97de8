"""Drawings with words: the public-domain pictures of Open Clip Art, from Debian's packages
openclipart-png and openclipart-svg.

Flat drawings of single things are what captions of photos never show. The SVG form of a drawing
tells its title and keywords.
"""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

PICTURES, FACTS = Path("/usr/share/openclipart/png"), Path("/usr/share/openclipart/svg")
NOT_THINGS = {
    "buttons",
    "computer",
    "decorations",
    "geography",
    "logos",
    "shapes",
    "signs_and_symbols",
    "special",
}
SAY_NOTHING = {
    "image",
    "svg",
    "png",
    "media",
    "public domain",
    "unsorted",
    "icon",
    "remix",
    "color",
    "colour",
    "externalsource",
    "contour",
}
SAY_NOTHING |= {
    "clip art",
    "clipart",
    "clip_art",
    "cartoon",
    "drawing",
    "line art",
    "black and white",
}
MAX_PIXELS = 20_000_000
MAX_SIDE_LENGTH = 800


@dataclass(frozen=True, slots=True)
class Drawing:
    """One drawing: where it is, its title ("" where it has none), its keywords and the folder that
    it lies in.
    """

    path: Path
    title: str
    keywords: tuple[str, ...]
    category: str


def read_drawings() -> list[Drawing]:
    """Return the drawings of things, in order of path; raises FileNotFoundError where the packages
    are not installed.
    """
    if not PICTURES.is_dir() or not FACTS.is_dir():
        raise FileNotFoundError(
            f"{PICTURES} and {FACTS}: apt-get install openclipart-png openclipart-svg"
        )
    drawings = []
    for path in sorted(PICTURES.rglob("*.png")):
        relative = path.relative_to(PICTURES)
        facts = (FACTS / relative).with_suffix(".svg")
        if (
            relative.parts[0] not in NOT_THINGS
            and facts.is_file()
            and pixels_of(path) <= MAX_PIXELS
        ):
            title, keywords = read_facts(facts)
            drawings.append(Drawing(path, title, keywords, relative.parts[-2].replace("_", " ")))
    return drawings


def pixels_of(path: Path) -> int:
    """Return the number of pixels that the header of a PNG names."""
    header = path.read_bytes()[16:24]
    return int.from_bytes(header[:4], "big") * int.from_bytes(header[4:], "big")


def read_facts(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the title and the keywords in an SVG file's metadata, in lower case, without its
    author's name.
    """
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8", "replace")
    titled = re.search(r"<dc:title>([^<]*)</dc:title>", text)
    made = re.search(r"<dc:creator>.*?<dc:title>([^<]*)</dc:title>", text, re.DOTALL)
    title, author = (match.group(1).strip().lower() if match else "" for match in (titled, made))
    keywords = (word.strip().lower() for word in re.findall(r"<rdf:li>([^<]*)</rdf:li>", text))
    words = tuple(
        word
        for word in keywords
        if word.isascii() and 2 < len(word) < 25 and word not in {*SAY_NOTHING, author}
    )
    return ("" if title == author else re.sub(r"[\d_\-.]+", " ", title).strip()), words


def render(
    path: Path, background: tuple[int, int, int] = (255, 255, 255), margin: float = 1.08
) -> Image.Image:
    """Return a drawing (or any cut-out picture) cropped to what is not transparent, in the middle
    of a plain square.
    """
    with Image.open(path) as opened:
        opened.thumbnail((MAX_SIDE_LENGTH, MAX_SIDE_LENGTH))
        picture = opened.convert("RGBA")
    picture = picture.crop(picture.getbbox() or (0, 0, *picture.size))
    side = int(max(picture.size) * margin)
    page = Image.new("RGBA", (side, side), (*background, 255))
    page.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return page.convert("RGB")
