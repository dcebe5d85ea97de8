"""Cut sets of photos from large photographs: python benchmarks/peers/photos.py SOURCES FOLDER
--count N.

SOURCES holds photographs anywhere below it; their paths are sorted, symbolic links and pictures
with transparency left out. Each photo is a seeded piece of one of them, of at least half the wanted
size, so nothing is enlarged more than twice; JPEG quality is 90. Photos that are there already are
kept, those beyond N removed.
"""

import argparse
import os
from functools import cache
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

SETS = {
    "jpeg-12mp": ((4000, 3000), ".jpg"),
    "jpeg-2mp": ((1632, 1224), ".jpg"),
    "jpeg-640": ((640, 480), ".jpg"),
    "png-640": ((640, 480), ".png"),
    "heic-2mp": ((1632, 1224), ".heic"),
}
QUALITY = 90
KINDS = {
    ".jpg": {"format": "JPEG", "quality": QUALITY},
    ".png": {"format": "PNG"},
    ".heic": {"format": "HEIF", "quality": QUALITY},
}


@cache
def opened(source: Path) -> Image.Image:
    """Return a whole photograph; all of the package together take 0.2 GB."""
    return Image.open(source).convert("RGB")


def large_enough(source: Path, size: tuple[int, int]) -> bool:
    """Tell whether a photograph covers half the size without being enlarged more than twice."""
    with Image.open(source) as image:
        return image.mode == "RGB" and all(
            2 * have >= want for have, want in zip(image.size, size, strict=True)
        )


def cut(source: Path, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return a piece of the photograph, between half the size and all that fits, at the size."""
    image = opened(source)
    largest = min(have / want for have, want in zip(image.size, size, strict=True))
    share = rng.uniform(0.5, max(0.5, largest))
    width, height = (share * want for want in size)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    return image.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))


def make_set(
    sources: list[Path], folder: Path, count: int, *, size: tuple[int, int], suffix: str
) -> None:
    """Fill a folder with ``count`` photos of one size and kind."""
    large = [source for source in sources if large_enough(source, size)]
    if not large:
        raise SystemExit(f"no photograph is at least half of {size[0]}x{size[1]}")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:06}{suffix}" for number in range(count)]
    for stray in set(folder.iterdir()) - set(files):
        stray.unlink()
    for number, file in enumerate(files):
        if not file.exists():
            rng = np.random.default_rng([*size, number])
            aside = file.with_suffix(".part")
            kind = KINDS[suffix]
            cut(large[rng.integers(len(large))], size, rng).save(aside, **kind)
            os.replace(aside, file)


def main() -> None:
    """Cut the requested sets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    chosen = parser.parse_args()
    pillow_heif.register_heif_opener()
    files = sorted(
        file
        for file in chosen.sources.rglob("*")
        if file.suffix.lower() in {".jpg", ".jpeg", ".png"}
    )
    sources = [file for file in files if not file.is_symlink()]
    for name in chosen.sets:
        size, suffix = SETS[name]
        make_set(sources, chosen.folder / name, chosen.count, size=size, suffix=suffix)


if __name__ == "__main__":
    main()
