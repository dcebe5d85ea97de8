"""The page and the HTTP interface of indexing: both start it, show how far it is and stop it; and
the page of files that are not indexed. Where there is no collection yet the page of indexing is the
only one.
"""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from vitsearch.collection.absence import UNREADABLE, count_left_out, left_out_line
from vitsearch.collection.runs import OPENING, IndexRunner, RunState, Status
from vitsearch.errors import NotShown, QueryError
from vitsearch.options import IndexOptions, Option, options_of, value_type
from vitsearch.photos.walk import BROKEN_LINK
from vitsearch.types import SkippedPhoto
from vitsearch.web import indexing
from vitsearch.web.indexing import runner_of, settings_to_retry, start, without_root
from vitsearch.web.pages import (
    counted,
    neighbours,
    page_number,
)
from vitsearch.web.pages.context import Page, form_of, page, views_for
from vitsearch.web.privacy import exif_shown
from vitsearch.web.responses import refuse_unknown_parameters
from vitsearch.web.schemas import ErrorAnswer

api_router = APIRouter(
    responses={status: {"model": ErrorAnswer} for status in (400, 401, 403, 503)},
    dependencies=[Depends(refuse_unknown_parameters)],
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


@api_router.get("/api/index", response_model=IndexAnswer)
def progress(request: Request) -> Response:
    """Return how far the indexing of the photos is, to who may start it."""
    return _answer(request)


@api_router.post("/api/index", response_model=IndexAnswer, status_code=202)
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


@api_router.delete("/api/index", response_model=IndexAnswer)
def stop(request: Request) -> Response:
    """Stop the run, if there is one; what is indexed stays. Returns at once."""
    runner_of(request).stop()
    return _answer(request)


router = APIRouter(include_in_schema=False)

STAGES = {
    "looking": "Looking through the folder",
    "loading": "Loading the model",
    "exporting": "Preparing the model",
    "embedding": "Indexing",
    "building": "Building the index",
    "reading text": "Reading the text in photos",
    OPENING: "Opening the collection",
}
LOCKED = (
    "These photos are being indexed just now by another run, outside of this page: wait until it "
    "is done, then try again. Searching goes on meanwhile."
)
MAX_FIELDS = 50
COUNTS = {
    "indexed": "new or changed",
    "unchanged": "as before",
    "moved": "moved",
    "restored": "back again",
    "removed": "put aside",
    "out_of_reach": "out of reach",
    "failed": "not readable",
    "skipped": "passed over",
}


@router.get("/index")
def index(request: Request) -> Response:
    """How far the indexing is, and the form that starts it."""
    return index_page(request)


@router.post("/index")
async def change(request: Request) -> Response:
    """Start or stop a run, and go to where it is seen."""
    values, _ = await form_of(request, MAX_FIELDS)
    return await run_in_threadpool(_change, request, values)


def _change(request: Request, values: dict[str, str]) -> Response:
    try:
        runs, action = indexing.runner_of(request), values.get("do")
        if action == "stop":
            runs.stop()
        elif action == "retry":
            indexing.start(request, indexing.settings_to_retry(request))
        else:
            is_new = not has_collection(request)
            indexing.start(request, indexing.read_settings(values, is_new=is_new))
    except QueryError as error:
        return index_page(request, status=400, fault=str(error), values=values)
    return RedirectResponse(address_of_run(request), 303)


def has_collection(request: Request) -> bool:
    """Return whether the application shows a collection, and not only the way to one."""
    return getattr(request.app.state, "service", None) is not None


def address_of_run(request: Request) -> str:
    """Return where a run is seen: on the page that becomes the collection's, where there is none
    yet.
    """
    return "/index" if has_collection(request) else "/"


def index_page(
    request: Request,
    *,
    status: int = 200,
    fault: str = "",
    values: dict[str, str] | None = None,
) -> Response:
    """Return the page; ``values`` are those of a form that was refused for its ``fault``."""
    is_new, runs = not has_collection(request), request.app.state.runs
    shown: dict[str, Any] = {
        "view": "/index",
        "collections": request.app.state.collections,
        "is_new": is_new,
        "may_index": indexing.may_index(request),
        "fault": fault,
        "run": None,
        "folder": runs.root.resolve().name if runs else "",
    }
    shown["views"] = () if is_new else views_for(shows_exif=exif_shown(request))
    if shown["may_index"]:
        shown |= {
            "run": _shown(runs.state(), runs),
            "fields": _fields(request, values, is_new=is_new),
        }
    elif has_collection(request):
        raise NotShown(indexing.REFUSED if runs else indexing.NOT_ON_DISK)
    return page("index.html", shown, status=status, headers=(("Cache-Control", "no-store"),))


def _shown(state: RunState, runs: IndexRunner) -> dict[str, Any]:
    """Return what the page says of a run."""
    error = LOCKED if state.error_kind == "CollectionLocked" else state.error
    report = state.report or {}
    counts = [
        f"{report[name]:,} {words}" for name, words in COUNTS.items() if report.get(name)
    ]  # fmt: skip
    return {
        "status": state.status,
        "is_active": state.is_active,
        "title": "Stopping" if state.status == "stopping" else STAGES.get(state.stage, ""),
        "line": _line(state),
        "done": state.done,
        "total": state.total or 0,
        "error": indexing.without_root(error, runs),
        "remarks": [indexing.without_root(text, runs) for text in state.remarks],
        "summary": ", ".join(counts),
        "photos": counted(report.get("total", 0), "photo is", "photos are"),
        "seconds": time_text(state.seconds),
        "failed": report.get("failed", 0) + report.get("skipped", 0),
    }


def _line(state: RunState) -> str:
    """Return how far a run is: photos, rate, what remains."""
    if not state.total:
        return ""
    parts = [f"{state.done:,} of {counted(state.total, 'photo', 'photos')}"]
    if state.rate is not None:
        parts.append(f"{state.rate:.1f} a second")
    if state.remaining is not None and state.done < state.total:
        parts.append(f"about {time_text(state.remaining)} left")
    if state.failed:
        parts.append(f"{state.failed:,} not readable")
    return ", ".join(parts)


def time_text(seconds: float) -> str:
    """Return a length of time in words, as exact as a person needs it."""
    if seconds < 60:
        return counted(max(1, round(seconds)), "second", "seconds")
    minutes = round(seconds / 60)
    if minutes < 60:
        return counted(minutes, "minute", "minutes")
    return f"{minutes // 60} h {minutes % 60} min"


def _fields(
    request: Request, values: dict[str, str] | None, *, is_new: bool
) -> list[dict[str, Any]]:
    """Return the settings of the form, with what was written, or what the last run had."""
    last, fields = indexing.last_settings(request), []
    for name, (entry, option) in indexing.offered(is_new=is_new).items():
        kind = value_type(entry)
        # what speaks of one run alone is not taken over from the last
        before = entry.default if option.later else last.get(name, entry.default)
        fields.append(
            {
                "name": name,
                "title": option.title,
                "kind": _kind(name, entry, option),
                "value": _written(before) if values is None else values.get(name, ""),
                "minimum": option.minimum,
                "maximum": option.maximum,
                "step": "1" if kind is int else "any",
                "choices": indexing.encoders() if name == "encoder" else option.choices,
            }
        )
    return fields


def _kind(name: str, entry: Any, option: Option) -> str:
    """Return what a field of the form is."""
    if name == "encoder":
        return "model"
    if option.choices:
        return "choice"
    if indexing.three_state(entry):
        return "three"
    kinds = {bool: "check", tuple: "lines", int: "number", float: "number"}
    return kinds.get(value_type(entry), "text")


def _written(value: Any) -> str:
    """Return a setting as a form has it."""
    if isinstance(value, list | tuple):
        return "\n".join(value)
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


failures_router = APIRouter(include_in_schema=False)

ROWS_PER_PAGE = 200


@failures_router.get("/failures")
def failures(here: Page) -> Response:
    """The files that are not in the collection, and why."""
    number = page_number(here.request.query_params.get("page", ""))
    try:
        rows, unknown = here.service.failures(), ""
        others = here.service.left_out()
    except QueryError as error:  # of a collection that holds photos only
        rows, others, unknown = [], [], str(error)
    unread = [entry for entry in others if entry.reason in UNREADABLE]
    rows = [*rows, *(SkippedPhoto(entry.path, "failed", entry.detail) for entry in unread)]
    counts = count_left_out(entry for entry in others if entry not in unread)
    start = (number - 1) * ROWS_PER_PAGE
    failed = sum(row.state == "failed" for row in rows)
    summary = "Every photo of the folder is in the collection."
    if rows:
        passed = len(rows) - failed
        parts = [f"{counted(failed, 'file', 'files')} could not be read"] if failed else []
        parts += [f"{counted(passed, 'file was', 'files were')} passed over"] if passed else []
        summary = ", ".join(parts)
    shown: dict[str, Any] = {
        "rows": [_shown_failure(row, here.is_local) for row in rows[start : start + ROWS_PER_PAGE]],
        "summary": unknown or summary,
        "left_out": left_out_line(counts) if counts["left_out"] else "",
        "page": number,
        **neighbours("/failures", [], number, more=len(rows) > start + ROWS_PER_PAGE),
    }
    return here.page("failures.html", view="/failures", **shown)


def _shown_failure(row: SkippedPhoto, is_local: bool) -> SkippedPhoto:
    """Return a file that is not in the collection without the place that its link leads to, which
    is a path of this machine.
    """
    leads = row.reason.startswith(BROKEN_LINK) and not is_local
    return replace(row, reason=BROKEN_LINK) if leads else row
