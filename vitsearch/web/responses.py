"""Errors as responses: JSON for programs, a page for people. A parameter that is unknown is one."""

import html
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from vitsearch.errors import (
    ClassifierError,
    NotShown,
    PhotoError,
    QueryError,
    ServiceBusy,
    TooLarge,
    UnknownPhoto,
    VitsearchError,
)
from vitsearch.web.privacy import SECRETS
from vitsearch.web.source import BUSY

CODES: Mapping[int, str] = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    408: "too_slow",
    415: "unsupported_media_type",
    429: "too_many_requests",
    500: "internal_error",
    503: "busy",
}
STATUSES: tuple[tuple[type[VitsearchError], int], ...] = (
    (UnknownPhoto, 404),  # before QueryError, which it is too
    (QueryError, 400),
    (PhotoError, 400),
    (ClassifierError, 400),
    (NotShown, 403),
    (TooLarge, 413),
    (ServiceBusy, 503),
)
_PAGE = (
    '<!doctype html><html lang="en"><meta '
    'charset="utf-8"><title>vitsearch</title><h1>{title}</h1><p>{message}</p>'
)


def error_response(
    request: Request,
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
    *,
    plain: bool = False,
) -> Response:
    """Return an error as JSON, or as a page for a browser: drawn by ``app.state.error_page`` unless
    it is ``plain``.
    """
    sent = dict(headers or {}) | {"Cache-Control": "no-store"}
    if status == 503:
        sent["Retry-After"] = "1"
    if not wants_page(request):
        body = {"error": {"code": CODES.get(status, "error"), "message": message}}
        return JSONResponse(body, status, sent)
    draw = None if plain else getattr(request.app.state, "error_page", None)
    if draw is not None:
        # the page may itself need the collection that cannot be read
        with suppress(VitsearchError):
            drawn: Response = draw(request, status, message)
            drawn.headers.update(sent)
            return drawn
    return HTMLResponse(_PAGE.format(title=status, message=html.escape(message)), status, sent)


def wants_page(request: Request) -> bool:
    """Return whether the client is a browser that shows a page."""
    path = request.url.path
    if path.startswith(("/api/", "/static/")) or path in ("/metrics", "/healthz"):
        return False
    return "text/html" in request.headers.get("accept", "")


async def handle_known_error(request: Request, error: Exception) -> Response:
    """Answer an error of the library; where the client did not cause it, only that the server is
    busy.
    """
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), None)
    return error_response(request, status or 503, readable_reason(str(error)) if status else BUSY)


async def handle_invalid_request(request: Request, error: Exception) -> Response:
    """Answer a request whose parameters do not fit the description."""
    assert isinstance(error, RequestValidationError)
    return error_response(request, 400, reason_of(error.errors(), below=1))


async def handle_http_error(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: an unknown address, another method, a form that cannot be
    read.
    """
    assert isinstance(error, HTTPException)
    message = readable_reason(str(error.detail))
    return error_response(request, error.status_code, message, error.headers)


async def handle_disconnect(request: Request, error: Exception) -> Response:
    """End a request whose client has gone away: nobody reads the answer."""
    return error_response(request, 400, "the request ended before it was whole", plain=True)


async def handle_unknown_error(request: Request, error: Exception) -> Response:
    """Answer a fault of the server itself, without any detail."""
    return error_response(request, 500, "the server has made a mistake; its own output says which")


def reason_of(problems: Sequence[Any], *, below: int = 0) -> str:
    """Return the first of pydantic's problems in one line: where it is, without the first ``below``
    parts of the path, and what it is.
    """
    if not problems:
        return "the request cannot be read"
    where = ".".join(str(part) for part in problems[0].get("loc", ())[below:])
    message = str(problems[0].get("msg", "wrong"))
    return readable_reason(f"{where}: {message}" if where else message)


def readable_reason(text: str) -> str:
    """Return a message as one line of at most 500 characters of valid UTF-8, whatever a client put
    into it.
    """
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())[:500]


def refuse_unknown_parameters(request: Request) -> None:
    """Raise QueryError for a parameter of an address that its route does not have: a filter with a
    slip in its name would let all photos through.
    """
    known = [field.alias for field in request["route"].dependant.query_params]
    for name in request.query_params:
        if name not in (*known, *SECRETS):
            have = f"it has {', '.join(known)}" if known else "it has none"
            raise QueryError(f"{request.url.path} has no parameter {name}: {have}")
