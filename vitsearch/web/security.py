"""What protects the application: checks of Host, token, cross-site requests and sizes, and headers.

A request is refused before its route is looked up. Sources: the OWASP cheat sheets on CSRF
(Fetch Metadata) and on HTTP headers.
"""

import ipaddress
import re
from collections.abc import Mapping

from starlette.datastructures import URL, Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitsearch.errors import TooLarge
from vitsearch.web import login
from vitsearch.web.login import (
    COOKIE_SECONDS,
    LOGIN,
    TokenGuesses,
    ask_for_token,
    go_on,
    read_form,
    token_cookie,
    token_of,
    with_cookie,
)
from vitsearch.web.privacy import KEY, comes_from_here, has_key, is_same, key_cookie
from vitsearch.web.responses import error_response, wants_page
from vitsearch.web.settings import ServeSettings, is_loopback

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self'; "
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
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\s]+)(?::\d{1,5})?")


class SecurityMiddleware:
    """Lets a request through if its Host names this server, its token is right, no other site sent
    it, and it is not too large.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self._token_cookie, self._key_cookie = token_cookie(settings), key_cookie(settings)
        self._guesses = TokenGuesses()

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
        if self.settings.token and not is_open(scope["path"]):
            await self._with_token(request, limited, send)
        elif KEY in request.query_params:
            await self._with_key(request, limited, send)
        else:
            await self.app(scope, limited, send)

    def _refused(self, request: Request) -> Response | None:
        """Return the response to a request that is not for this server, was made by another site,
        or announces too many bytes; None for any other.
        """
        if not host_is_ours(request.headers.get("host", ""), self.settings):
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

    async def _with_key(self, request: Request, receive: Receive, send: Send) -> None:
        """Serve a request whose address holds a key; the person at this machine gets a cookie."""
        settings = self.settings
        if comes_from_here(request, settings) and has_key(request, settings):
            send = with_cookie(send, self._key_cookie, seconds=0, secure=False)
        if request.method == "GET" and wants_page(request):
            await go_on(request)(request.scope, receive, send)
        else:
            await self.app(request.scope, receive, send)

    async def _with_token(self, request: Request, receive: Receive, send: Send) -> None:
        scope, to = request.scope, login.own_address(request.url)
        posted = request.method == "POST" and scope["path"] == LOGIN
        form = await read_form(receive) if posted else {}
        if posted:
            to = login.own_address(URL(form.get("to", "/")))
        token = form.get("token") if posted else token_of(request)
        answer = self._unless_right(request, token, to)
        if answer is not None:
            await answer(scope, receive, send)
            return
        if token is not None and (posted or "token" in request.query_params):
            send = with_cookie(
                send,
                self._token_cookie,
                seconds=COOKIE_SECONDS,
                secure=self.settings.secure,
            )
        if posted:
            await login.redirect(to)(scope, receive, send)
        elif "token" in request.query_params and request.method == "GET" and wants_page(request):
            await go_on(request)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _unless_right(self, request: Request, token: str | None, to: str) -> Response | None:
        """Return the response to a request without the token, or of a client that has tried too
        many wrong ones; None for one with the right token, or the cookie that stands for it.
        """
        name, cookie = self._token_cookie
        expected = cookie if token is None else self.settings.token or ""
        guess = request.cookies.get(name) if token is None else token
        if guess is None:
            return ask_for_token(request, to=to)
        address = request.client.host if request.client else ""
        seconds = self._guesses.wait(address, guess)
        if seconds:
            return ask_for_token(request, to=to, seconds=seconds)
        if is_same(guess, expected):
            self._guesses.add_right(address)
            return None
        self._guesses.add_wrong(address, guess)
        return ask_for_token(request, to=to, wrong=token is not None)


def is_open(path: str) -> bool:
    """Return whether an address needs no token: that the server runs, and the static files of its
    pages, are not secret.
    """
    return path in ("/healthz", "/favicon.ico") or path.startswith("/static/")


def host_is_ours(host: str, settings: ServeSettings) -> bool:
    """Return whether a Host header names this server: one of its names, or an address, which is of
    loopback where only that is served; behind a proxy only a name that was given.

    A page of another site whose name was pointed at this server's address (DNS rebinding) still
    sends its own name.
    """
    match = _HOST.fullmatch(host)
    if not match:
        return False
    name = match["name"].lower().rstrip(".")
    if name in settings.names or settings.behind_proxy:
        return name in settings.names
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return is_loopback(name) or not settings.local


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
