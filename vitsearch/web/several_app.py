"""The application of several collections: an overview of them with a search in all of one encoder,
and each of them below a path.

An application below a path is asked as if it were alone, and the addresses in its pages and
redirects get the path in front.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitsearch.errors import PhotoError, QueryError, TooLarge, UnknownPhoto, VitsearchError
from vitsearch.types import SearchResult
from vitsearch.web import ServeSettings
from vitsearch.web import several as api
from vitsearch.web.app import empty_app, protect
from vitsearch.web.pages import PER_PAGE, address, counted, page_number, selection, thumbnail, tile
from vitsearch.web.pages.context import PICTURE_TYPES, page, webp_response
from vitsearch.web.privacy import exif_shown
from vitsearch.web.responses import wants_page
from vitsearch.web.routes import in_picture_thread
from vitsearch.web.schemas import read_upload
from vitsearch.web.search import MAX_TEXT_LENGTH
from vitsearch.web.several import (
    BELOW,
    Group,
    Likeness,
    Member,
    Several,
    group_of,
    likeness_of,
    several_of,
)

# addresses of this server in the attributes of a page; static files and other collections are
# common to all. Text in a page cannot look like this: its quotes are escaped. Other data attributes
# hold labels and the like, which may begin with a slash too
_ATTRIBUTE = re.compile(
    r'(\s(?:href|src|action|formaction|poster|data-(?:atlas|plays|why))=")/(?!/|static/|in/)'
)
_SOURCES = re.compile(r'(\ssrcset=")([^"]*)"')
_SOURCE = re.compile(r"(^|,\s*)/(?!/)")


class Below:
    """An application whose addresses begin with a path such as ``/in/holidays``."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self.app, self.path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = {**scope, "path": scope["path"].removeprefix(self.path) or "/", "root_path": ""}
        raw = scope.get("raw_path")
        if raw is not None:
            inner["raw_path"] = raw.removeprefix(self.path.encode("ascii")) or b"/"
        for name in ("app_root_path", "path_params", "route", "endpoint"):
            inner.pop(name, None)
        await self.app(inner, receive, _Rewriter(send, self.path))


class _Rewriter:
    """A send that puts the path into a page, which is held until it is whole, and into redirects;
    anything else passes unchanged.
    """

    def __init__(self, send: Send, path: str) -> None:
        self._send, self._path = send, path
        self._start: MutableMapping[str, Any] | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            to = headers.get("location", "")
            if to.startswith("/") and not to.startswith(("//", BELOW)):
                headers["location"] = self._path + to
            if headers.get("content-type", "").startswith("text/html"):
                self._start = message
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if message.get("more_body", False):
                return
            await self._send_page()
            return
        await self._send(message)

    async def _send_page(self) -> None:
        assert self._start is not None
        page = below(self._body.decode("utf-8"), self._path).encode("utf-8")
        headers = MutableHeaders(scope=self._start)
        if "content-length" in headers:
            headers["content-length"] = str(len(page))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": page})


def below(page: str, path: str) -> str:
    """Return a page in which the addresses of an application begin with a path."""
    start = rf"\g<1>{path}/"
    page = _ATTRIBUTE.sub(start, page)
    return _SOURCES.sub(lambda match: f'{match[1]}{_SOURCE.sub(start, match[2])}"', page)


router = APIRouter(include_in_schema=False)
# -- The overview ----------------------------------------------------------------------------------


MAX_FIELDS = 20


@router.get("/")
@router.get("/in/")
def overview(request: Request) -> Response:
    """The collections; with words or a photo what fits them best in all of one encoder."""
    return _overview(request, request.query_params)


@router.post("/photo")
async def upload(request: Request) -> Response:
    """Receive a photo that was dropped, pasted or chosen, and go to the search for photos like
    it.
    """
    values: dict[str, str] = {}
    try:
        async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
            values |= {name: each for name, each in form.items() if isinstance(each, str)}
            file = form.get("photo")
            if not isinstance(file, UploadFile):
                raise QueryError("no photo came with the form: choose one, or drop it on the page")
            data = await read_upload(file, request.app.state.settings)
        group = await run_in_threadpool(group_of, request, values.get("model", ""))
        key = await in_picture_thread(group.members[0].service, lambda: group.like_picture(data))
    except (QueryError, PhotoError, TooLarge) as error:
        if not wants_page(request):
            raise
        return await run_in_threadpool(_overview, request, values, str(error))
    pairs = [("q", values["q"])] if values.get("q") else []
    to = address("/", [*pairs, ("model", group.key), ("like", key)])
    # a script of the page stays on it where this fails
    if request.headers.get("accept") == "application/json":
        return JSONResponse({"address": to})
    return RedirectResponse(to, 303)


@router.get("/brought/{model}/{key}")
def uploaded_photo(request: Request, model: str, key: str) -> Response:
    """A small picture of an uploaded photo."""
    try:
        picture = group_of(request, model).uploads.get(key).picture
    except QueryError as error:
        raise UnknownPhoto(str(error)) from error
    return webp_response(picture, max_age=3600)


def _overview(request: Request, parameters: Mapping[str, str], fault: str = "") -> Response:
    words, key = parameters.get("q", "").strip(), parameters.get("model", "")
    several = several_of(request)
    groups = several.groups()
    shown: dict[str, Any] = {
        "collections": several.links(),
        "views": (),
        "words": words,
        "groups": _named(groups),
        "chosen": key,
        "fault": fault,
        "tiles": [],
        "phrases": [],
        "like": None,
        "pairs": [],
        "searched": "",
        "left_out": "",
        "previous": "",
        "next": "",
        "page": 1,
        "cards": [],
        "upload_bytes": request.app.state.settings.upload_bytes,
        "picture_types": PICTURE_TYPES,
    }
    is_search = bool(words or parameters.get("like") or parameters.get("photo"))
    if not is_search:
        shown["cards"] = [_card(member) for member in several.members]
    elif not fault:
        try:
            if len(words) > MAX_TEXT_LENGTH:
                raise QueryError(f"a query may have {MAX_TEXT_LENGTH:,} characters")
            shown |= _results(request, words, parameters)
        except (QueryError, UnknownPhoto) as error:
            shown["fault"] = str(error)
    return page("collections.html", shown, status=400 if shown["fault"] else 200)


def _likeness(
    request: Request, parameters: Mapping[str, str]
) -> tuple[Group, Likeness | None, dict[str, Any] | None]:
    """Return the collections to search in, the photo that the address names, and what is shown of
    it with its parameters.
    """
    key = parameters.get("model", "")
    if of := parameters.get("photo", ""):
        [photo_id], to = selection([of]), parameters.get("of", "")
        group, like = likeness_of(request, to, photo_id, key)
        picture = f"{to.rstrip('/')}{thumbnail(photo_id, 160)}"
        return group, like, {"picture": picture, "pairs": [("photo", of), ("of", to)]}
    group = group_of(request, key)
    if not (upload := parameters.get("like", "")):
        return group, None, None
    like = Likeness(group.uploads.get(upload).vector)
    picture = f"/brought/{group.key}/{upload}"
    return group, like, {"picture": picture, "pairs": [("like", upload)]}


def _named(groups: list[Group]) -> list[tuple[str, str]]:
    """Return key and name of each encoder, with its number format where names are the same."""
    counts = Counter(group.encoder.name for group in groups)
    return [
        (
            group.key,
            f"{group.encoder.name} ({group.encoder.dtype})"
            if counts[group.encoder.name] > 1
            else group.encoder.name,
        )
        for group in groups
    ]


def _model(member: Member) -> str:
    """Return the name of a collection's encoder, "" where it has none yet or cannot be read."""
    try:
        return member.service.encoder.name
    except VitsearchError:
        return ""


def _card(member: Member) -> dict[str, Any]:
    """Return what the page shows of a collection."""
    card = {"name": member.name, "address": f"{member.path}/", "cover": "", "model": ""}
    service = member.site.service
    if service is None:
        return card | {"count": "not indexed yet"}
    try:
        photos, total = service.browse(k=1)
        card["count"] = counted(total, "photo", "photos")
        card["model"] = _model(member)
        card["cover"] = f"{member.path}{thumbnail(photos[0].photo_id, 320)}" if photos else ""
    except VitsearchError:
        card["count"] = "cannot be read just now"
    return card


def _results(request: Request, words: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of the results in the collections of one encoder."""
    number = page_number(parameters.get("page", ""))
    group, like, shown = _likeness(request, parameters)
    start, private = (number - 1) * PER_PAGE, exif_shown(request)
    results, understood = group.search(
        words, k=PER_PAGE + 1, offset=start, private=private, like=like
    )
    names = [member.name for member in group.members]
    others = [
        f"{each.name} ({_model(each) or 'not indexed yet'})"
        for each in several_of(request).members
        if each not in group.members
    ]
    alone = [("q", words), ("model", group.key)] if words else []
    likeness = shown["pairs"] if shown else []
    pairs = [("q", words), ("model", group.key), *likeness]
    more = len(results) > PER_PAGE
    return {
        "chosen": group.key,
        "tiles": _tiles(results[:PER_PAGE], words, shows_exif=private),
        "phrases": understood.titles,
        "like": shown and {"picture": shown["picture"], "off": address("/", alone)},
        "pairs": likeness,
        "searched": _listed(names),
        "left_out": _listed(others),
        "page": number,
        "previous": address("/", [*pairs, ("page", str(number - 1))]) if number > 1 else "",
        "next": address("/", [*pairs, ("page", str(number + 1))]) if more else "",
    }


def _tiles(
    results: list[tuple[Member, SearchResult]], words: str, *, shows_exif: bool
) -> list[dict[str, Any]]:
    """Return the tiles of results; photos that are gone meanwhile are left out."""
    by_member: dict[Member, list[int]] = {}
    for member, result in results:
        by_member.setdefault(member, []).append(result.photo_id)
    photos = {
        (member, photo.photo_id): photo
        for member, ids in by_member.items()
        for photo in member.service.photos_of(ids)
    }
    tiles = []
    for member, result in results:
        photo = photos.get((member, result.photo_id))
        if photo is not None:
            shown = tile(photo, result.score, shows_exif=shows_exif)
            pairs = [("q", words)] if words else []
            to = address(f"{member.path}/photos/{photo.photo_id}", pairs)
            here = [("photo", str(photo.photo_id)), ("of", f"{member.path}/")]
            tiles.append(
                {
                    "tile": shown,
                    "to": to,
                    "path": member.path,
                    "name": member.name,
                    "like": address("/", [*pairs, *here]),
                }
            )
    return tiles


def _listed(names: list[str]) -> str:
    """Return names as a person lists them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# -- The application -------------------------------------------------------------------------------


def several_app(several: Several, settings: ServeSettings) -> FastAPI:
    """Return the application, ready for requests to the address of the settings; it closes the
    collections when it stops.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for member in several.members:
            member.site.enter(asyncio.get_running_loop())
        yield
        await asyncio.to_thread(several.close)

    app = empty_app(settings, lifespan)
    app.state.several, app.state.collections = several, several.links()
    for member in several.members:
        app.mount(member.path, Below(member.site.start(settings), member.path))
    app.include_router(api.router)
    app.include_router(router)
    protect(app, settings)
    return app
