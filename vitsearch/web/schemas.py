"""The shapes of the requests and answers of the HTTP interface."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from starlette.datastructures import UploadFile

from vitsearch.arrays import Vectors
from vitsearch.collection.query import Term
from vitsearch.errors import QueryError, TooLarge
from vitsearch.filters.words import Phrase
from vitsearch.options import SearchOptions
from vitsearch.paths import raw_path
from vitsearch.photos.columns import METADATA
from vitsearch.types import Photo, Prediction, SearchResult
from vitsearch.web import ServeSettings
from vitsearch.web.responses import reason_of
from vitsearch.web.search import MAX_TERMS, MAX_TEXT_LENGTH, Found, constraints
from vitsearch.web.security import too_large
from vitsearch.web.service import LabelCounts

DEFAULT_RESULTS = 50
MIN_RELEVANCE = SearchOptions(1).min_relevance
MAX_ID = 2**63 - 1

EXACT = 2**53 - 1
JsonId = Annotated[
    int | str, Field(description="a number, or above 2^53 - 1 a string of its digits")
]
PhotoId = Annotated[int, Field(ge=1, le=MAX_ID, description="the id of a photo of the collection")]


class Error(BaseModel):
    """What went wrong: a short code for programs, a line for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """The one shape of every answer that is an error."""

    error: Error


class Hit(BaseModel):
    """One photo of a result, and its cosine similarity to the query."""

    id: JsonId
    path: str = Field(
        description="relative to the photo folder; bytes that are no UTF-8 are shown as U+FFFD"
    )
    score: float
    time: float | None = Field(
        default=None, description="of a video the best moment, in seconds; missing for a photo"
    )
    relevance: float | None = Field(
        default=None,
        description="how likely it shows the words, from 0 to 1; missing where photos or vectors "
        "are in the query, and where the model cannot tell",
    )
    quotes: list[str] | None = Field(
        default=None, description="words in quotes that stand in it; missing where there are none"
    )


class PhraseAnswer(BaseModel):
    """What some words of a query mean besides the picture, and the filter that they are."""

    title: str
    where: str


class SearchAnswer(BaseModel):
    """Photos, best first, equal scores in order of path; the newest first, with scores of 0, where
    the query is nothing but what was understood of it (in order of path for who may not see dates).
    """

    results: list[Hit]
    nearest: list[Hit] = Field(
        default=[], description="where no photo fits the words: the nearest ones; else missing"
    )
    k: int
    offset: int
    notes: list[str] = Field(description="what to know about the words of the query")
    understood: list[PhraseAnswer] = Field(
        description="dates, places, cameras and the like in the query, which filter the photos"
    )


class TermRequest(BaseModel):
    """One part of a query: words, or a photo of the collection; a negative weight means 'not'."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH)] | None = None
    photo: PhotoId | Annotated[str, Field(pattern=r"^[0-9]{1,19}$")] | None = None
    weight: Annotated[float, Field(ge=-1000, le=1000)] = 1.0


class SearchRequest(BaseModel):
    """A query of words in the query language, of terms, of a vector, or of several of these
    together, and what is wanted of its results.
    """

    model_config = ConfigDict(extra="forbid")

    q: (
        Annotated[
            str,
            Field(
                max_length=MAX_TEXT_LENGTH,
                description='words, or terms such as "2:beach + dog - people"',
            ),
        ]
        | None
    ) = None
    terms: Annotated[list[TermRequest], Field(max_length=MAX_TERMS)] | None = None
    vector: (
        Annotated[list[float], Field(max_length=16384, description="of the collection's own model")]
        | None
    ) = None
    k: Annotated[int, Field(**constraints("top_k"))] = DEFAULT_RESULTS
    offset: Annotated[int, Field(**constraints("offset"))] = 0
    where: Annotated[str, Field(**constraints("where"))] | None = None
    min_score: Annotated[float, Field(**constraints("min_score"))] | None = None
    min_relevance: Annotated[float, Field(**constraints("min_relevance"))] = MIN_RELEVANCE
    literal: Annotated[bool, Field(**constraints("literal"))] = False


class PhotoFields(BaseModel):
    """What is answered of every photo, whatever its metadata."""

    id: JsonId
    path: str
    companions: list[str] = Field(description="its other files, such as the RAW of a JPEG")
    bytes: int
    modified_at: str | None = Field(default=None, description="of the file, UTC")
    width: int
    height: int
    fingerprint: str
    label: str | None
    label_score: float | None


_PYTHON_TYPES = {"TEXT": str, "REAL": float, "INTEGER": int}
_METADATA_FIELDS: dict[str, Any] = {
    name: (_PYTHON_TYPES[column.sql_type] | None, Field(default=None, description=column.help))
    for name, column in METADATA.items()
}
PhotoAnswer = create_model(
    "PhotoAnswer",
    __base__=PhotoFields,
    __doc__="One photo. Private fields are missing where the server does not show them.",
    **_METADATA_FIELDS,
)


class LabelAnswer(BaseModel):
    """One label, the number of photos that have it, and those that have it most clearly, best
    first.
    """

    label: str
    photos: int
    examples: list[Hit]


class LabelsAnswer(BaseModel):
    """The labels with their photos; ``unlabelled`` photos have none."""

    labels: list[LabelAnswer]
    unlabelled: int
    sample: int | None = Field(
        default=None,
        description="of how many photos these are the numbers; missing where of all, which a large "
        "collection in Milvus alone does not tell",
    )


class InfoAnswer(BaseModel):
    """What the collection holds and what the server shows; a collection in Milvus does not say all
    of it.
    """

    version: str
    photos: int
    failed: int | None = None
    skipped: int | None = None
    encoder: str
    dim: int
    reads_text: bool
    index: str | None
    recall: float | None
    created_at: str | None = None
    changed_at: str | None = None
    database_bytes: int | None = None
    index_bytes: int | None = None
    exif_shown: bool


class HealthAnswer(BaseModel):
    """The server lives and can read its collection."""

    status: str


def shown(text: str) -> str:
    """Return a path or label as text that every client can read: bytes that are no UTF-8 become
    U+FFFD.
    """
    return raw_path(text).decode("utf-8", "replace")


def json_id(photo_id: int) -> int | str:
    """Return an id as JSON has it: as a string above 2^53 - 1, beyond which the numbers of many
    readers are not exact (RFC 8259, 6).
    """
    return photo_id if photo_id <= EXACT else str(photo_id)


def hits(results: Sequence[SearchResult | Prediction]) -> list[dict[str, Any]]:
    """Return results as the interface answers them: the fields of a `Hit` that are not missing."""
    return list(map(_hit, results))


def _hit(result: SearchResult | Prediction) -> dict[str, Any]:
    hit: dict[str, Any] = {
        "id": json_id(result.photo_id),
        "path": shown(result.path),
        "score": round(result.score, 6),
    }
    if isinstance(result, SearchResult):
        if result.time is not None:
            hit["time"] = result.time
        if result.relevance is not None:
            hit["relevance"] = round(result.relevance, 3)
        if result.quotes:
            hit["quotes"] = [*result.quotes]
    return hit


def search_answer(
    answer: Found, k: int, offset: int, phrases: Sequence[Phrase] = ()
) -> dict[str, Any]:
    """Return the fields of a `SearchAnswer` that are not missing; ``phrases`` were understood."""
    nearest = {"nearest": hits(answer.nearest)} if answer.nearest else {}
    return {
        "results": hits(answer.results),
        **nearest,
        "k": k,
        "offset": offset,
        "notes": answer.notes,
        "understood": phrase_answers(phrases),
    }


def phrase_answers(phrases: Sequence[Phrase]) -> list[dict[str, str]]:
    """Return what was understood of a query as the interface answers it: the fields of
    `PhraseAnswer`.
    """
    return [{"title": shown(each.title), "where": shown(str(each.where))} for each in phrases]


def labels_answer(counts: LabelCounts) -> dict[str, Any]:
    """Return the fields of a `LabelsAnswer` that are not missing."""
    listed = [
        {"label": shown(each.label), "photos": each.photos, "examples": hits(each.examples)}
        for each in counts.groups
    ]
    sample = {"sample": counts.sample} if counts.sample is not None else {}
    return {"labels": listed, "unlabelled": counts.unlabelled, **sample}


def photo_answer(photo: Photo, companions: Sequence[str], exif: bool) -> PhotoFields:
    """Return a photo as the interface answers it, with its other files, and with its private
    columns or without.
    """
    metadata: dict[str, Any] = {
        name: photo.info[name] for name, column in METADATA.items() if exif or not column.private
    }
    if exif:
        metadata["modified_at"] = _iso(photo.mtime_ns)
    return PhotoAnswer(
        id=json_id(photo.photo_id),
        path=shown(photo.file),
        companions=[*map(shown, companions)],
        bytes=photo.size,
        width=photo.info.width,
        height=photo.info.height,
        fingerprint=photo.fingerprint.hex(),
        label=None if photo.label is None else shown(photo.label),
        label_score=photo.label_score,
        **metadata,
    )


def _iso(mtime_ns: int) -> str:
    try:
        return datetime.fromtimestamp(mtime_ns // 1_000_000_000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # a file system may say anything
        return ""


# -- Reads the body of a search: JSON, or a form with an uploaded photo ----------------------------

MAX_JSON_LENGTH = 1_000_000  # bytes
JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
_MAX_FIELD_LENGTH = 200_000
_MAX_FIELDS = 16


def _limits(name: str) -> dict[str, Any]:
    """Return the range and the help of a field of `SearchOptions` in the words of JSON Schema."""
    words = {"ge": "minimum", "le": "maximum", "max_length": "maxLength"}
    return {words.get(limit, limit): value for limit, value in constraints(name).items()}


BODY: dict[str, Any] = {  # of the description of the interface
    "required": True,
    "content": {
        JSON_TYPE: {"schema": {"$ref": "#/components/schemas/SearchRequest"}},
        FORM_TYPE: {
            "schema": {
                "type": "object",
                "required": ["photo"],
                "additionalProperties": False,
                "properties": {
                    "photo": {
                        "type": "string",
                        "format": "binary",
                        "description": "a picture file",
                    },
                    "q": {"type": "string", "maxLength": MAX_TEXT_LENGTH},
                    "k": {"type": "integer"} | _limits("top_k"),
                    "offset": {"type": "integer"} | _limits("offset"),
                    "where": {"type": "string"} | _limits("where"),
                    "min_score": {"type": "number"} | _limits("min_score"),
                    "min_relevance": {"type": "number"} | _limits("min_relevance"),
                    "literal": {"type": "boolean"} | _limits("literal"),
                    "terms": {
                        "type": "string",
                        "description": "a JSON list of terms, as in the other kind of body",
                    },
                },
            }
        },
    },
}


async def read_search(request: Request) -> tuple[SearchRequest, bytes | None]:
    """Return what a body asks for, and the bytes of its photo; raises QueryError with the reason,
    or TooLarge.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON_TYPE:
        return _from_json(await _body(request)), None
    if kind == FORM_TYPE:
        return await _from_form(request)
    raise QueryError(f"the body is {kind or 'of no type'}, not {JSON_TYPE} or {FORM_TYPE}")


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_JSON_LENGTH:
            raise TooLarge(f"a query in JSON may have {MAX_JSON_LENGTH:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _from_json(body: bytes) -> SearchRequest:
    try:
        return SearchRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise QueryError(
            reason_of(error.errors(include_context=False, include_input=False))
        ) from None


async def _from_form(request: Request) -> tuple[SearchRequest, bytes]:
    async with request.form(
        max_files=1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_LENGTH
    ) as form:
        fields: dict[str, Any] = {}
        for name, value in form.multi_items():
            if name in fields:
                raise QueryError(f"{name} is given twice")
            fields[name] = value
        photo = fields.pop("photo", None)
        if not isinstance(photo, UploadFile):
            raise QueryError("the form has no file named photo")
        data = await read_upload(photo, request.app.state.settings)
    return _checked(fields), data


async def read_upload(photo: UploadFile, settings: ServeSettings) -> bytes:
    """Return the bytes of an uploaded file; raises TooLarge, or QueryError for an empty one."""
    data = await photo.read(settings.upload_bytes + 1)
    if len(data) > settings.upload_bytes:
        raise TooLarge(too_large(settings))
    if not data:
        raise QueryError("the photo is empty (0 bytes)")
    return data


def _checked(fields: dict[str, Any]) -> SearchRequest:
    try:
        if isinstance(fields.get("terms"), str):
            fields["terms"] = json.loads(fields["terms"])
        return SearchRequest.model_validate(fields)
    except ValidationError as error:
        raise QueryError(
            reason_of(error.errors(include_context=False, include_input=False))
        ) from None
    except (ValueError, RecursionError):
        raise QueryError("terms is no JSON list of terms") from None


def terms_in(body: SearchRequest) -> list[Term]:
    """Return the terms of a request beside its query string; raises QueryError for a term that is
    both or neither of words and photo.
    """
    terms = [_term(term) for term in body.terms or ()]
    if body.vector is not None:
        terms.append(Term(_vector(body.vector)))
    return terms


def _vector(numbers: list[float]) -> Vectors:
    with np.errstate(over="ignore"):
        return np.asarray(numbers, dtype=np.float32)


def _term(term: TermRequest) -> Term:
    if (term.text is None) == (term.photo is None):
        raise QueryError("a term has either a text or the id of a photo")
    return Term(int(term.photo or 0) if term.text is None else term.text, term.weight)
