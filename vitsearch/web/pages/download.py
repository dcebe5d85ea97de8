"""A selection of photos to take along: as paths, as CSV, or as a ZIP that is written while it is
sent.
"""

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from vitsearch.errors import PhotoError, QueryError, UnknownPhoto
from vitsearch.photos.columns import METADATA
from vitsearch.types import Photo
from vitsearch.web.pages.tiles import size_text
from vitsearch.web.service import PhotoService
from vitsearch.web.thumbnails import WHOLE

MAX_BYTES = 2_000_000_000  # of the photos in one ZIP
PIECE = 1 << 18
EARLIEST, LATEST = (
    315_619_200,
    4_354_732_800,
)  # 2 January 1980 and 31 December 2107, the years of a ZIP


def as_paths(photos: Sequence[Photo]) -> bytes:
    """Return the paths, one a line, relative to the photo folder, as the file system has them."""
    return b"".join(photo.path.encode("utf-8", "surrogateescape") + b"\n" for photo in photos)


def as_csv(photos: Sequence[Photo], shows_exif: bool) -> bytes:
    """Return a row for each photo; private columns are in it where they may be seen."""
    metadata = [name for name, column in METADATA.items() if shows_exif or not column.private]
    out = io.StringIO(newline="")
    rows = csv.writer(out)
    rows.writerow(
        [
            "id",
            "path",
            "width",
            "height",
            "bytes",
            "label",
            "label_score",
            *metadata,
        ]
    )
    for photo in photos:
        info = photo.info
        score = "" if photo.label_score is None else f"{photo.label_score:.6f}"
        rows.writerow(
            [
                photo.photo_id,
                cell(photo.path),
                info.width,
                info.height,
                photo.size,
                cell(photo.label or ""),
                score,
                *(cell(info[name]) for name in metadata),
            ]
        )
    return out.getvalue().encode("utf-8", "surrogateescape")


def cell(value: str | float | None) -> str | float | None:
    """Return a cell that a spreadsheet takes for what it is: a name that begins like a formula gets
    a quote before it.
    """
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )


def check_size(photos: Sequence[Photo]) -> None:
    """Raise QueryError for more than a ZIP may hold."""
    total = sum(photo.size for photo in photos)
    if total > MAX_BYTES:
        raise QueryError(
            f"these photos have {size_text(total)}, a ZIP holds up to {size_text(MAX_BYTES)}: "
            "take fewer, or their paths"
        )


class _Pipe(io.RawIOBase):
    """Takes what is written and gives it away in pieces; it cannot go back, and `zipfile` then does
    not try to.
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(memoryview(data))  # type: ignore[arg-type]
        self._held += piece
        return len(piece)

    def taken(self) -> bytes:
        piece = bytes(self._held)
        self._held.clear()
        return piece


def as_zip(service: PhotoService, photos: Sequence[Photo], whole: bool) -> Iterator[bytes]:
    """Yield a ZIP of the photos, piece by piece: the files as they are, or with ``whole`` False
    written again without metadata.

    What is gone or shows nothing any more is listed in ``missing.txt``. Raises nothing once it has
    begun.
    """
    pipe, missing = _Pipe(), []
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as out:
        for photo in photos:
            try:
                if whole:
                    yield from _file(out, pipe, service.file_of(photo.photo_id), _entry(photo))
                else:
                    out.writestr(
                        _entry(photo, ".webp"), service.thumbnail(photo.photo_id, WHOLE).data
                    )
                    yield pipe.taken()
            except (UnknownPhoto, PhotoError, OSError):
                missing.append(photo)
        if missing:
            out.writestr("missing.txt", as_paths(missing))
    yield pipe.taken()


def _file(out: zipfile.ZipFile, pipe: _Pipe, file: Path, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    with open(file, "rb") as source, out.open(entry, "w", force_zip64=True) as target:
        while piece := source.read(PIECE):
            target.write(piece)
            yield pipe.taken()


def _entry(photo: Photo, suffix: str = "") -> zipfile.ZipInfo:
    """Return the head of a photo in the ZIP, whose names are text and whose years begin with 1980:
    bytes that are no UTF-8 are shown.
    """
    name = (
        photo.path.encode("utf-8", "surrogateescape")
        .decode("utf-8", "backslashreplace")
        .replace("\\", "_")
    )
    day = datetime.fromtimestamp(min(max(photo.mtime_ns // 10**9, EARLIEST), LATEST))
    return zipfile.ZipInfo(
        name + suffix, (day.year, day.month, day.day, day.hour, day.minute, day.second)
    )
