"""Photos at the addresses (http, https) that Parquet files name, as LAION's do; they are fetched
politely: a few at a time from a host, again after a pause where it is busy, and never from an
address of a private network.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import cache
from urllib.parse import urljoin, urlsplit

from vitsearch._version import __version__
from vitsearch.errors import PhotoError
from vitsearch.photos.sources.source import Entry, checked, error_text, rejection

AGENT = f"vitsearch/{__version__}"
AT_ONCE, AT_ONCE_OF_HOST = 16, 2
CONNECT_SECONDS, FETCH_SECONDS = 10.0, 60.0  # of one wait, and of one photo
PAUSES = (1.0, 4.0, 15.0)  # seconds before a photo is asked for again
PATIENCE = 3  # photos of a silent host, after which each of it is asked for once
MAX_REDIRECTS, MAX_FETCHED = 5, 64_000_000  # bytes
AHEAD = 32  # photos fetched before they are taken
TEMPORARY = "not fetched for now: "  # begins the reasons that may pass
BUSY = (408, 425, 429, 500, 502, 503, 504)
_PIECE = 65_536
# of IPv6: what is global at all, and the addresses of IPv4 as a gateway has them
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class TemporaryFailure(PhotoError):
    """A photo that could not be fetched now, though later it may."""


def fetched(entries: Sequence[Entry], *, private: bool = False) -> Iterator[bytes | PhotoError]:
    """Yield the bytes of the photos at the addresses ``entries.path``, or why there are none, in
    their order; with ``private`` also from addresses of private networks.

    What may pass later has a reason that begins with `TEMPORARY`.
    """
    hosts: dict[str, _Host] = defaultdict(_Host)
    by_url = {entry.path: hosts[_host_of(entry.path)] for entry in entries}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for start in range(0, len(entries), AHEAD):
            part = entries[start : start + AHEAD]
            yield from threads.map(lambda entry: _photo(entry, by_url[entry.path], private), part)


class _Host:
    """What is known of a host: how many may ask it now, and how often in a row it did not answer,
    with all patience.
    """

    def __init__(self) -> None:
        self.slots, self.silent = threading.Semaphore(AT_ONCE_OF_HOST), 0


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""  # without a user, whose names would evade the limit
    except ValueError:
        return ""


def _photo(entry: Entry, host: _Host, private: bool) -> bytes | PhotoError:
    if refused := rejection(entry):
        return refused
    with host.slots:
        pauses = PAUSES if host.silent < PATIENCE else ()
        for pause in (*pauses, None):
            try:
                content = checked(_follow(entry.path, private))
                host.silent = 0
                return content
            except TemporaryFailure as error:
                if pause is None:
                    host.silent += 1
                    return PhotoError(f"{TEMPORARY}{error}")
                time.sleep(pause)
            except PhotoError as error:
                return error
    raise AssertionError


def _follow(url: str, private: bool) -> bytes:
    """Return what is at an address, or at the one that it leads to; raises PhotoError."""
    end = time.monotonic() + FETCH_SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        answer = _get(url, private, end)
        if isinstance(answer, bytes):
            return answer
        url = urljoin(url, answer)
    raise PhotoError(f"its address leads on more than {MAX_REDIRECTS} times")


def _get(url: str, private: bool, end: float) -> bytes | str:
    """Return the content at an address, or the address that it leads to."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if parts.scheme not in ("http", "https") or not host:
            raise PhotoError(f"not an address of the web: {url[:100]}")
        connection = (
            http.client.HTTPSConnection(host, parts.port or 443, context=_certificates())
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port or 80)
        )
        line = _connected(host, connection.port, private, end)
        with closing(connection), closing(line), _cut_off(line, end):
            connection.sock = (
                _certificates().wrap_socket(line, server_hostname=host)
                if parts.scheme == "https"
                else line
            )
            connection.request("GET", _escaped(target), headers={"User-Agent": AGENT})
            return _answer(connection.getresponse(), end)
    except PhotoError:
        raise
    except ssl.SSLCertVerificationError as error:  # a ValueError too
        raise PhotoError(f"its certificate is not valid ({error_text(error)})") from error
    except (ValueError, http.client.InvalidURL) as error:
        raise PhotoError(f"not an address of the web ({error_text(error)})") from error
    except (OSError, http.client.HTTPException) as error:
        _check(end)
        raise TemporaryFailure(error_text(error)) from error


def _answer(answer: http.client.HTTPResponse, end: float) -> bytes | str:
    _check(end)
    if 300 <= answer.status < 400 and (location := answer.getheader("Location")):
        return location
    if answer.status in BUSY:
        raise TemporaryFailure(f"HTTP {answer.status}")
    if answer.status != 200:
        raise PhotoError(f"cannot be fetched: HTTP {answer.status}")
    return _content(answer, end)


def _check(end: float) -> None:
    """Raise TemporaryFailure where the time for a photo is over."""
    if time.monotonic() >= end:
        raise TemporaryFailure(f"it takes longer than {FETCH_SECONDS:g} s")


def _escaped(target: str) -> str:
    """Return a path with what lists of addresses leave unescaped: spaces and other alphabets."""
    return "".join(
        char if "!" <= char <= "~" else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in target
    )


def _content(answer: http.client.HTTPResponse, end: float) -> bytes:
    pieces, length = [], answer.length or 0
    if length > MAX_FETCHED:
        raise PhotoError(f"the file has {length:,} bytes, over the cap of {MAX_FETCHED:,}")
    length = 0
    while piece := answer.read1(_PIECE):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_FETCHED:
            raise PhotoError(f"the file has over {MAX_FETCHED:,} bytes, the cap")
        _check(end)
    _check(end)
    if answer.length:  # read1 does not complain of an end that comes too early
        raise TemporaryFailure("the connection ended before the photo did")
    return b"".join(pieces)


# -- Connections, to an address that was looked at -------------------------------------------------


def _connected(host: str, port: int, private: bool, end: float) -> socket.socket:
    """Return a socket to a host; raises PhotoError where only private addresses are its own."""
    known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    allowed = [each for each in known if private or _is_public(str(each[4][0]))]
    if not allowed:
        raise PhotoError(f"{host} is in a private network, from which nothing is fetched")
    problem: OSError | None = None
    for *_, address in allowed:
        _check(end)
        try:
            return socket.create_connection((str(address[0]), port), CONNECT_SECONDS)
        except OSError as error:
            problem = error
    assert problem is not None
    raise problem


@contextmanager
def _cut_off(line: socket.socket, end: float) -> Iterator[None]:
    """End a connection when the time is over: a server may send its headers, or what precedes the
    next part of the content, byte by byte without an end.
    """

    def cut() -> None:
        with suppress(OSError):
            same.shutdown(socket.SHUT_RDWR)

    # encryption takes the socket away from its object, so with another one
    with closing(line.dup()) as same:
        timer = threading.Timer(max(0.0, end - time.monotonic()), cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _is_public(address: str) -> bool:
    number = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(number, ipaddress.IPv6Address):
        last = ipaddress.IPv4Address(int(number) & 0xFFFFFFFF) if number in _NAT64 else None
        within = number.ipv4_mapped or number.sixtofour or last
        if within is None and number not in _UNICAST:
            return False
        number = within or number
    return number.is_global and not number.is_multicast


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()
