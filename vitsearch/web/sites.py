"""A folder that is served whether it is indexed or not: before it is, the way there is its page."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from vitsearch.collection.runs import IndexRunner
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionNotFound, VitsearchError
from vitsearch.milvus import is_milvus
from vitsearch.storage import locate, read_collection_config
from vitsearch.web import ServeSettings, indexing
from vitsearch.web.app import empty_app, protect, warm_app
from vitsearch.web.middleware import TakeTurns
from vitsearch.web.pages import counted
from vitsearch.web.pages import indexing as pages
from vitsearch.web.responses import error_response, wants_page
from vitsearch.web.routes import answer_of
from vitsearch.web.schemas import HealthAnswer
from vitsearch.web.service import PhotoService
from vitsearch.web.source import CollectionSource

NOT_INDEXED = "these photos are not indexed yet: open the page to begin, or POST /api/index"


class Site:
    """The photos of a folder for a server: an application that is the page of their collection once
    there is one, and the page that makes it before.

    ``open_service`` opens the collection, and raises CollectionNotFound where there is none;
    ``runs`` index the folder, None for a collection in Milvus.
    """

    def __init__(
        self,
        open_service: Callable[[ServeSettings, ImageEncoder | None], PhotoService],
        runs: IndexRunner | None,
        *,
        is_inner: bool = False,
    ) -> None:
        self.runs, self._open_service, self._is_inner = runs, open_service, is_inner
        self.service: PhotoService | None = None
        self.settings = ServeSettings()
        self._app: ASGIApp | None = None
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._memory: Future[None] | None = None
        self.lenders: Sequence[Site] = ()  # whose encoder is used where it is the same
        self.collections: Sequence[tuple[str, str, bool]] = ()  # of the server, for its pages

    @classmethod
    def of(
        cls,
        photos: str,
        *,
        collection: str | None = None,
        is_inner: bool = False,
        **options: Any,
    ) -> "Site":
        """Return the site of a photo folder, or of a collection in Milvus; parameters and errors
        are those of `PhotoService.open`, but only a ``collection`` that is named must be there.
        """
        runs = None if is_milvus(photos) else IndexRunner(*locate(photos, collection))
        if runs is not None and collection is not None:
            read_collection_config(runs.folder, runs.root)

        def open_service(settings: ServeSettings, encoder: ImageEncoder | None) -> PhotoService:
            return PhotoService.open(
                photos, collection=collection, encoder=encoder, settings=settings, **options
            )

        return cls(open_service, runs, is_inner=is_inner)

    @property
    def content(self) -> str:
        """What is served, in words."""
        if self.service is None:
            return "photos that are not indexed yet"
        return counted(self.service.count(), "photo", "photos")

    def start(self, settings: ServeSettings) -> "Site":
        """Return this application, ready for requests to the address of the settings."""
        self.settings = settings
        if not self.open():
            self._app = unindexed_app(self, is_inner=self._is_inner)
        return self

    def open(self) -> bool:
        """Open the collection if that is not done, and return whether there is one; raises what
        `PhotoService.open` does, but for CollectionNotFound.
        """
        with self._lock:
            if self.service is not None:
                return True
            try:
                lender = self._lender()
                encoder = None if lender is None else lender.encoder()
                service = self._open_service(self.settings, encoder)
            except CollectionNotFound:
                if self.runs is None:
                    raise
                self.runs.on_end = self.open
                return False
            if lender is not None:  # at a time one thread computes, whichever collection it is for
                service.source.encoding = lender.encoding
            app = warm_app(service, self.settings, runs=self.runs, is_inner=self._is_inner)
            app.state.collections = self.collections
            self._app, self.service = app, service
            self._tend_memory()
            return True

    def _lender(self) -> CollectionSource | None:
        """Return another open collection with the encoder of this one, None without."""
        if not self.lenders or self.runs is None:
            return None
        config = read_collection_config(self.runs.folder, self.runs.root)
        for site in self.lenders:
            if site.service and site.service.encoder.fingerprint == config.encoder_fingerprint:
                return site.service.source
        return None

    def close(self) -> None:
        """Stop what indexes, and close the collection."""
        if self.runs is not None:
            self.runs.close()
        with self._lock:
            if self._memory is not None:
                self._memory.cancel()
            if self.service is not None:
                self.service.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._app is not None
        await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Go with the server from its start to its end (ASGI's lifespan)."""
        await receive()
        self.enter(asyncio.get_running_loop())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(self.close)
        await send({"type": "lifespan.shutdown.complete"})

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note the loop of the server, which gives memory back between requests."""
        with self._lock:
            self._loop = loop
            self._tend_memory()

    def _tend_memory(self) -> None:
        if self._loop is not None and self.service is not None and self._memory is None:
            keeping = self.service.memory.run()
            self._memory = asyncio.run_coroutine_threadsafe(keeping, self._loop)


def unindexed_app(site: Site, *, is_inner: bool) -> FastAPI:
    """Return the application of a folder without a collection: the page that indexes it."""
    app, runs = empty_app(site.settings), site.runs
    assert runs is not None
    app.state.runs, app.state.service = runs, None
    app.state.collections = site.collections

    @app.get("/", include_in_schema=False)
    async def begin(request: Request) -> Response:
        """Index the photos; where another program has done that, show them."""
        if not runs.state().is_active:
            try:
                if await run_in_threadpool(site.open):
                    return RedirectResponse("/", 303)
            except VitsearchError as error:
                fault = indexing.without_root(str(error), runs)
                return pages.index_page(request, status=503, fault=fault)
        return pages.index_page(request)

    @app.get("/healthz", response_model=HealthAnswer)
    def health() -> Response:
        """Say that the server lives."""
        return answer_of(HealthAnswer(status="ok"))

    app.include_router(pages.api_router)
    app.include_router(pages.router)
    app.add_exception_handler(HTTPException, _handle_unknown_address)
    app.add_middleware(TakeTurns)
    if not is_inner:
        protect(app, site.settings)
    return app


async def _handle_unknown_address(request: Request, error: Exception) -> Response:
    """Lead a browser to the page that there is, and tell a program what is missing."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and wants_page(request):
        return RedirectResponse("/", 303)
    if error.status_code == 404 and request.url.path.startswith("/api/"):
        return error_response(request, 503, NOT_INDEXED)
    return error_response(request, error.status_code, str(error.detail), error.headers)
