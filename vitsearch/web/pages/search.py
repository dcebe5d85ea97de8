"""The pages: the search with its refinements, a photo, and a selection to take along."""

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import RedirectResponse, Response, StreamingResponse

from vitsearch.collection.query import Term
from vitsearch.errors import EncoderError, PhotoError, QueryError, UnknownPhoto
from vitsearch.photos.columns import COLUMNS, METADATA
from vitsearch.types import Photo
from vitsearch.web.errors import NotShown, TooLarge
from vitsearch.web.pages import collection as views
from vitsearch.web.pages import download as export
from vitsearch.web.pages.context import PER_PAGE, Page, PageContext
from vitsearch.web.pages.insights import LABELS, Shares
from vitsearch.web.pages.templating import page
from vitsearch.web.pages.tiles import LARGE, Tile, counted, image, size_text, spoken_date, thumbnail
from vitsearch.web.pages.url import (
    ALONE,
    CHOICES,
    LIKE,
    UNLIKE,
    PageQuery,
    UploadedRef,
    address,
    asked,
    label_lines,
    number,
    selection,
)
from vitsearch.web.query import read_query

router = APIRouter(include_in_schema=False)
router.include_router(views.router)

ALIKE = 12  # photos like the one on its page
Chip = dict[str, Any]


@router.get("/")
def search(here: Page) -> Response:
    """The photos, all of them or those most like what is asked."""
    try:
        found = here.asked()
        tiles, more, summary = _results(here, found)
        chips = _chips(here, found)
        notes = (
            here.service.notes(
                [term.what for term in read_query(found.words) if isinstance(term.what, str)]
            )
            if found.words
            else []
        )
        return _search_page(
            here, found, tiles=tiles, more=more, summary=summary, chips=chips, notes=notes
        )
    except (QueryError, NotShown, UnknownPhoto) as error:
        return _search_page(
            here,
            here.as_written(),
            fault=str(error),
            status=403 if isinstance(error, NotShown) else 400,
        )


def _search_page(
    here: PageContext,
    found: PageQuery,
    *,
    status: int = 200,
    tiles: list[Tile] | None = None,
    more: bool = False,
    **facts: Any,
) -> Response:
    facets = here.facets()
    filters = found.filters.pairs()
    choices = [METADATA[name] for name in CHOICES]
    shown: dict[str, Any] = {
        "asked": found,
        "choices": [column for column in choices if here.shows_exif or not column.private],
        "chosen": dict.fromkeys(CHOICES, "") | dict(found.filters.choices),
        "facets": facets,
        "total": facets.total,
        "tiles": tiles or [],
        "chips": facts.get("chips", []),
        "any_weight": any(chip["picture"] for chip in facts.get("chips", [])),
        "notes": facts.get("notes", []),
        "fault": facts.get("fault", ""),
        "summary": facts.get("summary", ""),
        "filters_set": len(filters),
        "open_filters": bool(filters) and bool(facts.get("fault")),
        "unfiltered": PageQuery(found.words, found.picks, found.dropped).address(),
        "previous": found.address(page=found.page - 1) if found.page > 1 else "",
        "next": found.address(page=found.page + 1) if more else "",
    }
    return here.page("search.html", status=status, view="/", **shown)


def _results(here: PageContext, found: PageQuery) -> tuple[list[Tile], bool, str]:
    """Return a page of results, whether there are more, and a line about them."""
    offset, where = (found.page - 1) * PER_PAGE, found.filters.tree()
    if not found.is_query:
        photos, total = here.service.browse(k=PER_PAGE, offset=offset, where=where)
        of = " that the filters leave" if where else ""
        return (
            [here.tile(photo) for photo in photos],
            total > offset + PER_PAGE,
            f"{counted(total, 'photo', 'photos')}{of}, the last indexed first",
        )
    hits = here.service.search(terms_of(here, found), k=PER_PAGE + 1, offset=offset, where=where)
    of = (
        "those that the filters leave"
        if where
        else counted(here.service.count(), "photo", "photos")
    )
    return here.tiles(hits[:PER_PAGE]), len(hits) > PER_PAGE, f"Of {of}, the most alike first"


def terms_of(here: PageContext, found: PageQuery) -> list[Term]:
    """Return the terms of a search: its words, the photos picked, and the photos brought; raises
    QueryError.
    """
    terms = list(read_query(found.words)) if found.words else []
    terms += [Term(pick.photo_id, pick.weight) for pick in found.picks]
    return terms + [
        Term(here.memory.brought.get(one.key).vector, one.weight) for one in found.dropped
    ]


def _chips(here: PageContext, found: PageQuery) -> list[Chip]:
    """Return what the search is made of with the weights, nothing for one text alone."""
    words = read_query(found.words) if found.words else ()
    names = {
        photo.photo_id: photo.path.rpartition("/")[2]
        for photo in here.service.photos_of([pick.photo_id for pick in found.picks])
    }
    chips = [_chip("", str(term.what), term.weight) for term in words]
    for pick in found.picks:
        name = f"w{pick.photo_id}"
        chips.append(
            _chip(
                name,
                names.get(pick.photo_id, "a photo"),
                pick.weight,
                picture=thumbnail(pick.photo_id, 160),
                off=found.without(name).address(),
            )
        )
    for one in found.dropped:
        name = f"u{one.key}"
        chips.append(
            _chip(
                name,
                "the photo that you brought",
                one.weight,
                picture=f"/brought/{one.key}",
                off=found.without(name).address(),
            )
        )
    return (
        chips
        if len(chips) > 1
        or any(chip["picture"] for chip in chips)
        or any(chip["weight"] != 1 for chip in chips)
        else []
    )


def _chip(name: str, title: str, weight: float, *, picture: str = "", off: str = "") -> Chip:
    shown = number(weight) if picture else f"{'+' if weight > 0 else '−'} {number(abs(weight))}"
    return {
        "name": name,
        "title": title,
        "weight": weight,
        "shown": shown,
        "picture": picture,
        "off": off,
    }


@router.get("/refine")
def refine(here: Page) -> Response:
    """Go to the search that also looks for photos like those ticked, or not like them."""
    given = here.request.query_params.multi_items()
    ids = selection([value for name, value in given if name == "id"])
    found = asked(given)
    unlike = here.request.query_params.get("way") == "unlike"
    share = (UNLIKE if unlike else LIKE if found.is_query else ALONE) / len(
        ids
    )  # many ticks have the weight of one
    return RedirectResponse(found.with_picks(ids, round(share, 4) or UNLIKE).address(), 303)


# -- photos that people bring ----------------------------------------------------------------------


@router.post("/photo")
async def bring(request: Request) -> Response:
    """Take a photo that was dropped, pasted or chosen, and go to the search for photos like it."""
    here = PageContext(request)
    async with request.form(max_files=1, max_fields=200) as form:
        file = form.get("photo")
        if not isinstance(file, UploadFile) or not file.size:
            raise QueryError("no photo came with the form: choose one, or drop it on the page")
        if file.size > here.settings.upload_bytes:
            raise TooLarge(
                f"the photo has {size_text(file.size)}, more than "
                f"{size_text(here.settings.upload_bytes)}: make it smaller"
            )
        data = await file.read()
        pairs = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    return RedirectResponse(await run_in_threadpool(_brought, here, data, pairs), 303)


def _brought(here: PageContext, data: bytes, pairs: list[tuple[str, str]]) -> str:
    picture = here.service.read_picture(data)
    with here.service.source.encoding:
        vector = here.service.encoder.encode_images([picture])[0]
    key = here.memory.brought.keep(data, picture, vector)
    found = asked(pairs)
    weight = LIKE if found.words else ALONE
    return PageQuery(found.words, found.picks, (UploadedRef(key, weight),), found.filters).address()


@router.get("/brought/{key}")
def brought(here: Page, key: str) -> Response:
    """A small picture of a photo that was brought."""
    try:
        picture = here.memory.brought.get(key).picture
    except QueryError as error:
        raise UnknownPhoto(str(error)) from error
    return Response(
        picture, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"}
    )


# -- one photo -------------------------------------------------------------------------------------


@router.get("/photos/{photo_id}")
def photo(here: Page, photo_id: int) -> Response:
    """One photo: what is known about it, what the models say, and what is like it."""
    found, given = here.service.photo(photo_id), here.context()
    written = here.request.query_params.get("labels", "")
    names, own, own_fault = _own_labels(here, photo_id, written)
    taught, taught_fault = _attempt(lambda: here.memory.insight.taught(photo_id))
    explaining = here.request.query_params.get("why") == "1"
    why = address(f"/photos/{photo_id}/why", [("q", _spoken(given))])
    shown: dict[str, Any] = {
        "asked": given,
        "tile": here.tile(found, side=min(LARGE, max(found.info.width, found.info.height))),
        "picture": thumbnail(photo_id, LARGE),
        "whole": image(photo_id),
        "facts": _facts(found, here.shows_exif),
        "back": given.address(page=given.page),
        "spoken": _spoken(given),
        "own": own,
        "own_fault": own_fault,
        "label_text": written or ", ".join(names),
        "taught": taught,
        "taught_fault": taught_fault,
        "can_explain": here.memory.insight.can_explain,
        "explained": why if explaining else "",
        "explain_address": address(f"/photos/{photo_id}", [*given.pairs(page=True), ("why", "1")])
        + "#why",
        "alike": here.tiles(here.service.similar(photo_id, k=ALIKE)),
        "fault": "",
    }
    return here.page("photo.html", **shown)


def _spoken(given: PageQuery) -> str:
    """Return the words of a search that say what should be seen."""
    try:
        terms = read_query(given.words) if given.words else ()
    except QueryError:
        return ""
    return ", ".join(str(term.what) for term in terms if term.weight > 0)


def _own_labels(here: PageContext, photo_id: int, written: str) -> tuple[list[str], Shares, str]:
    """Return the labels to choose from, the most probable ones, and why there are none."""
    stored = [name for name, _ in here.facets().labels]
    names = label_lines(written) if written else stored if 1 < len(stored) <= 50 else list(LABELS)
    shares, fault = _attempt(lambda: here.memory.insight.own(photo_id, names))
    return names, shares, fault


def _attempt(find: Callable[[], Shares]) -> tuple[Shares, str]:
    """Return an answer, or none and the reason."""
    try:
        return find(), ""
    except UnknownPhoto:
        return [], "The file of this photo is not there any more."
    except (QueryError, PhotoError, EncoderError) as error:
        return [], str(error)


def _facts(found: Photo, shows_exif: bool) -> list[tuple[str, str]]:
    info = found.info
    facts = [("Path", found.path)]
    for name, column in METADATA.items():
        value = info[name]
        if not column.title or value is None or (column.private and not shows_exif):
            continue
        plain = spoken_date(str(value)) if column.kind == "date" else str(value)
        text = column.shown(info) if column.shown else plain
        facts += [(column.title, text)] if text else []
    facts += [("Size", f"{info.width} × {info.height} pixels, {size_text(found.size)}")]
    if found.label:
        facts.append(
            (
                "Label",
                found.label
                if found.label_score is None
                else f"{found.label} ({100 * found.label_score:.0f} %)",
            )
        )
    return facts


@router.get("/photos/{photo_id}/why")
def why(here: Page, photo_id: int) -> Response:
    """The photo under a heat map of what speaks for the words, or of what the model looks at."""
    try:
        picture = here.memory.insight.why(
            photo_id, here.request.query_params.get("q", "").strip()[:2000]
        )
    except EncoderError as error:
        raise QueryError(str(error)) from error
    return Response(
        picture, media_type="image/webp", headers={"Cache-Control": "private, max-age=600"}
    )


# -- a selection to take along ---------------------------------------------------------------------


@router.post("/export")
async def take(request: Request) -> Response:
    """The photos that are ticked, as their paths, as CSV, or as a ZIP."""
    form = await request.form()
    ids = selection([value for value in form.getlist("id") if isinstance(value, str)])
    return await run_in_threadpool(_taken, PageContext(request), ids, str(form.get("as", "paths")))


def _taken(here: PageContext, ids: list[int], form: str) -> Response:
    photos = here.service.photos_of(ids)
    if form == "paths":
        return _file(export.as_paths(photos), "text/plain; charset=utf-8", "photos.txt")
    if form == "csv":
        return _file(
            export.as_csv(photos, here.shows_exif), "text/csv; charset=utf-8", "photos.csv"
        )
    if form != "zip":
        raise QueryError("a selection is taken as paths, csv or zip")
    export.check_size(photos)
    pieces: Iterator[bytes] = export.as_zip(here.service, photos, here.shows_exif)
    return StreamingResponse(pieces, media_type="application/zip", headers=_saved_as("photos.zip"))


def _file(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers=_saved_as(name))


def _saved_as(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}


# -- help and errors -------------------------------------------------------------------------------


@router.get("/help")
def guide(here: Page) -> Response:
    """How to search, and the keys."""
    return here.page("help.html", columns=list(COLUMNS.values()))


def error_page(request: Request, status: int, message: str) -> Response:
    """Return an error as a page."""
    titles = {403: "Not shown here", 404: "Not there", 413: "Too large", 503: "Just a moment"}
    return page(
        "error.html",
        {"title": titles.get(status, "That did not work"), "text": message},
        status=status,
    )
