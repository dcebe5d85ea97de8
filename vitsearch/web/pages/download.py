"""Downloads of selected photos: as paths, as CSV, or as a ZIP that is written while it is sent."""

import csv
import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from html import escape

from vitsearch.errors import PhotoError, QueryError, UnknownPhoto
from vitsearch.photos.columns import METADATA
from vitsearch.types import Photo
from vitsearch.web.pages import LARGE, clean, size_text
from vitsearch.web.service import PhotoService
from vitsearch.web.thumbnails import WHOLE

MAX_BYTES = 2_000_000_000  # of the photos in one ZIP
PIECE = 1 << 18
# 2 January 1980 and 31 December 2107: the years that a ZIP can hold
EARLIEST, LATEST = 315_619_200, 4_354_732_800
CSV_COLUMNS = ("id", "path", "width", "height", "bytes", "label", "label_score")


def as_paths(photos: Sequence[Photo]) -> bytes:
    """Return the paths, one a line, relative to the photo folder, as the file system has them."""
    files = dict.fromkeys(photo.file for photo in photos)
    return b"".join(file.encode("utf-8", "surrogateescape") + b"\n" for file in files)


def as_csv(photos: Sequence[Photo], shows_exif: bool) -> bytes:
    """Return a row for each photo, with private columns only where ``shows_exif``."""
    metadata = [name for name, column in METADATA.items() if shows_exif or not column.private]
    out = io.StringIO(newline="")
    rows = csv.writer(out)
    rows.writerow([*CSV_COLUMNS, *metadata])
    for photo in photos:
        info = photo.info
        score = "" if photo.label_score is None else f"{photo.label_score:.6f}"
        rows.writerow(
            [
                photo.photo_id,
                cell(photo.file),
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
    """Return a cell that a spreadsheet does not mistake for a formula: text that begins like one
    gets a quote before it.
    """
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def _check_size(photos: Sequence[Photo]) -> None:
    """Raise QueryError for more than a ZIP may hold."""
    total = sum({photo.file: photo.size for photo in photos}.values())
    if total > MAX_BYTES:
        raise QueryError(
            f"these photos have {size_text(total)}, a ZIP holds up to {size_text(MAX_BYTES)}: "
            "take fewer, or their paths"
        )


_GALLERY = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{margin:2rem;font:1rem system-ui,sans-serif;background:#faf9f7;color:#1f2328}}
main{{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr))}}
img{{width:100%;aspect-ratio:1;object-fit:cover;border-radius:.6rem}}figure{{margin:0}}
figcaption{{color:#5a6069;overflow-wrap:anywhere}}</style>
<h1>{title}</h1>
<main>
{figures}
</main>
</html>
"""
_FIGURE = (
    '<figure><a href="{file}"><img src="{file}" alt="{name}" loading="lazy"></a>'
    "<figcaption>{name}</figcaption></figure>"
)


def as_gallery(service: PhotoService, photos: Sequence[Photo], title: str) -> Iterator[bytes]:
    """Return in pieces a ZIP of a page that needs no server, and its pictures without metadata;
    photos that cannot be decoded any more are left out.
    """
    pipe, figures = _Pipe(), []
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as out:
        for number, photo in enumerate(photos, start=1):
            with suppress(UnknownPhoto, PhotoError, OSError):
                picture = service.thumbnail(photo.photo_id, LARGE)
                file = f"photos/{number:05}.webp"
                out.writestr(zipfile.ZipInfo(file), picture.data)
                name = escape(str(clean(photo.file.rpartition("/")[2])))
                figures.append(_FIGURE.format(file=file, name=name))
            yield pipe.drain()
        page = _GALLERY.format(title=escape(str(clean(title))), figures="\n".join(figures))
        out.writestr(zipfile.ZipInfo("index.html"), page.encode())
    yield pipe.drain()


class _Pipe(io.RawIOBase):
    """Collects what is written until it is sent; it is not seekable, so `zipfile` never seeks."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(memoryview(data))  # type: ignore[arg-type]
        self._buffer += piece
        return len(piece)

    def drain(self) -> bytes:
        piece = bytes(self._buffer)
        self._buffer.clear()
        return piece


def as_zip(service: PhotoService, photos: Sequence[Photo], shows_exif: bool) -> Iterator[bytes]:
    """Return a ZIP of the photos in pieces: the files as they are, with those that belong to them
    (the RAW of a JPEG), or unless ``shows_exif`` written anew without metadata.

    Files that are gone or cannot be decoded any more are listed in ``missing.txt``. Raises
    QueryError for more than a ZIP may hold, nothing once it has begun.
    """
    if shows_exif:
        photos = [*_with_companions(service, photos)]
    _check_size(photos)
    return _pieces(service, photos, shows_exif)


def _with_companions(service: PhotoService, photos: Sequence[Photo]) -> Iterator[Photo]:
    """Yield the photos, each followed by the files that belong to it, whose id is 0."""
    companions = service.companions(photos)
    for photo in photos:
        yield photo
        for path in companions.get(photo.path, ()):
            with suppress(PhotoError), service.source.open_companion(path) as file:
                facts = os.fstat(file.fileno())
                yield replace(
                    photo, photo_id=0, path=path, size=facts.st_size, mtime_ns=facts.st_mtime_ns
                )


def _pieces(service: PhotoService, photos: Sequence[Photo], shows_exif: bool) -> Iterator[bytes]:
    pipe, missing = _Pipe(), []
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as out:
        for photo in {photo.file: photo for photo in photos}.values():
            try:
                if shows_exif:
                    yield from _file(out, pipe, service, photo)
                else:
                    picture = service.thumbnail(photo.photo_id, WHOLE)
                    out.writestr(_entry(photo, shows_exif=False), picture.data)
                    yield pipe.drain()
            except (UnknownPhoto, PhotoError, OSError):
                missing.append(photo)
        if missing:
            out.writestr("missing.txt", as_paths(missing))
    yield pipe.drain()


def _file(
    out: zipfile.ZipFile, pipe: _Pipe, service: PhotoService, photo: Photo
) -> Iterator[bytes]:
    # before the entry is begun: it may be refused
    source = (
        service.open_photo(photo.photo_id)
        if photo.photo_id
        else service.source.open_companion(photo.path)
    )
    with source, out.open(_entry(photo, shows_exif=True), "w", force_zip64=True) as target:
        while piece := source.read(PIECE):
            target.write(piece)
            yield pipe.drain()


def _entry(photo: Photo, *, shows_exif: bool) -> zipfile.ZipInfo:
    """Return the header of a photo in the ZIP, whose names must be text (other bytes are escaped)
    and whose years begin with 1980; unless ``shows_exif`` that of a picture without a date.
    """
    raw = photo.file.encode("utf-8", "surrogateescape")
    name = raw.decode("utf-8", "backslashreplace").replace("\\", "_")
    if not shows_exif:
        return zipfile.ZipInfo(f"{name}.webp")
    moment = datetime.fromtimestamp(min(max(photo.mtime_ns // 10**9, EARLIEST), LATEST))
    year, month, day, hour, minute, second = moment.timetuple()[:6]
    return zipfile.ZipInfo(name, (year, month, day, hour, minute, second))
