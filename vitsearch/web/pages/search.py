"""The pages of the search, of one photo and of help, uploads, and downloads of ticked photos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import RedirectResponse, Response, StreamingResponse

from vitsearch.collection.query import Term
from vitsearch.collection.understanding import Understood
from vitsearch.errors import EncoderError, NotShown, PhotoError, QueryError, TooLarge, UnknownPhoto
from vitsearch.filters.tree import says_in
from vitsearch.photos.columns import COLUMNS, METADATA
from vitsearch.photos.formats import PLAYED, suffix_of
from vitsearch.photos.text import places_of
from vitsearch.storage.store import PhotoStore
from vitsearch.storage.texts import text_of
from vitsearch.types import Photo
from vitsearch.web.api.routes import in_picture_thread
from vitsearch.web.pages import collection as views
from vitsearch.web.pages import download as downloads
from vitsearch.web.pages.context import PER_PAGE, Page, PageContext, page
from vitsearch.web.pages.insights import LABELS, Shares
from vitsearch.web.pages.tiles import (
    LARGE,
    Tile,
    counted,
    image,
    size_text,
    spoken_date,
    thumbnail,
    video,
)
from vitsearch.web.pages.url import (
    ALONE,
    CHOICES,
    LIKE,
    MAX_QUERY_LENGTH,
    UNLIKE,
    PageQuery,
    UploadedRef,
    address,
    label_lines,
    number,
    read_page_query,
    selection,
)

router = APIRouter(include_in_schema=False)
router.include_router(views.router)

ALIKE = 12  # photos like the one on its page
MAX_OFFERED = 50  # stored labels among which a photo's page chooses
Chip = dict[str, Any]


@router.get("/")
def search(here: Page) -> Response:
    """The photos, all of them or those most like the query."""
    try:
        query = here.query()
        understood = here.understand(query)
        texts = [term.what for term in understood.terms if isinstance(term.what, str)]
        listing = _results(here, query, understood)
        shown: dict[str, Any] = {
            "tiles": listing.tiles,
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
        return _search_page(here, here.as_written(), status=status, fault=str(error))


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
        "any_weight": any(chip["picture"] for chip in results.get("chips", [])),
    }
    empty: dict[str, Any] = {"tiles": [], "next": "", "summary": "", "chips": [], "notes": []}
    empty |= {"phrases": [], "literally": "", "all_nearest": "", "fits": True}
    return here.page("search.html", status=status, view="/", **shown | empty | results)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A page of results, whether there are more, and a line about them; ``is_cut`` where photos
    that hardly fit are left out, and without ``fits`` they are the nearest to words that none fits.
    """

    tiles: list[Tile]
    more: bool
    summary: str
    is_cut: bool = False
    fits: bool = True


def _results(here: PageContext, query: PageQuery, understood: Understood) -> _Shown:
    offset, where = (query.page - 1) * PER_PAGE, understood.narrowed(query.filters.tree())
    if not query.is_query:
        photos, total = here.service.browse(k=PER_PAGE, offset=offset, where=where)
        of = " that the filters leave" if where else ""
        summary = f"{counted(total, 'photo', 'photos')}{of}, the last indexed first"
        return _Shown([here.tile(each) for each in photos], total > offset + PER_PAGE, summary)
    terms = terms_of(here, query, understood)
    if not terms and where:
        newest = here.service.newest(k=PER_PAGE + 1, offset=offset, where=where)
        photos = here.service.photos_of([hit.photo_id for hit in newest[:PER_PAGE]])
        more = len(newest) > PER_PAGE
        tiles = [here.tile(photo) for photo in photos]
        return _Shown(tiles, more, "Photos of these, the newest first")
    limits = {"min_relevance": 0} if query.nearest else {}
    future = here.service.ask(terms, k=PER_PAGE + 1, offset=offset, where=where, **limits)
    listing = future.result()
    of = "those that the filters leave"
    if not where:
        of = counted(here.service.count(), "photo", "photos")
    if listing.nearest:
        tiles = here.tiles(listing.nearest)
        return _Shown(tiles, False, f"Nothing here fits. Of {of}, the nearest", True, False)
    hits, more = listing.results[:PER_PAGE], len(listing.results) > PER_PAGE
    is_cut = not more and not query.nearest and any(hit.relevance is not None for hit in hits)
    return _Shown(here.tiles(hits), more, f"Of {of}, the most alike first", is_cut)


def terms_of(
    here: PageContext, query: PageQuery, understood: Understood | None = None
) -> list[Term]:
    """Return the terms of a search: its words, the picked photos, and the uploaded ones; raises
    QueryError.
    """
    terms = list((understood or here.understand(query)).terms)
    terms += [Term(pick.photo_id, pick.weight) for pick in query.picks]
    for upload in query.uploads:
        terms.append(Term(here.memory.uploads.get(upload.key).vector, upload.weight))
    return terms


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
    to = await in_picture_thread(here.service, lambda: _uploaded(here, data, pairs))
    return RedirectResponse(to, 303)


def _uploaded(here: PageContext, data: bytes, pairs: list[tuple[str, str]]) -> str:
    """Return the address of the search for photos like an uploaded one."""
    picture = here.service.read_picture(data)
    with here.service.source.encoding:
        vector = here.service.encoder.encode_images([picture])[0]
    key = here.memory.uploads.add(data, picture, vector)
    query = read_page_query(pairs)
    weight = LIKE if query.words else ALONE
    return replace(query, uploads=(UploadedRef(key, weight),), page=1).address()


@router.get("/brought/{key}")
def uploaded_photo(here: Page, key: str) -> Response:
    """A small picture of an uploaded photo."""
    try:
        picture = here.memory.uploads.get(key).picture
    except QueryError as error:
        raise UnknownPhoto(str(error)) from error
    return _webp(picture, max_age=3600)


def _webp(picture: bytes, *, max_age: int) -> Response:
    headers = {"Cache-Control": f"private, max-age={max_age}"}
    return Response(picture, media_type="image/webp", headers=headers)


# -- one photo -------------------------------------------------------------------------------------


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
    heatmap_address = address(f"/photos/{photo_id}/why", [("q", _positive_words(here, query))])
    explaining_pairs = [*query.pairs(page=True), ("why", "1")]
    shown: dict[str, Any] = {
        "query": query,
        "tile": here.tile(photo, side=min(LARGE, max(photo.info.width, photo.info.height))),
        "picture": thumbnail(photo_id, LARGE),
        "full_picture": image(photo_id) if photo.time is None else video(photo_id, photo.time),
        "plays": photo.time is not None and suffix_of(photo.file) in PLAYED and here.shows_exif,
        "frames": _frames(here, photo, query),
        "text": photo.info["text"] if here.shows_exif else None,
        "facts": _facts(photo, here.service.companions([photo]), here.shows_exif),
        "back": query.address(page=query.page),
        "words": _positive_words(here, query),
        "zero_shot": zero_shot,
        "zero_shot_fault": zero_shot_fault,
        "label_text": written or ", ".join(names),
        "supervised": supervised,
        "supervised_fault": supervised_fault,
        "can_explain": insights.can_explain,
        "heatmap": heatmap_address if explaining else "",
        "explain_address": address(f"/photos/{photo_id}", explaining_pairs) + "#why",
        "alike": here.tiles(here.service.similar(photo_id, k=ALIKE)),
        "fault": "",
    }
    return here.page("photo.html", **shown)


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
        return _webp(here.memory.insights.heatmap(photo_id, text), max_age=600)
    except EncoderError as error:
        raise QueryError(str(error)) from error


# -- downloads -------------------------------------------------------------------------------------


@router.post("/export")
async def download(request: Request) -> Response:
    """The ticked photos: their paths, a CSV, or a ZIP."""
    form = await request.form()
    ids = selection([value for value in form.getlist("id") if isinstance(value, str)])
    layout = str(form.get("as", "paths"))
    return await run_in_threadpool(_download, PageContext(request), ids, layout)


def _download(here: PageContext, ids: list[int], layout: str) -> Response:
    photos = here.service.photos_of(ids)
    if layout == "paths":
        return _file(downloads.as_paths(photos), "text/plain; charset=utf-8", "photos.txt")
    if layout == "csv":
        table = downloads.as_csv(photos, here.shows_exif)
        return _file(table, "text/csv; charset=utf-8", "photos.csv")
    if layout != "zip":
        raise QueryError("a selection is taken as paths, csv or zip")
    pieces = downloads.as_zip(here.service, photos, here.shows_exif)
    return StreamingResponse(pieces, media_type="application/zip", headers=_saved_as("photos.zip"))


def _file(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers=_saved_as(name))


def _saved_as(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}


# -- help and errors -------------------------------------------------------------------------------


@router.get("/help")
def help(here: Page) -> Response:
    """How to search, and the keyboard."""
    return here.page("help.html", columns=list(COLUMNS.values()))


def error_page(request: Request, status: int, message: str) -> Response:
    """Return an error as a page."""
    titles = {403: "Not shown here", 404: "Not there", 413: "Too large", 503: "Just a moment"}
    return page(
        "error.html",
        {"title": titles.get(status, "That did not work"), "text": message},
        status=status,
    )
