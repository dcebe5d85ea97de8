"""Runs the application until it is told to stop."""

import signal
import socket
import threading
from collections.abc import Callable

import uvicorn

from vitsearch.errors import VitsearchError
from vitsearch.web.app import make_app
from vitsearch.web.service import PhotoService
from vitsearch.web.settings import ServeSettings

WAITING = 2048  # connections that wait to be taken


def serve(service: PhotoService, settings: ServeSettings, *, ready: Callable[[str], object] = lambda _: None) -> None:
    """Serve until SIGTERM or Ctrl-C, finish the requests that run, and close the service.

    ``ready`` is called with the server's address once it can be asked. Raises VitsearchError where the address cannot be served, and
    what `ServeSettings.check` raises; after Ctrl-C KeyboardInterrupt.
    """
    settings.check()
    bound = bind(settings.host, settings.port)
    try:
        config = uvicorn.Config(
            make_app(service, settings),
            log_level="warning",
            access_log=False,  # it would write tokens
            proxy_headers=False,  # a client must not say where it comes from
            server_header=False,
            timeout_graceful_shutdown=settings.grace_seconds,
            ws="none",
        )
        server = _Server(config, lambda: ready(address_of(settings.host, bound.getsockname()[1])))
        with _ended_by_sigterm():
            server.run(sockets=[bound])
    finally:
        bound.close()
        service.close()


class _Server(uvicorn.Server):
    """A server that says when it can be asked."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


class _ended_by_sigterm:  # noqa: N801
    """Makes SIGTERM an ordinary end: the server raises it once more after it has stopped."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, lambda *_: None) if _in_main_thread() else None

    def __exit__(self, *_: object) -> None:
        if _in_main_thread():
            signal.signal(signal.SIGTERM, self._before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; raises VitsearchError where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(WAITING)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VitsearchError(f"cannot serve on {host}, port {port} ({reason}): choose another --port or --host") from error
    return bound


def address_of(host: str, port: int) -> str:
    """Return the address to type into a browser."""
    bare = host.strip("[]")
    name = socket.gethostname() if bare in ("0.0.0.0", "::", "") else f"[{bare}]" if ":" in bare else bare
    return f"http://{name}:{port}/"
