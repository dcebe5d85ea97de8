"""The pages of albums and saved searches, and their changes."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from vitsearch.errors import (
    NotShown,
    QueryError,
    VitsearchError,
)
from vitsearch.filters import EVERY
from vitsearch.storage import user_data
from vitsearch.storage.store import PhotoStore
from vitsearch.storage.user_data import FAVOURITES, Album, writing
from vitsearch.web.pages import (
    PER_PAGE,
    PageQuery,
    address,
    counted,
    page_number,
    read_page_query,
    results,
    selection,
)
from vitsearch.web.pages.context import Page, PageContext, form_of
from vitsearch.web.source import busy_when_locked

router = APIRouter(include_in_schema=False)

MAX_FIELDS = 1100  # of a form: the most photos that may be ticked, and some more


@router.get("/albums")
def albums(here: Page) -> Response:
    """All albums with their first photo, and the saved searches with their numbers of photos."""
    with here.service.source.facts() as store:
        read = user_data.albums(store) if isinstance(store, PhotoStore) else []
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
    return here.page("albums.html", view="/albums", shown=shown, searches=saved_searches(here))


def saved_searches(here: PageContext) -> list[tuple[str, str, str]]:
    """Return name and address of each saved search, and how many photos it finds now in words."""
    with here.service.source.facts() as store:
        searches = user_data.saved_searches(store) if isinstance(store, PhotoStore) else []
    return [(name, to, _count(here, to)) for name, to in searches]


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
