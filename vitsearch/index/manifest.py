"""The manifest of an index folder: what it was built from, and the checksums of its files."""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from vitsearch.errors import IndexDamaged, RecipeError
from vitsearch.index.recipe import Recipe
from vitsearch.records import NewerFormat, atomic_write, from_dict

FORMAT = 1
MANIFEST = "manifest.json"
_EDGE = 65_536  # bytes at either end of a file, checked each time a folder is opened
_CHUNK = 1_048_576
# what a file that is not a manifest can raise while it is read
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    RecipeError,
)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The size of a file in bytes, its modification time, and two CRC-32 checksums.

    ``checksum`` is that of the whole file, ``edge_checksum`` of its first and last 64 KiB.
    """

    size: int
    mtime_ns: int
    checksum: int
    edge_checksum: int


@dataclass(frozen=True, slots=True)
class Measured:
    """The recall@k of a search after re-scoring, on ``queries`` sample queries over ``count`` rows.

    ``photos`` is the recall of queries by photos and ``texts`` that of queries by words, None where
    the encoder reads no text; text vectors lie elsewhere than photo vectors.
    """

    k: int
    photos: float
    texts: float | None
    queries: int
    count: int

    @property
    def recall(self) -> float:
        """The smaller of the two."""
        return self.photos if self.texts is None else min(self.photos, self.texts)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index folder was built from.

    It holds ``count`` rows of ``dim`` numbers by the encoder with this ``fingerprint``.
    ``generation`` is the collection's count of changes at the time; ``files`` maps file names to
    their facts. ``requested`` is the recipe that the user named, as a dictionary, where ``recipe``
    was chosen or tuned for it (in the file its key is ``asked``); ``measured`` is the recall, where
    it was measured. An index of changes holds the rows changed after generation ``since``; -1
    stands for an index of all rows.
    """

    recipe: Recipe
    generation: int
    count: int
    dim: int
    fingerprint: str
    files: Mapping[str, FileFacts]
    requested: Mapping[str, Any] = field(default_factory=dict)
    measured: Measured | None = None
    since: int = -1
    format: int = FORMAT


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of a folder in one step."""
    facts = {
        "format": manifest.format,
        "recipe": manifest.recipe.to_dict(),
        "generation": manifest.generation,
        "count": manifest.count,
        "dim": manifest.dim,
        "fingerprint": manifest.fingerprint,
        "files": {name: asdict(file) for name, file in manifest.files.items()},
    }
    if manifest.requested:
        facts["asked"] = dict(manifest.requested)
    if manifest.since >= 0:
        facts["since"] = manifest.since
    if manifest.measured:
        facts["measured"] = asdict(manifest.measured)
    text = json.dumps({**facts, "checksum": _checksum_of(facts)}, indent=2, ensure_ascii=True)
    atomic_write(folder / MANIFEST, text)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder.

    Raises IndexDamaged when it is missing, altered, or of another format.
    """
    file = folder / MANIFEST
    try:
        facts = json.loads(file.read_bytes())
        is_intact = facts.pop("checksum") == _checksum_of(facts)
        manifest = from_dict(Manifest, facts | {"requested": facts.get("asked", {})})
    except FileNotFoundError as error:
        raise damaged(file, "is missing") from error
    except NewerFormat as error:
        raise damaged(file, str(error)) from error
    except _UNREADABLE as error:
        raise damaged(file, "cannot be read") from error
    if not is_intact:
        raise damaged(file, "was altered")
    return manifest


def facts_of(file: Path) -> FileFacts:
    """Return the size, time and checksums of a file as it is now."""
    with open(file, "rb") as opened:
        status = os.fstat(opened.fileno())
        size, mtime_ns = status.st_size, status.st_mtime_ns
        return FileFacts(size, mtime_ns, _checksum(opened), _edges(opened, size))


def check_file(file: Path, facts: FileFacts, *, check_content: bool = False) -> None:
    """Raise IndexDamaged when a file is not what the manifest says.

    Its size and its two ends are always checked, every byte only with ``check_content`` or where
    its modification time has changed.
    """
    try:
        with open(file, "rb") as opened:
            status = os.fstat(opened.fileno())
            if status.st_size != facts.size:
                raise damaged(file, f"has {status.st_size} bytes, not {facts.size}")
            if _edges(opened, facts.size) != facts.edge_checksum:
                raise damaged(file, "was altered")
            check_all = check_content or status.st_mtime_ns != facts.mtime_ns
            if check_all and _checksum(opened) != facts.checksum:
                raise damaged(file, "was altered")
    except FileNotFoundError as error:
        raise damaged(file, "is missing") from error
    except OSError as error:
        raise damaged(file, f"cannot be read ({error.strerror})") from error


def damaged(file: Path, problem: str) -> IndexDamaged:
    """Return the error for a file of an index folder, on one line."""
    return IndexDamaged(
        f"index file {ascii(str(file))[1:-1]} {problem}; index the folder again to rebuild it "
        "from the stored vectors"
    )


def _checksum_of(facts: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(facts, sort_keys=True, ensure_ascii=True).encode())


def _checksum(file: BinaryIO) -> int:
    file.seek(0)
    checksum = 0
    while chunk := file.read(_CHUNK):
        checksum = zlib.crc32(chunk, checksum)
    return checksum


def _edges(file: BinaryIO, size: int) -> int:
    file.seek(0)
    checksum = zlib.crc32(file.read(_EDGE))
    file.seek(max(0, size - _EDGE))
    return zlib.crc32(file.read(_EDGE), checksum)
