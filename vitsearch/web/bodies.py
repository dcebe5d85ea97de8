"""Reads the body of a search: JSON, or a form with an uploaded photo."""

import json
from typing import Any

import numpy as np
from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from vitsearch.errors import QueryError
from vitsearch.vectors import Vectors
from vitsearch.web.answers import reason_of
from vitsearch.web.asking import SearchTerm, read_query
from vitsearch.web.errors import TooLarge
from vitsearch.web.safety import too_large
from vitsearch.web.schemas import LONGEST_FILTER, SearchRequest, TermRequest
from vitsearch.web.settings import ServeSettings

LONGEST_JSON = 1_000_000  # bytes
JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
_LONGEST_FIELD = 200_000
_MOST_FIELDS = 16

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
                    "photo": {"type": "string", "format": "binary", "description": "a picture file"},
                    "q": {"type": "string", "maxLength": 2000},
                    "k": {"type": "integer", "minimum": 1, "maximum": 1000},
                    "offset": {"type": "integer", "minimum": 0, "maximum": 100_000},
                    "where": {"type": "string", "maxLength": LONGEST_FILTER},
                    "min_score": {"type": "number", "minimum": -1, "maximum": 1},
                    "terms": {"type": "string", "description": "a JSON list of terms, as in the other kind of body"},
                },
            }
        },
    },
}


async def read_search(request: Request) -> tuple[SearchRequest, bytes | None]:
    """Return what a body asks for, and the bytes of its photo; raises QueryError with the reason, or TooLarge."""
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
        if size > LONGEST_JSON:
            raise TooLarge(f"a query in JSON may have {LONGEST_JSON:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _from_json(body: bytes) -> SearchRequest:
    try:
        return SearchRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise QueryError(reason_of(error.errors(include_context=False, include_input=False))) from None


async def _from_form(request: Request) -> tuple[SearchRequest, bytes]:
    async with request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_LONGEST_FIELD) as form:
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
        raise QueryError(reason_of(error.errors(include_context=False, include_input=False))) from None
    except (ValueError, RecursionError):
        raise QueryError("terms is no JSON list of terms") from None


def terms_in(asked: SearchRequest) -> list[SearchTerm]:
    """Return the terms of a request; raises QueryError for a term that is both or neither of words and photo, or for none."""
    terms = list(read_query(asked.q)) if asked.q is not None else []
    terms += [_term(one) for one in asked.terms or ()]
    if asked.vector is not None:
        terms.append(SearchTerm(_vector(asked.vector)))
    return terms


def _vector(numbers: list[float]) -> Vectors:
    with np.errstate(over="ignore"):
        return np.asarray(numbers, dtype=np.float32)


def _term(one: TermRequest) -> SearchTerm:
    if (one.text is None) == (one.photo is None):
        raise QueryError("a term has either a text or the id of a photo")
    what = one.photo if one.text is None else one.text
    assert what is not None
    return SearchTerm(what, one.weight)
