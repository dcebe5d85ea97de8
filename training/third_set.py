"""Measure `mini`, and the untrained model that it must beat, on pictures and words that the recipe
never trains on.

    python -m training.third_set [--emoji DIR] [--stamps /usr/share/tuxpaint/stamps] [--data DIR]

DIR is the unpacked npm package emoji-datasource-google (16.0.0): its emoji of food and drink,
animals and nature, and objects, by their names, 554 pictures. The stamps are those of Debian's
package tuxpaint-stamps-default: cut-out photos and drawings by the first line of their texts,
letters and signs left out. Each stands on white in a plain square. The untrained model (A)
multiplies EfficientNet-Lite2's class probabilities, at temperatures 1, 2 and 3, with MiniLM's
vectors of the class names, mean removed. With --data, the folder of the data's tar files, it also
says how many of the published stem's own answers on imagenette-dev `mini`'s supervised head keeps.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.drawings import render
from training.prepare import load_stem, read_photos, to_pixels
from training.texts import embed_texts, extract_minilm, load_minilm, load_tokenizer
from vitsearch.arrays import unit_rows
from vitsearch.encoders.mini import load_mini
from vitsearch.encoders.mini.network import MiniConfig
from vitsearch.labels.metrics import first_right_ranks, recall_at_k

CATEGORIES = ("Food & Drink", "Animals & Nature", "Objects")
RANKS = (1, 5, 10)
TEMPERATURES = (1.0, 2.0, 3.0)

Rows = NDArray[np.float32]
Pictures = list[tuple[str, Path]]


def read_emoji(folder: Path) -> Pictures:
    """Return the names and files of the emoji."""
    listed = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
    chosen = [
        entry for entry in listed if entry["category"] in CATEGORIES and entry["has_img_google"]
    ]
    return [
        (entry["name"].lower(), folder / "img" / "google" / "64" / entry["image"])
        for entry in chosen
    ]


def read_stamps(folder: Path) -> Pictures:
    """Return the descriptions and files of the stamps."""
    pictures = []
    for path in sorted(folder.rglob("*.png")):
        text = path.with_suffix(".txt")
        lines = (
            text.read_text(encoding="utf-8", errors="replace").splitlines()
            if text.is_file()
            else []
        )
        if lines and lines[0].strip() and "symbols" not in path.relative_to(folder).parts:
            pictures.append((lines[0].strip().rstrip(".!").lower(), path))
    return pictures


def recall(
    pictures: Pictures, images: Rows, encode: Callable[[Sequence[str]], Rows]
) -> dict[int, float]:
    """Return recall at each of ``RANKS`` of the distinct phrases; a phrase of several pictures is
    found with any of them.
    """
    names = [name for name, _ in pictures]
    phrases = list(dict.fromkeys(names))
    right = np.array(phrases)[:, None] == np.array(names)[None, :]
    ranks = first_right_ranks(encode(phrases) @ images.T, right)
    return {k: recall_at_k(ranks, k) for k in RANKS}


class Untrained:
    """Model A: class probabilities times the vectors of the class names."""

    def __init__(self, work: Path, classes: Sequence[str]) -> None:
        config, folder = MiniConfig(), extract_minilm(work)
        self.tower, self.tokenizer = (
            load_minilm(folder, config),
            load_tokenizer(folder, config.context),
        )
        self.stem = load_stem()
        vectors = embed_texts(self.tower, self.tokenizer, list(classes)).numpy()
        self.mean = vectors.mean(axis=0)
        self.classes = vectors - self.mean

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """Return unit rows ``(n, 384)``."""
        return unit_rows(embed_texts(self.tower, self.tokenizer, list(texts)).numpy() - self.mean)

    @torch.no_grad()
    def logits(self, images: Sequence[Image.Image]) -> Rows:
        """Return the published stem's class logits ``(n, 1000)``."""
        batches = (images[start : start + 32] for start in range(0, len(images), 32))
        return np.concatenate(
            [
                self.stem(torch.from_numpy(np.stack([to_pixels(image) for image in batch])))[
                    2
                ].numpy()
                for batch in batches
            ]
        )

    def encode_images(self, logits: Rows, temperature: float) -> Rows:
        """Return unit rows ``(n, 384)``."""
        return unit_rows(
            torch.from_numpy(logits / temperature).softmax(dim=1).numpy() @ self.classes
        )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m training.third_set",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument("--emoji", type=Path, help="the unpacked package emoji-datasource-google")
    parser.add_argument("--stamps", type=Path, help="the stamps of tuxpaint-stamps-default")
    parser.add_argument("--data", type=Path, help="folder with imagenette-dev.tar")
    arguments = parser.parse_args()
    mini = load_mini()
    with tempfile.TemporaryDirectory() as scratch:
        untrained = Untrained(Path(scratch), mini.class_names)
    sets = {
        "emoji": arguments.emoji and read_emoji(arguments.emoji),
        "stamps": arguments.stamps and read_stamps(arguments.stamps),
    }
    for name, pictures in sets.items():
        if not pictures:
            continue
        print(
            f"{name}: {len(pictures)} pictures, {len({phrase for phrase, _ in pictures})} phrases"
        )
        images = [render(path) for _, path in pictures]
        show("mini", recall(pictures, mini.encode_images(images), mini.encode_texts))
        logits = untrained.logits(images)
        for temperature in TEMPERATURES:
            rows = untrained.encode_images(logits, temperature)
            show(
                f"untrained, temperature {temperature:g}",
                recall(pictures, rows, untrained.encode_texts),
            )
    if arguments.data:
        photos = [image for _, image in read_photos(arguments.data / "imagenette-dev.tar")]
        share = float(
            np.mean(
                mini.class_logits(photos).argmax(axis=1) == untrained.logits(photos).argmax(axis=1)
            )
        )
        print(f"imagenette-dev: the supervised head keeps {share:.3f} of the stem's own answers")


def show(name: str, figures: dict[int, float]) -> None:
    """Print one row."""
    print(
        f"  {name}: " + "  ".join(f"R@{k} {value:.3f}" for k, value in figures.items()), flush=True
    )


if __name__ == "__main__":
    main()
