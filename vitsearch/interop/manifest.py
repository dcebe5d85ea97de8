"""``vitsearch.json``: what an exported folder says of the encoder of its vectors."""

from dataclasses import dataclass
from pathlib import Path

from vitsearch.encoders.identity import (
    EncoderIdentity,
    golden_from_bytes,
    golden_from_lists,
)
from vitsearch.errors import CollectionError
from vitsearch.records import read_record, to_json
from vitsearch.storage.reader import StoredCollection

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
        golden_from_lists(self.golden, self.dim)  # raises for rows of another length

    @property
    def identity(self) -> EncoderIdentity:
        """Which encoder made the vectors."""
        return EncoderIdentity.from_record(self, golden_from_lists(self.golden, self.dim))


def passport_of(collection: StoredCollection, layout: str, photos: int) -> ExportManifest:
    """Return what a folder of ``photos`` vectors of this collection says of its encoder."""
    settings = collection.config
    golden = golden_from_bytes(collection.store.get_meta("golden"), settings.dim)
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
