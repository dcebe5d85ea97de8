"""Whether relevance falls on the right half of a collage of two photos.

    python benchmarks/explain.py --data DIR [--encoder mini] [--count 100] [--seed 0]

DIR holds ``imagenette-dev.tar`` (one folder a class). Two photos of different classes stand side by
side in a square, the text names one of the two classes, and it is right when the mean relevance of
that photo's half is the larger one. Attention rollout, which knows no text, is the baseline: it
should be right by chance, in about half of the collages.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from evaluate import TEMPLATE, read_photos
from numpy.typing import NDArray
from PIL import Image

from vitsearch import Encoder, load_encoder
from vitsearch.explain import explain

LAYOUTS = ("halves", "squeezed", "boxed")


@dataclass(frozen=True)
class Collage:
    """A square picture of two photos, the text that names one of them, and whether this one is on
    the left.
    """

    image: Image.Image
    text: str
    on_left: bool


def make_collages(
    archive: Path, count: int, seed: int, layout: str = "halves"
) -> Iterator[Collage]:
    """Yield collages of two photos of different classes; classes, photos and sides are drawn with
    the seed.
    """
    by_class: dict[str, list[Image.Image]] = {}
    for name, image in read_photos(archive):
        by_class.setdefault(Path(name).parent.name, []).append(image)
    draw = random.Random(seed)
    for _ in range(count):
        named, other = draw.sample(sorted(by_class), 2)
        first, second = draw.choice(by_class[named]), draw.choice(by_class[other])
        on_left = draw.random() < 0.5
        pair = (first, second) if on_left else (second, first)
        yield Collage(side_by_side(*pair, layout), TEMPLATE.format(named), on_left)


def side_by_side(left: Image.Image, right: Image.Image, layout: str) -> Image.Image:
    """Return a square of two square photos of one size: their middle halves, both squeezed to half
    their width, or whole on grey.
    """
    side = left.width
    if layout == "halves":
        square = Image.new("RGB", (side, side))
        for column, photo in enumerate((left, right)):
            square.paste(
                photo.crop((side // 4, 0, side // 4 + side // 2, side)), (column * (side // 2), 0)
            )
        return square
    square = Image.new("RGB", (2 * side, 2 * side), "grey")
    for column, photo in enumerate((left, right)):
        drawn = (
            photo.resize((side, 2 * side), Image.Resampling.BICUBIC)
            if layout == "squeezed"
            else photo
        )
        square.paste(drawn, (column * side, (2 * side - drawn.height) // 2))
    return square


def falls_on_left(relevance: NDArray[np.float32]) -> bool:
    """Tell whether the left half of ``(rows, columns)`` is the more relevant one; a middle column
    belongs to neither.
    """
    half = relevance.shape[1] // 2
    return bool(relevance[:, :half].mean() > relevance[:, -half:].mean())


def right_halves(encoder: Encoder, collages: list[Collage], *, with_text: bool = True) -> int:
    """Return in how many collages the relevance falls on the half that the text names."""
    return sum(
        falls_on_left(
            explain(encoder, collage.image, collage.text if with_text else None).relevance
        )
        == collage.on_left
        for collage in collages
    )


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with imagenette-dev.tar")
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layouts", nargs="*", default=LAYOUTS, choices=LAYOUTS)
    chosen = parser.parse_args()
    encoder = load_encoder(chosen.encoder)
    for layout in chosen.layouts:
        collages = list(
            make_collages(chosen.data / "imagenette-dev.tar", chosen.count, chosen.seed, layout)
        )
        with_text, without = (
            right_halves(encoder, collages),
            right_halves(encoder, collages, with_text=False),
        )
        print(
            (
                f"{layout}: relevance for the text {with_text} of {chosen.count}, "
                f"rollout without it {without}"
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
