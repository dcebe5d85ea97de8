"""What collections, imports and exports hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vitsearch import Collection
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.interop import ImportReport


def opened(photos: Path, **options: Any) -> Collection:
    return Collection.open(photos, encoder=ColourEncoder(), **options)


def facts(photos: Path, **options: Any) -> list[tuple[Any, ...]]:
    """All that a collection says of its photos, with the raw vectors, in order of path."""
    with opened(photos, **options) as found:
        return [
            (
                one.path,
                one.size,
                one.mtime_ns,
                one.fingerprint,
                one.info,
                one.label,
                one.label_score,
                found.store.vector(one.photo_id).tobytes(),
            )
            for one in found.photos()
        ]


def report(**given: Any) -> ImportReport:
    kinds = (
        "imported",
        "unchanged",
        "missing",
        "outside",
        "changed",
        "unreadable",
        "damaged",
        "checked",
        "total",
    )
    return ImportReport(**dict.fromkeys(kinds, 0) | {"problems": ()} | given)


def vectors_of(photos: Path, paths: Sequence[str]) -> NDArray[np.float32]:
    """The encoder's vectors of some photos."""
    from PIL import Image

    return ColourEncoder().encode_images([Image.open(photos / path) for path in paths])


def write_layout(folder: Path, *shards: tuple[Sequence[str], NDArray[Any]], **columns: Any) -> Path:
    """Write vectors and paths as clip-retrieval's writer does: np.save, and a table with image_path
    and caption.
    """
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for number, (paths, vectors) in enumerate(shards):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors)
        table = pa.table(
            {
                "image_path": pa.array(list(paths), pa.string()),
                "caption": [f"a photo {place}" for place in range(len(paths))],
            }
        )
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    return folder
