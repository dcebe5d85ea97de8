"""The HTTP interface of indexing: start, progress, stop."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from vitsearch.collection.index_process import Status
from vitsearch.options import IndexOptions, options_of, value_type
from vitsearch.web.api.schemas import ErrorAnswer
from vitsearch.web.indexing import runner_of, settings_to_retry, start, without_root

router = APIRouter(
    responses={status: {"model": ErrorAnswer} for status in (400, 401, 403, 503)},
)


def _request_model() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, (entry, option) in options_of(IndexOptions).items():
        if option.title:
            kind = value_type(entry)
            body_type = list[str] if kind is tuple else kind
            fields[name] = (body_type | None, Field(None, description=option.title))
    return create_model(
        "IndexRequest",
        __config__=ConfigDict(extra="forbid"),
        __doc__="How to index; what is left out is as `vitsearch index` has it. `retry` alone "
        "takes and leaves out what the last run did.",
        **fields,
    )


IndexRequest = _request_model()


class IndexAnswer(BaseModel):
    """How far a run of indexing is, or how the last one of this server ended."""

    status: Status
    stage: str = Field(description="looking, loading, embedding, building and others")
    done: int = Field(description="photos of this stage")
    total: int | None
    failed: int = Field(description="photos that cannot be read")
    seconds: float = Field(description="since the run began")
    rate: float | None = Field(description="photos a second, where it is known")
    remaining: float | None = Field(description="seconds, where they are known")
    report: dict[str, Any] | None = Field(description="what `vitsearch index --json` prints")
    error: str
    remarks: list[str]


def _answer(request: Request, status: int = 200) -> Response:
    runs = runner_of(request)
    state = runs.state()
    facts = {name: getattr(state, name) for name in IndexAnswer.model_fields}
    facts |= {
        "error": without_root(state.error, runs),
        "remarks": [without_root(text, runs) for text in state.remarks],
    }
    body = IndexAnswer(**facts).model_dump_json()
    return Response(body, status, media_type="application/json")


@router.get("/api/index", response_model=IndexAnswer)
def progress(request: Request) -> Response:
    """Return how far the indexing of the photos is, to who may start it."""
    return _answer(request)


@router.post("/api/index", response_model=IndexAnswer, status_code=202)
def begin(
    request: Request,
    body: Annotated[IndexRequest | None, Body()] = None,  # type: ignore[valid-type]
) -> Response:
    """Index the photos, or bring their collection up to date; returns at once. Only for the person
    at this machine, and with `--allow-edits` for who has the token.
    """
    settings: dict[str, Any] = {} if body is None else body.model_dump(exclude_none=True)
    start(request, settings_to_retry(request) if settings == {"retry": True} else settings)
    return _answer(request, 202)


@router.delete("/api/index", response_model=IndexAnswer)
def stop(request: Request) -> Response:
    """Stop the run, if there is one; what is indexed stays. Returns at once."""
    runner_of(request).stop()
    return _answer(request)
