"""The HTTP interface for programs: search, photos, labels, facts."""

import asyncio
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, TypeAdapter
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from vitsearch._version import __version__
from vitsearch.collection.query import Term
from vitsearch.errors import PhotoError, ServiceBusy, UnknownPhoto
from vitsearch.options import SearchOptions
from vitsearch.photos.formats import FORMATS, HEAD, media_type_of, video_type
from vitsearch.web.privacy import exif_shown, filter_for
from vitsearch.web.responses import refuse_unknown_parameters
from vitsearch.web.schemas import (
    BODY,
    DEFAULT_RESULTS,
    MAX_ID,
    MIN_RELEVANCE,
    ErrorAnswer,
    HealthAnswer,
    InfoAnswer,
    LabelsAnswer,
    PhotoAnswer,
    SearchAnswer,
    labels_answer,
    photo_answer,
    read_search,
    search_answer,
    terms_in,
)
from vitsearch.web.search import (
    MAX_TEXT_LENGTH,
    Found,
    Search,
    Words,
    constraints,
    search_options,
    terms_of,
)
from vitsearch.web.service import PhotoService, label_counts, stored_counts
from vitsearch.web.thumbnails import SIDES, WHOLE, Thumbnail, picture_key

PICTURE_CACHE = "private, max-age=300"
FILE = 0  # in the place of the longest side in an entity tag: the file as it is
PIECE = 1 << 18  # bytes
T = TypeVar("T")
_FIELDS = TypeAdapter(Mapping[str, Any])


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer} for status in (400, 401, 403, *statuses, 503)}


router = APIRouter(responses=_errors(), dependencies=[Depends(refuse_unknown_parameters)])

K = Annotated[int, Query(**constraints("top_k"))]
Offset = Annotated[int, Query(**constraints("offset"))]
Filter = Annotated[str | None, Query(**constraints("where"))]
Literal = Annotated[bool, Query(**constraints("literal"))]
MinScore = Annotated[float | None, Query(**constraints("min_score"))]
MinRelevance = Annotated[float, Query(**constraints("min_relevance"))]
PhotoPath = Annotated[int, Path(ge=1, le=MAX_ID, description="the id of a photo")]


def service_of(request: Request) -> PhotoService:
    """Return the service of the application."""
    service: PhotoService = request.app.state.service
    return service


def answer_of(answer: BaseModel | Mapping[str, Any], **options: Any) -> Response:
    """Return an answer, or its fields, as JSON; it is made of checked values, so it is not checked
    again.
    """
    if isinstance(answer, BaseModel):
        body = answer.model_dump_json(**options).encode()
    else:
        body = _FIELDS.dump_json(answer)
    return Response(body, media_type="application/json")


# -- search ----------------------------------------------------------------------------------------


@router.get("/api/search", response_model=SearchAnswer)
async def search(
    request: Request,
    q: Annotated[
        str,
        Query(
            min_length=1,
            max_length=MAX_TEXT_LENGTH,
            description='words, or terms such as "2:beach + dog - people"',
        ),
    ],
    k: K = DEFAULT_RESULTS,
    offset: Offset = 0,
    where: Filter = None,
    min_score: MinScore = None,
    min_relevance: MinRelevance = MIN_RELEVANCE,
    literal: Literal = False,
) -> Response:
    """Search by words; dates, places and the like in them filter the photos."""
    options = search_options(
        k,
        offset,
        where=filter_for(request, where),
        min_score=min_score,
        min_relevance=min_relevance,
    )
    return await _answer_of_search(request, (), options, Words(q, exif_shown(request), literal))


@router.post(
    "/api/search",
    response_model=SearchAnswer,
    openapi_extra={"requestBody": BODY},
    responses=_errors(404, 413),
)
async def search_by(request: Request) -> Response:
    """Search by words, weighted terms, photos of the collection, a vector, or an uploaded photo."""
    body, data = await read_search(request)
    words = None if body.q is None else Words(body.q, exif_shown(request), body.literal)
    terms, where = terms_in(body), filter_for(request, body.where)
    limits = {"min_score": body.min_score, "min_relevance": body.min_relevance}
    options = search_options(body.k, body.offset, where=where, **limits)
    service = service_of(request)
    async with service.uploads if data is not None else nullcontext():
        if data is not None:
            picture = await in_picture_thread(service, lambda: service.read_picture(data))
            terms.append(Term(picture))
            del picture
        return await _answer_of_search(request, terms, options, words)


@router.get("/api/similar/{photo_id}", response_model=SearchAnswer, responses=_errors(404))
async def similar(
    request: Request,
    photo_id: PhotoPath,
    k: K = DEFAULT_RESULTS,
    offset: Offset = 0,
    where: Filter = None,
    min_score: MinScore = None,
) -> Response:
    """Return the photos that look most like one photo, which is itself left out."""
    where_tree = filter_for(request, where)
    options = search_options(k, offset, where=where_tree, min_score=min_score)
    return await _answer_of_search(request, [Term(photo_id)], options)


async def _answer_of_search(
    request: Request,
    terms: Sequence[Term],
    options: SearchOptions,
    words: Words | None = None,
) -> Response:
    """Return the results of words and terms, or the photos that words leave which only filter."""
    service = service_of(request)
    k, offset = options.top_k or 0, options.offset
    checked = terms_of(terms) if words is None or terms else ()
    answer = await service.answer(Search(checked, options, words))
    understood = answer.understood
    phrases = understood.phrases if understood else ()
    if understood and phrases and not (understood.terms or terms):
        where = understood.narrowed(options.where)
        assert where is not None
        shown = exif_shown(request)  # an order tells dates too
        newest = partial(service.newest, k=k, offset=offset, where=where, by_date=shown)
        answer = Found(await run_in_threadpool(newest), [])
    return answer_of(search_answer(answer, k, offset, phrases))


# -- photos ----------------------------------------------------------------------------------------


@router.get("/api/photos/{photo_id}", response_model=PhotoAnswer, responses=_errors(404))
def photo(request: Request, photo_id: PhotoPath) -> Response:
    """Return the facts of one photo."""
    service = service_of(request)
    facts = service.photo(photo_id)
    companions = service.companions([facts]).get(facts.path, [])
    return answer_of(photo_answer(facts, companions, exif_shown(request)), exclude_unset=True)


@router.get(
    "/api/photos/{photo_id}/thumbnail",
    response_class=Response,
    responses={
        **_errors(404),
        200: {"content": {"image/webp": {}}},
        304: {"description": "not changed"},
    },
)
async def thumbnail(
    request: Request,
    photo_id: PhotoPath,
    size: Annotated[int, Query(ge=16, le=SIDES[-1])] = SIDES[1],
) -> Response:
    """Return a photo as WebP, upright, without metadata; its longest side is at most the next of
    160, 320, 640 and 1280 pixels.
    """
    side = next(number for number in SIDES if number >= size)
    return await _picture(request, photo_id, side)


@router.get(
    "/api/photos/{photo_id}/image",
    response_class=Response,
    responses={
        **_errors(404),
        200: {"content": {entry.media_type: {} for entry in FORMATS if entry.media_type}},
        206: {"description": "a part of a video, as its Range asks for"},
        304: {"description": "not changed"},
    },
)
async def image(request: Request, photo_id: PhotoPath) -> Response:
    """Return a photo: its file where a browser shows it and the client may see its EXIF, else a
    WebP picture without metadata. The same of a video, whose parts may be asked for by Range.
    """
    service = service_of(request)
    if exif_shown(request):
        file, kind, tag = await in_picture_thread(service, lambda: _file(service, photo_id))
        headers = {"ETag": tag, "Cache-Control": PICTURE_CACHE}
        if kind is not None and not _known(request, tag):
            return OpenFileResponse(file, kind, headers, asked_range(request, tag))
        file.close()
        if kind is not None:
            return _unchanged(headers)
    return await _picture(request, photo_id, WHOLE)


async def _picture(request: Request, photo_id: int, side: int) -> Response:
    service = service_of(request)

    def make() -> Thumbnail | str:
        tag = tag_of(picture_key(service.photo(photo_id)).hex(), side)
        try:
            return tag if _known(request, tag) else service.thumbnail(photo_id, side)
        except PhotoError as error:
            raise UnknownPhoto(f"the file of photo {photo_id} cannot be shown: {error}") from error

    made = await in_picture_thread(service, make)
    headers = {"ETag": made if isinstance(made, str) else made.tag, "Cache-Control": PICTURE_CACHE}
    return (
        _unchanged(headers)
        if isinstance(made, str)
        else Response(made.data, headers=headers, media_type="image/webp")
    )


def tag_of(fingerprint: str, side: int) -> str:
    """Return the entity tag of a picture of a photo."""
    return Thumbnail(b"", fingerprint, side).tag


def _file(service: PhotoService, photo_id: int) -> tuple[io.FileIO, str | None, str]:
    """Return a photo's open file, its type where browsers show it, and its entity tag."""
    photo = service.photo(photo_id)
    file = service.source.open_photo(photo)
    head = file.read(HEAD)
    kind = media_type_of(head) or video_type(head)
    return file, kind, tag_of(photo.fingerprint.hex(), FILE)


def asked_range(request: Request, tag: str) -> tuple[int | None, int | None] | None:
    """Return the first and the last byte that a request asks for (RFC 9110, 14.1): the last ones
    where the first is None, up to the end where the last is; None for the whole file.
    """
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("range", ""), re.ASCII)
    if match is None or match[0] == "bytes=-" or request.headers.get("if-range", tag) != tag:
        return None
    first, last = (int(part) if part else None for part in match.groups())
    return first, last


class OpenFileResponse(Response):
    """A file that is open already, sent from its beginning to the size that it had, or a part of
    it, then closed.
    """

    def __init__(
        self,
        file: io.FileIO,
        media_type: str,
        headers: dict[str, str],
        part: tuple[int | None, int | None] | None = None,
    ) -> None:
        size = os.fstat(file.fileno()).st_size
        status, first, last = _part(part, size)
        super().__init__(None, status, headers | {"Content-Length": str(last + 1 - first)})
        self.headers["content-type"] = media_type
        self.headers["accept-ranges"] = "bytes"
        if status != 200:
            what = f"{first}-{last}" if status == 206 else "*"
            self.headers["content-range"] = f"bytes {what}/{size}"
        self._file, self._first, self._size = file, first, last + 1 - first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file as file:
            file.seek(self._first)
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            left = 0 if scope["method"] == "HEAD" else self._size
            while left:
                piece = await run_in_threadpool(file.read, min(PIECE, left))
                left -= len(piece)
                if not piece:
                    raise OSError("the file has become shorter while it was sent")
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
            if not self._size or scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b"", "more_body": False})


def _part(part: tuple[int | None, int | None] | None, size: int) -> tuple[int, int, int]:
    """Return the status, and the first and last byte to send of a file of this size."""
    if part is None:
        return 200, 0, size - 1
    first, last = part
    if first is None:
        first, last = max(0, size - (last or 0)), None
    last = size - 1 if last is None else min(last, size - 1)
    return (206, first, last) if first <= last else (416, 0, -1)


def _known(request: Request, tag: str) -> bool:
    tags = [
        part.strip().removeprefix("W/")
        for part in request.headers.get("if-none-match", "").split(",")
    ]
    return tag in tags or "*" in tags


def _unchanged(headers: dict[str, str]) -> Response:
    return Response(status_code=304, headers=headers)


async def in_picture_thread(service: PhotoService, work: Callable[[], T]) -> T:
    """Return what work returns, done in one of the few threads that decode; raises ServiceBusy
    where the server stops.
    """
    try:
        future = service.picture_threads.submit(work)
    except RuntimeError as error:  # they take no more work
        raise ServiceBusy("the server is stopping: try again in a moment") from error
    return await asyncio.wrap_future(future)


# -- the collection --------------------------------------------------------------------------------


@router.get("/api/labels", response_model=LabelsAnswer)
def labels(
    request: Request,
    labels: Annotated[
        str | None,
        Query(
            min_length=1, max_length=4000, description="with commas between; without: those stored"
        ),
    ] = None,
    where: Filter = None,
    examples: Annotated[int, Query(ge=0, le=100, description="photos of each label")] = 5,
    background: Annotated[bool, Query(description="add the answer 'none of these'")] = False,
    multi: Annotated[
        bool, Query(description="each label by itself: a photo may have several, or none")
    ] = False,
) -> Response:
    """Label every photo with words, and return how many photos each label has and those that have
    it most clearly.
    """
    service, condition = service_of(request), filter_for(request, where)
    if labels is None:
        stored = stored_counts(service, condition, examples)
        return answer_of(labels_answer(stored))
    counts = label_counts(
        service, labels, condition, examples=examples, background=background, multi=multi
    )
    return answer_of(labels_answer(counts))


@router.get("/api/info", response_model=InfoAnswer)
def info(request: Request) -> Response:
    """Return what the collection holds."""
    service = service_of(request)
    facts = service.info()
    known = {name: facts[name] for name in InfoAnswer.model_fields if name in facts}
    return answer_of(
        InfoAnswer(
            **known,
            version=__version__,
            reads_text=service.reads_text,
            exif_shown=exif_shown(request),
        )
    )


@router.get("/healthz", response_model=HealthAnswer)
def health(request: Request) -> Response:
    """Say that the server lives and can read its collection."""
    service_of(request).count()
    return answer_of(HealthAnswer(status="ok"))


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Return counts of the server in the text format of Prometheus."""
    text = request.app.state.metrics.text(service_of(request))
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
