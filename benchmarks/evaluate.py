"""Measure an encoder: Flickr8k dev retrieval both ways, imagenette-dev zero-shot and, for `mini`,
supervised accuracy.

    python benchmarks/evaluate.py --data DIR [--encoder mini]

DIR holds ``flickr8k-dev.tar`` (photos and ``captions.tsv``: name, tab, caption) and
``imagenette-dev.tar`` (one folder a class). Recall@k counts a query as found when at least one
right answer is among the first k.
"""

import argparse
import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.arrays import unit_rows
from vitsearch.encoders import Encoder, load_encoder
from vitsearch.encoders.mini import MiniEncoder
from vitsearch.labels.metrics import first_right_ranks, recall_at_k

RANKS = (1, 5, 10)
TEMPLATE = "a photo of a {}."
BATCH = 32


def read_photos(archive: Path, every: int = 1) -> Iterator[tuple[str, Image.Image]]:
    """Yield name and RGB picture of the photos of a tar file in order of name, or of each
    ``every``-th of them.
    """
    with tarfile.open(archive) as tar:
        photos = (
            member
            for member in sorted(tar.getmembers(), key=lambda m: m.name)
            if member.isfile() and member.name.lower().endswith((".jpg", ".jpeg"))
        )
        for number, member in enumerate(photos):
            if number % every == 0:
                file = tar.extractfile(member)
                assert file is not None
                yield member.name, Image.open(io.BytesIO(file.read())).convert("RGB")


def read_captions(archive: Path) -> list[tuple[str, str]]:
    """Return (photo name, caption) pairs."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile(next(m for m in tar.getmembers() if m.name.endswith("captions.tsv")))
        assert file is not None
        lines = file.read().decode().splitlines()
    return [(name, caption) for name, caption in (line.split("\t", 1) for line in lines)]


def encode_photos(
    encoder: Encoder, archive: Path, every: int = 1
) -> tuple[list[str], NDArray[np.float32]]:
    """Return the names and vectors of a tar file's photos, or of each ``every``-th of them."""
    names, prepared, rows = [], [], []
    for name, image in read_photos(archive, every):
        names.append(name)
        prepared.append(encoder.prepare(image))
        if len(prepared) == BATCH:
            rows.append(encoder.encode_prepared(prepared))
            prepared = []
    if prepared:
        rows.append(encoder.encode_prepared(prepared))
    return names, np.concatenate(rows)


def recall(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> dict[int, float]:
    """Return recall at each rank for scores and right answers, both ``(queries, items)``."""
    ranks = first_right_ranks(scores, right)
    return {k: recall_at_k(ranks, k) for k in RANKS}


def flickr8k(
    encoder: Encoder, data: Path, every: int = 1
) -> tuple[dict[int, float], dict[int, float]]:
    """Return recall of text to image and of image to text, among each ``every``-th photo."""
    archive = data / "flickr8k-dev.tar"
    names, photos = encode_photos(encoder, archive, every)
    known = set(names)
    pairs = [(name, caption) for name, caption in read_captions(archive) if name in known]
    texts = encoder.encode_texts([caption for _, caption in pairs])
    right = np.array([name for name, _ in pairs])[:, None] == np.array(names)[None, :]
    scores = texts @ photos.T
    return recall(scores, right), recall(scores.T, right.T)


def imagenette(encoder: Encoder, data: Path, every: int = 1) -> float:
    """Return zero-shot accuracy with one plain prompt a class, on each ``every``-th photo."""
    names, photos = encode_photos(encoder, data / "imagenette-dev.tar", every)
    truth = [Path(name).parent.name for name in names]
    classes = sorted(set(truth))
    weights = unit_rows(encoder.encode_texts([TEMPLATE.format(label) for label in classes]))
    guesses = (photos @ weights.T).argmax(axis=1)
    return float(
        np.mean([classes[guess] == label for guess, label in zip(guesses, truth, strict=True)])
    )


def supervised(encoder: MiniEncoder, data: Path, every: int = 1) -> float:
    """Return the accuracy of the 1,000-way head restricted to the ten classes, on each
    ``every``-th photo.
    """
    named = list(read_photos(data / "imagenette-dev.tar", every))
    logits = np.concatenate(
        [
            encoder.class_logits([image for _, image in named[i : i + BATCH]])
            for i in range(0, len(named), BATCH)
        ]
    )
    truth = [Path(name).parent.name for name, _ in named]
    classes = sorted(set(truth))
    chosen = [encoder.class_names.index(label) for label in classes]
    guesses = logits[:, chosen].argmax(axis=1)
    return float(
        np.mean([classes[guess] == label for guess, label in zip(guesses, truth, strict=True)])
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with flickr8k-dev.tar and imagenette-dev.tar",
    )
    parser.add_argument("--encoder", default="mini")
    arguments = parser.parse_args()
    encoder, began = load_encoder(arguments.encoder), time.perf_counter()
    for direction, figures in zip(
        ("text to image", "image to text"), flickr8k(encoder, arguments.data), strict=True
    ):
        print(
            f"Flickr8k dev {direction}: "
            + "  ".join(f"R@{k} {value:.3f}" for k, value in figures.items())
        )
    print(f"imagenette-dev zero-shot: {imagenette(encoder, arguments.data):.3f}")
    if isinstance(encoder, MiniEncoder):
        print(
            "imagenette-dev supervised, ten of the 1,000 classes: "
            f"{supervised(encoder, arguments.data):.3f}"
        )
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
