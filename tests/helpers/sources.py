"""Sources of photos: reading one whole, and packing a tar."""

import io
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.photos import paint
from vitsearch.photos.sources import open_source


def read(name: str | Path, **options: Any) -> dict[str, bytes | str]:
    """What a source gives, by path: the bytes, or the reason in their place; the source goes to
    another process on the way.
    """
    source = pickle.loads(pickle.dumps(open_source(name, **options)))
    entries = list(source.entries())
    assert list(source.entries()) == entries
    again = open_source(source.name, **options)
    assert (again, list(again.entries())) == (source, entries)
    answers = list(source.read(entries))
    assert len(answers) == len(entries)
    assert [str(one) for one in source.read(entries[::-1])] == [str(one) for one in answers[::-1]]
    found = {
        entry.path: one if isinstance(one, bytes) else str(one)
        for entry, one in zip(entries, answers, strict=True)
    }
    assert len(found) == len(entries)
    return found


def picture(tmp_path: Path, colour: str) -> bytes:
    return paint(tmp_path / "aside" / f"{colour}.png", colour).read_bytes()


def pack(
    file: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]], kind: str = "w"
) -> Path:
    """Write a tar of members in their order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, kind) as archive:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(data), 1_600_000_000
            archive.addfile(header, io.BytesIO(data))
    return file
