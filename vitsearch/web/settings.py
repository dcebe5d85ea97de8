"""The settings of a server."""

import ipaddress
import socket
from dataclasses import dataclass

from vitsearch.errors import VitsearchError

MEGABYTE = 1_000_000
MIN_TOKEN = 8  # characters


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How a collection is served.

    Without a ``token`` everybody who reaches the port may send requests; `check` allows that on
    loopback only. ``show_exif`` shows EXIF, and so where photos were taken, to remote users too.
    ``hosts`` are further names that a request may give as its Host. Sizes are in bytes, times in
    seconds.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    show_exif: bool = False
    hosts: tuple[str, ...] = ()
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
    def names(self) -> frozenset[str]:
        """The names, in lower case, that a Host header may give besides plain addresses (see
        `security.host_is_ours`).
        """
        names = {"localhost", self.host.lower(), *(name.lower() for name in self.hosts)}
        if not self.local:
            hostname = socket.gethostname().lower()
            names |= {hostname, f"{hostname}.local"}
        return frozenset(names)

    def check(self) -> None:
        """Raise VitsearchError for a server that others could reach without a token, or with one
        that is easily guessed.
        """
        if not self.local and not self.token:
            raise VitsearchError(
                f"others can reach {self.host}: give --token (or VITSEARCH_TOKEN) a secret, or "
                "serve on 127.0.0.1"
            )
        if self.token is not None and len(self.token) < MIN_TOKEN:
            raise VitsearchError(
                f"the token has fewer than {MIN_TOKEN} characters: take one "
                "of `openssl rand -hex 16`"
            )


def is_loopback(host: str) -> bool:
    """Return whether an address or name is one by which a machine reaches itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
