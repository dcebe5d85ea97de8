"""The application of several collections: an overview, and each of them below a path."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from vitsearch.web.api import collections as api
from vitsearch.web.app import empty_app, protect
from vitsearch.web.below import Below
from vitsearch.web.pages import collections as pages
from vitsearch.web.settings import ServeSettings
from vitsearch.web.several import Several


def several_app(several: Several, settings: ServeSettings) -> FastAPI:
    """Return the application, ready for requests to the address of the settings; it closes the
    collections when it stops.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for member in several.members:
            member.site.enter(asyncio.get_running_loop())
        yield
        await asyncio.to_thread(several.close)

    app = empty_app(settings, lifespan)
    app.state.several, app.state.collections = several, several.links()
    for member in several.members:
        app.mount(member.path, Below(member.site.start(settings), member.path))
    app.include_router(api.router)
    app.include_router(pages.router)
    protect(app, settings)
    return app
