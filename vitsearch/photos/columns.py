"""The columns of a photo: each stands here once, and everything else loops over them.

From `COLUMNS` derive the table and the view in SQLite, ``--where`` and the help, the fields of
Milvus, the columns of shards and Parquet exports, JSON, CSV, the web page, its interface and what
it hides from remote users. A new metadata column is one more entry with ``read``: collections
that exist get it when they are next opened for writing, and its value with the next embedding of
each photo.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from vitsearch.photos.dates import date_taken
from vitsearch.photos.exif import (
    MAX_WORDS,
    MAX_WORDS_LENGTH,
    FileTags,
    on_earth,
    once,
    one_line,
    written_degrees,
)
from vitsearch.types import Photo, PhotoInfo, Value

Kind = Literal["text", "number", "date"]

MAKE, MODEL, RATING = 0x010F, 0x0110, 0x4746  # of the main directory
LENS_MODEL = 0xA434  # of EXIF
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE = 1, 2, 3, 4  # of GPS
IPTC_TITLE, IPTC_KEYWORDS, IPTC_CAPTION = (2, 5), (2, 25), (2, 120)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a photo; a date is a text of ISO 8601 to the second.

    - ``read`` returns it from the tags of the file, None where they do not say. Columns that have
      it are the metadata columns: they are stored, under their name, and are in ``photo.info``.
    - ``value`` and ``sql`` return any other column: for a photo, and for a row of the table
      ``photos``, "" for the table's column of that name; both give the same.
    - ``integer``: a number without a fraction; ``always``: no photo lacks it.
    - ``private``: says when, where or with what a photo was taken; remote users of the page do not
      see it, nor filter by it, without ``--show-exif``.
    - ``apart``: not read with the tags of a file but by a run of its own, so that reading the tags
      again leaves it; too long for a list of its values.
    - ``title``: its name on the page of a photo, "" where it is not shown by itself; ``shown``:
      its text there, where that is not the plain value.
    """

    name: str
    kind: Kind
    help: str
    read: Callable[[FileTags], Value | None] | None = None
    value: Callable[[Photo], Value | None] | None = None
    sql: str = ""
    integer: bool = False
    always: bool = False
    private: bool = False
    apart: bool = False
    title: str = ""
    shown: Callable[[PhotoInfo], str] | None = None

    @property
    def sql_type(self) -> str:
        """The type of the column in SQLite."""
        if self.kind != "number":
            return "TEXT"
        return "INTEGER" if self.integer else "REAL"

    def of(self, photo: Photo) -> Value | None:
        """Return the value for a photo, None where it has none."""
        return self.value(photo) if self.value else photo.info[self.name]


def read_metadata(tags: FileTags) -> dict[str, Value | None]:
    """Return the metadata columns of a file by name; what cannot be read is None."""
    values: dict[str, Value | None] = {}
    for name, column in METADATA.items():
        with contextlib.suppress(Exception):
            values[name] = column.read(tags) if column.read else None
    return {**values, **tags.video}


# -- How each is read ------------------------------------------------------------------------------


def camera_name(make: str, model: str) -> str | None:
    """Return the name of a camera, None where nothing is known of it."""
    # "NIKON CORPORATION" and "NIKON D70" is one camera, a "NIKON D70"
    if make and model.lower().startswith(make.split()[0].lower()):
        return model
    return f"{make} {model}".strip() or None


@once
def _position(tags: FileTags) -> tuple[float | None, float | None]:
    latitude = tags.gps.degrees(LATITUDE, LATITUDE_REF, positive="N", negative="S", limit=90)
    longitude = tags.gps.degrees(LONGITUDE, LONGITUDE_REF, positive="E", negative="W", limit=180)
    if latitude is None or longitude is None:
        latitude = written_degrees(tags.xmp_value("exif:GPSLatitude") or "", "NS", 90)
        longitude = written_degrees(tags.xmp_value("exif:GPSLongitude") or "", "EW", 180)
    return on_earth(latitude, longitude) or (None, None)


def _of_position(tags: FileTags) -> None:
    """Return None: these columns come from the position (`vitsearch.photos.places`)."""


def _of_picture(tags: FileTags) -> None:
    """Return None: this column comes from the picture (`vitsearch.photos.text`)."""


def _keywords(tags: FileTags) -> str | None:
    """Return the words that people gave the photo, without those of ``vitsearch label --xmp``."""
    ours = set(tags.xmp_list("vitsearch:addedSubject"))
    words = (word for word in tags.xmp_list("dc:subject") if word not in ours)
    return joined_words((*words, *tags.iptc_texts(IPTC_KEYWORDS)))


def joined_words(words: Iterable[str]) -> str | None:
    """Return words as the column ``keywords`` has them: each once, in their order."""
    distinct = dict.fromkeys(one_line(word, MAX_WORDS_LENGTH) for word in words)
    return ", ".join(list(filter(None, distinct))[:MAX_WORDS])[:MAX_WORDS_LENGTH] or None


def _description(tags: FileTags) -> str | None:
    """Return title and description, each of the first source that has it."""
    titles = [*tags.xmp_list("dc:title"), tags.iptc_text(IPTC_TITLE)]
    texts = [*tags.xmp_list("dc:description"), tags.iptc_text(IPTC_CAPTION)]
    firsts = (next(filter(None, part), "") for part in (titles, texts))
    distinct = dict.fromkeys(one_line(part, MAX_WORDS_LENGTH) for part in firsts)
    return ": ".join(filter(None, distinct))[:MAX_WORDS_LENGTH] or None


def clock(seconds: Value | None) -> str:
    """Return a time in a video as players show it: 0:07, 12:30, 1:02:03; "" for none."""
    if not isinstance(seconds, int | float):
        return ""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _position_text(info: PhotoInfo) -> str:
    latitude, longitude = info["latitude"], info["longitude"]
    return "" if latitude is None or longitude is None else f"{latitude:.5f}, {longitude:.5f}"


def _rating(tags: FileTags) -> int | None:
    stars = tags.main.number(RATING)
    if stars is None:
        number = float(tags.xmp_value("xmp:Rating") or "nan")  # "4" or "4.0"; -1 means rejected
        stars = int(number) if number.is_integer() else None
    return stars if stars is not None and 0 <= stars <= 5 else None


def _mtime(photo: Photo) -> str:
    moment = _EPOCH + timedelta(seconds=photo.mtime_ns // 10**9)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def _date_part(photo: Photo, start: int, end: int) -> int | None:
    part = str(photo.info["taken_at"] or "")[start:end]
    return int(part) if part else None  # the month of a photo may be unknown


def _date_reader(name: str) -> Callable[[FileTags], Value | None]:
    def read(tags: FileTags) -> Value | None:
        return getattr(date_taken(tags), name, None) or None

    return read


# -- The registry ----------------------------------------------------------------------------------

_COLUMNS = (
    Column(
        name="path",
        kind="text",
        help="relative to the root, with /",
        value=lambda photo: photo.path,
        always=True,
    ),
    Column(
        name="size",
        kind="number",
        help="bytes of the file",
        value=lambda photo: photo.size,
        integer=True,
        always=True,
    ),
    Column(
        name="mtime",
        kind="date",
        help="last change of the file, in UTC: the same on every machine",
        value=_mtime,
        # the remainder makes the division round down also before 1970
        sql="strftime('%Y-%m-%dT%H:%M:%S', mtime_ns / 1000000000 - (mtime_ns % 1000000000 < 0), "
        "'unixepoch')",
        always=True,
        private=True,  # often when the photo was taken
    ),
    Column(
        name="taken_at",
        kind="date",
        help="when the photo was taken, local time of the camera, as precisely as it is known",
        read=_date_reader("at"),
        private=True,
        title="Taken",
    ),
    Column(
        name="taken_from",
        kind="text",
        help="what says so, such as EXIF:DateTimeOriginal",
        read=_date_reader("source"),
        private=True,
        title="Date from",
    ),
    Column(
        name="taken_offset",
        kind="text",
        help="of that local time from UTC, such as +02:00",
        read=_date_reader("offset"),
        private=True,
        title="UTC offset",
    ),
    Column(
        name="year",
        kind="number",
        help="of taken_at",
        value=lambda photo: _date_part(photo, 0, 4),
        sql="CAST(substr(taken_at, 1, 4) AS INTEGER)",
        integer=True,
        private=True,
    ),
    Column(
        name="month",
        kind="number",
        help="of taken_at, 1 to 12",
        value=lambda photo: _date_part(photo, 5, 7),
        sql="CAST(NULLIF(substr(taken_at, 6, 2), '') AS INTEGER)",
        integer=True,
        private=True,
    ),
    Column(
        name="camera",
        kind="text",
        help="maker and model",
        read=lambda tags: camera_name(tags.main.text(MAKE), tags.main.text(MODEL)),
        private=True,
        title="Camera",
    ),
    Column(
        name="width",
        kind="number",
        help="pixels, as displayed",
        value=lambda photo: photo.info.width,
        integer=True,
        always=True,
    ),
    Column(
        name="height",
        kind="number",
        help="pixels, as displayed",
        value=lambda photo: photo.info.height,
        integer=True,
        always=True,
    ),
    Column(
        name="aspect",
        kind="number",
        help="width over height: below 1 it stands upright",
        value=lambda photo: float(photo.info.width) / float(max(photo.info.height, 1)),  # as SQLite
        sql="CAST(width AS REAL) / max(height, 1)",
        always=True,
    ),
    Column(
        name="latitude",
        kind="number",
        help="degrees, north positive",
        read=lambda tags: _position(tags)[0],
        private=True,
        title="Place",
        shown=_position_text,
    ),
    Column(
        name="longitude",
        kind="number",
        help="degrees, east positive",
        read=lambda tags: _position(tags)[1],
        private=True,
    ),
    Column(
        name="city",
        kind="text",
        help="city or nearest town, with the extra [places]",
        read=_of_position,
        private=True,
        title="City",
    ),
    Column(
        name="region",
        kind="text",
        help="state or province, with [places]",
        read=_of_position,
        private=True,
        title="Region",
    ),
    Column(
        name="country",
        kind="text",
        help="in English, with [places]",
        read=_of_position,
        private=True,
        title="Country",
    ),
    Column(
        name="lens",
        kind="text",
        help="model of the lens",
        read=lambda tags: tags.exif.text(LENS_MODEL) or None,
        private=True,
        title="Lens",
    ),
    Column(
        name="rating",
        kind="number",
        help="stars, 0 to 5",
        read=_rating,
        integer=True,
        title="Rating",
    ),
    Column(
        name="keywords",
        kind="text",
        help="words that people gave it (XMP, IPTC, sidecar), joined by commas",
        read=_keywords,
        private=True,
        title="Keywords",
    ),
    Column(
        name="description",
        kind="text",
        help="title and description (XMP, IPTC, sidecar)",
        read=_description,
        private=True,
        title="Description",
    ),
    Column(
        name="text",
        kind="text",
        help="the text that stands in it (`vitsearch index --ocr`)",
        read=_of_picture,
        private=True,
        apart=True,
    ),
    Column(
        name="duration",
        kind="number",
        help="seconds that a video lasts",
        read=lambda tags: tags.video.get("duration"),
        title="Duration",
        shown=lambda info: clock(info["duration"]),
    ),
    Column(
        name="time",
        kind="number",
        help="of a moment in a video, in seconds",
        read=lambda tags: tags.video.get("time"),
        title="Moment",
        shown=lambda info: clock(info["time"]),
    ),
    Column(
        name="label",
        kind="text",
        help="the stored label (`vitsearch label --store`)",
        value=lambda photo: photo.label,
    ),
    Column(
        name="score",
        kind="number",
        help="probability of the stored label",
        value=lambda photo: photo.label_score,
        sql="label_score",
    ),
)
COLUMNS: Mapping[str, Column] = {column.name: column for column in _COLUMNS}
METADATA: Mapping[str, Column] = {
    column.name: column for column in _COLUMNS if column.read is not None
}
PRIVATE = frozenset(column.name for column in _COLUMNS if column.private)
