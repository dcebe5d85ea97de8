"""What a proxy says about the client that it stands before."""

import ipaddress
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from vitsearch.web.settings import ServeSettings


class BehindProxy:
    """Takes X-Forwarded-For, -Proto and -Host from the addresses of the proxy, and from nobody
    else.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._proxies = [ipaddress.ip_network(text) for text in settings.proxies]
        self._app = app
        self._informed = cast(
            ASGIApp,
            ProxyHeadersMiddleware(app, list(settings.proxies)),  # type: ignore[arg-type]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._sent_by_proxy(scope):
            await self._app(scope, receive, send)
            return
        hosts = [value for name, value in scope["headers"] if name == b"x-forwarded-host"]
        if hosts:
            # the last one is the nearest proxy's, which knows what it was asked for
            host = b",".join(hosts).rpartition(b",")[2].strip()
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope = {**scope, "headers": [*others, (b"host", host)]}
        await self._informed(scope, receive, send)

    def _sent_by_proxy(self, scope: Scope) -> bool:
        client = scope.get("client")
        return client is not None and is_among(client[0], self._proxies)


def is_among(address: str, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Return whether an address is in one of the networks."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
