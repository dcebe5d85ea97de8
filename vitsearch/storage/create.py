"""Creates collections: the first ``collection.json``, and the first entries of the database."""

import os
from datetime import UTC, datetime
from pathlib import Path

from vitsearch.arrays import Vectors
from vitsearch.encoders.base import ImageEncoder
from vitsearch.index import finish_replacing, remove_snapshot
from vitsearch.index.recipe import Recipe
from vitsearch.records import remove_unfinished
from vitsearch.storage.config import (
    DELTA_INDEX,
    MAIN_INDEX,
    QUEUE,
    CollectionConfig,
    write_collection_config,
)
from vitsearch.storage.lock import HELD
from vitsearch.storage.reader import PhotoReader
from vitsearch.storage.store import PhotoStore

# The least cosine of two versions of a picture: resized, saved again, or slightly cropped. For mini
# it is the lowest without a false pair in 499,500 pairs of photos, and finds 81 % of the copies
# (benchmarks/lookalikes.py).
THRESHOLDS = {"mini": 0.94, "colour": 0.999}
THRESHOLD = 0.96  # of CLIP-like models, not measured
LOOKALIKE = "lookalike"  # name of the collection's stored threshold
DTYPE_REASON = "dtype"  # name of the stored line that says why the number format is what it is


def lookalike_threshold(encoder: str) -> float:
    """Return the cosine from which two photos show the same view, for an encoder of this name."""
    return THRESHOLDS.get(encoder, THRESHOLD)


def stored_lookalike_threshold(store: PhotoReader, encoder: str) -> float:
    """Return that cosine as a collection of this encoder has it stored, or else as for its name."""
    stored = store.get_meta(LOOKALIKE)
    return float(stored) if isinstance(stored, str) else lookalike_threshold(encoder)


def create_collection(
    folder: Path, root: Path, encoder: ImageEncoder, recipe: Recipe
) -> CollectionConfig:
    """Write the first ``collection.json`` of a collection, and return its contents."""
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
    """Store the encoder's golden vectors and the threshold of look-alikes in a new database.

    An index beside it belongs to an earlier database and is removed. A database that has golden
    vectors stays as it is. Call it inside `PhotoStore.writing`.
    """
    if store.get_meta("golden") is None:
        remove_snapshot(folder / MAIN_INDEX)
        remove_snapshot(folder / DELTA_INDEX)
        store.set_meta("golden", golden.astype("<f4").tobytes())
        store.set_meta(LOOKALIKE, str(lookalike_threshold(encoder)))


def remove_leftovers(folder: Path) -> None:
    """Put in order what a killed run left in a collection's folder, whose writer this process is.

    Files of others, such as the map that a server is just writing, stay.
    """
    for name in (MAIN_INDEX, DELTA_INDEX):
        finish_replacing(folder / name)
    for prefix in (".collection.json.", f".{HELD}.", QUEUE):
        remove_unfinished(folder, prefix=prefix)


def root_text(root: Path) -> str:
    """Return the absolute path of the photos as text that JSON can represent."""
    path = os.path.abspath(root)
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
