"""The web application, the description of its interface as OpenAPI and as a page, nothing of which
comes from elsewhere, and the server that runs it.
"""

import asyncio
import html
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from vitsearch._version import __version__
from vitsearch.collection.runs import IndexRunner
from vitsearch.errors import VitsearchError
from vitsearch.web import ServeSettings, limit_arenas, responses, routes
from vitsearch.web.middleware import BehindProxy, CountRequests, Metrics, TakeTurns, protocol_of
from vitsearch.web.pages import indexing
from vitsearch.web.pages import search as pages
from vitsearch.web.pages.context import load_templates
from vitsearch.web.privacy import KEY
from vitsearch.web.schemas import SearchRequest
from vitsearch.web.security import SecurityMiddleware
from vitsearch.web.service import PhotoService
from vitsearch.web.source import MilvusSource

STATIC = Path(__file__).parent / "static"
STATIC_CACHE = "public, max-age=3600"
BACKLOG = 2048  # connections that wait to be accepted
MIN_COMPRESSED = 8192  # bytes of a text: less is not worth the time
MAX_HEAD = 32_768  # bytes of a request's line and headers
ERROR_HANDLERS = (
    (VitsearchError, responses.handle_known_error),
    (RequestValidationError, responses.handle_invalid_request),
    (HTTPException, responses.handle_http_error),
    (ClientDisconnect, responses.handle_disconnect),
    (Exception, responses.handle_unknown_error),
)


def make_app(
    service: PhotoService,
    settings: ServeSettings,
    *,
    runs: IndexRunner | None = None,
    is_inner: bool = False,
) -> FastAPI:
    """Return the application that serves a collection; it closes the service when it stops.

    Its state holds ``service``, ``settings``, ``metrics``, ``runs``, which indexes the photos of a
    folder (None for a collection in Milvus), and ``error_page``, which draws an error for a person.
    One that ``is_inner`` is called by another application, which protects it (`protect`).
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        keeping = asyncio.create_task(service.memory.run())
        yield
        keeping.cancel()
        if app.state.runs is not None:
            await asyncio.to_thread(app.state.runs.close)
        service.close()

    app = empty_app(settings, lifespan)
    app.state.service, app.state.metrics, app.state.runs = service, Metrics(), runs
    if runs is None and not isinstance(service.source, MilvusSource):
        app.state.runs = IndexRunner(service.source.root, service.source.folder)
    app.include_router(routes.router)
    app.include_router(indexing.api_router)
    app.include_router(pages.router, include_in_schema=False)
    app.add_middleware(TakeTurns)
    if not is_inner:
        protect(app, settings)
    app.add_middleware(CountRequests, metrics=app.state.metrics, service=service)
    return app


def warm_app(service: PhotoService, settings: ServeSettings, **options: Any) -> FastAPI:
    """Return what `make_app` does, with what the first searches and the first page need loaded, or
    in the works.
    """
    service.start_decoders()
    service.warm_up()
    app = make_app(service, settings, **options)
    service.picture_threads.submit(pages.warm_up, app)
    return app


def empty_app(settings: ServeSettings, lifespan: Any = None) -> FastAPI:
    """Return an application with the static files, the description of its interface, and the shape
    of errors.
    """
    app = FastAPI(
        title="vitsearch",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.settings, app.state.error_page = settings, pages.error_page
    app.state.collections = ()  # of a server of several
    app.openapi = lambda: describe(app, settings)  # type: ignore[method-assign]
    app.include_router(router)
    app.add_api_route("/favicon.ico", pages.favicon, include_in_schema=False)
    app.mount("/static", CachedFiles(directory=STATIC, check_dir=False), name="static")
    for error, handler in ERROR_HANDLERS:
        app.add_exception_handler(error, handler)
    return app


def protect(app: FastAPI, settings: ServeSettings) -> None:
    """Have an application answer only those whom the settings let in, its texts compressed."""
    app.add_middleware(GZipMiddleware, minimum_size=MIN_COMPRESSED, compresslevel=1)
    app.add_middleware(SecurityMiddleware, settings=settings)
    if settings.behind_proxy:
        app.add_middleware(BehindProxy, settings=settings)


class CachedFiles(StaticFiles):
    """The static files of the pages, which a browser may cache for an hour before it asks again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = STATIC_CACHE
        return response


def serve(
    service: PhotoService,
    settings: ServeSettings,
    *,
    ready: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, finish the running requests, and close the service.

    ``ready`` is called with the `entrance` once requests are accepted. Raises VitsearchError where
    the address cannot be served, and what `ServeSettings.check` raises; after Ctrl-C
    KeyboardInterrupt.
    """

    try:
        serve_app(lambda bound: warm_app(service, bound), settings, ready=ready)
    finally:
        service.close()


def serve_app(
    start: Callable[[ServeSettings], ASGIApp],
    settings: ServeSettings,
    *,
    ready: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve the application that ``start`` returns for the settings with the port that is bound;
    the rest as of `serve`.
    """
    settings.check()
    listener = bind(settings.host, settings.port)
    try:
        limit_arenas()
        settings = replace(settings, port=listener.getsockname()[1])
        app = start(settings)
        load_templates()
        with _sigterm_is_a_normal_end():
            server_of(app, settings, ready=ready).run(sockets=[listener])
    finally:
        listener.close()


def make_server(
    service: PhotoService,
    settings: ServeSettings,
    *,
    ready: Callable[[str], object] = lambda _: None,
) -> uvicorn.Server:
    """Return a server to run on a socket that is bound to the port of the settings; ``ready`` as
    for `serve`.
    """
    return server_of(make_app(service, settings), settings, ready=ready)


def server_of(
    app: ASGIApp,
    settings: ServeSettings,
    *,
    ready: Callable[[str], object] = lambda _: None,
) -> uvicorn.Server:
    """Return a server of an application, see `make_server`."""
    config = uvicorn.Config(
        app,
        http=protocol_of(settings),
        # it would write tokens, and a line for each request that is not HTTP
        log_level="error",
        access_log=False,
        proxy_headers=False,  # `BehindProxy` takes them, where they are to be taken
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_graceful_shutdown=settings.grace_seconds,
        ws="none",
    )
    return _Server(config, lambda: ready(entrance(settings)))


class _Server(uvicorn.Server):
    """A server that calls ``ready`` once it accepts requests."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


@contextmanager
def _sigterm_is_a_normal_end() -> Iterator[None]:
    """Ignore the SIGTERM that uvicorn raises once more after it has stopped for the first one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; raises VitsearchError where it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VitsearchError(
            f"cannot serve on {host}, port {port} ({reason}): choose another --port or --host"
        ) from error
    return listener


def entrance(settings: ServeSettings) -> str:
    """Return the address to open in a browser, with the key that shows EXIF where it counts."""
    address = address_of(settings.host, settings.port)
    return address if settings.token else f"{address}?{KEY}={settings.key}"


def _network_address() -> str:
    """Return the address of this machine on its network, "" without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses where one would go out
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def address_of(host: str, port: int) -> str:
    """Return the address to type into a browser, one that other devices of the network can open
    where all addresses are served.
    """
    name = host.strip("[]")
    if name in ("0.0.0.0", "::", ""):
        name = _network_address() or socket.gethostname()
    elif ":" in name:
        name = f"[{name}]"
    return f"http://{name}:{port}/"


router = APIRouter(include_in_schema=False)
# -- The description of the interface --------------------------------------------------------------


_LEFT_OUT = ("HTTPValidationError", "ValidationError")  # our errors have another shape
_TEXT = (
    "Search a collection of photos. Photos are named by ids, which stay; scores are cosine "
    "similarities."
)


def describe(app: FastAPI, settings: ServeSettings) -> dict[str, Any]:
    """Return the OpenAPI description of the routes below /api, /healthz and /metrics."""
    if app.openapi_schema:
        return app.openapi_schema
    description = get_openapi(
        title="vitsearch", version=__version__, description=_TEXT, routes=app.routes
    )
    schemas = description.setdefault("components", {}).setdefault("schemas", {})
    for name in _LEFT_OUT:
        schemas.pop(name, None)
    request_schema = SearchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= request_schema.pop("$defs", {}) | {"SearchRequest": request_schema}
    for operations in description["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    if settings.token:
        description["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"}
        }
        description["security"] = [{"token": []}]
        description["paths"]["/healthz"]["get"]["security"] = []
    app.openapi_schema = description
    return description


@router.get("/api/openapi.json")
def openapi(request: Request) -> Response:
    """Return the description for programs."""
    return JSONResponse(request.app.openapi())


@router.get("/api/docs")
def docs(request: Request) -> Response:
    """Return the description for people."""
    description = request.app.openapi()
    body = "".join(
        part
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
        for part in _operation(path, method, operation)
    )
    schemas = "".join(
        _schema(name, schema) for name, schema in description["components"]["schemas"].items()
    )
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1">'
        '<title>vitsearch: HTTP interface</title><link rel="icon" '
        'href="/static/icon.svg"><link rel="stylesheet" href="/static/app.css">'
        f'<main class="docs"><h1>HTTP interface</h1><p>{html.escape(_TEXT)} For programs: <a '
        'href="/api/openapi.json">OpenAPI</a>.</p>'
        f"{body}<h2>Shapes</h2>{schemas}</main></html>"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"<h2><code>{method.upper()} "
        f"{html.escape(path)}</code></h2><p>{html.escape(operation.get('description', ''))}</p>"
    )
    if parameters := operation.get("parameters"):
        rows = "".join(_parameter(parameter) for parameter in parameters)
        head = "<tr><th>parameter<th>in<th>type<th>default<th>meaning"
        yield f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    if "requestBody" in operation:
        kinds = "".join(
            f"<li><code>{html.escape(kind)}</code>: {_type(content['schema'])}</li>"
            for kind, content in operation["requestBody"]["content"].items()
        )
        yield f"<p>Body:</p><ul>{kinds}</ul>"
    answers = "".join(
        f"<li>{status}: {_answer(answer)}</li>"
        for status, answer in sorted(operation["responses"].items())
    )
    yield f"<p>Answers:</p><ul>{answers}</ul>"


def _parameter(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    default = (
        html.escape(str(schema["default"]))
        if "default" in schema
        else "required"
        if parameter.get("required")
        else ""
    )
    cells = (
        f"<code>{html.escape(parameter['name'])}</code>",
        parameter["in"],
        _type(schema),
        default,
        html.escape(parameter.get("description", "")),
    )
    return f"<tr><td>{'<td>'.join(cells)}"


def _answer(answer: Mapping[str, Any]) -> str:
    kinds = [
        f"<code>{html.escape(kind)}</code> {_type(content.get('schema', {}))}"
        for kind, content in answer.get("content", {}).items()
    ]
    return ", ".join(kinds) or html.escape(answer.get("description", ""))


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(field)}</code><td>{_type(facts)}"
        f"<td>{html.escape(facts.get('description', ''))}"
        for field, facts in schema.get("properties", {}).items()
    )
    return (
        f'<h3 id="{html.escape(name)}"><code>{html.escape(name)}</code></h3>'
        f"<p>{html.escape(schema.get('description', ''))}</p>"
        f"<table><thead><tr><th>field<th>type<th>meaning</thead><tbody>{rows}</tbody></table>"
    )


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema in a few words, with links to those that have a name."""
    if "$ref" in schema:
        name = html.escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("properties"):
        return ", ".join(
            f"<code>{html.escape(name)}</code> ({_type(field)})"
            for name, field in schema["properties"].items()
        )
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = (
        f" from {low} to {high}" if low is not None and high is not None and high < 2**62 else ""
    )
    return html.escape(schema.get("format") or schema.get("type", "anything")) + bounds
