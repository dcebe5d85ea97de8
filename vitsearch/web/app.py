"""The application: the service's routes, with what keeps them safe around them."""

import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from vitsearch._version import __version__
from vitsearch.errors import VitsearchError
from vitsearch.web import responses as answers
from vitsearch.web.api import openapi as describe
from vitsearch.web.api import routes as api
from vitsearch.web.metrics import CountRequests, Metrics
from vitsearch.web.pages import search as pages
from vitsearch.web.security import SecurityMiddleware
from vitsearch.web.service import PhotoService
from vitsearch.web.settings import ServeSettings

STATIC = Path(__file__).parent / "static"
STATIC_CACHE = "public, max-age=3600"


def make_app(service: PhotoService, settings: ServeSettings) -> FastAPI:
    """Return the application that serves a collection; it closes the service at its end.

    Its state holds ``service``, ``settings``, ``metrics`` and ``error_page``, which draws an error
    for a person.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="vitsearch",
        version=__version__,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.service, app.state.settings, app.state.metrics = service, settings, Metrics()
    app.openapi = lambda: describe.describe(app, settings)  # type: ignore[method-assign]
    app.include_router(api.router)
    app.include_router(describe.router)
    app.mount("/static", CachedFiles(directory=STATIC, check_dir=False), name="static")
    app.include_router(pages.router, include_in_schema=False)
    app.state.error_page = pages.error_page
    for kind, handler in (
        (VitsearchError, answers.handle_known_error),
        (RequestValidationError, answers.handle_invalid_request),
        (HTTPException, answers.handle_http_error),
        (ClientDisconnect, answers.handle_disconnect),
        (Exception, answers.handle_unknown_error),
    ):
        app.add_exception_handler(kind, handler)
    app.add_middleware(SecurityMiddleware, settings=settings)
    app.add_middleware(CountRequests, metrics=app.state.metrics)
    return app


class CachedFiles(StaticFiles):
    """The files of the page, which a browser may keep for an hour and then asks for
    by their tags.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = STATIC_CACHE
        return response


# -- Runs the application until it is told to stop -------------------------------------------------

WAITING = 2048  # connections that wait to be taken


def serve(
    service: PhotoService,
    settings: ServeSettings,
    *,
    ready: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, finish the requests that run, and close the service.

    ``ready`` is called with the server's address once it can be asked. Raises VitsearchError where
    the address cannot be served, and what `ServeSettings.check` raises; after Ctrl-C
    KeyboardInterrupt.
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
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
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
        raise VitsearchError(
            f"cannot serve on {host}, port {port} ({reason}): choose another --port or --host"
        ) from error
    return bound


def address_of(host: str, port: int) -> str:
    """Return the address to type into a browser."""
    bare = host.strip("[]")
    name = (
        socket.gethostname()
        if bare in ("0.0.0.0", "::", "")
        else f"[{bare}]"
        if ":" in bare
        else bare
    )
    return f"http://{name}:{port}/"
