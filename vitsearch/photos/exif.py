"""What EXIF says about a photo; broken EXIF says nothing and never fails the photo.

Tag numbers are those of the Exif 2.32 standard (CIPA DC-008).
"""

import contextlib
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from PIL import Image

_MAKE, _MODEL, _ORIENTATION, _DATE_TIME = 0x010F, 0x0110, 0x0112, 0x0132
_EXIF_IFD, _DATE_TIME_ORIGINAL, _DATE_TIME_DIGITIZED = 0x8769, 0x9003, 0x9004
_GPS_IFD, _LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 0x8825, 1, 2, 3, 4

_DATE = re.compile(
    r"(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})[ T](\d{1,2}):(\d{1,2})(?::(\d{1,2}))?", re.ASCII
)
_MAX_TEXT_LENGTH = 100


class ExifFacts(NamedTuple):
    """The parts of EXIF that a collection keeps; ``orientation`` is 1 to 8."""

    orientation: int
    taken_at: str | None
    camera: str | None
    latitude: float | None
    longitude: float | None


def read_exif(image: Image.Image) -> ExifFacts:
    """Return what the EXIF of a loaded image says, with None for what is missing or broken."""
    top: Mapping[int, Any] = {}
    exif: Mapping[int, Any] = {}
    gps: Mapping[int, Any] = {}
    with contextlib.suppress(Exception):
        top = image.getexif()
        exif = _directory(image, _EXIF_IFD)
        gps = _directory(image, _GPS_IFD)
    latitude, longitude = _position(gps)
    return ExifFacts(
        _orientation(_value(top, _ORIENTATION)),
        _taken_at(top, exif),
        _camera(top),
        latitude,
        longitude,
    )


def _directory(image: Image.Image, tag: int) -> Mapping[int, Any]:
    with contextlib.suppress(Exception):
        return image.getexif().get_ifd(tag)
    return {}


def _value(tags: Mapping[int, Any], tag: int) -> Any:
    # values are decoded when asked for, so one broken tag must not hide the others
    with contextlib.suppress(Exception):
        return tags.get(tag)
    return None


def _orientation(value: Any) -> int:
    if isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    head = value.split("\0")[0]
    printable = "".join(character if character.isprintable() else " " for character in head)
    return " ".join(printable.split())[:_MAX_TEXT_LENGTH]


def _taken_at(top: Mapping[int, Any], exif: Mapping[int, Any]) -> str | None:
    for tags, tag in ((exif, _DATE_TIME_ORIGINAL), (exif, _DATE_TIME_DIGITIZED), (top, _DATE_TIME)):
        match = _DATE.match(_text(_value(tags, tag)))
        if match:
            with contextlib.suppress(ValueError):
                year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
                return datetime(year, month, day, hour, minute, second).isoformat(
                    timespec="seconds"
                )
    return None


def _camera(top: Mapping[int, Any]) -> str | None:
    make, model = _text(_value(top, _MAKE)), _text(_value(top, _MODEL))
    # "NIKON CORPORATION" and "NIKON D70" is one camera, a "NIKON D70"
    if make and model.lower().startswith(make.split()[0].lower()):
        return model
    return f"{make} {model}".strip() or None


def _position(gps: Mapping[int, Any]) -> tuple[float | None, float | None]:
    latitude = _degrees(
        _value(gps, _LATITUDE),
        _text(_value(gps, _LATITUDE_REF)),
        positive="N",
        negative="S",
        limit=90,
    )
    longitude = _degrees(
        _value(gps, _LONGITUDE),
        _text(_value(gps, _LONGITUDE_REF)),
        positive="E",
        negative="W",
        limit=180,
    )
    return (None, None) if latitude is None or longitude is None else (latitude, longitude)


def _degrees(
    value: Any, reference: str, *, positive: str, negative: str, limit: int
) -> float | None:
    sign = {positive: 1, negative: -1}.get(reference.upper())
    parts = value if isinstance(value, tuple) else (value,)
    if sign is None or not 1 <= len(parts) <= 3:
        return None
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError, ArithmeticError):
        return None
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        return None
    degrees = sum(number / 60**power for power, number in enumerate(numbers))
    return round(sign * degrees, 7) if degrees <= limit else None
