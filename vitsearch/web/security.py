"""What protects the application: checks of Host, token, cross-site requests and sizes, and headers.

A request is refused before its route is looked up. Sources: the OWASP cheat sheets on CSRF
(Fetch Metadata) and on HTTP headers.
"""

import asyncio
import hashlib
import hmac
import html
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitsearch.errors import QueryError
from vitsearch.filters.parse import parse_filter
from vitsearch.filters.tree import Filter
from vitsearch.photos.columns import PRIVATE
from vitsearch.web.errors import NotShown, TooLarge
from vitsearch.web.responses import error_response, wants_page
from vitsearch.web.settings import ServeSettings, is_loopback

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # with "no-referrer" a browser gives its own forms no Origin, and over plain HTTP no Fetch
    # Metadata
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex, nofollow",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
SAFE = ("GET", "HEAD", "OPTIONS")
SLACK = 65_536  # bytes of a form around the photo that is uploaded
# bytes of a refused upload that are read, so that its sender sees the answer
DRAINED = 128_000_000
GUESS_SECONDS = 0.5  # how long a wrong token waits for its answer
COOKIE_SECONDS = 30 * 24 * 3600
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\s]+)(?::\d{1,5})?")
_LOGIN = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
    'content="width=device-width">'
    '<title>vitsearch</title><link rel="stylesheet" href="/static/app.css"><main><h1>vitsearch</h1>'
    '<form method="get" action="/"><p><label for="token">This server asks for its token</label></p>'
    '<p><input id="token" name="token" type="password" required autocomplete="current-password"> '
    "<button>Go on</button></p></form></main>"
)
_ONWARD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>vitsearch</title><meta '
    'http-equiv="refresh" content="0; url={url}">'
)


class SecurityMiddleware:
    """Lets a request through if its Host names this server, its token is right, no other site sent
    it, and it is not too large.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings, self._names = app, settings, settings.names
        self._cookie = cookie_of(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, _with_headers(send))
        # a web socket is not part of the service: the server closes one that nobody accepts

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        refused = self._refused(request)
        if refused is not None:
            if request.method not in SAFE:
                await _drain(request.headers, receive)
            await refused(scope, receive, send)
            return
        limited = _limited(receive, self.settings.upload_bytes + SLACK)
        if not self.settings.token or is_open(scope["path"]):
            await self.app(scope, limited, send)
            return
        await self._with_token(request, limited, send)

    def _refused(self, request: Request) -> Response | None:
        """Return the response to a request that is not for this server, was made by another site,
        or announces too many bytes; None for any other.
        """
        if not host_is_ours(request.headers.get("host", ""), self._names, self.settings.local):
            return error_response(
                request,
                400,
                "this server has another name: ask it as `vitsearch serve` says, or --allow-host",
                plain=True,
            )
        if request.method not in SAFE and is_cross_site(request.headers):
            return error_response(request, 403, "another site has made this request", plain=True)
        length = request.headers.get("content-length", "0")
        announced = int(length[:20]) if length.isascii() and length.isdigit() else 0
        if announced > self.settings.upload_bytes + SLACK:
            return error_response(request, 413, too_large(self.settings), plain=True)
        return None

    async def _with_token(self, request: Request, receive: Receive, send: Send) -> None:
        token, in_url = token_of(request), "token" in request.query_params
        name, value = self._cookie
        if token is not None:
            right = _same(token, self.settings.token or "")
        else:
            right = _same(request.cookies.get(name, ""), value)
        if not right:
            if token is not None or name in request.cookies:
                await asyncio.sleep(GUESS_SECONDS)
            await _unauthorized(request)(request.scope, receive, send)
        elif in_url and request.method == "GET" and wants_page(request):
            # not a redirect: after one, a browser that came from elsewhere would not send a strict
            # cookie
            onward = _ONWARD.format(url=html.escape(_without_token(request)))
            page = HTMLResponse(onward, headers={"Cache-Control": "no-store"})
            await page(request.scope, receive, self._with_cookie(send, request))
        else:
            sending = self._with_cookie(send, request) if in_url else send
            await self.app(request.scope, receive, sending)

    def _with_cookie(self, send: Send, request: Request) -> Send:
        name, value = self._cookie
        secure = "; Secure" if request.url.scheme == "https" else ""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                cookie = (
                    f"{name}={value}; Max-Age={COOKIE_SECONDS}; Path=/; HttpOnly; "
                    f"SameSite=Strict{secure}"
                )
                MutableHeaders(scope=message).append("Set-Cookie", cookie)
            await send(message)

        return sending


def is_open(path: str) -> bool:
    """Return whether an address needs no token: that the server runs, and the static files of its
    pages, are not secret.
    """
    return path == "/healthz" or path.startswith("/static/")


def cookie_of(settings: ServeSettings) -> tuple[str, str]:
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


def host_is_ours(host: str, names: frozenset[str], local: bool) -> bool:
    """Return whether a Host header names this server: one of its names, or an address, which is of
    loopback where only that is served.

    A page of another site whose name was pointed at this server's address (DNS rebinding) still
    sends its own name.
    """
    match = _HOST.fullmatch(host)
    if not match:
        return False
    name = match["name"].lower().rstrip(".")
    if name in names:
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return is_loopback(name) or not local


def is_cross_site(headers: Headers) -> bool:
    """Return whether a browser says that another site made the request."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    return origin.partition("://")[2].lower() != headers.get("host", "").lower()


def too_large(settings: ServeSettings) -> str:
    """Return why an upload is refused."""
    return f"an upload may have {settings.upload_bytes:,} bytes: send a smaller photo"


def _same(secret: str, expected: str) -> bool:
    return hmac.compare_digest(
        secret.encode("utf-8", "surrogateescape"), expected.encode("utf-8", "surrogateescape")
    )


def _unauthorized(request: Request) -> Response:
    if wants_page(request):
        headers = {"Cache-Control": "no-store", "WWW-Authenticate": "Bearer"}
        return HTMLResponse(_LOGIN, 401, headers)
    message = "this server asks for its token: Authorization: Bearer TOKEN, or ?token=TOKEN once"
    return error_response(request, 401, message, {"WWW-Authenticate": "Bearer"}, plain=True)


def _without_token(request: Request) -> str:
    """Return the address of a request without its token; its path never begins with //, which would
    name another server.
    """
    pairs = parse_qsl(request.url.query, keep_blank_values=True)
    query = urlencode([(name, value) for name, value in pairs if name != "token"])
    path = "/" + quote(request.url.path.lstrip("/\\"), safe="/%~")
    return f"{path}?{query}" if query else path


def _limited(receive: Receive, max_bytes: int) -> Receive:
    """Return a receive that raises TooLarge after so many bytes."""
    seen = 0

    async def receiving() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > max_bytes:
            raise TooLarge(f"the request has more than {max_bytes:,} bytes: send a smaller photo")
        return message

    return receiving


async def _drain(headers: Headers, receive: Receive) -> None:
    """Read what a client still sends, up to a limit; nothing from one that waits for permission
    to send.
    """
    seen = 0
    while "expect" not in headers and seen < DRAINED:
        message = await receive()
        seen += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.setdefault("headers", [])
            headers += _RAW_HEADERS
            if not any(name.lower() == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
        await send(message)

    return sending


# -- Private columns: where, when and with what photos were taken ----------------------------------

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def is_local(request: Request) -> bool:
    """Return whether a request comes from this machine, through no proxy."""
    settings: ServeSettings = request.app.state.settings
    here = request.client is not None and is_loopback(request.client.host)
    return settings.local and here and not any(name in request.headers for name in _FORWARDED)


def exif_shown(request: Request) -> bool:
    """Return whether this client may see EXIF: where and when photos were taken, and with what."""
    settings: ServeSettings = request.app.state.settings
    return settings.show_exif or is_local(request)


def filter_for(request: Request, text: str | None) -> Filter | None:
    """Return the filter of a request, None for an empty one.

    Raises QueryError for a filter that cannot be read, and NotShown for one on private columns that
    this client may not see: its results would reveal them.
    """
    if text is None or not text.strip():
        return None
    try:
        where = parse_filter(text)
    except RecursionError:
        raise QueryError("the filter is nested too deep: write it flatter") from None
    hidden = sorted(where.columns() & PRIVATE)
    if hidden and not exif_shown(request):
        raise NotShown(
            "this server does not show EXIF to remote users, so there is no filter on "
            f"{', '.join(hidden)} (--show-exif)"
        )
    return where
