"""ICC profiles of matrix and gamma, as cameras and screens have them (ICC.1:2022, 8 and 10), and
small TIFFs (revision 6.0) of any kind.
"""

import struct
from collections.abc import Mapping, Sequence

WHITE = (0.9642, 1.0, 0.8249)  # D50
# red, green and blue, adapted to D50, and the gamma
_SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
_ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
_P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
_COLOURS = (b"rXYZ", b"gXYZ", b"bXYZ")
SPACES = {
    "prophoto": ((0.79767, 0.28804, 0), (0.13519, 0.71188, 0), (0.03134, 0.00009, 0.82491), 1.8),
    "adobe": (*_ADOBE, 2.2),
    "p3": (*_P3, 2.2),
    "swapped": (_SRGB[1], _SRGB[2], _SRGB[0], 2.2),
    "srgb": (*_SRGB, None),
}


def rgb_profile(space: str, *, version: int = 2, name: str = "") -> bytes:
    """Return the profile of one of `SPACES`; sRGB has its curve, as a table or a formula."""
    *primaries, gamma = SPACES[space]
    tags = _shared_tags(name or space, version)
    tags += [(kind, _xyz(colour)) for kind, colour in zip(_COLOURS, primaries, strict=True)]
    tags += [(kind, _curve(gamma, version)) for kind in (b"rTRC", b"gTRC", b"bTRC")]
    return _profile(b"RGB ", tags, version)


def grey_profile(gamma: float) -> bytes:
    """Return a profile of greys of one gamma."""
    return _profile(b"GRAY", [*_shared_tags("grey", 2), (b"kTRC", _curve(gamma, 2))], 2)


def _profile(space: bytes, tags: Sequence[tuple[bytes, bytes]], version: int) -> bytes:
    table, data, at = b"", b"", 132 + 12 * len(tags)
    for kind, body in tags:
        padded = body + b"\0" * (-len(body) % 4)
        table += kind + struct.pack(">II", at + len(data), len(body))
        data += padded
    size = 132 + len(table) + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", version << 24, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += b"".join(map(_fixed, WHITE))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _shared_tags(name: str, version: int) -> list[tuple[bytes, bytes]]:
    text = name.encode("ascii") + b"\0"
    if version == 2:
        description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78
        return [(b"desc", description), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", _xyz(WHITE))]
    wide = name.encode("utf-16-be")
    words = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(wide), 28) + wide
    return [(b"desc", words), (b"cprt", words), (b"wtpt", _xyz(WHITE))]


def _curve(gamma: float | None, version: int) -> bytes:
    if gamma is not None:
        return b"curv" + struct.pack(">III", 0, 1, round(gamma * 256) << 16)[:10]
    if version == 4:
        formula = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return b"para\0\0\0\0\0\3\0\0" + b"".join(map(_fixed, formula))
    points = [
        x / 1023 / 12.92 if x / 1023 <= 0.04045 else ((x / 1023 + 0.055) / 1.055) ** 2.4
        for x in range(1024)
    ]
    values = [round(point * 65535) for point in points]
    return b"curv\0\0\0\0" + struct.pack(f">I{len(values)}H", len(values), *values)


def _xyz(colour: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, colour))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


_TYPES = {1: "B", 3: "H", 4: "I"}
Tags = Mapping[int, tuple[int, Sequence[int]]]


def tiff(*pages: tuple[Tags, Sequence[bytes]], order: str = "<") -> bytes:
    """Return a TIFF of pages; each has its tags (type and values) and its strips, whose offsets and
    sizes are added.
    """
    data = b"II*\0" if order == "<" else b"MM\0*"
    body, directories = b"", []
    for tags, strips in pages:
        offsets = []
        for strip in strips:
            offsets.append(8 + len(body))
            body += strip + b"\0" * (len(strip) % 2)
        sizes = [len(strip) for strip in strips]
        directories.append({**tags, 273: (4, offsets), 279: (4, sizes)})
    first = at = 8 + len(body)
    for number, directory in enumerate(directories):
        entries, beyond = b"", b""
        behind = at + 6 + 12 * len(directory)
        for tag, (kind, values) in sorted(directory.items()):
            field = struct.pack(f"{order}{len(values)}{_TYPES[kind]}", *values)
            if len(field) > 4:
                place, field = behind + len(beyond), field + b"\0" * (len(field) % 2)
                beyond, field = beyond + field, struct.pack(order + "I", place)
            entries += struct.pack(order + "HHI", tag, kind, len(values)) + field.ljust(4, b"\0")
        at = behind + len(beyond)
        after = at if number + 1 < len(directories) else 0
        body += struct.pack(order + "H", len(directory)) + entries
        body += struct.pack(order + "I", after) + beyond
    return data + struct.pack(order + "I", first) + body
