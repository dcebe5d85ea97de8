"""When a photo was taken: what its file says (EXIF, XMP, IPTC, GPS), its sidecars and its name,
trusted in this order.

The spellings are those that cameras, phones and editors are known to write; a date is
kept as precisely as it is given and no more: ``2019``, ``2019-07``, ``2019-07-04`` or
``2019-07-04T12:30:05``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from vitsearch.photos.exif import FileTags, Tags, once
from vitsearch.types import PhotoInfo

DATE_TIME, DATE_TIME_ORIGINAL, DATE_TIME_DIGITIZED = 0x0132, 0x9003, 0x9004
OFFSETS = {DATE_TIME: 0x9010, DATE_TIME_ORIGINAL: 0x9011, DATE_TIME_DIGITIZED: 0x9012}
GPS_TIME, GPS_DATE = 7, 29
IPTC_DATE, IPTC_TIME = (2, 55), (2, 60)
XMP_TAKEN = ("exif:DateTimeOriginal", "photoshop:DateCreated", "xmp:CreateDate")
UTC_OFFSET = "+00:00"
DATES = ("taken_at", "taken_from", "taken_offset")  # the columns
MODIFIED, NAMED = "EXIF:ModifyDate", "name"  # sources that others go before

# parts may be blank, as the standard has unknown ones written, or padded with spaces
_PART = r"[ \t]*(\d{0,2})[ \t]*"
_DATE = re.compile(
    rf"(\d{{4}})(?:[:/.-]{_PART})?(?:[:/.-]{_PART})?"
    rf"(?:(?:T|(?<=[ \t])){_PART}:{_PART}(?::{_PART}(?:[.,]\d*)?)?)?"
    r"\s*(?:([ap])\.?m\.?)?\s*(Z|[+-]\d\d:?\d\d)?",
    re.ASCII | re.IGNORECASE,
)
# in a file's name: a day and perhaps a time, each with one separator or none
_NAMED = re.compile(
    r"(?<!\d)(19[7-9]\d|20\d\d)([-_. ]?)(\d\d)\2(\d\d)"
    r"(?:(?:[-_ T.]| at )?(\d\d)([-_.: ]?)(\d\d)\6(\d\d)(?:\d{3})?(?:\s*([ap])m)?)?(?!\d)",
    re.ASCII | re.IGNORECASE,
)
_COMPACT_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)", re.ASCII)
_COMPACT_TIME = re.compile(r"(\d\d)(\d\d)(\d\d)([+-]\d{4})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class DateTaken:
    """When a photo was taken: ISO 8601 in the camera's local time, the property that says so, by
    the name that exiftool gives it, and the offset from UTC (``+02:00``), "" for an unknown one.
    """

    at: str
    source: str
    offset: str = ""


def parse_date(text: str) -> tuple[str, str] | None:
    """Return the date that a text begins with, in ISO 8601, and its offset from UTC or "".

    Month, day and time may be missing, zero or blank; what comes after such a part is unknown
    too. None for a text that is no date, or one of zeros.
    """
    match = _DATE.match(text.strip())
    if match is None:
        return None
    *parts, half, zone = match.groups()
    numbers = [int(part) if part else None for part in parts]
    at = _iso(numbers, (half or "").lower())
    return (at, offset_text(zone or "")) if at else None


def offset_text(text: str) -> str:
    """Return an offset from UTC as ``+02:00``, "" for what is none."""
    if text in ("Z", "z"):
        return UTC_OFFSET
    match = re.fullmatch(r"([+-])(\d\d):?(\d\d)", text.strip(), re.ASCII)
    return f"{match[1]}{match[2]}:{match[3]}" if match and int(match[2]) <= 14 else ""


def _iso(numbers: list[int | None], half: str) -> str | None:
    year, month, day, hour, minute, second = numbers
    if not year:
        return None
    try:
        if not month:
            return datetime(year, 1, 1).strftime("%Y").zfill(4)
        if not day:
            return datetime(year, month, 1).date().isoformat()[:7]
        if hour is None or minute is None:
            return datetime(year, month, day).date().isoformat()
        if half and hour <= 12:
            hour = hour % 12 + (12 if half == "p" else 0)
        hour = 0 if hour == 24 else hour  # how some phones count the first hour of a day
        second = 59 if second == 60 else second or 0  # a leap second
        return datetime(year, month, day, hour, minute, second).isoformat(timespec="seconds")
    except ValueError:
        return None


def date_of_name(path: str) -> DateTaken | None:
    """Return when a photo was taken by the name that a phone, a messenger or a screen shot gave its
    file, such as ``IMG_20190704_120102``, None for a name without a date.
    """
    name = path.rpartition("/")[2]
    for match in _NAMED.finditer(name):
        year, _, month, day, hour, _, minute, second, half = match.groups()
        numbers = [int(part) if part else None for part in (year, month, day, hour, minute, second)]
        at = _iso(numbers, (half or "").lower()) if int(month) and int(day) else None
        if at:
            return DateTaken(at, NAMED, UTC_OFFSET if name.startswith("PXL_") else "")
    return None


def with_date_of_name(info: PhotoInfo, path: str) -> PhotoInfo:
    """Return the facts of a photo with the date of its file's name, where the file and its
    sidecars say at most when it was changed.
    """
    if info["taken_from"] not in (None, MODIFIED, NAMED):
        return info
    date = date_of_name(path)
    if date is None and info["taken_from"] != NAMED:  # a copy may have a name without a date
        return info
    values = (date.at, date.source, date.offset or None) if date else (None, None, None)
    return replace(info, metadata={**info.metadata, **dict(zip(DATES, values, strict=True))})


@once
def date_taken(tags: FileTags) -> DateTaken | None:
    """Return when the photo of these tags was taken, None where they do not say.

    The date of the last change counts only where nothing else says when.
    """
    return next(_dates(tags), None)


def _dates(tags: FileTags) -> Iterator[DateTaken]:
    for tag, name in (
        (DATE_TIME_ORIGINAL, "EXIF:DateTimeOriginal"),
        (DATE_TIME_DIGITIZED, "EXIF:DateTimeDigitized"),
    ):
        for directory in (tags.exif, tags.main):
            yield from _of_tag(directory, tags, tag, name)
    for name in XMP_TAKEN:
        if date := parse_date(tags.xmp_value(name) or ""):
            yield DateTaken(date[0], f"XMP-{name}", date[1])
    yield from _of_iptc(tags)
    yield from _of_gps(tags)
    yield from _of_tag(tags.main, tags, DATE_TIME, MODIFIED)


def _of_tag(directory: Tags, tags: FileTags, tag: int, name: str) -> Iterator[DateTaken]:
    if date := parse_date(directory.raw_text(tag)):
        written = tags.exif.text(OFFSETS[tag]) or tags.main.text(OFFSETS[tag])
        yield DateTaken(date[0], name, date[1] or offset_text(written))


def _of_iptc(tags: FileTags) -> Iterator[DateTaken]:
    date = _COMPACT_DATE.fullmatch(tags.iptc_text(IPTC_DATE).replace("-", ""))
    if not date:
        return
    time = _COMPACT_TIME.fullmatch(tags.iptc_text(IPTC_TIME).replace(":", ""))
    clock = [int(part) for part in time.groups()[:3]] if time else [None, None, None]
    if at := _iso([*(int(part) for part in date.groups()), *clock], ""):
        yield DateTaken(at, "IPTC:DateCreated", offset_text(time[4] or "") if time else "")


def _of_gps(tags: FileTags) -> Iterator[DateTaken]:
    date = parse_date(tags.gps.raw_text(GPS_DATE))
    if not date or len(date[0]) < 10:
        return
    clock = tags.gps.numbers(GPS_TIME)
    numbers: list[int | None] = [int(part) for part in date[0][:10].split("-")]
    numbers += [int(part) for part in clock] if clock and len(clock) == 3 else [None] * 3
    if at := _iso(numbers, ""):
        yield DateTaken(at, "GPS:GPSDateStamp", UTC_OFFSET)
