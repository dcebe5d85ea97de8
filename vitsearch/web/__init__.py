"""The web page and the HTTP interface of a collection, served by `vitsearch.web.app`; here are the
settings of a server and what is known of its process: a note of which collections are served on
this machine just now, so that other commands find their page, and memory that goes back to the
system.
"""

import asyncio
import ctypes
import gc
import hashlib
import ipaddress
import json
import os
import secrets
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from vitsearch.errors import VitsearchError
from vitsearch.paths import cache_dir
from vitsearch.storage import locate

MEGABYTE = 1_000_000
MIN_TOKEN = 16  # characters
LOOPBACK = ("127.0.0.0/8", "::1")


def new_secret() -> str:
    """Return a secret that nobody guesses: 192 bits, in characters that an address may hold."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a connection may take; times are in seconds.

    A request's head must be there after ``head``. Its body may pause for ``pause`` at most, and
    after that much time must have come at ``bytes_per_second`` on average. An answer that nobody
    reads is dropped after ``unread``. There are ``total`` connections at most, the one that has
    waited longest for a request makes room for a new one, and ``per_address`` from one address
    that is neither this machine nor a proxy.
    """

    head: float = 10.0
    pause: float = 20.0
    bytes_per_second: int = 10_000
    unread: float = 60.0
    total: int = 500
    per_address: int = 100


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How a collection is served.

    Without a ``token`` everybody who reaches the port may send requests; `check` allows that on
    loopback only. ``key`` distinguishes the person at this machine from one whom a proxy lets in:
    it is made anew for each server, and only the address that `serve` gives has it. ``show_exif``
    shows EXIF, and so where photos were taken, to everybody. ``allow_edits`` lets everybody who
    gives the token change albums and index photos, which otherwise only the person at this machine
    may. ``hosts`` are further names that a request may give as its Host. ``behind_proxy`` is the
    address at which a proxy shows the server, such as ``https://photos.example``; it sends requests
    from one of the addresses or networks ``proxies``. Sizes are in bytes, times in seconds.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    key: str = field(default_factory=new_secret, repr=False)
    show_exif: bool = False
    allow_edits: bool = False
    allow_delete: bool = False
    hosts: tuple[str, ...] = ()
    behind_proxy: str | None = None
    proxies: tuple[str, ...] = LOOPBACK
    limits: ConnectionLimits = ConnectionLimits()
    upload_bytes: int = 20 * MEGABYTE
    upload_pixels: int = 60_000_000
    decode_seconds: float = 10.0
    thumbnail_bytes: int = 500 * MEGABYTE
    grace_seconds: int = 30

    @property
    def local(self) -> bool:
        """Whether only programs of this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def secure(self) -> bool:
        """Whether browsers reach the server over TLS only."""
        return urlsplit(self.behind_proxy or "").scheme == "https"

    @property
    def names(self) -> frozenset[str]:
        """The names, in lower case, that a Host header may give besides plain addresses (see
        `vitsearch.web.security.host_is_ours`).
        """
        names = {name.lower() for name in self.hosts}
        if self.behind_proxy:
            name = urlsplit(self.behind_proxy).hostname or ""
            return frozenset({*names, f"[{name}]" if ":" in name else name})
        names |= {"localhost", self.host.lower()}
        if not self.local:
            hostname = socket.gethostname().lower()
            names |= {hostname, f"{hostname}.local"}
        return frozenset(names)

    def check(self) -> None:
        """Raise VitsearchError for a server that others could reach without a token, or with one
        that is easily guessed, and for a proxy that cannot be.
        """
        if self.behind_proxy:
            _check_address(self.behind_proxy)
        for proxy in self.proxies:
            _check_network(proxy)
        if not (self.local and self.behind_proxy is None) and not self.token:
            raise VitsearchError(
                f"others can reach {self.behind_proxy or self.host}: give --token (or "
                "VITSEARCH_TOKEN) a secret, or `--token generate`, or serve on 127.0.0.1 alone"
            )
        if self.allow_edits and not self.token:
            raise VitsearchError(
                "--allow-edits lets others change albums, which needs --token: the person at this "
                "machine may without it"
            )
        if self.token is not None and len(self.token) < MIN_TOKEN:
            raise VitsearchError(
                f"the token has fewer than {MIN_TOKEN} characters: let `--token generate` make one"
            )


@lru_cache(maxsize=256)  # each request asks several times
def is_loopback(host: str) -> bool:
    """Return whether an address or name is one by which a machine reaches itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        complete = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        complete = False
    if (
        not complete
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise VitsearchError(
            f"--behind-proxy {url!r} is not an address such as https://photos.example: name the "
            "scheme and the host at which browsers find the server, without a path"
        )


def _check_network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise VitsearchError(
            f"--proxy-address {text!r} is not an address or network such as 172.18.0.0/16: give "
            "the one from which the proxy sends requests"
        ) from None


# -- Servers that run ------------------------------------------------------------------------------


_SECONDS = 2.0  # within which a server answers that it runs


def running(photos: str, collection: str | None) -> str:
    """Return the `entrance` of a running server of a collection, "" where there is none; raises
    CollectionNotFound.
    """
    # a record that is damaged, or an answer that is no HTTP, is none of this server
    with suppress(OSError, ValueError, KeyError, TypeError, HTTPException):
        entrance = str(json.loads(_record(photos, collection).read_bytes())["entrance"])
        base, _, key = entrance.partition("?")
        # answered to the key alone, which each start makes anew: another server may have the port;
        # one that asks for a token has no key in its entrance
        health = f"{base}api/index?{key}" if key else f"{base}healthz"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(health, timeout=_SECONDS) as answer:
            return entrance if "status" in json.load(answer) else ""
    return ""


def page_at(entrance: str, address: str) -> str:
    """Return an address of a server, from that of its first page with its key."""
    base, _, key = entrance.partition("?")
    page = base.rstrip("/") + address
    return f"{page}{'&' if '?' in page else '?'}{key}" if key else page


@contextmanager
def recorded(photos: str, collection: str | None, entrance: str) -> Iterator[None]:
    """Note during the block that a collection is served, for the user of this process alone: the
    entrance holds the key.
    """
    record = _record(photos, collection)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump({"entrance": entrance}, file)
    except OSError:
        yield  # other commands start a server of their own
        return
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            if json.loads(record.read_bytes())["entrance"] == entrance:
                record.unlink()


def _record(photos: str, collection: str | None) -> Path:
    folder = locate(photos, collection)[1].resolve()
    name = hashlib.blake2b(os.fsencode(folder), digest_size=16).hexdigest()
    return cache_dir() / "serving" / f"{name}.json"


# -- Memory ----------------------------------------------------------------------------------------


SECONDS = 2.0  # between two looks
M_ARENA_MAX, ARENAS = -8, 2


class MemoryKeeper:
    """Gives memory back after uploads, and when many requests have been answered: an allocator
    keeps what was freed for later, for each thread that ever took some.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._left = 0
        self._active = False

    def note_request(self) -> None:
        """Have memory given back once no request comes any more."""
        self._active = True

    def note_upload(self) -> None:
        """Have memory given back in a while, and once more when the last answer is out."""
        self._left = 3

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            active, self._active = self._active, False
            await asyncio.sleep(self._seconds)
            if self._left or (active and not self._active):
                self._left = max(0, self._left - 1)
                await asyncio.to_thread(give_back)


def limit_arenas() -> None:
    """Have all threads share two pools of memory, where the C library can (glibc's mallopt):
    otherwise each thread has one of its own, and keeps in it what it once needed.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc's malloc_trim)."""
    gc.collect()  # a picture in a cycle of references would stay until much else is made
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
