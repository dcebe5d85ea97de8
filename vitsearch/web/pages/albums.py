"""The pages of albums and saved searches, and their changes; and downloads of selected photos: as
paths, as CSV, or as a ZIP that is written while it is sent.
"""

import csv
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from vitsearch.errors import NotShown, PhotoError, QueryError, UnknownPhoto, VitsearchError
from vitsearch.filters.parse import EVERY
from vitsearch.photos.columns import METADATA
from vitsearch.storage import user_data
from vitsearch.storage.store import PhotoStore
from vitsearch.storage.user_data import FAVOURITES, Album, writing
from vitsearch.types import Photo
from vitsearch.web.pages import LARGE, clean, counted, results, size_text
from vitsearch.web.pages.context import Page, PageContext, form_of
from vitsearch.web.pages.url import (
    PER_PAGE,
    PageQuery,
    address,
    page_number,
    read_page_query,
    selection,
)
from vitsearch.web.service import PhotoService
from vitsearch.web.source import busy_when_locked
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


router = APIRouter(include_in_schema=False)

MAX_FIELDS = 1100  # of a form: the most photos that may be ticked, and some more


@router.get("/albums")
def albums(here: Page) -> Response:
    """All albums with their first photo, and the saved searches with their numbers of photos."""
    with here.service.source.facts() as store:
        read = user_data.albums(store) if isinstance(store, PhotoStore) else []
        searches = user_data.saved_searches(store) if isinstance(store, PhotoStore) else []
    covers = {
        photo.photo_id: photo
        for photo in here.service.photos_of([album.ids[0] for album in read if album.ids])
    }
    shown = [
        {
            "name": album.name,
            "address": album_address(album.name),
            "count": counted(len(album.ids), "photo", "photos"),
            "cover": here.tile(covers[album.ids[0]]) if album.ids[:1] and album.ids[0] in covers
            else None,
        }
        for album in read
    ]  # fmt: skip
    rows = [(name, to, _count(here, to)) for name, to in searches]
    return here.page("albums.html", view="/albums", shown=shown, searches=rows)


def _count(here: PageContext, to: str) -> str:
    """Return how many photos a saved search finds now."""
    try:
        query = read_page_query(parse_qsl(urlsplit(to).query, errors="surrogateescape"))
        here.check(query.filters)
        count = len(results.sequence(here, query))
    except VitsearchError:
        return ""
    if query.is_query and count >= results.MAX_BY_DATE:
        return f"{results.MAX_BY_DATE} photos or more"
    return counted(count, "photo", "photos")


def album_address(name: str, **pairs: str) -> str:
    """Return the address of an album's page."""
    return address("/album", [("name", name), *pairs.items()])


@router.get("/album")
def album(here: Page) -> Response:
    """The photos of one album."""
    name = here.request.query_params.get("name", "")
    number = page_number(here.request.query_params.get("page", ""))
    start = (number - 1) * PER_PAGE
    ids = ids_of(here, name)
    photos = here.service.photos_of(ids[start : start + PER_PAGE])
    more = len(ids) > start + PER_PAGE
    shown: dict[str, Any] = {
        "album": name,
        "summary": counted(len(ids), "photo", "photos"),
        "tiles": [here.tile(photo) for photo in photos],
        "page": number,
        "previous": album_address(name, page=str(number - 1)) if number > 1 else "",
        "next": album_address(name, page=str(number + 1)) if more else "",
        "query": PageQuery(),
    }
    return here.page("album.html", view="/albums", **shown)


def ids_of(here: PageContext, name: str) -> list[int]:
    """Return the ids of an album's photos that are in the collection; raises QueryError where there
    is no such album.
    """
    with here.service.source.facts() as store:
        album = user_data.album_named(store, name) if isinstance(store, PhotoStore) else None
        if album is None:
            raise QueryError(f"there is no album {name[: user_data.MAX_NAME]!r}")
        ids = np.array(album.ids, dtype=np.int64)
        present: list[int] = ids[np.isin(ids, store.ids_where(EVERY))].tolist()
    return present


@router.post("/albums")
async def change(request: Request) -> Response:
    """Change an album or a saved search, and go to where the change is seen."""
    here = PageContext(request)
    values, ids = await form_of(request, MAX_FIELDS)
    to = await run_in_threadpool(_change, here, values, ids)
    return RedirectResponse(to, 303)


def _change(here: PageContext, values: dict[str, str], ticked: Sequence[str]) -> str:
    """Make a change and return the address to go to; raises NotShown for who may not write."""
    if not here.may_write:
        raise NotShown(
            "only the person at this machine may change albums, from the address that `vitsearch "
            "serve` printed; with --allow-edits everybody who has the token may"
        )
    action = ACTIONS.get(values.get("do", ""))
    if action is None:
        raise QueryError(f"an album can be changed by {', '.join(ACTIONS)}")
    with busy_when_locked(), writing(here.service.source.folder) as store:
        return action(store, values, ticked)


def _named(store: PhotoStore, values: dict[str, str], field: str = "album") -> Album:
    """Return the album that a form names, a new one where there is none."""
    name = user_data.checked_name(values.get(field, "").strip())
    return user_data.album_named(store, name) or Album(name)


def _add(store: PhotoStore, values: dict[str, str], ticked: Sequence[str]) -> str:
    album = _named(store, values).with_photos(selection(ticked) if ticked else [])
    user_data.put_album(store, album)
    return album_address(album.name)


def _favourite(store: PhotoStore, values: dict[str, str], ticked: Sequence[str]) -> str:
    """Make photos favourites, or one that is a favourite already no longer."""
    ids, album = selection(ticked), _named(store, {"album": FAVOURITES})
    is_one = len(ids) == 1 and ids[0] in album.ids
    user_data.put_album(store, album.without(ids) if is_one else album.with_photos(ids))
    return album_address(FAVOURITES)


def _remove(store: PhotoStore, values: dict[str, str], ticked: Sequence[str]) -> str:
    album = _named(store, values, "from").without(selection(ticked))
    user_data.put_album(store, album)
    return album_address(album.name)


def _first(store: PhotoStore, values: dict[str, str], ticked: Sequence[str]) -> str:
    album = _named(store, values, "from").with_first(selection(ticked))
    user_data.put_album(store, album)
    return album_address(album.name)


def _rename(store: PhotoStore, values: dict[str, str], _: Sequence[str]) -> str:
    album, renamed = _named(store, values, "from"), _named(store, values)
    user_data.remove_album(store, album.name)
    user_data.put_album(store, renamed.with_photos(album.ids))
    return album_address(renamed.name)


def _delete(store: PhotoStore, values: dict[str, str], _: Sequence[str]) -> str:
    user_data.remove_album(store, values.get("from", ""))
    return "/albums"


def _save(store: PhotoStore, values: dict[str, str], _: Sequence[str]) -> str:
    query = read_page_query(parse_qsl(urlsplit(values.get("search", "")).query))
    if query.uploads or not (query.is_query or query.filters.pairs()):
        raise QueryError("a search of words, photos of the collection or filters can be saved")
    user_data.put_search(store, values.get("name", "").strip(), query.address())
    return "/albums#searches"


def _forget(store: PhotoStore, values: dict[str, str], _: Sequence[str]) -> str:
    user_data.remove_search(store, values.get("name", ""))
    return "/albums#searches"


Action = Callable[[PhotoStore, dict[str, str], Sequence[str]], str]
ACTIONS: dict[str, Action] = {
    "add": _add,
    "favourite": _favourite,
    "remove": _remove,
    "first": _first,
    "rename": _rename,
    "delete": _delete,
    "save": _save,
    "forget": _forget,
}
