"""The HTTP interface over several collections: which there are, and a search in all of one
encoder.
"""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from vitsearch.errors import QueryError, VitsearchError
from vitsearch.web.api.routes import K, Offset, answer_of, in_picture_thread
from vitsearch.web.api.schemas import (
    DEFAULT_RESULTS,
    MAX_ID,
    ErrorAnswer,
    HealthAnswer,
    Hit,
    PhraseAnswer,
    hits,
    phrase_answers,
    read_upload,
)
from vitsearch.web.privacy import exif_shown
from vitsearch.web.query import MAX_TEXT_LENGTH, constraints
from vitsearch.web.several import Group, Likeness, Several

router = APIRouter(
    responses={status: {"model": ErrorAnswer} for status in (400, 401, 403, 503)},
)
_UNKNOWN: dict[int | str, Any] = {404: {"model": ErrorAnswer}}
Encoder = Annotated[
    str, Query(max_length=500, description="that of the most collections unless named")
]


class CollectionAnswer(BaseModel):
    """One of the collections: below its address is the interface of one collection."""

    name: str
    address: str
    encoder: str | None = Field(
        description="null where it is not indexed yet, or cannot be read just now"
    )
    photos: int


class CollectionsAnswer(BaseModel):
    """The collections, in the order in which they were named."""

    collections: list[CollectionAnswer]


class CollectionHit(Hit):
    """One photo of a result, and which collection it is of."""

    collection: str
    address: str = Field(description="of the collection, in which the id is the photo's")


class CollectionsSearchAnswer(BaseModel):
    """Photos of all collections of one encoder, best first."""

    results: list[CollectionHit]
    searched: list[str] = Field(description="the names of the collections")
    k: int
    offset: int
    understood: list[PhraseAnswer]


def several_of(request: Request) -> Several:
    """Return the collections of the application."""
    several: Several = request.app.state.several
    return several


def group_of(request: Request, key: str) -> Group:
    """Return the collections of the encoder that a key names, "" for that of the most; raises
    QueryError.
    """
    groups = several_of(request).groups()
    for group in groups:
        if key in ("", group.key, group.encoder.name):
            return group
    names = ", ".join(group.encoder.name for group in groups) or "none"
    raise QueryError(f"no collection here has this encoder: {names}")


@router.get("/api/collections", response_model=CollectionsAnswer)
def collections(request: Request) -> Response:
    """Return which collections there are."""
    rows = []
    for member in several_of(request).members:
        answer = CollectionAnswer(
            name=member.name, address=f"{member.path}/", encoder=None, photos=0
        )
        with suppress(VitsearchError):
            answer.encoder, answer.photos = member.service.encoder.name, member.service.count()
        rows.append(answer)
    return answer_of(CollectionsAnswer(collections=rows))


@router.get("/api/search", response_model=CollectionsSearchAnswer, responses=_UNKNOWN)
def search(
    request: Request,
    q: Annotated[str, Query(max_length=MAX_TEXT_LENGTH, description="words")] = "",
    k: K = DEFAULT_RESULTS,
    offset: Offset = 0,
    encoder: Encoder = "",
    photo: Annotated[
        int | None,
        Query(ge=1, le=MAX_ID, description="the id of a photo that they are like; with `of`"),
    ] = None,
    of: Annotated[str, Query(max_length=500, description="the address of its collection")] = "",
) -> Response:
    """Search by words, or by a photo of one of them, in all collections of one encoder."""
    if photo is None:
        return _answer(request, group_of(request, encoder), q, k, offset)
    group, like = likeness_of(request, of, photo, encoder)
    return _answer(request, group, q, k, offset, like)


@router.post(
    "/api/search",
    response_model=CollectionsSearchAnswer,
    responses={413: {"model": ErrorAnswer}},
)
async def search_by(
    request: Request,
    photo: Annotated[UploadFile, File(description="a picture file")],
    q: Annotated[str, Form(max_length=MAX_TEXT_LENGTH)] = "",
    k: Annotated[int, Form(**constraints("top_k"))] = DEFAULT_RESULTS,
    offset: Annotated[int, Form(**constraints("offset"))] = 0,
    encoder: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Search by an uploaded photo in all collections of one encoder."""
    data = await read_upload(photo, request.app.state.settings)
    group = await run_in_threadpool(group_of, request, encoder)
    service = group.members[0].service
    async with service.uploads:
        key = await in_picture_thread(service, lambda: group.like_picture(data))
    like = Likeness(group.uploads.get(key).vector)
    return await run_in_threadpool(_answer, request, group, q, k, offset, like)


def likeness_of(
    request: Request, address: str, photo_id: int, encoder: str
) -> tuple[Group, Likeness]:
    """Return the likeness to a photo of the collection with an address, and the collections of its
    encoder; raises QueryError and UnknownPhoto.
    """
    several = several_of(request)
    for group in several.groups():
        for member in group.members:
            if member.path == address.rstrip("/"):
                if encoder not in ("", group.key, group.encoder.name):
                    raise QueryError(
                        f"{member.name} has the encoder {group.encoder.name}: photos of it are "
                        "compared with those of the same one"
                    )
                return group, group.like_photo(member, photo_id)
    raise QueryError("no collection that is indexed has this address: see /api/collections")


def _answer(
    request: Request, group: Group, q: str, k: int, offset: int, like: Likeness | None = None
) -> Response:
    if not q and like is None:
        raise QueryError("a search needs words, or a photo")
    results, understood = group.search(
        q, k=k, offset=offset, private=exif_shown(request), like=like
    )
    rows = [
        CollectionHit(
            **hits([result])[0].model_dump(exclude_unset=True),
            collection=member.name,
            address=f"{member.path}/",
        )
        for member, result in results
    ]
    answer = CollectionsSearchAnswer(
        results=rows,
        searched=[member.name for member in group.members],
        k=k,
        offset=offset,
        understood=phrase_answers(understood.phrases),
    )
    return answer_of(answer, exclude_unset=True)


@router.get("/healthz", response_model=HealthAnswer)
def health() -> Response:
    """Say that the server lives."""
    return answer_of(HealthAnswer(status="ok"))
