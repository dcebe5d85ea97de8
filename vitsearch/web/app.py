"""The application: the service's routes, with what keeps them safe around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from vitsearch._version import __version__
from vitsearch.errors import VitsearchError
from vitsearch.web import answers, api, describe, pages
from vitsearch.web.metrics import CountRequests, Metrics
from vitsearch.web.safety import Guard
from vitsearch.web.service import PhotoService
from vitsearch.web.settings import ServeSettings

STATIC = Path(__file__).parent / "static"
STATIC_CACHE = "public, max-age=3600"


def make_app(service: PhotoService, settings: ServeSettings) -> FastAPI:
    """Return the application that serves a collection; it closes the service at its end.

    Its state holds ``service``, ``settings``, ``metrics`` and ``error_page``, which draws an error for a person.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title="vitsearch", version=__version__, lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service, app.state.settings, app.state.metrics = service, settings, Metrics()
    app.openapi = lambda: describe.describe(app, settings)  # type: ignore[method-assign]
    app.include_router(api.router)
    app.include_router(describe.router)
    app.mount("/static", CachedFiles(directory=STATIC, check_dir=False), name="static")
    app.include_router(pages.router, include_in_schema=False)
    app.state.error_page = pages.error_page
    for kind, handler in (
        (VitsearchError, answers.on_known),
        (RequestValidationError, answers.on_invalid),
        (HTTPException, answers.on_http),
        (ClientDisconnect, answers.on_gone),
        (Exception, answers.on_unknown),
    ):
        app.add_exception_handler(kind, handler)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(CountRequests, metrics=app.state.metrics)
    return app


class CachedFiles(StaticFiles):
    """The files of the page, which a browser may keep for an hour and then asks for by their tags."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = STATIC_CACHE
        return response
