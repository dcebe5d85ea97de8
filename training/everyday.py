"""Measure `mini` on what people ask: everyday queries in English and Spanish, photos in COCO's
style, changed copies.

    python -m training.everyday --data DIR [--model DIR]

Everyday queries (`everyday.tsv`: English, Spanish, a regular expression) are asked of Flickr8k dev
and of the COCO photos held out of training; a photo is right where two of its five captions match.
Recall of captions is measured on the COCO photos alone. The changed copies of those, one kind at a
time, look for their photo among the COCO photos and Flickr8k dev. Flickr8k dev's captions are also
asked in Spanish, as apertium-en-es translates them.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from training.prepare import held_out, read_captions, read_photos, sepia
from training.spanish import translate
from vitsearch.encoders.mini import FOLDER, MiniEncoder, read_config
from vitsearch.encoders.onnx import CPU
from vitsearch.labels.metrics import first_right_ranks, recall_at_k

RANKS = (1, 5, 10)
QUERIES = Path(__file__).with_name("everyday.tsv")
COLOURED = re.compile(r"\b(black|white|red|blue|green|yellow|orange|pink|brown)\b")

Rows = NDArray[np.float32]
Change = Callable[[Image.Image], Image.Image]


def cut(share: float) -> Change:
    """Return the change that keeps the middle, ``share`` of each side."""

    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        left, top = round(width * (1 - share) / 2), round(height * (1 - share) / 2)
        return image.crop((left, top, width - left, height - top))

    return change


def framed(image: Image.Image) -> Image.Image:
    """Return a photo as it stands in a screenshot of a telephone."""
    page = Image.new("RGB", (round(image.width * 1.1), round(image.height * 1.8)), (16, 16, 16))
    page.paste(image, (round(image.width * 0.05), round(image.height * 0.4)))
    return page


CHANGES: dict[str, Change] = {
    "mirrored": ImageOps.mirror,
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "dark": lambda image: ImageEnhance.Brightness(image).enhance(0.4),
    "sepia": sepia,
    "turned by 7 degrees": lambda image: image.rotate(7, Image.Resampling.BICUBIC),
    "cut to 70 %": cut(0.7),
    "cut to 50 %": cut(0.5),
    "framed": framed,
    "64 pixels": lambda image: image.resize((64, 64), Image.Resampling.BICUBIC),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
}


def read_queries() -> list[tuple[str, str, re.Pattern[str]]]:
    """Return English, Spanish, and what a caption of a right photo matches."""
    rows = (line.split("\t") for line in QUERIES.read_text(encoding="utf-8").splitlines())
    return [(english, spanish, re.compile(fits, re.IGNORECASE)) for english, spanish, fits in rows]


def average_precision(scores: Rows, right: NDArray[np.bool_]) -> float:
    """Return the mean, over the right photos, of the precision at each one's rank."""
    hits = right[np.argsort(-scores, kind="stable")]
    return float((hits.cumsum()[hits] / (np.flatnonzero(hits) + 1)).mean())


def ask(
    queries: Sequence[str], encoder: MiniEncoder, photos: Rows, right: NDArray[np.bool_]
) -> str:
    """Return mean average precision and how many of the first five are right."""
    scores = encoder.encode_texts(list(queries)) @ photos.T
    pairs = list(zip(scores, right, strict=True))
    precision = np.array([average_precision(row, fits) for row, fits in pairs])
    five = np.array([fits[np.argsort(-row, kind="stable")[:5]].mean() for row, fits in pairs])
    return f"mAP {precision.mean():.3f}, first five {five.mean():.3f}"


def recalls(queries: Rows, photos: Rows, right: NDArray[np.intp]) -> str:
    """Return recall at each of ``RANKS``."""
    ranks = first_right_ranks(queries @ photos.T, right[:, None] == np.arange(len(photos)))
    return "  ".join(f"R@{k} {recall_at_k(ranks, k):.3f}" for k in RANKS)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m training.everyday")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data's tar files")
    parser.add_argument("--model", type=Path, default=FOLDER, help="folder of the model's files")
    arguments = parser.parse_args()
    mini = MiniEncoder(arguments.model, read_config(arguments.model), list(CPU))
    archives = {name: arguments.data / f"{name}.tar" for name in ("captions-train", "flickr8k-dev")}
    aside = held_out(archives["captions-train"])
    coco = dict(read_photos(archives["captions-train"]))
    flickr = dict(read_photos(archives["flickr8k-dev"]))
    photos = {name: coco[name] for name in aside} | flickr
    captions = read_captions(archives["captions-train"]) | read_captions(archives["flickr8k-dev"])
    rows = mini.encode_images(list(photos.values()))
    queries = read_queries()
    right = np.array(
        [
            [sum(bool(fits.search(line)) for line in captions[name]) > 1 for name in photos]
            for _, _, fits in queries
        ]
    )
    asked = right.sum(axis=1) >= 3
    coloured = np.array([bool(COLOURED.search(english)) for english, _, _ in queries])
    for language, place in (("English", 0), ("Spanish", 1)):
        for kind, chosen in (("all", asked), ("with a colour", asked & coloured)):
            texts = [str(query[place]) for query, one in zip(queries, chosen, strict=True) if one]
            figures = ask(texts, mini, rows, right[chosen])
            print(f"{language}, {len(texts)} queries, {kind}: {figures}", flush=True)
    for name, chosen, own in (
        ("COCO held out", aside, rows[: len(aside)]),
        ("Flickr8k dev", list(flickr), rows[len(aside) :]),
    ):
        lines = [
            (line, place) for place, photo in enumerate(chosen) for line in captions[photo][:5]
        ]
        places = np.array([place for _, place in lines])
        for language, texts in (
            ("English", [line for line, _ in lines]),
            ("Spanish", translate([line for line, _ in lines])),
        ):
            figures = recalls(mini.encode_texts(texts), own, places)
            print(f"{name}, {language}, text to image: {figures}", flush=True)
    places = np.arange(len(aside))
    firsts = []
    for name, change in CHANGES.items():
        copies = mini.encode_images([change(photos[photo]) for photo in aside])
        ranks = first_right_ranks(copies @ rows.T, places[:, None] == np.arange(len(rows)))
        firsts.append(recall_at_k(ranks, 1))
        print(f"copies, {name}: R@1 {firsts[-1]:.3f}")
    print(f"copies, mean of {len(firsts)}: R@1 {np.mean(firsts):.3f}")


if __name__ == "__main__":
    main()
