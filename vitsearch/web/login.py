"""How a browser gives the token, and how the server remembers that it has."""

import hashlib
import hmac
import html
import math
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import URL, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Send

from vitsearch.web.responses import error_response, wants_page
from vitsearch.web.settings import ServeSettings

LOGIN = "/login"
COOKIE_SECONDS = 30 * 24 * 3600
MAX_FORM_BYTES, MAX_FIELDS = 16_384, 8
SECRETS = ("token", "key")  # parameters that no address keeps
_FORM = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
    'content="width=device-width">'
    '<title>vitsearch</title><link rel="stylesheet" href="/static/app.css"><main><h1>vitsearch</h1>'
    '<form method="post" action="{login}"><p><label for="token">{text}</label></p>'
    '<p><input type="hidden" name="to" value="{to}">'
    '<input id="token" name="token" type="password" required autocomplete="current-password"> '
    "<button>Go on</button></p></form></main>"
)
_ONWARD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>vitsearch</title><meta '
    'http-equiv="refresh" content="0; url={url}">'
)


def token_cookie(settings: ServeSettings) -> tuple[str, str]:
    """Return the name and value of the cookie that stands for the token without containing it."""
    value = hmac.new(
        (settings.token or "").encode("utf-8", "surrogateescape"),
        b"vitsearch cookie",
        hashlib.sha256,
    ).hexdigest()
    return f"vitsearch-{settings.port}", value


def token_of(request: Request) -> str | None:
    """Return the token of a request, from its header or its address; None without one."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.query_params.get("token")


async def read_form(receive: Receive) -> Mapping[str, str]:
    """Return the fields of a posted login form, none for what is not one."""
    body, more = b"", True
    while more and len(body) <= MAX_FORM_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
    if more:
        return {}
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), max_num_fields=MAX_FIELDS)
    except ValueError:
        return {}
    return dict(pairs)


def ask_for_token(
    request: Request, *, to: str = "/", seconds: float = 0.0, wrong: bool = False
) -> Response:
    """Return what a client is told that has no right token, or that must wait so many seconds
    before it tries again.
    """
    headers = {"Cache-Control": "no-store", "WWW-Authenticate": "Bearer"}
    status, text = 401, "This server asks for its token"
    if wrong:
        text = "That is not the token: try again"
    if seconds:
        count = math.ceil(seconds)
        status, text = 429, f"Too many wrong tokens: try again in {count} s"
        headers = {"Cache-Control": "no-store", "Retry-After": str(count)}
    if wants_page(request):
        page = _FORM.format(login=LOGIN, text=text, to=html.escape(to))
        return HTMLResponse(page, status, headers)
    if not seconds:
        text = "this server asks for its token: Authorization: Bearer TOKEN, or ?token=TOKEN once"
    return error_response(request, status, text, headers, plain=True)


def go_on(request: Request) -> Response:
    """Return a page that leads a browser to the same address without its secrets.

    It is not a redirect: after one, a browser that came from elsewhere would not send a strict
    cookie.
    """
    onward = _ONWARD.format(url=html.escape(own_address(request.url)))
    return HTMLResponse(onward, headers={"Cache-Control": "no-store"})


def redirect(to: str) -> Response:
    """Return the way on after the form was posted, to a page of this server."""
    return RedirectResponse(own_address(URL(to)), 303, {"Cache-Control": "no-store"})


def own_address(url: URL) -> str:
    """Return the path and query of an address without its secrets; the path never begins with //,
    which would name another server.
    """
    try:
        parts = urlsplit(str(url))
    except ValueError:
        return "/"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([(name, value) for name, value in pairs if name not in SECRETS])
    path = "/" + quote(parts.path.lstrip("/\\"), safe="/%~")
    return f"{path}?{query}" if query else path


def with_cookie(send: Send, cookie: tuple[str, str], *, seconds: int, secure: bool) -> Send:
    """Return a send that adds a cookie, which no script reads and no other site sends, for so many
    seconds, or with 0 until the browser is closed.
    """
    name, value = cookie
    age = f"Max-Age={seconds}; " if seconds else ""
    mark = "; Secure" if secure else ""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append(
                "Set-Cookie", f"{name}={value}; {age}Path=/; HttpOnly; SameSite=Strict{mark}"
            )
        await send(message)

    return sending
