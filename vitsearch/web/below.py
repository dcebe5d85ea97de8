"""An application below a path: it is asked as if it were alone, and the addresses in its pages and
redirects get the path in front.
"""

import re
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitsearch.web.several import BELOW

# addresses of this server in the attributes of a page; static files and other collections are
# common to all. Text in a page cannot look like this: its quotes are escaped. Other data attributes
# hold labels and the like, which may begin with a slash too
_ATTRIBUTE = re.compile(
    r'(\s(?:href|src|action|formaction|poster|data-(?:atlas|plays|why))=")/(?!/|static/|in/)'
)
_SOURCES = re.compile(r'(\ssrcset=")([^"]*)"')
_SOURCE = re.compile(r"(^|,\s*)/(?!/)")


class Below:
    """An application whose addresses begin with a path such as ``/in/holidays``."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self.app, self.path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = {**scope, "path": scope["path"].removeprefix(self.path) or "/", "root_path": ""}
        raw = scope.get("raw_path")
        if raw is not None:
            inner["raw_path"] = raw.removeprefix(self.path.encode("ascii")) or b"/"
        for name in ("app_root_path", "path_params", "route", "endpoint"):
            inner.pop(name, None)
        await self.app(inner, receive, _Rewriter(send, self.path))


class _Rewriter:
    """A send that puts the path into a page, which is held until it is whole, and into redirects;
    anything else passes unchanged.
    """

    def __init__(self, send: Send, path: str) -> None:
        self._send, self._path = send, path
        self._start: MutableMapping[str, Any] | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            to = headers.get("location", "")
            if to.startswith("/") and not to.startswith(("//", BELOW)):
                headers["location"] = self._path + to
            if headers.get("content-type", "").startswith("text/html"):
                self._start = message
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if message.get("more_body", False):
                return
            await self._send_page()
            return
        await self._send(message)

    async def _send_page(self) -> None:
        assert self._start is not None
        page = below(self._body.decode("utf-8"), self._path).encode("utf-8")
        headers = MutableHeaders(scope=self._start)
        if "content-length" in headers:
            headers["content-length"] = str(len(page))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": page})


def below(page: str, path: str) -> str:
    """Return a page in which the addresses of an application begin with a path."""
    start = rf"\g<1>{path}/"
    page = _ATTRIBUTE.sub(start, page)
    return _SOURCES.sub(lambda match: f'{match[1]}{_SOURCE.sub(start, match[2])}"', page)
