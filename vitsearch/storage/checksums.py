"""Checksums of the rows of ``photos.db``, by which rot is seen.

CRC-32 finds every single damaged bit, every burst of up to 32, and all but one in four thousand
million of other damages; it is not proof against forgery. In the standard library it is the fastest
that does so: 3 GB/s, 0.6 microseconds for a vector, where BLAKE2b takes 3.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

_HALVES = struct.Struct("<II")  # of the facts of a photo, and of its vector


def row_checksum(values: Sequence[Any], seed: int = 0) -> int:
    """Return the checksum of the values of a row, of any types that SQLite has.

    It is that of their representation in ASCII, which every version of Python writes alike.
    """
    return zlib.crc32(b"%a" % (tuple(values),), seed)


def vector_checksum(raw: Any, generation: Any) -> int:
    """Return the checksum of a raw vector stored under a generation, -1 for values of other types.

    The generation is the start of the CRC: a page that was left at an earlier vector is found too.
    """
    if not isinstance(raw, bytes) or not isinstance(generation, int):
        return -1
    return zlib.crc32(raw, generation & 0xFFFFFFFF)


class FactsChecksum:
    """Checksums of the facts of photos, the columns of the table but ``checksum``, by their names.

    Null values at the end do not count, so that a column may be added to the table.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        names = [columns[:count] for count in range(len(columns) + 1)]
        self._seeds = [row_checksum(part) for part in names]

    def of(self, facts: Sequence[Any]) -> int:
        """Return the checksum of the values of a photo, in the order of the columns."""
        count = len(facts)
        while count and facts[count - 1] is None:
            count -= 1
        return zlib.crc32(b"%a" % (tuple(facts[:count]),), self._seeds[count])


def joined(facts: int, vector: int) -> bytes:
    """Return the eight bytes that are stored for a photo."""
    return _HALVES.pack(facts, vector)


def parts_of(checksum: Any) -> tuple[int, int]:
    """Return the checksums of facts and vector that are stored for a photo; no checksum is equal
    to -2, which stands for what cannot be read.
    """
    if not isinstance(checksum, bytes) or len(checksum) != _HALVES.size:
        return -2, -2
    facts, vector = _HALVES.unpack(checksum)
    return facts, vector
