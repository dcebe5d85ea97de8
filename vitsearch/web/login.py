"""How a browser gives the token, and how the server remembers that it has; what wrong ones cost."""

import hashlib
import hmac
import html
import ipaddress
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import URL, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Send

from vitsearch.web.pages.context import page
from vitsearch.web.responses import error_response, wants_page
from vitsearch.web.settings import ServeSettings

FREE = 5  # wrong tokens of an address that cost nothing: people mistype
MAX_WAIT = 300.0  # seconds
BURST, PER_SECOND = 30, 1.0  # wrong tokens from all addresses that were never right
MAX_ADDRESSES = 10_000
_REMEMBERED = 8  # wrong tokens of an address: a browser sends an old cookie with every picture
LOGIN = "/login"
COOKIE_SECONDS = 30 * 24 * 3600
MAX_FORM_BYTES, MAX_FIELDS = 16_384, 8
SECRETS = ("token", "key")  # parameters that no address keeps
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
