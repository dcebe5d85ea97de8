"""Requests that compute take turns, so that none waits much longer than the others."""

import asyncio
import os

from starlette.types import ASGIApp, Message, Receive, Scope, Send

AT_ONCE = 8  # requests for each core: enough to encode words together
_QUICK = ("/static/", "/healthz", "/metrics")  # wait for nobody
_LONG = ("/labels", "/api/labels", "/map", "/duplicates")  # would keep the others waiting


class TakeTurns:
    """Lets some requests at a time compute their answers, first come, first served.

    Threads that all compute at once, for many clients, finish in no order: the unlucky ones wait
    several times as long as the others. A turn is over when the answer begins to be sent, so that
    a client that reads slowly has none; nor has a request with a body, which may come slowly.
    """

    def __init__(self, app: ASGIApp, count: int | None = None) -> None:
        self.app = app
        self._turns = asyncio.Semaphore(count or AT_ONCE * (os.cpu_count() or 1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] != "GET"
            or scope["path"].startswith((*_QUICK, *_LONG))
        ):
            await self.app(scope, receive, send)
            return
        await self._turns.acquire()
        held = True

        def end() -> None:
            nonlocal held
            if held:
                held = False
                self._turns.release()

        async def send_and_end(message: Message) -> None:
            end()
            await send(message)

        try:
            await self.app(scope, receive, send_and_end)
        finally:
            end()
