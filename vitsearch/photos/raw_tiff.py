"""Looks into the directories of TIFF files: which are RAW photos, and what JPEGs they hold.

Most RAW photos are TIFF files (TIFF 6.0).
"""

import struct
from collections.abc import Iterator

DNG_VERSION, SUB_IFDS, COMPRESSION, PHOTOMETRIC = 50706, 330, 259, 262
STRIP, STRIP_LENGTH, TILE, TILE_LENGTH, JPEG, JPEG_LENGTH = 273, 279, 324, 325, 513, 514
PANASONIC_JPEG = 0x2E
_NUMBERS = (COMPRESSION, PHOTOMETRIC, JPEG, JPEG_LENGTH)
_LISTS = {SUB_IFDS: 16, STRIP: 10_000, STRIP_LENGTH: 10_000, TILE: 10_000, TILE_LENGTH: 10_000}
_SENSOR = {32803, 34892}  # PhotometricInterpretation: a colour filter array, LinearRaw (DNG 1.7)
_OF_CAMERAS = {32767, 32770, 34713, 65000, 65535}  # compressions of Sony, Samsung, Nikon, Kodak,
MAX_DIRECTORIES, MAX_ENTRIES = 16, 1000  # Pentax; more are not looked at
_Tags = dict[int, tuple[int, ...]]


def holds_raw(data: bytes) -> bool:
    """Return whether a TIFF file holds the data of a sensor; a directory that lies beyond ``data``
    says nothing.
    """
    return any(
        DNG_VERSION in tags
        or _SENSOR.intersection(tags.get(PHOTOMETRIC, ()))
        or _OF_CAMERAS.intersection(tags.get(COMPRESSION, ()))
        for tags in _directories(data)
    )


def jpegs_in(data: bytes) -> list[bytes]:
    """Return the JPEGs in the directories of a RAW photo, in the order in which they are named."""
    spans = []
    for tags in _directories(data):
        if tags.get(COMPRESSION) in ((6,), (7,), None) and len(tags.get(STRIP, ())) == 1:
            spans.append((*tags[STRIP], *tags.get(STRIP_LENGTH, ())))
        spans.append((*tags.get(JPEG, ()), *tags.get(JPEG_LENGTH, ())))
        spans.append(tags.get(PANASONIC_JPEG, ()))
    parts = [data[span[0] : span[0] + span[1]] for span in spans if len(span) == 2]
    return [part for part in parts if part.startswith(b"\xff\xd8\xff")]


def end_of_strips(data: bytes) -> int:
    """Return where the last strip or tile of a TIFF file ends by its directories, 0 for none."""
    ends = [
        start + length
        for tags in _directories(data)
        for starts, lengths in ((STRIP, STRIP_LENGTH), (TILE, TILE_LENGTH))
        for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False)
    ]
    return max(ends, default=0)


def _directories(data: bytes) -> Iterator[_Tags]:
    """Yield the tags of the directories that matter here: each of the chain from the first one,
    followed by those below it.
    """
    order = "<" if data[:2] == b"II" else ">"
    todo, seen = [*_longs(data, order, 4, 1)], set[int]()
    while todo and len(seen) < MAX_DIRECTORIES:
        start = todo.pop()
        if start in seen:
            continue
        seen.add(start)
        tags, following = _directory(data, order, start)
        yield tags
        todo += [*following, *reversed(tags.get(SUB_IFDS, ()))]


def _directory(data: bytes, order: str, start: int) -> tuple[_Tags, tuple[int, ...]]:
    """Return the tags of a directory with their numbers, and where the next one of its chain is."""
    tags: _Tags = {}
    count = min(*_shorts(data, order, start, 1), MAX_ENTRIES) if start + 2 <= len(data) else 0
    end = start + 2 + 12 * count
    for at in range(start + 2, min(end, len(data) - 11), 12):
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, at)
        if tag in _LISTS:
            inside = length * (2 if kind == 3 else 4) <= 4
            where = at + 8 if inside else (*_longs(data, order, at + 8, 1), 0)[0]
            read = _shorts if kind == 3 else _longs
            tags[tag] = read(data, order, where, min(length, _LISTS[tag]))
        elif tag in _NUMBERS and length == 1:
            tags[tag] = (_longs if kind == 4 else _shorts)(data, order, at + 8, 1)
        elif tag == PANASONIC_JPEG:
            tags[tag] = (*_longs(data, order, at + 8, 1), length)
        elif tag == DNG_VERSION:
            tags[tag] = ()
    return tags, tuple(start for start in _longs(data, order, end, 1) if start)


def _longs(data: bytes, order: str, start: int, count: int) -> tuple[int, ...]:
    count = min(count, max(0, len(data) - start) // 4)
    return struct.unpack_from(f"{order}{count}I", data, start) if count else ()


def _shorts(data: bytes, order: str, start: int, count: int) -> tuple[int, ...]:
    count = min(count, max(0, len(data) - start) // 2)
    return struct.unpack_from(f"{order}{count}H", data, start) if count else ()
