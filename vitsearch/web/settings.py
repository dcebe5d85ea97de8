"""What a server is told at its start."""

import ipaddress
import socket
from dataclasses import dataclass

from vitsearch.errors import VitsearchError

MEGABYTE = 1_000_000
MIN_TOKEN = 8  # characters


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How a collection is served.

    Without a ``token`` everybody who reaches the port may ask; `check` allows that on loopback
    only. ``show_exif`` shows EXIF, and so the place where photos were taken, to remote users too.
    ``hosts`` are more names under which the server may be asked. Sizes are in bytes, times in
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
        """The names, in small letters, that a Host header may give besides plain addresses (see
        `safety.HostCheck`).
        """
        own = {"localhost", self.host.lower(), *(name.lower() for name in self.hosts)}
        if not self.local:
            name = socket.gethostname().lower()
            own |= {name, f"{name}.local"}
        return frozenset(own)

    def check(self) -> None:
        """Raise VitsearchError for a server that others could reach and that asks for no token, or
        for one that is soon guessed.
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
    """Return whether an address or name is that of this machine for itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
