"""How a collection begins: its ``collection.json``, and what a new database says of its encoder."""

import os
from datetime import UTC, datetime
from pathlib import Path

from vitsearch.arrays import Vectors
from vitsearch.encoders.base import ImageEncoder
from vitsearch.index import remove_snapshot
from vitsearch.index.recipe import Recipe
from vitsearch.storage.config import (
    DELTA_INDEX,
    MAIN_INDEX,
    CollectionConfig,
    write_collection_config,
)
from vitsearch.storage.store import PhotoStore

# The least cosine of two views that a person takes for one picture: resized, saved again, a little
# cropped. That of mini is the lowest without a false pair in 499,500 pairs of photos, and finds 81
# % of the copies (benchmarks/lookalikes.py)
THRESHOLDS = {"mini": 0.94, "colour": 0.999}
THRESHOLD = 0.96  # of CLIP-like models, not measured
LOOKALIKE = "lookalike"  # the name of the stored fact that says the threshold of a collection


def lookalike_threshold(encoder: str) -> float:
    """Return the cosine from which an encoder of this name takes two photos for the same view."""
    return THRESHOLDS.get(encoder, THRESHOLD)


def create_collection(
    folder: Path, root: Path, encoder: ImageEncoder, recipe: Recipe
) -> CollectionConfig:
    """Write the first ``collection.json`` of a collection, and return what it says."""
    config = CollectionConfig(
        encoder=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        dtype=encoder.dtype,
        dim=encoder.dim,
        recipe=recipe.to_dict(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        root=root_text(root),
    )
    write_collection_config(folder, config)
    return config


def start_database(store: PhotoStore, folder: Path, encoder: str, golden: Vectors) -> None:
    """Give a new database the golden vectors of its encoder and the threshold of look-alikes, and
    remove an index beside it, which counts the changes of another; inside `PhotoStore.writing`.

    A database that has them stays as it is.
    """
    if store.get_meta("golden") is None:
        remove_snapshot(folder / MAIN_INDEX)
        remove_snapshot(folder / DELTA_INDEX)
        store.set_meta("golden", golden.astype("<f4").tobytes())
        store.set_meta(LOOKALIKE, str(lookalike_threshold(encoder)))


def root_text(root: Path) -> str:
    """Return the absolute path of the photos as text that JSON can hold."""
    path = os.path.abspath(root)
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
