"""What protects the application: checks of Host, token, cross-site requests and sizes, and headers;
how a browser gives the token, how the server remembers that it has, and what wrong ones cost.

A request is refused before its route is looked up. Sources: the OWASP cheat sheets on CSRF (Fetch
Metadata) and on HTTP headers.
"""

import hashlib
import hmac
import html
import ipaddress
import math
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import URL, Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitsearch.errors import TooLarge
from vitsearch.web import ServeSettings, is_loopback
from vitsearch.web.pages.context import page
from vitsearch.web.privacy import KEY, SECRETS, comes_from_here, has_key, is_same, key_cookie
from vitsearch.web.responses import error_response, wants_page

FREE = 5  # wrong tokens of an address that cost nothing: people mistype
MAX_WAIT = 300.0  # seconds
BURST, PER_SECOND = 30, 1.0  # wrong tokens from all addresses that were never right
MAX_ADDRESSES = 10_000
_REMEMBERED = 8  # wrong tokens of an address: a browser sends an old cookie with every picture
LOGIN = "/login"
COOKIE_SECONDS = 30 * 24 * 3600
MAX_FORM_BYTES, MAX_FIELDS = 16_384, 8
_ONWARD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>vitsearch</title><meta '
    'http-equiv="refresh" content="0; url={url}">'
)


# -- Wrong tokens ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Record:
    count: int = 0
    until: float = 0.0
    right: bool = False
    wrong: deque[bytes] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class TokenGuesses:
    """The wrong tokens by address (of IPv6 by its network of 64 bits), used by one thread.

    After `FREE` different ones an address waits a second, and twice as long after each further one.
    Addresses that have never been right share a rate besides, so that many of them together guess
    no faster; those that have been right are not kept waiting by others.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._left, self._counted_at = float(BURST), clock()

    def wait(self, address: str, guess: str) -> float:
        """Return the seconds after which a token may be tried, 0 for at once; one that is known to
        be wrong may always be.
        """
        now, record = self._clock(), self._records.get(_network(address))
        if record is not None and _digest(guess) in record.wrong:
            return 0.0
        if record is not None and record.until > now:
            return record.until - now
        if record is not None and record.right:
            return 0.0
        self._left = min(float(BURST), self._left + (now - self._counted_at) * PER_SECOND)
        self._counted_at = now
        return 0.0 if self._left >= 1 else (1 - self._left) / PER_SECOND

    def add_wrong(self, address: str, guess: str) -> None:
        """Count a wrong token, each of an address once."""
        record, digest = self._record(address), _digest(guess)
        if digest in record.wrong:
            return
        record.wrong.append(digest)
        record.count += 1
        if not record.right:
            self._left = max(0.0, self._left - 1)
        over = record.count - FREE
        if over >= 0:
            record.until = self._clock() + min(MAX_WAIT, 2.0 ** min(over, 16))

    def add_right(self, address: str) -> None:
        """Note that an address knows the token."""
        record = self._record(address)
        record.right, record.count = True, 0

    def _record(self, address: str) -> _Record:
        network = _network(address)
        record = self._records.setdefault(network, _Record())
        self._records.move_to_end(network)
        if len(self._records) > MAX_ADDRESSES:
            self._records.popitem(last=False)
        return record


def _digest(guess: str) -> bytes:
    return hashlib.blake2b(guess.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), False))


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
        facts = {"login": LOGIN, "text": text, "to": to, "is_wrong": wrong, "views": []}
        return page("login.html", facts, status=status, headers=headers.items())
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


# -- Requests --------------------------------------------------------------------------------------


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
        scope, to = request.scope, own_address(request.url)
        posted = request.method == "POST" and scope["path"] == LOGIN
        form = await read_form(receive) if posted else {}
        if posted:
            to = own_address(URL(form.get("to", "/")))
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
            await redirect(to)(scope, receive, send)
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
