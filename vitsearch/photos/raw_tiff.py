"""Tells a camera's RAW photo, most of which are TIFF files, from a picture in TIFF."""

import struct

DNG_VERSION, SUB_IFDS, COMPRESSION, PHOTOMETRIC = 50706, 330, 259, 262
_SENSOR = {32803, 34892}  # PhotometricInterpretation: a colour filter array, LinearRaw (DNG 1.7)
_OF_CAMERAS = {32767, 32770, 34713, 65000, 65535}  # compressions of Sony, Samsung, Nikon, Kodak,
MAX_DIRECTORIES, MAX_ENTRIES = 16, 1000  # Pentax; more are not looked at


def holds_raw(data: bytes) -> bool:
    """Return whether a TIFF file (TIFF 6.0) holds the data of a sensor, in its first directory or
    in one below that; a directory that lies beyond ``data`` says nothing.
    """
    order = "<" if data[:2] == b"II" else ">"
    todo, seen = [*_longs(data, order, 4, 1)], 0
    while todo and seen < MAX_DIRECTORIES:
        tags = _tags(data, order, todo.pop())
        seen += 1
        if (
            DNG_VERSION in tags
            or _SENSOR.intersection(tags.get(PHOTOMETRIC, ()))
            or _OF_CAMERAS.intersection(tags.get(COMPRESSION, ()))
        ):
            return True
        todo += tags.get(SUB_IFDS, ())
    return False


def _tags(data: bytes, order: str, start: int) -> dict[int, tuple[int, ...]]:
    """Return the tags of a directory that matter here, with their numbers."""
    tags = {}
    count = min(*_shorts(data, order, start, 1), MAX_ENTRIES) if start + 2 <= len(data) else 0
    for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, at)
        if tag == SUB_IFDS:
            where = at + 8 if length == 1 else (*_longs(data, order, at + 8, 1), 0)[0]
            tags[tag] = _longs(data, order, where, min(length, MAX_DIRECTORIES))
        elif tag in (COMPRESSION, PHOTOMETRIC):
            read = _longs if kind == 4 else _shorts
            tags[tag] = read(data, order, at + 8, 1)
        elif tag == DNG_VERSION:
            tags[tag] = ()
    return tags


def _longs(data: bytes, order: str, start: int, count: int) -> tuple[int, ...]:
    count = min(count, max(0, len(data) - start) // 4)
    return struct.unpack_from(f"{order}{count}I", data, start) if count else ()


def _shorts(data: bytes, order: str, start: int, count: int) -> tuple[int, ...]:
    count = min(count, max(0, len(data) - start) // 2)
    return struct.unpack_from(f"{order}{count}H", data, start) if count else ()
