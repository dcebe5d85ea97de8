"""``vitsearch.json``: what an exported folder says of the encoder of its vectors."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from vitsearch.arrays import Vectors
from vitsearch.collection import Collection
from vitsearch.errors import CollectionError
from vitsearch.shards.manifest import is_row

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
    (folder / PASSPORT).write_text(
        json.dumps(asdict(manifest), ensure_ascii=True) + "\n", encoding="ascii"
    )


def read_passport(folder: Path) -> ExportManifest | None:
    """Return what a folder says of its encoder, None where it says nothing; raises CollectionError
    for a damaged or newer file.
    """
    file = folder / PASSPORT
    try:
        stored = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CollectionError(
            f"{file} cannot be read ({error.strerror}): check its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CollectionError(
            f"{file} is damaged ({error}): export again, or delete it and name the encoder"
        ) from error
    if problem := _problem(stored):
        raise CollectionError(
            f"{file} is damaged ({problem}): export again, or delete it and name the encoder"
        )
    return ExportManifest(**{field.name: stored[field.name] for field in fields(ExportManifest)})


def _problem(stored: Any) -> str | None:
    if not isinstance(stored, dict):
        return "not an object"
    types = {"photos": int, "dim": int, "format": int, "golden": list}
    for name in (field.name for field in fields(ExportManifest)):
        if not isinstance(stored.get(name), types.get(name, str)) or isinstance(stored[name], bool):
            return f"{name!r} is missing or of the wrong type"
    if stored["format"] != FORMAT or stored["dim"] < 1:
        return f"format {stored['format']} with {stored['dim']} dimensions, read is format {FORMAT}"
    return (
        None
        if all(is_row(row, stored["dim"]) for row in stored["golden"])
        else f"'golden' holds no rows of {stored['dim']} numbers"
    )
