"""``vitsearch.json``: which encoder made the vectors of an exported folder."""

from dataclasses import dataclass
from pathlib import Path

from vitsearch.encoders.base import (
    MAX_DIM,
    EncoderIdentity,
    golden_from_bytes,
    golden_from_lists,
)
from vitsearch.errors import CollectionError
from vitsearch.records import read_record, to_json
from vitsearch.shards.manifest import MANIFEST
from vitsearch.storage.reader import StoredCollection

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
        if self.dim > MAX_DIM:
            raise ValueError(f"vectors of more than {MAX_DIM:,} numbers")
        golden_from_lists(self.golden, self.dim)  # raises for rows of another length

    @property
    def identity(self) -> EncoderIdentity:
        """Which encoder made the vectors."""
        return EncoderIdentity.from_record(self, golden_from_lists(self.golden, self.dim))


def manifest_of(collection: StoredCollection, layout: str, photos: int) -> ExportManifest:
    """Return the manifest of an export of ``photos`` vectors of this collection."""
    config = collection.config
    golden = golden_from_bytes(collection.store.get_meta("golden"), config.dim)
    return ExportManifest(
        layout=layout,
        photos=photos,
        encoder=config.encoder,
        encoder_fingerprint=config.encoder_fingerprint,
        dtype=config.dtype,
        dim=config.dim,
        golden=golden.tolist(),
    )


def write_manifest(folder: Path, manifest: ExportManifest) -> None:
    """Write ``vitsearch.json`` into the folder of an export."""
    (folder / MANIFEST).write_text(to_json(manifest), encoding="ascii")


def read_manifest(folder: Path) -> ExportManifest | None:
    """Return the manifest of a folder, None where it has none; raises CollectionError for a damaged
    or newer one.
    """
    try:
        return read_record(
            ExportManifest,
            folder / MANIFEST,
            error=CollectionError,
            repair="export again, or delete it and name the encoder",
        )
    except FileNotFoundError:
        return None
