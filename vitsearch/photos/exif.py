"""The tags of EXIF and XMP in a photo's file; broken tags say nothing and never fail the photo.

Tag numbers are those of the Exif 2.32 standard (CIPA DC-008). What a collection keeps of them is
`vitsearch.photos.columns`.
"""

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import Image

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825

_DATE = re.compile(
    r"(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})[ T](\d{1,2}):(\d{1,2})(?::(\d{1,2}))?", re.ASCII
)
_MAX_TEXT_LENGTH = 100
_MAX_XMP_BYTES = 1_000_000
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")  # where Pillow's readers put the packet


class Tags:
    """The tags of one directory by number; a broken one is as good as missing."""

    def __init__(self, values: Mapping[int, Any]) -> None:
        self._values = values

    def get(self, tag: int) -> Any:
        """Return the value of a tag as Pillow reads it, or None."""
        # values are decoded when asked for, so one broken tag must not hide the others
        with contextlib.suppress(Exception):
            return self._values.get(tag)
        return None

    def text(self, tag: int) -> str:
        """Return the text of a tag on one line, at most 100 printable characters, "" for none."""
        value = self.get(tag)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if not isinstance(value, str):
            return ""
        head = value.split("\0")[0]
        printable = "".join(character if character.isprintable() else " " for character in head)
        return " ".join(printable.split())[:_MAX_TEXT_LENGTH]

    def number(self, tag: int) -> int | None:
        """Return the whole number of a tag, the first of several, or None."""
        value = self.get(tag)
        if isinstance(value, tuple) and value:
            value = value[0]
        return value if isinstance(value, int) else None

    def date(self, tag: int) -> str | None:
        """Return the date of a tag in ISO 8601 to the second, or None."""
        match = _DATE.match(self.text(tag))
        if match:
            with contextlib.suppress(ValueError):
                year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
                return datetime(year, month, day, hour, minute, second).isoformat(
                    timespec="seconds"
                )
        return None

    def degrees(
        self, tag: int, reference_tag: int, *, positive: str, negative: str, limit: int
    ) -> float | None:
        """Return an angle of the GPS directory in degrees, at most ``limit``, or None; the letter
        of ``reference_tag`` is its sign.
        """
        sign = {positive: 1, negative: -1}.get(self.text(reference_tag).upper())
        value = self.get(tag)
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


@dataclass(frozen=True, slots=True)
class FileTags:
    """The tags of a photo's file: the main, the EXIF and the GPS directory, and the bytes of the
    embedded XMP packet (ISO 16684-1), empty where there is none.
    """

    main: Tags
    exif: Tags
    gps: Tags
    xmp: bytes

    @property
    def orientation(self) -> int:
        """The EXIF orientation, 1 to 8; 1 where it is missing or broken."""
        number = self.main.number(ORIENTATION)
        return number if number is not None and 1 <= number <= 8 else 1

    def xmp_value(self, name: str) -> str | None:
        """Return a simple property of the XMP packet such as ``xmp:Rating``, written as attribute
        or as element, or None.

        The packet is searched as text: no parser of XML sees a stranger's file.
        """
        escaped = re.escape(name.encode())
        match = re.search(
            rb"\s%b\s*=\s*[\"']([^\"'<]{0,200})[\"']|<%b>([^<]{0,200})</%b\s*>" % ((escaped,) * 3),
            self.xmp,
        )
        if match is None:
            return None
        return (match[1] or match[2] or b"").decode("utf-8", "replace").strip()


def read_tags(image: Image.Image) -> FileTags:
    """Return the tags of a loaded image."""
    main: Mapping[int, Any] = {}
    with contextlib.suppress(Exception):
        main = image.getexif()
    exif, gps = (Tags(_directory(image, tag)) for tag in (EXIF_IFD, GPS_IFD))
    return FileTags(Tags(main), exif, gps, _xmp(image))


def _directory(image: Image.Image, tag: int) -> Mapping[int, Any]:
    with contextlib.suppress(Exception):
        return image.getexif().get_ifd(tag)
    return {}


def _xmp(image: Image.Image) -> bytes:
    packets = (image.info.get(key) for key in _XMP_KEYS)
    packet = next((packet for packet in packets if isinstance(packet, bytes | str)), b"")
    data = packet if isinstance(packet, bytes) else packet.encode("utf-8", "replace")
    return data[:_MAX_XMP_BYTES]
