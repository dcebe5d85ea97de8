"""What stands between the network and the application: names, token, cross-site requests, sizes,
and headers.

Everything is refused before a route is looked for. Sources: the OWASP cheat sheets on CSRF
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
from vitsearch.filters import Filter, parse_filter
from vitsearch.photos.columns import PRIVATE
from vitsearch.web.errors import NotShown, TooLarge
from vitsearch.web.responses import error_answer, wants_page
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
# bytes of a refused upload that are read, so that its sender gets to see the answer
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
    """Lets a request through when its Host is one of ours, its token is right, no other site sent
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
        # a web socket is no part of the service: it is closed by the server when nobody accepts it

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
        """Return the answer to a request that is not for us, was made by another site, or says
        itself that it is too large.
        """
        if not host_is_ours(request.headers.get("host", ""), self._names, self.settings.local):
            return error_answer(
                request,
                400,
                "this server has another name: ask it as `vitsearch serve` says, or --allow-host",
                plain=True,
            )
        if request.method not in SAFE and is_cross_site(request.headers):
            return error_answer(request, 403, "another site has made this request", plain=True)
        length = request.headers.get("content-length", "0")
        if (
            length.isascii()
            and length.isdigit()
            and int(length[:20]) > self.settings.upload_bytes + SLACK
        ):
            return error_answer(request, 413, too_large(self.settings), plain=True)
        return None

    async def _with_token(self, request: Request, receive: Receive, send: Send) -> None:
        given, in_url = token_of(request), "token" in request.query_params
        if given is not None:
            right = _same(given, self.settings.token or "")
        else:
            right = _same(request.cookies.get(self._cookie[0], ""), self._cookie[1])
        if not right:
            if given is not None or self._cookie[0] in request.cookies:
                await asyncio.sleep(GUESS_SECONDS)
            await _unauthorized(request)(request.scope, receive, send)
        elif in_url and request.method == "GET" and wants_page(request):
            # not a redirect: a browser that came from elsewhere would not send a strict cookie
            # after one
            page = HTMLResponse(
                _ONWARD.format(url=html.escape(_without_token(request))),
                headers={"Cache-Control": "no-store"},
            )
            await page(request.scope, receive, self._with_cookie(send, request))
        else:
            await self.app(
                request.scope, receive, self._with_cookie(send, request) if in_url else send
            )

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
    """Return whether an address needs no token: whether the server lives, and the looks of its
    page, are no secret.
    """
    return path == "/healthz" or path.startswith("/static/")


def cookie_of(settings: ServeSettings) -> tuple[str, str]:
    """Return the name and value of the cookie that stands for the token, which it does not hold."""
    value = hmac.new(
        (settings.token or "").encode("utf-8", "surrogateescape"),
        b"vitsearch cookie",
        hashlib.sha256,
    ).hexdigest()
    return f"vitsearch-{settings.port}", value


def token_of(request: Request) -> str | None:
    """Return the token that a request gives, in its header or its address."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.query_params.get("token")


def host_is_ours(host: str, names: frozenset[str], local: bool) -> bool:
    """Return whether a Host header names this server: a name of ours, or an address, of loopback
    where only that is served.

    A page of another site whose name was turned to our address (DNS rebinding) still sends its own
    name.
    """
    found = _HOST.fullmatch(host)
    if not found:
        return False
    name = found["name"].lower().rstrip(".")
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
    return (
        origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()
    )


def too_large(settings: ServeSettings) -> str:
    """Return why an upload is refused."""
    return f"an upload may have {settings.upload_bytes:,} bytes: send a smaller photo"


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), right.encode("utf-8", "surrogateescape")
    )


def _unauthorized(request: Request) -> Response:
    if wants_page(request):
        return HTMLResponse(
            _LOGIN, 401, {"Cache-Control": "no-store", "WWW-Authenticate": "Bearer"}
        )
    message = "this server asks for its token: Authorization: Bearer TOKEN, or ?token=TOKEN once"
    return error_answer(request, 401, message, {"WWW-Authenticate": "Bearer"}, plain=True)


def _without_token(request: Request) -> str:
    """Return the address of a request without its token; a path that begins with // would be one of
    another server.
    """
    kept = urlencode(
        [
            (name, value)
            for name, value in parse_qsl(request.url.query, keep_blank_values=True)
            if name != "token"
        ]
    )
    path = "/" + quote(request.url.path.lstrip("/\\"), safe="/%~")
    return f"{path}?{kept}" if kept else path


def _limited(receive: Receive, most: int) -> Receive:
    """Return a receive that raises TooLarge after so many bytes."""
    seen = 0

    async def receiving() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise TooLarge(f"the request has more than {most:,} bytes: send a smaller photo")
        return message

    return receiving


async def _drain(headers: Headers, receive: Receive) -> None:
    """Read what a client still sends, up to a bound; one that waits for leave to send needs none of
    that.
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


# -- What remote users are not shown: EXIF, which says where and when photos were taken ------------

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def is_local(request: Request) -> bool:
    """Return whether a request comes from this machine, through no proxy."""
    settings: ServeSettings = request.app.state.settings
    own = request.client is not None and is_loopback(request.client.host)
    return settings.local and own and not any(name in request.headers for name in _FORWARDED)


def exif_shown(request: Request) -> bool:
    """Return whether this client may see EXIF: where and when photos were taken, and with what."""
    settings: ServeSettings = request.app.state.settings
    return settings.show_exif or is_local(request)


def filter_for(request: Request, text: str | None) -> Filter | None:
    """Return the filter that a client asks for, None for an empty one.

    Raises QueryError for what cannot be read, and NotShown for a filter on EXIF that this client
    may not see: its results would tell.
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
