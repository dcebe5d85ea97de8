"""Measure labelling of stored vectors: seconds and peak memory for many vectors, labels and
templates.

python benchmarks/labels.py FOLDER [--vectors 100000] [--labels 1000] [--template imagenet]
[--encoder mini]

The collection in FOLDER is made of random unit vectors without photos (once; it is kept), the
labels of numbered words.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from machine import machine

from vitsearch import Collection, index_folder
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, PhotoInfo

SIZE = 1000


def fill(folder: Path, encoder: str, count: int) -> None:
    """Make a collection of one drawn photo, and add rows to its database."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), "red").save(folder / "red.png")
    index_folder(folder, encoder=encoder)
    with Collection.open(folder) as collection:
        dim, present = collection.dim, len(collection)
    rng, store = np.random.default_rng(0), PhotoStore(folder / ".vitsearch" / "photos.db")
    for start in range(present, count, SIZE):
        rows = rng.normal(size=(min(SIZE, count - start), dim))
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
        with store.writing():
            for i, row in enumerate(rows):
                number = start + i
                name = Found(f"{number // 1000:04}/{number:07}.jpg", 1, 1)
                store.put_photo(
                    name, number.to_bytes(16, "big"), PhotoInfo(640, 480), vector=row, generation=2
                )
            store.raise_generation(True)
    store.close()


def main() -> None:
    """Print how long the parts took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--template", default="imagenet")
    parser.add_argument("--encoder", default="mini")
    chosen = parser.parse_args()
    print(machine())
    if not (chosen.folder / ".vitsearch").exists():
        fill(chosen.folder, chosen.encoder, chosen.vectors)
    with Collection.open(chosen.folder) as collection:
        began = time.perf_counter()
        classifier = collection.zero_shot(
            [f"thing number {i}" for i in range(chosen.labels)], chosen.template
        )
        prompts = time.perf_counter()
        predictions = collection.label(classifier)
        ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        (
            f"{len(predictions):,} vectors, {chosen.labels:,} labels, templates {chosen.template}: "
            f"prompts {prompts - began:.1f} s,"
        ),
        end=" ",
    )
    print(f"labelling {ended - prompts:.1f} s, peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
