"""The page of one photo: its facts, what the models say about it, and photos like it."""

import re
from collections.abc import Callable, Mapping, Sequence
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
