"""The application: the service's routes, with what keeps them safe around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from vitsearch._version import __version__
from vitsearch.web.service import PhotoService
from vitsearch.web.settings import ServeSettings


def make_app(service: PhotoService, settings: ServeSettings) -> FastAPI:
    """Return the application that serves a collection; it closes the service at its end.

    Its state holds ``service`` and ``settings``.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title="vitsearch", version=__version__, lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service, app.state.settings = service, settings
    return app
