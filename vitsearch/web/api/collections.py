"""The HTTP interface over several collections: which there are, and a search in all of one
encoder.
"""

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from vitsearch.errors import QueryError, VitsearchError
from vitsearch.web.api.routes import K, Offset, answer_of
from vitsearch.web.api.schemas import (
    DEFAULT_RESULTS,
    ErrorAnswer,
    HealthAnswer,
    Hit,
    PhraseAnswer,
    hits,
    phrase_answers,
)
from vitsearch.web.privacy import exif_shown
from vitsearch.web.query import MAX_TEXT_LENGTH
from vitsearch.web.several import Group, Several

router = APIRouter(
    responses={status: {"model": ErrorAnswer} for status in (400, 401, 403, 503)},
)


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


@router.get("/api/search", response_model=CollectionsSearchAnswer)
def search(
    request: Request,
    q: Annotated[str, Query(min_length=1, max_length=MAX_TEXT_LENGTH, description="words")],
    k: K = DEFAULT_RESULTS,
    offset: Offset = 0,
    encoder: Annotated[
        str, Query(max_length=500, description="that of the most collections unless named")
    ] = "",
) -> Response:
    """Search by words in all collections of one encoder."""
    group = group_of(request, encoder)
    results, understood = group.search(q, k=k, offset=offset, private=exif_shown(request))
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
