"""What collections, imports and exports hold."""

from pathlib import Path
from typing import Any

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
