"""The manifest of an index folder: what it was built from, and the checksums of its files."""

import base64
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Ids
from vitsearch.errors import IndexDamaged
from vitsearch.index.recipe import Recipe
from vitsearch.records import NewerFormat, atomic_write, from_dict
from vitsearch.untrusted import parse_json, read_bounded

FORMAT = 1
MANIFEST = "manifest.json"
_EDGE = 65_536  # bytes at either end of a file, checked each time a folder is opened
BLOCK = 65_536  # bytes of a file with a checksum of their own: 20 microseconds to check
_CHUNK = 16 * BLOCK
MAX_BYTES = 1 << 30  # of a manifest: that of vectors of 1 TB has 85 MB


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The size of a file in bytes, its modification time, and its CRC-32 checksums.

    ``checksum`` is that of the whole file, ``edge_checksum`` of its first and last 64 KiB, and
    ``blocks`` holds those of each 64 KiB in order, as base64 of little-endian uint32; "" where the
    folder was built without them.
    """

    size: int
    mtime_ns: int
    checksum: int
    edge_checksum: int
    blocks: str = ""

    def block_checksums(self) -> NDArray[np.uint32]:
        """Return the checksum of each block, none where they are not as many as blocks."""
        packed = base64.b64decode(self.blocks)
        checksums = np.frombuffer(packed[: len(packed) // 4 * 4], dtype="<u4")
        return checksums if len(checksums) == -(-self.size // BLOCK) else checksums[:0]


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """What an index is built from: the identity of a collection's state, and the generation after
    which the rows were changed, -1 for all rows. ``removed`` are the ascending ids of the rows that
    were removed after it, None where that is not recorded. ``generations`` gives the low 32 bits of
    those of the rows with ascending ids, by which a row is held against the database.
    """

    state: str = ""
    since: int = -1
    removed: Ids | None = None
    generations: Callable[[Ids], NDArray[np.uint32]] | None = None


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
    it was measured. ``state`` is the identity of the state with this generation, "" in a folder
    from before states had one. An index of changes holds the rows changed after generation
    ``since``; -1 stands for an index of all rows.
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
    state: str = ""
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
    if manifest.state:
        facts["state"] = manifest.state
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
        facts = parse_json(read_bounded(file, MAX_BYTES), MAX_BYTES)
        is_intact = facts.pop("checksum") == _checksum_of(facts)
        manifest = from_dict(Manifest, facts | {"requested": facts.get("asked", {})})
    except FileNotFoundError as error:
        raise damaged(file, "is missing") from error
    except NewerFormat as error:
        raise damaged(file, str(error)) from error
    except Exception as error:  # whatever is in a file that is no manifest
        raise damaged(file, "cannot be read") from error
    if not is_intact:
        raise damaged(file, "was altered")
    return manifest


def facts_of(file: Path) -> FileFacts:
    """Return the size, time and checksums of a file as it is now."""
    with open(file, "rb") as opened:
        status = os.fstat(opened.fileno())
        size, mtime_ns = status.st_size, status.st_mtime_ns
        blocks = base64.b64encode(_block_checksums(opened).tobytes()).decode("ascii")
        return FileFacts(size, mtime_ns, _checksum(opened), _edges(opened, size), blocks)


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
    checksum = 0
    for chunk in _chunks(file):
        checksum = zlib.crc32(chunk, checksum)
    return checksum


def _block_checksums(file: BinaryIO) -> NDArray[np.uint32]:
    parts = (part for chunk in _chunks(file) for part in _parts(memoryview(chunk)))
    return np.array([zlib.crc32(part) for part in parts], dtype="<u4")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(_CHUNK):
        yield chunk


def _parts(data: memoryview) -> Iterable[memoryview]:
    return (data[start : start + BLOCK] for start in range(0, len(data), BLOCK))


class CheckedBlocks:
    """The blocks of a mapped file, each compared with its checksum before it is first used.

    ``data`` is the file as ``(size,)`` uint8. A file without checksums of blocks is not checked.
    """

    def __init__(self, file: Path, facts: FileFacts, data: NDArray[np.uint8]) -> None:
        self._file, self._data, self._checksums = file, data, facts.block_checksums()
        self._unchecked = np.ones(len(self._checksums), dtype=bool)

    def check(self, blocks: NDArray[np.int64] | None = None) -> None:
        """Check the blocks with these numbers, None for all; raises IndexDamaged."""
        if not len(self._unchecked):
            return
        unchecked = self._unchecked if blocks is None else self._unchecked[blocks]
        if not unchecked.any():
            return
        for block in np.flatnonzero(unchecked) if blocks is None else np.unique(blocks[unchecked]):
            part = self._data[block * BLOCK : (block + 1) * BLOCK]
            if zlib.crc32(part.data) != self._checksums[block]:
                raise damaged(self._file, f"was altered at byte {block * BLOCK:,} or after")
            self._unchecked[block] = False


def _edges(file: BinaryIO, size: int) -> int:
    file.seek(0)
    checksum = zlib.crc32(file.read(_EDGE))
    file.seek(max(0, size - _EDGE))
    return zlib.crc32(file.read(_EDGE), checksum)
