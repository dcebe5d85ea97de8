"""Several collections on one server: each below an address of its own, and a search in all that one
encoder has indexed, with its HTTP interface.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from vitsearch.arrays import Vectors
from vitsearch.collection.query import Term
from vitsearch.collection.several import search_by_position, understand_all
from vitsearch.collection.understanding import KnownWords, Understood
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import QueryError, ServiceBusy, VitsearchError
from vitsearch.filters.words import Vocabulary
from vitsearch.types import SearchResult
from vitsearch.web.pages import ALONE, LIKE, counted
from vitsearch.web.pages.cache import UploadedPhotos
from vitsearch.web.privacy import exif_shown
from vitsearch.web.responses import refuse_unknown_parameters
from vitsearch.web.routes import K, Offset, answer_of, in_picture_thread
from vitsearch.web.schemas import (
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
from vitsearch.web.search import MAX_TEXT_LENGTH, constraints
from vitsearch.web.service import PhotoService
from vitsearch.web.source import busy_when_unreadable

if TYPE_CHECKING:
    from vitsearch.web.sites import Site

BELOW = "/in/"  # what the paths of collections begin with


@dataclass(eq=False, slots=True)
class Member:
    """One of several collections: its name, and the path that its address begins with."""

    name: str
    path: str
    site: "Site"
    _words: KnownWords | None = None

    @property
    def service(self) -> PhotoService:
        """The service of the collection; raises ServiceBusy where there is none yet."""
        if self.site.service is None:
            raise ServiceBusy(f"{self.name} is not indexed yet")
        return self.site.service

    @contextmanager
    def vocabulary(self, *, private: bool) -> Iterator[Vocabulary]:
        """Lend the words that its queries may have besides the picture's for a block, without
        ``private`` those that everybody may know.
        """
        source = self.service.source
        if self._words is None:
            self._words = KnownWords(source.folder)
        with source.facts() as store:
            yield self._words.of(store, private=private)


@dataclass(frozen=True, slots=True)
class Group:
    """The collections of one encoder, whose scores compare."""

    encoder: ImageEncoder
    members: tuple[Member, ...]
    uploads: UploadedPhotos

    @property
    def key(self) -> str:
        """What names it in an address."""
        return self.encoder.fingerprint[:12]

    def search(
        self, text: str, *, k: int, offset: int = 0, private: bool, like: "Likeness | None" = None
    ) -> tuple[list[tuple[Member, SearchResult]], Understood]:
        """Return ``k`` photos of all from ``offset`` on, best first, each with its collection, and
        what was understood of the words; without ``private`` only by what everybody may see. The
        photo that they are ``like`` is left out; raises QueryError without words and photo.
        """
        understood = self._understood(text, private=private)
        if like is not None:
            weight = LIKE if understood.terms else ALONE
            term = Term(like.vector, weight)
            understood = replace(understood, terms=(*understood.terms, term))
        of = like.of if like else None
        start, end = (0, offset + k + 1) if of else (offset, k)
        with busy_when_unreadable(), ExitStack() as stack:
            opened = [stack.enter_context(each.service.engine.using()) for each in self.members]
            stack.enter_context(self.members[0].service.source.computing(self.encoder))
            hits = search_by_position(opened, understood, end, offset=start, by_date=private)
        results = [(self.members[position], hit) for position, hit in hits]
        if of:
            results = [each for each in results if (each[0], each[1].photo_id) != of]
            results = results[offset : offset + k]
        return results, understood

    def _understood(self, text: str, *, private: bool) -> Understood:
        if not text:
            return Understood((), (), None)
        with ExitStack() as stack:
            lent = [stack.enter_context(each.vocabulary(private=private)) for each in self.members]
            understood = understand_all(lent, text)
        return understood if private else understood.without_text

    def like_picture(self, data: bytes) -> str:
        """Remember the photo of a file for searches in these collections, and return its key;
        raises PhotoError.
        """
        service = self.members[0].service
        picture = service.read_picture(data)
        with service.source.encoding:
            vector = self.encoder.encode_images([picture])[0]
        return self.uploads.add(picture, vector)

    def like_photo(self, member: Member, photo_id: int) -> "Likeness":
        """Return the likeness to a photo of one of the collections; raises UnknownPhoto."""
        photo = member.service.photo(photo_id)
        with member.service.source.reading() as collection:
            vector = collection.queries.stored_vector(photo.photo_id)
        return Likeness(vector, (member, photo_id))


class Likeness(NamedTuple):
    """The vector of a photo to search with, and which photo of which collection it is, None for an
    uploaded one.
    """

    vector: Vectors
    of: tuple[Member, int] | None = None


class Several:
    """The sites of several photo folders or collections in Milvus, and the application that shows
    them; options are those of `Site.of`.
    """

    def __init__(self, photos: Sequence[str], **options: Any) -> None:
        from vitsearch.web.sites import Site

        self.members: list[Member] = []
        self._uploads: dict[str, UploadedPhotos] = {}  # by the fingerprint of their encoder
        for each in photos:
            site = Site.of(each, is_inner=True, **options)
            name = site.runs.root.resolve().name if site.runs else each.rpartition("/")[2]
            self.members.append(Member(name or "photos", self._path(name), site))
        for member in self.members:
            member.site.lenders = [each.site for each in self.members if each is not member]
            member.site.collections = self.links(member)

    def _path(self, name: str) -> str:
        """Return the path of a collection of this name, which no other has."""
        word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "photos"
        others = {member.path for member in self.members}
        number, path = 1, f"{BELOW}{word}"
        while path in others:
            number += 1
            path = f"{BELOW}{word}-{number}"
        return path

    def links(self, current: Member | None = None) -> list[tuple[str, str, bool]]:
        """Return name and address of each collection, and whether it is the current one."""
        return [(each.name, f"{each.path}/", each is current) for each in self.members]

    @property
    def content(self) -> str:
        """What is served, in words."""
        indexed = [each.site.service for each in self.members if each.site.service is not None]
        photos = counted(sum(service.count() for service in indexed), "photo", "photos")
        return f"{photos} in {counted(len(self.members), 'collection', 'collections')}"

    def groups(self) -> list[Group]:
        """Return the collections by encoder, the group with the most first; those that cannot be
        read just now, or are not indexed, are left out.
        """
        members: dict[str, list[Member]] = {}
        encoders: dict[str, ImageEncoder] = {}
        for each in self.members:
            if each.site.service is None:
                continue
            try:
                encoder = each.site.service.encoder
            except VitsearchError:
                continue
            encoders.setdefault(encoder.fingerprint, encoder)
            members.setdefault(encoder.fingerprint, []).append(each)
        groups = [
            Group(encoders[key], tuple(those), self._uploads.setdefault(key, UploadedPhotos()))
            for key, those in members.items()
        ]
        return sorted(groups, key=lambda group: -len(group.members))

    def close(self) -> None:
        """Stop what indexes, and close the collections."""
        for member in self.members:
            member.site.close()


router = APIRouter(
    responses={status: {"model": ErrorAnswer} for status in (400, 401, 403, 503)},
    dependencies=[Depends(refuse_unknown_parameters)],
)
# -- The HTTP interface ----------------------------------------------------------------------------


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
    members = [member for member, _ in results]
    listed = hits([result for _, result in results])
    return answer_of(
        {
            "results": [
                {**hit, "collection": member.name, "address": f"{member.path}/"}
                for member, hit in zip(members, listed, strict=True)
            ],
            "searched": [member.name for member in group.members],
            "k": k,
            "offset": offset,
            "understood": phrase_answers(understood.phrases),
        }
    )


@router.get("/healthz", response_model=HealthAnswer)
def health() -> Response:
    """Say that the server lives."""
    return answer_of(HealthAnswer(status="ok"))
