"""The tags of EXIF, XMP and IPTC in a photo's file; broken tags say nothing and never fail the
photo.

Tag numbers are those of the Exif 2.32 standard (CIPA DC-008) and of IPTC-IIM 4.2. What a collection
keeps of them is `vitsearch.photos.columns`.
"""

import contextlib
import html
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from itertools import islice
from mmap import mmap
from typing import Any, TypeVar

from PIL import Image, ImageFile, IptcImagePlugin

from vitsearch.paths import composed

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825

_MAX_TEXT_LENGTH = 100
_MAX_XMP_BYTES = 1_000_000
MAX_WORDS, MAX_WORDS_LENGTH = 100, 2000  # of keywords, and characters of them or of a description
Answer = TypeVar("Answer")
MAX_NAMESPACES = 50  # of an XMP packet; Lightroom declares about 15
_DECLARATION = re.compile(rb"\sxmlns:([\w.-]{1,40})\s*=\s*[\"']([^\"'<>]{1,100})[\"']")
_PREFIXES = {
    b"http://www.w3.org/1999/02/22-rdf-syntax-ns#": b"rdf",
    b"http://purl.org/dc/elements/1.1/": b"dc",
    b"http://ns.adobe.com/exif/1.0/": b"exif",
    b"http://ns.adobe.com/photoshop/1.0/": b"photoshop",
    b"http://ns.adobe.com/xap/1.0/": b"xmp",  # xap in older files
    b"vitsearch:ns/1.0/": b"vitsearch",
}
_NUMBER, _BETWEEN = r"(\d{1,12}(?:\.\d{0,20})?)", r"[\s,;:°º'’′\"”″DEG]{1,6}"
_ANGLE = re.compile(
    rf"([A-Z]{{0,10}})\s*([+-]?){_NUMBER}(?:{_BETWEEN}{_NUMBER})?(?:{_BETWEEN}{_NUMBER})?"
    rf"[\s,;'’′\"”″°º]{{0,4}}([A-Z]{{0,10}})",
    re.ASCII,
)
MAX_BOXES = 1000  # of a file
_UUIDS = {
    b"JpgTiffExif->JP2": "exif",
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "xmp",
}
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
        return one_line(self.raw_text(tag), _MAX_TEXT_LENGTH)

    def raw_text(self, tag: int) -> str:
        """Return the text of a tag as it is written, up to the first zero byte, "" for none."""
        value = self.get(tag)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return value.partition("\0")[0] if isinstance(value, str) else ""

    def number(self, tag: int) -> int | None:
        """Return the whole number of a tag, of any type that holds one, or None; the first of
        several.
        """
        value = self.get(tag)
        if isinstance(value, tuple) and value:
            value = value[0]
        if isinstance(value, bytes) and len(value) == 1:
            return value[0]
        with contextlib.suppress(TypeError, ValueError, ArithmeticError):
            number = float(value)
            return int(number) if number.is_integer() else None
        return None

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Return the numbers of a tag; 0/0, with which an unknown one is written, is 0 after the
        first. Empty where the first is unknown, one is not finite, or there are none.
        """
        value = self.get(tag)
        if isinstance(value, str):
            value = tuple(value.replace(",", " ").split())
        try:
            numbers = [float(part) for part in (value if isinstance(value, tuple) else (value,))]
        except (TypeError, ValueError, ArithmeticError):
            return ()
        known = (*numbers[:1], *(0.0 if math.isnan(number) else number for number in numbers[1:]))
        return known if all(map(math.isfinite, known)) else ()

    def degrees(
        self, tag: int, reference_tag: int, *, positive: str, negative: str, limit: int
    ) -> float | None:
        """Return an angle of the GPS directory in degrees, at most ``limit``, or None; the letter
        of ``reference_tag``, or the first of its word, is its sign. A minus means the same.
        """
        sign = {positive: 1, negative: -1}.get(self.text(reference_tag)[:1].upper())
        numbers = self.numbers(tag)[:3]
        if sign is None or not numbers:
            return None
        if any(number < 0 for number in numbers):
            sign, numbers = -1, tuple(map(abs, numbers))
        return _angle(sign, numbers, limit)


@dataclass(frozen=True, slots=True)
class FileTags:
    """The tags of a photo's file: the main, the EXIF and the GPS directory, the bytes of the
    embedded XMP packet (ISO 16684-1), empty where there is none, and IPTC's records; of a video
    what its container says, by the names of columns.
    """

    main: Tags = field(default_factory=lambda: Tags({}))
    exif: Tags = field(default_factory=lambda: Tags({}))
    gps: Tags = field(default_factory=lambda: Tags({}))
    xmp: bytes = b""
    iptc: Mapping[tuple[int, int], Any] = field(default_factory=dict)
    video: Mapping[str, Any] = field(default_factory=dict)
    _answers: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

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
            rb"\s%b\s*=\s*(?:\"([^\"<]{0,200})\"|'([^'<]{0,200})')|<%b>([^<]{0,200})</%b\s*>"
            % ((escaped,) * 3),
            self.xmp,
        )
        if match is None:
            return None
        return _xml_text(next(filter(None, match.groups()), b""))

    def xmp_list(self, name: str) -> list[str]:
        """Return the items of a property that is a list, such as ``dc:subject``, or one in several
        languages; those of an unstructured one are its only item.
        """
        start = re.search(rb"<%b(?:\s[^<>]*)?>" % re.escape(name.encode()), self.xmp)
        end = self.xmp.find(b"</%b" % name.encode(), start.end()) if start else -1
        if start is None or end < 0:
            return [value] if (value := self.xmp_value(name)) else []
        items = re.findall(
            rb"<rdf:li(?:\s[^<>]*)?>([^<]*)</rdf:li\s*>", self.xmp[start.end() : end]
        )
        return [text for item in items if (text := _xml_text(item))]

    def iptc_texts(self, record: tuple[int, int]) -> list[str]:
        """Return the texts of a record of IPTC that may be there several times."""
        values = self.iptc.get(record, [])
        utf8 = b"\x1b%G" in (self.iptc.get((1, 90)), None)  # ISO 2022's announcement of UTF-8
        texts = []
        for value in values if isinstance(values, list) else [values]:
            with contextlib.suppress(AttributeError):
                try:
                    texts.append(value.decode("utf-8"))
                except UnicodeDecodeError:
                    texts.append(value.decode("utf-8" if utf8 else "latin-1", "replace"))
        return texts

    def iptc_text(self, record: tuple[int, int]) -> str:
        """Return the text of a record of IPTC on one line, "" for none."""
        return one_line(" ".join(self.iptc_texts(record)[:1]), MAX_WORDS_LENGTH)


def once(read: Callable[[FileTags], Answer]) -> Callable[[FileTags], Answer]:
    """Return a reader that works out what several columns share once for the tags of a file."""

    @wraps(read)
    def answer(tags: FileTags) -> Answer:
        name = read.__qualname__
        if name not in tags._answers:
            tags._answers[name] = read(tags)
        shared: Answer = tags._answers[name]
        return shared

    return answer


def read_tags(image: Image.Image) -> FileTags:
    """Return the tags of a loaded image."""
    main: Mapping[int, Any] = {}
    with contextlib.suppress(Exception):
        main = image.getexif()
    exif, gps = (Tags(_directory(image, tag)) for tag in (EXIF_IFD, GPS_IFD))
    return FileTags(Tags(main), exif, gps, _xmp(image), _iptc(image))


def written_degrees(text: str, letters: str, limit: int) -> float | None:
    """Return an angle that is written as text, such as XMP's ``33,51.408S`` or ``33,51,24S``, in
    degrees, at most ``limit``, or None.

    The letter (``letters``: of the positive and the negative side), or the first of its word, may
    stand on either side; degrees alone need none, and may have a sign.
    """
    match = _ANGLE.fullmatch(text.strip().upper())
    if match is None:
        return None
    before, minus, *parts, after = match.groups()
    numbers = tuple(float(part) for part in parts if part)
    side = (after or before or "")[:1]
    if side not in letters or (not side and len(numbers) > 1):
        return None
    negative = minus == "-" or side == letters[1]
    return _angle(-1 if negative else 1, numbers, limit)


def _angle(sign: int, numbers: tuple[float, ...], limit: int) -> float | None:
    degrees = sum(number / 60**power for power, number in enumerate(numbers))
    return round(sign * degrees, 7) + 0.0 if degrees <= limit else None  # not -0


def on_earth(latitude: float | None, longitude: float | None) -> tuple[float, float] | None:
    """Return a position in degrees, None where it lacks a part or has one beyond its range, and for
    0,0: a place that was wiped is zeros.
    """
    if latitude is None or longitude is None or latitude == longitude == 0:
        return None
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


def add_boxes(image: Image.Image, data: bytes) -> None:
    """Give an image of JPEG 2000 the EXIF and XMP of its file's boxes (ISO 15444-1, annex I), which
    Pillow does not read.
    """
    for kind, body, end in iso_boxes(data):
        if kind == b"uuid" and (key := _UUIDS.get(data[body : body + 16])):
            image.info.setdefault(key, data[body + 16 : end])


def iso_boxes(data: bytes | mmap) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box of one of ISO's files, and where its body begins and ends (ISO/IEC
    14496-12, 4.2); a broken one ends them.
    """
    start = 0
    for _ in range(MAX_BOXES):
        head = data[start : start + 16]
        size, length = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, length = int.from_bytes(head[8:], "big"), 16
        elif size == 0:  # the last one, whose end is that of the file
            size = len(data) - start
        if len(head) < length or size < length:
            return
        yield head[4:8], start + length, start + size
        start += size


def one_line(text: str, length: int) -> str:
    """Return the printable characters of a text on one line, composed, at most so many."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return composed(" ".join(printable.split()))[:length]


def _xml_text(data: bytes) -> str:
    return html.unescape(data.decode("utf-8", "replace")).strip()


def _iptc(image: Image.Image) -> Mapping[tuple[int, int], Any]:
    with contextlib.suppress(Exception):
        if isinstance(image, ImageFile.ImageFile):
            return IptcImagePlugin.getiptcinfo(image) or {}
    return {}


def _directory(image: Image.Image, tag: int) -> Mapping[int, Any]:
    with contextlib.suppress(Exception):
        return image.getexif().get_ifd(tag)
    return {}


def _xmp(image: Image.Image) -> bytes:
    packets = (image.info.get(key) for key in _XMP_KEYS)
    packet = next((packet for packet in packets if isinstance(packet, bytes | str)), b"")
    data = packet if isinstance(packet, bytes) else packet.encode("utf-8", "replace")
    return usual_packet(data[:_MAX_XMP_BYTES])


def usual_packet(packet: bytes) -> bytes:
    """Return an XMP packet in UTF-8, with the prefixes that most programs give its namespaces."""
    if packet.startswith((b"\xff\xfe", b"\xfe\xff")):
        packet = packet.decode("utf-16", "replace").encode("utf-8", "replace")
    for match in islice(_DECLARATION.finditer(packet), MAX_NAMESPACES):
        prefix, usual = match[1], _PREFIXES.get(match[2])
        if usual and prefix != usual:
            packet = re.sub(rb"(?<=[\s</])%b(?=:)" % re.escape(prefix), usual, packet)
    return packet
