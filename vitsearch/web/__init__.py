"""The web page and the HTTP interface of a collection, served by `vitsearch.web.app`; here are the
settings of a server.
"""

import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from vitsearch.errors import VitsearchError

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
