"""The page of one photo: its facts, what the models say about it, and photos like it; and photos to
take away: as paths, as CSV, or as a ZIP that is written while it is sent.
"""

import csv
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from vitsearch.errors import (
    EncoderError,
    NotShown,
    PhotoError,
    QueryError,
    UnknownPhoto,
)
from vitsearch.filters.tree import says_in
from vitsearch.photos.columns import METADATA
from vitsearch.photos.text import places_of
from vitsearch.storage.metadata import text_of
from vitsearch.storage.store import PhotoStore
from vitsearch.storage.user_data import FAVOURITES, album_named
from vitsearch.types import Photo
from vitsearch.web.pages import (
    LARGE,
    MAX_QUERY_LENGTH,
    PageQuery,
    address,
    clean,
    label_lines,
    results,
    size_text,
    spoken_date,
    thumbnail,
    video,
)
from vitsearch.web.pages.cache import LABELS, Shares
from vitsearch.web.pages.context import Page, PageContext, webp_response
from vitsearch.web.routes import in_picture_thread
from vitsearch.web.service import PhotoService
from vitsearch.web.thumbnails import WHOLE

router = APIRouter(include_in_schema=False)

ALIKE = 12  # photos like the one on its page
MIN_PART = 8  # pixels
MAX_OFFERED = 50  # stored labels among which a photo's page chooses


@router.get("/photos/{photo_id}")
def photo_page(here: Page, photo_id: int) -> Response:
    """One photo: its columns, what the models say about it, and photos like it."""
    photo, query = here.service.photo(photo_id), here.previous_query()
    insights = here.memory.insights
    written = here.request.query_params.get("labels", "")
    names = label_lines(written) if written else _offered_labels(here)
    zero_shot, zero_shot_fault = _attempt(lambda: insights.zero_shot(photo_id, names))
    supervised, supervised_fault = _attempt(lambda: insights.supervised(photo_id))
    explaining = here.request.query_params.get("why") == "1"
    explaining_pairs = [*query.pairs(page=True), ("why", "1")]
    shown: dict[str, Any] = {
        **_about(here, photo, query),
        **_neighbours(here, photo_id, query),
        "picture": thumbnail(photo_id, LARGE),
        "back": query.address(page=query.page),
        "words": _positive_words(here, query),
        "zero_shot": zero_shot,
        "zero_shot_fault": zero_shot_fault,
        "label_text": written or ", ".join(names),
        "supervised": supervised,
        "supervised_fault": supervised_fault,
        "can_explain": insights.can_explain,
        "heatmap": _heatmap_address(here, photo_id, query) if explaining else "",
        "explain_address": address(f"/photos/{photo_id}", explaining_pairs) + "#why",
        "alike": here.tiles(here.service.similar(photo_id, k=ALIKE)),
        "fault": "",
    }
    return here.page("photo.html", **shown)


def _about(here: PageContext, photo: Photo, query: PageQuery) -> dict[str, Any]:
    """Return what stands beside a photo."""
    return {
        "query": query,
        "tile": here.tile(photo, side=min(LARGE, max(photo.info.width, photo.info.height))),
        "full_picture": video(photo.photo_id, photo.time),
        "frames": _frames(here, photo, query),
        "text": photo.info["text"] if here.shows_exif else None,
        "facts": _facts(photo, here.service.companions([photo]), here.shows_exif),
    }


@router.get("/photos/{photo_id}/about")
def about(here: Page, photo_id: int) -> Response:
    """What stands beside a photo, for the viewer."""
    photo, query = here.service.photo(photo_id), here.previous_query()
    can_explain = here.memory.insights.can_explain
    return here.page(
        "photo_about.html",
        is_favourite=_is_favourite(here, photo_id),
        page_address=address(f"/photos/{photo_id}", query.pairs(page=True)),
        why=_heatmap_address(here, photo_id, query) if can_explain else "",
        **_about(here, photo, query),
    )


def _is_favourite(here: PageContext, photo_id: int) -> bool:
    with here.service.source.facts() as store:
        favourites = album_named(store, FAVOURITES) if isinstance(store, PhotoStore) else None
    return favourites is not None and photo_id in favourites.ids


def _heatmap_address(here: PageContext, photo_id: int, query: PageQuery) -> str:
    return address(f"/photos/{photo_id}/why", [("q", _positive_words(here, query))])


def _neighbours(here: PageContext, photo_id: int, query: PageQuery) -> dict[str, str]:
    """Return the addresses of the photos before and after one in the results that led to it."""
    try:
        ids = results.sequence(here, query)
    except (QueryError, NotShown, UnknownPhoto):
        ids = []
    at = ids.index(photo_id) if photo_id in ids else len(ids)
    pairs = query.pairs(page=True)
    before, after = ids[max(0, at - 1) : at] if at < len(ids) else [], ids[at + 1 : at + 2]
    return {
        name: address(f"/photos/{near[0]}", pairs) if near else ""
        for name, near in (("previous", before), ("next", after))
    }


@router.post("/photos/{photo_id}/part")
async def part(request: Request, photo_id: int) -> Response:
    """Go to the search for photos like a part of one, whose edges are in shares of its width and
    height.
    """
    here = PageContext(request)
    form = await request.form(max_files=0, max_fields=10)
    box = [share(str(form.get(name, ""))) for name in ("left", "top", "right", "bottom")]
    to = await in_picture_thread(here.service, lambda: _like_part(here, photo_id, box))
    return RedirectResponse(to, 303)


def share(text: str) -> float:
    """Return a number from 0 to 1; raises QueryError for any other text."""
    if not re.fullmatch(r"[01](\.\d{1,9})?", text, re.ASCII) or float(text) > 1:
        raise QueryError("a part of a photo has edges from 0 to 1")
    return float(text)


def _like_part(here: PageContext, photo_id: int, box: Sequence[float]) -> str:
    """Return the address of the search for photos like a part of one."""
    photo = here.service.photo(photo_id)
    image = here.service.picture(photo_id, max(photo.info.width, photo.info.height))
    left, right = (round(edge * image.width) for edge in box[::2])
    top, bottom = (round(edge * image.height) for edge in box[1::2])
    if min(right - left, bottom - top) < MIN_PART:
        raise QueryError(f"a part of a photo has at least {MIN_PART} pixels along each side")
    return here.like_picture(image.crop((left, top, right, bottom)), PageQuery())


def _frames(here: PageContext, photo: Photo, query: PageQuery) -> list[tuple[int, int, int, int]]:
    """Return left, top, width and height of what a search asked to stand in a photo as text, in
    shares of `SCALE`; nothing for who may not see the text.
    """
    if not here.shows_exif or not photo.info["text"]:
        return []
    with here.service.source.facts() as store:
        text = text_of(store, photo) if isinstance(store, PhotoStore) else None
    if text is None:
        return []
    try:
        terms, where = here.understand(query).terms, query.filters.tree()
    except QueryError:
        return []
    places = [
        p for term in terms for words in term.verbatim for p in places_of(text, words, exact=True)
    ]
    for says in says_in(where) if where else ():
        places += places_of(text, says.words, exact=says.exact)
    return [(x, y, right - x, bottom - y) for x, y, right, bottom in dict.fromkeys(places)]


def _positive_words(here: PageContext, query: PageQuery) -> str:
    """Return the words of a search for what should be in the photos."""
    try:
        terms = here.understand(query).terms
    except QueryError:
        return ""
    return ", ".join(str(term.what) for term in terms if term.weight > 0)


def _offered_labels(here: PageContext) -> list[str]:
    """Return the stored labels of the collection, or general ones where they are too many or too
    few.
    """
    stored = [name for name, _ in here.facets().labels]
    return stored if 1 < len(stored) <= MAX_OFFERED else list(LABELS)


def _attempt(classify: Callable[[], Shares]) -> tuple[Shares, str]:
    """Return the labels and "", or none and the reason."""
    try:
        return classify(), ""
    except UnknownPhoto:
        return [], "The file of this photo is not there any more."
    except (QueryError, PhotoError, EncoderError) as error:
        return [], str(error)


def _facts(
    photo: Photo, companions: Mapping[str, Sequence[str]], shows_exif: bool
) -> list[tuple[str, str]]:
    info = photo.info
    facts = [("Path", photo.file), *(("With it", name) for name in companions.get(photo.path, ()))]
    for name, column in METADATA.items():
        value = info[name]
        if not column.title or value is None or (column.private and not shows_exif):
            continue
        plain = spoken_date(str(value)) if column.kind == "date" else str(value)
        text = column.shown(info) if column.shown else plain
        facts += [(column.title, text)] if text else []
    facts += [("Size", f"{info.width} × {info.height} pixels, {size_text(photo.size)}")]
    if photo.label:
        score = "" if photo.label_score is None else f" ({100 * photo.label_score:.0f} %)"
        facts.append(("Label", photo.label + score))
    return facts


@router.get("/photos/{photo_id}/why")
def heatmap(here: Page, photo_id: int) -> Response:
    """The photo under a heat map of what speaks for the words, or of what the model looks at."""
    text = here.request.query_params.get("q", "").strip()[:MAX_QUERY_LENGTH]
    try:
        return webp_response(here.memory.insights.heatmap(photo_id, text), max_age=600)
    except EncoderError as error:
        raise QueryError(str(error)) from error


# -- Downloads -------------------------------------------------------------------------------------


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
