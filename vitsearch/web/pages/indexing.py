"""The page that indexes photos, shows how far that is, and stops it; where there is no collection
yet it is the only one.
"""

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from vitsearch.collection.index_process import OPENING, IndexRunner, RunState
from vitsearch.errors import NotShown, QueryError
from vitsearch.options import Option, value_type
from vitsearch.web import indexing
from vitsearch.web.pages.context import form_of, page, views_for
from vitsearch.web.pages.tiles import counted
from vitsearch.web.privacy import exif_shown

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
