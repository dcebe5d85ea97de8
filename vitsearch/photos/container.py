"""What the container of a video says of it: when, where and with what it was recorded."""

import re
from collections.abc import Mapping

from vitsearch.photos.columns import camera_name, read_metadata
from vitsearch.photos.dates import DateTaken, parse_date
from vitsearch.photos.exif import FileTags, on_earth, one_line
from vitsearch.types import Value

MAX_TEXT_LENGTH = 100
_ZERO_DAYS = ("1904-01-01", "1970-01-01")  # the beginnings of the clocks of QuickTime and Unix
# where a container says when it was recorded, in the order in which it is trusted
_DATES = (
    ("com.apple.quicktime.creationdate", "QuickTime:CreationDate"),
    ("date", "QuickTime:ContentCreateDate"),
    ("creation_time", "QuickTime:CreateDate"),
)
_POSITIONS = ("com.apple.quicktime.location.iso6709", "location", "location-eng")
_MAKERS = ("com.apple.quicktime.make", "com.android.manufacturer", "make")
_MODELS = ("com.apple.quicktime.model", "com.android.model", "model")
_ISO6709 = re.compile(r"([+-])(\d+)(\.\d+)?([+-])(\d+)(\.\d+)?", re.ASCII)


def read_container(tags: Mapping[str, str], duration: float | None) -> Mapping[str, Value | None]:
    """Return the metadata columns of a video from its tags, by the names that FFmpeg gives them,
    and from its XMP packet, which is one of them.
    """
    texts = {key.lower(): value for key, value in tags.items()}
    values: dict[str, Value | None] = {"duration": duration}
    if date := _date(texts):
        values |= {"taken_at": date.at, "taken_from": date.source}
        values["taken_offset"] = date.offset or None
    if camera := camera_name(_first(texts, _MAKERS), _first(texts, _MODELS)):
        values["camera"] = camera
    position = next(filter(None, (_position(texts.get(key, "")) for key in _POSITIONS)), None)
    if position:
        values |= {"latitude": position[0], "longitude": position[1]}
    xmp = texts.get("xmp", "").encode("utf-8", "surrogateescape")[:1_000_000]
    return read_metadata(FileTags(xmp=xmp, video=values))


def _first(texts: Mapping[str, str], names: tuple[str, ...]) -> str:
    written = (one_line(texts.get(name, ""), MAX_TEXT_LENGTH) for name in names)
    return next(filter(None, written), "")


def _date(texts: Mapping[str, str]) -> DateTaken | None:
    for key, source in _DATES:
        date = parse_date(texts.get(key, ""))
        if date is not None and not date[0].startswith(_ZERO_DAYS):
            return DateTaken(date[0], source, date[1])
    return None


def _position(text: str) -> tuple[float, float] | None:
    """Return latitude and longitude of ISO 6709 in degrees, None for none and for 0,0."""
    match = _ISO6709.match(text.strip())
    if match is None:
        return None
    latitude = _degrees(match[1], match[2], match[3] or "", 2)
    return on_earth(latitude, _degrees(match[4], match[5], match[6] or "", 3))


def _degrees(sign: str, digits: str, fraction: str, width: int) -> float:
    """Return an angle written as degrees, with minutes, or with minutes and seconds."""
    degrees, rest = digits[:width], digits[width:]
    parts = [degrees, *(rest[start : start + 2] for start in range(0, len(rest), 2))]
    parts[-1] += fraction
    total = sum(float(part) / 60**power for power, part in enumerate(parts))
    return round(-total if sign == "-" else total, 7)
