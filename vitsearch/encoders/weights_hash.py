"""The hash of a model's weight files, computed once and kept by path, size and
modification time.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from vitsearch.paths import cache_dir
from vitsearch.records import atomic_write

_CACHE_NAME = "weights.json"


def weights_hash(files: Sequence[Path]) -> str:
    """Return 32 hex digits that change with the name or the content of any of the files, whatever
    their order.

    Raises OSError for a file that cannot be read.
    """
    known = _read_cache()
    digests = {str(file.resolve()): _digest(file, known) for file in files}
    fresh = {path: entry for path, entry in digests.items() if known.get(path) != entry}
    if fresh:
        _write_cache({**_read_cache(), **fresh})  # another process may have added to it meanwhile
    lines = sorted(f"{file.name}\0{digests[str(file.resolve())][2]}" for file in files)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


Entry = list[int | str]  # size, mtime_ns, digest


def _digest(file: Path, known: dict[str, Entry]) -> Entry:
    stat = file.stat()
    entry = known.get(str(file.resolve()))
    if entry is not None and entry[:2] == [stat.st_size, stat.st_mtime_ns]:
        return entry
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "blake2b").hexdigest()
    return [stat.st_size, stat.st_mtime_ns, digest]


def _read_cache() -> dict[str, Entry]:
    """Return the kept hashes; none where the file is missing or not ours, since each can be
    computed again.
    """
    try:
        cached = json.loads((cache_dir() / _CACHE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(cached, dict):
        return {}
    return {
        path: entry for path, entry in cached.items() if isinstance(entry, list) and len(entry) == 3
    }


def _write_cache(entries: dict[str, Entry]) -> None:
    """Write aside, then rename; a folder that cannot be written costs only the time of hashing
    again.
    """
    with contextlib.suppress(OSError):
        folder = cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / _CACHE_NAME, json.dumps(entries), sync=False)
