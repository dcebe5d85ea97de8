"""What a collection holds and finds, and an encoder that counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch import Collection, IndexReport
from vitsearch.encoders.colour import ColourEncoder


class CountingEncoder(ColourEncoder):
    """`colour`, counting the pictures that indexing embeds (the golden picture is not
    one of them).
    """

    def __init__(self) -> None:
        self.embedded = 0

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        self.embedded += len(batch)
        return super().encode_prepared(batch)

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return super().encode_prepared([self.prepare(image) for image in images])


def counts(report: IndexReport) -> dict[str, int]:
    """Return the counts of a report that are not zero, without the times."""
    names = ("indexed", "unchanged", "moved", "restored", "removed", "skipped", "failed")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def content(folder: Path, **options: Any) -> dict[str, bytes]:
    """Return the vector of every photo of a collection by path, as bytes."""
    with Collection.open(folder, encoder=ColourEncoder(), **options) as found:
        photos, vectors = found.vectors()
        return {photo.path: vector.tobytes() for photo, vector in zip(photos, vectors, strict=True)}


def found_paths(folder: Path, query: Any, top_k: int = 10, **options: Any) -> list[str]:
    """Return the paths of a search in a collection opened for it."""
    with Collection.open(folder, encoder=ColourEncoder(), **options) as found:
        return [hit.path for hit in found.search(query, top_k)]
