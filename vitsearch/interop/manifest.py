"""``vitsearch.json``: what an exported folder says of the encoder of its vectors."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitsearch.arrays import Vectors
from vitsearch.collection import Collection
from vitsearch.errors import CollectionError
from vitsearch.records import read_record, to_json
from vitsearch.shards.manifest import check_rows

PASSPORT = "vitsearch.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class ExportManifest:
    """Which encoder made the vectors of a folder.

    ``golden`` holds its vectors of the golden picture and, where it reads text, of the golden
    sentence.
    """

    layout: str
    photos: int
    encoder: str
    encoder_fingerprint: str
    dtype: str
    dim: int
    golden: list[list[float]]
    format: int = FORMAT

    def __post_init__(self) -> None:
        if min(self.dim, self.format) < 1 or self.photos < 0:
            raise ValueError("a number below 1")
        check_rows(self.golden, self.dim)

    def golden_vectors(self) -> Vectors:
        """Return the golden vectors as ``(1 or 2, dim)`` float32 rows."""
        return np.array(self.golden, dtype=np.float32).reshape(-1, self.dim)


def passport_of(collection: Collection, layout: str, photos: int) -> ExportManifest:
    """Return what a folder of ``photos`` vectors of this collection says of its encoder."""
    settings, stored = collection.settings, collection.store.get_meta("golden")
    golden = (
        np.frombuffer(stored, dtype="<f4").reshape(-1, settings.dim)
        if isinstance(stored, bytes)
        else np.empty((0, settings.dim))
    )
    return ExportManifest(
        layout,
        photos,
        settings.encoder,
        settings.encoder_fingerprint,
        settings.dtype,
        settings.dim,
        golden.tolist(),
    )


def write_passport(folder: Path, manifest: ExportManifest) -> None:
    """Write ``vitsearch.json`` into a folder that is not in its place yet."""
    (folder / PASSPORT).write_text(to_json(manifest), encoding="ascii")


def read_passport(folder: Path) -> ExportManifest | None:
    """Return what a folder says of its encoder, None where it says nothing; raises CollectionError
    for a damaged or newer file.
    """
    try:
        return read_record(
            ExportManifest,
            folder / PASSPORT,
            error=CollectionError,
            repair="export again, or delete it and name the encoder",
        )
    except FileNotFoundError:
        return None
