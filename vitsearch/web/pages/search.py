"""The pages of the search and of help, uploads, and downloads of ticked photos."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import (
    FileResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)

from vitsearch.collection.understanding import Understood
from vitsearch.errors import NotShown, PhotoError, QueryError, TooLarge, UnknownPhoto
from vitsearch.photos.columns import COLUMNS, METADATA
from vitsearch.web.pages import (
    ALONE,
    CHOICES,
    LIKE,
    UNLIKE,
    PageQuery,
    indexing,
    number,
    read_page_query,
    selection,
    size_text,
    thumbnail,
)
from vitsearch.web.pages import albums as album_pages
from vitsearch.web.pages import duplicates as duplicate_pages
from vitsearch.web.pages import labels as label_pages
from vitsearch.web.pages import maps as map_pages
from vitsearch.web.pages import photo as photo_pages
from vitsearch.web.pages.context import STATIC, Page, PageContext, page, views_for, webp_response
from vitsearch.web.pages.indexing import has_collection
from vitsearch.web.pages.photo import as_csv, as_gallery, as_paths, as_zip
from vitsearch.web.pages.results import ADDED, TAKEN, listing_of, orders, results_of, scrubber
from vitsearch.web.privacy import exif_shown
from vitsearch.web.responses import wants_page
from vitsearch.web.routes import in_picture_thread

router = APIRouter(include_in_schema=False)
router.include_router(duplicate_pages.router)
router.include_router(label_pages.router)
router.include_router(photo_pages.router)
router.include_router(album_pages.router)
router.include_router(indexing.router)
router.include_router(indexing.failures_router)
router.include_router(map_pages.map_router)
router.include_router(map_pages.places_router)

Chip = dict[str, Any]


def warm_up(app: FastAPI) -> None:
    """Work out what the first page of all photos shows, and what the saved searches find, so that
    nobody waits for it.
    """
    here = PageContext(Request({"type": "http", "app": app}))
    with suppress(Exception):  # the page says what is wrong; or the server stops already
        here.facets()
        for order in (TAKEN, ADDED):
            listing_of(here, None, order)
        here.shows_exif = True  # to the person at this machine, who sees the albums
        album_pages.saved_searches(here)


@router.get("/")
def search(here: Page) -> Response:
    """The photos, all of them or those most like the query."""
    try:
        query = here.query()
        understood = here.understand(query)
        texts = [term.what for term in understood.terms if isinstance(term.what, str)]
        listing = results_of(here, query, understood)
        shown: dict[str, Any] = {
            "tiles": listing.tiles,
            "sections": listing.sections,
            "years": scrubber(query, listing.months),
            "orders": orders(here, query, is_ranked=listing.is_ranked),
            "next": query.address(page=query.page + 1) if listing.more else "",
            "summary": listing.summary,
            "all_nearest": replace(query, nearest=True).address() if listing.is_cut else "",
            "fits": listing.fits,
            "chips": _chips(here, query, understood),
            "phrases": _phrases(query, understood),
            "literally": replace(query, literal=True).address() if understood.phrases else "",
            "notes": here.service.notes(texts) if texts else [],
        }
        return _search_page(here, query, **shown)
    except (QueryError, NotShown, UnknownPhoto) as error:
        status = 403 if isinstance(error, NotShown) else 400
        written = here.as_written()
        chips = _chips(here, written, Understood((), (), None))
        return _search_page(here, written, status=status, fault=str(error), chips=chips)


def _phrases(query: PageQuery, understood: Understood) -> list[tuple[str, str]]:
    """Return what was understood besides the picture, each with the address without it."""
    return [
        (title, replace(query, words=rest, page=1).address())
        for title, rest in zip(understood.titles, understood.without, strict=True)
    ]


def _search_page(
    here: PageContext, query: PageQuery, *, status: int = 200, fault: str = "", **results: Any
) -> Response:
    facets = here.facets()
    filters = query.filters.pairs()
    choices = [METADATA[name] for name in CHOICES]
    shown: dict[str, Any] = {
        "query": query,
        "choices": [column for column in choices if here.shows_exif or not column.private],
        "chosen": dict.fromkeys(CHOICES, "") | dict(query.filters.choices),
        "facets": facets,
        "total": facets.total,
        "fault": fault,
        "filters_set": len(filters),
        "open_filters": bool(filters and fault),
        "unfiltered": PageQuery(query.words, query.picks, query.uploads).address(),
        "previous": query.address(page=query.page - 1) if query.page > 1 else "",
        "can_save": here.may_write
        and bool(query.words or query.picks or filters)
        and not query.uploads,
        "any_weight": any(chip["picture"] for chip in results.get("chips", [])),
    }
    empty: dict[str, Any] = {"tiles": [], "next": "", "summary": "", "chips": [], "notes": []}
    empty |= {"phrases": [], "literally": "", "all_nearest": "", "fits": True}
    empty |= {"sections": [], "years": [], "orders": []}
    return here.page("search.html", status=status, view="/", **shown | empty | results)


def _chips(here: PageContext, query: PageQuery, understood: Understood) -> list[Chip]:
    """Return the parts of a search with their weights, nothing for one text alone."""
    words = understood.terms
    photos = here.service.photos_of([pick.photo_id for pick in query.picks])
    names = {photo.photo_id: photo.file.rpartition("/")[2] for photo in photos}
    pictures = [
        (
            f"w{pick.photo_id}",
            names.get(pick.photo_id, "a photo"),
            pick.weight,
            thumbnail(pick.photo_id, 160),
        )
        for pick in query.picks
    ]
    pictures += [
        (f"u{upload.key}", "the photo that you brought", upload.weight, f"/brought/{upload.key}")
        for upload in query.uploads
    ]
    chips = [_text_chip(str(term.what), term.weight) for term in words]
    for name, title, weight, picture in pictures:
        off = query.without(name).address()
        shown = number(weight)
        chips.append(
            Chip(name=name, title=title, weight=weight, shown=shown, picture=picture, off=off)
        )
    one_text = len(chips) == 1 and not pictures and chips[0]["weight"] == 1
    return [] if one_text and not understood.phrases else chips


def _text_chip(text: str, weight: float) -> Chip:
    shown = f"{'+' if weight > 0 else '−'} {number(abs(weight))}"
    return Chip(name="", title=text, weight=weight, shown=shown, picture="", off="")


@router.get("/refine")
def refine(here: Page) -> Response:
    """Go to the search that also looks for photos like the ticked ones, or unlike them."""
    pairs = here.request.query_params.multi_items()
    ids = selection([value for name, value in pairs if name == "id"])
    query = read_page_query(pairs)
    weight = LIKE if query.is_query else ALONE
    if here.request.query_params.get("way") == "unlike":
        weight = UNLIKE
    share = round(weight / len(ids), 4)  # all ticked photos together weigh as much as one
    return RedirectResponse(query.with_picks(ids, share or UNLIKE).address(), 303)


# -- uploaded photos -------------------------------------------------------------------------------


@router.post("/photo")
async def upload(request: Request) -> Response:
    """Receive a photo that was dropped, pasted or chosen, and go to the search for photos like
    it.
    """
    here = PageContext(request)
    pairs: list[tuple[str, str]] = []
    try:
        to = await _upload(here, pairs)
        # a script of the page stays on it where this fails
        if request.headers.get("accept") == "application/json":
            return JSONResponse({"address": to})
        return RedirectResponse(to, 303)
    except (QueryError, PhotoError, TooLarge) as error:
        if not wants_page(request):
            raise
        status, fault = 413 if isinstance(error, TooLarge) else 400, str(error)
        search = partial(_search_page, here, _query_of(pairs), status=status, fault=fault)
        return await run_in_threadpool(search)


def _query_of(pairs: list[tuple[str, str]]) -> PageQuery:
    """Return the search of a form, an empty one where it makes no sense."""
    try:
        return read_page_query(pairs)
    except QueryError:
        return PageQuery()


async def _upload(here: PageContext, pairs: list[tuple[str, str]]) -> str:
    """Return the address of the search for photos like the one that comes with a form, whose other
    fields are added to ``pairs``.
    """
    async with here.request.form(max_files=1, max_fields=200) as form:
        pairs += [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        file = form.get("photo")
        if not isinstance(file, UploadFile) or not file.size:
            raise QueryError("no photo came with the form: choose one, or drop it on the page")
        if file.size > here.settings.upload_bytes:
            raise TooLarge(
                f"the photo has {size_text(file.size)}, more than "
                f"{size_text(here.settings.upload_bytes)}: make it smaller"
            )
        data = await file.read()
    return await in_picture_thread(here.service, lambda: _uploaded(here, data, pairs))


def _uploaded(here: PageContext, data: bytes, pairs: list[tuple[str, str]]) -> str:
    """Return the address of the search for photos like an uploaded one."""
    return here.like_picture(here.service.read_picture(data), read_page_query(pairs))


@router.get("/brought/{key}")
def uploaded_photo(here: Page, key: str) -> Response:
    """A small picture of an uploaded photo."""
    try:
        picture = here.memory.uploads.get(key).picture
    except QueryError as error:
        raise UnknownPhoto(str(error)) from error
    return webp_response(picture, max_age=3600)


# -- downloads -------------------------------------------------------------------------------------


@router.post("/export")
async def download(request: Request) -> Response:
    """The ticked photos, or those of an album: their paths, a CSV, a ZIP, or a gallery in one."""
    form = await request.form()
    layout, album = str(form.get("as", "paths")), str(form.get("of", ""))
    ticked = [value for value in form.getlist("id") if isinstance(value, str)]
    ids = [] if album else selection(ticked)
    return await run_in_threadpool(_download, PageContext(request), ids, album, layout)


def _download(here: PageContext, ids: list[int], album: str, layout: str) -> Response:
    photos = here.service.photos_of(album_pages.ids_of(here, album) if album else ids)
    if layout == "paths":
        return _file(as_paths(photos), "text/plain; charset=utf-8", "photos.txt")
    if layout == "csv":
        table = as_csv(photos, here.shows_exif)
        return _file(table, "text/csv; charset=utf-8", "photos.csv")
    if layout == "zip":
        pieces = as_zip(here.service, photos, here.shows_exif)
    elif layout == "html":
        pieces = as_gallery(here.service, photos, album or "Photos")
    else:
        raise QueryError("a selection is taken as paths, csv, zip or html")
    name = "gallery.zip" if layout == "html" else "photos.zip"
    return StreamingResponse(pieces, media_type="application/zip", headers=_saved_as(name))


def _file(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers=_saved_as(name))


def _saved_as(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}


# -- help, errors and the icon ---------------------------------------------------------------------


@router.get("/help")
def help(here: Page) -> Response:
    """How to search, and the keyboard."""
    return here.page("help.html", columns=list(COLUMNS.values()))


def favicon() -> Response:
    """The icon for what asks for it by this name, such as pages without a link to it."""
    return FileResponse(STATIC / "icon-48.png", headers={"Cache-Control": "public, max-age=86400"})


def error_page(request: Request, status: int, message: str) -> Response:
    """Return an error as a page."""
    titles = {403: "Not shown here", 404: "Not there", 413: "Too large", 503: "Just a moment"}
    return page(
        "error.html",
        {
            "title": titles.get(status, "That did not work"),
            "text": message,
            "views": views_for(shows_exif=exif_shown(request)) if has_collection(request) else (),
            "collections": request.app.state.collections,
        },
        status=status,
    )
