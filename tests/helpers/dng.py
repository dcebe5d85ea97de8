"""RAW photos made from nothing: a DNG as a camera writes it (DNG 1.4)."""

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

TYPES = {"B": 1, "s": 2, "H": 3, "I": 4, "r": 5, "R": 10}  # of TIFF, by a letter
MATRIX = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)  # sRGB's


def _packed(kind: str, values: Any) -> tuple[int, bytes]:
    if kind == "s":
        return len(values) + 1, values.encode() + b"\0"
    if kind in "rR":
        pair = "<ii" if kind == "R" else "<II"
        return len(values), b"".join(
            struct.pack(pair, round(value * 10_000), 10_000) for value in values
        )
    return len(values), struct.pack(f"<{len(values)}{kind}", *values)


def directory(tags: dict[int, tuple[str, Any]], start: int, following: int = 0) -> bytes:
    """The bytes of a directory that begins at ``start``."""
    rest = start + 2 + 12 * len(tags) + 4
    entries, data = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        count, packed = _packed(kind, values)
        if len(packed) > 4:
            packed, data = (
                struct.pack("<I", rest + len(data)),
                data + packed + b"\0" * (len(packed) % 2),
            )
        entries += struct.pack("<HHI", tag, TYPES[kind], count) + packed.ljust(4, b"\0")
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + data


def jpeg(picture: Image.Image, **options: Any) -> bytes:
    """The bytes of a JPEG."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=95, **options)
    return out.getvalue()


def dng(
    sensor: Image.Image,
    *previews: Image.Image | None,
    orientation: int = 1,
    taken: str = "2019:07:04 12:01:02",
) -> bytes:
    """A DNG: a thumbnail in the first directory, the sensor's data (a Bayer pattern of the picture
    ``sensor``) and JPEG previews in those below it, EXIF and GPS.
    """
    linear = (np.asarray(sensor.convert("RGB"), dtype=np.float64) / 255) ** 2.2 * 60_000
    bayer = linear[..., 1].astype("<u2")
    bayer[::2, ::2], bayer[1::2, 1::2] = linear[::2, ::2, 0], linear[1::2, 1::2, 2]
    small = sensor.convert("RGB").resize((16, 12))
    body = bytearray(b"II*\0\0\0\0\0")

    def append(data: bytes) -> int:
        start = len(body)
        body.extend(data + b"\0" * (len(data) % 2))
        return start

    def below(tags: dict[int, tuple[str, Any]]) -> int:
        return append(directory(tags, len(body)))

    subs = [
        below(
            {
                254: ("I", [0]),
                256: ("I", [sensor.width]),
                257: ("I", [sensor.height]),
                258: ("H", [16]),
                259: ("H", [1]),
                262: ("H", [32803]),
                273: ("I", [append(bayer.tobytes())]),
                277: ("H", [1]),
                278: ("I", [sensor.height]),
                279: ("I", [bayer.nbytes]),
                33421: ("H", [2, 2]),
                33422: ("B", [0, 1, 1, 2]),
                50714: ("H", [0]),
                50717: ("I", [60_000]),
            }
        )
    ]
    for preview in filter(None, previews):
        data = jpeg(preview)
        subs.append(
            below(
                {
                    254: ("I", [1]),
                    256: ("I", [preview.width]),
                    257: ("I", [preview.height]),
                    258: ("H", [8, 8, 8]),
                    259: ("H", [7]),
                    262: ("H", [6]),
                    273: ("I", [append(data)]),
                    277: ("H", [3]),
                    278: ("I", [preview.height]),
                    279: ("I", [len(data)]),
                }
            )
        )
    exif = below({36867: ("s", taken), 42036: ("s", "Lens 50 mm")})
    gps = below({1: ("s", "N"), 2: ("r", [38, 42, 36]), 3: ("s", "W"), 4: ("r", [9, 8, 24])})
    pixels = append(small.tobytes())
    first = len(body)
    body += directory(
        {
            254: ("I", [1]),
            256: ("I", [small.width]),
            257: ("I", [small.height]),
            258: ("H", [8, 8, 8]),
            259: ("H", [1]),
            262: ("H", [2]),
            271: ("s", "Acme"),
            272: ("s", "Acme One"),
            273: ("I", [pixels]),
            274: ("H", [orientation]),
            277: ("H", [3]),
            278: ("I", [small.height]),
            279: ("I", [len(small.tobytes())]),
            330: ("I", subs if len(subs) > 1 else [subs[0]]),
            34665: ("I", [exif]),
            34853: ("I", [gps]),
            50706: ("B", [1, 4, 0, 0]),
            50708: ("s", "Acme One"),
            50721: ("R", MATRIX),
            50728: ("r", [1, 1, 1]),
            50778: ("H", [21]),
        },
        first,
    )
    body[4:8] = struct.pack("<I", first)
    return bytes(body)
