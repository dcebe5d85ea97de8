"""What is around the application: what one connection may take of the server (time for a head, a
body and an answer, a place among the others, and a turn to compute), who is behind it where a proxy
says so, and counts of requests, in the text format of Prometheus.
"""

import asyncio
import ipaddress
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from vitsearch.web import LOOPBACK, ConnectionLimits, ServeSettings
from vitsearch.web.service import PhotoService

_TOO_SLOW = b'{"error":{"code":"too_slow","message":"the request came too slowly: send it again"}}'
AT_ONCE = 8  # requests for each core: enough to encode words together
# wait for nobody, or in a queue of their own, where many searches are computed together
_QUICK = ("/static/", "/healthz", "/metrics", "/api/search")
_LONG = ("/labels", "/api/labels", "/map", "/duplicates")  # would keep the others waiting


# -- Proxies ---------------------------------------------------------------------------------------


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


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 within limits (see `ConnectionLimits`); a connection that passes one is closed."""

    limits = ConnectionLimits()
    unlimited: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._phase = ""
        self._watch: asyncio.TimerHandle | None = None  # of the head or body that is coming
        self._unread: asyncio.TimerHandle | None = None  # of the answer that is going out
        self._began = self._last = 0.0  # of the phase, and its last byte: times of the loop
        self._received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._has_place():
            transport.abort()
            return
        self._change_phase("head")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._change_phase("")
        self._cancel_unread()

    def data_received(self, data: bytes) -> None:
        self._last = self.loop.time()
        self._received += len(data)
        if self._phase == "":
            self._change_phase("head")  # the first bytes of the next request
        super().data_received(data)
        self._note_phase()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note_phase()
        if self.transport.is_closing():
            self._await_reader()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._await_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_unread()

    # -- a place -----------------------------------------------------------------------------------

    @property
    def _is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _has_place(self) -> bool:
        others = [
            each
            for each in self.connections
            if isinstance(each, LimitedProtocol) and each is not self
        ]
        address = self.client[0] if self.client else ""
        if not is_among(address, list(self.unlimited)):
            same = [each for each in others if each.client and each.client[0] == address]
            if len(same) >= self.limits.per_address:
                return False
        if len(others) < self.limits.total:
            return True
        waiting = [each for each in others if each._is_waiting and not each.transport.is_closing()]
        if not waiting:
            return False
        min(waiting, key=lambda each: each._began).transport.abort()
        return True

    # -- time --------------------------------------------------------------------------------------

    def _note_phase(self) -> None:
        """Find what is coming now, and watch its time."""
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            phase = "body"
        elif state is h11.IDLE and self._phase == "head":
            phase = "head"  # not yet whole
        else:
            phase = ""
        if phase != self._phase:
            self._change_phase(phase)

    def _change_phase(self, phase: str) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._phase, self._received = phase, 0
        self._began = self._last = self.loop.time()
        if phase:
            seconds = self.limits.head if phase == "head" else self.limits.pause
            self._watch = self.loop.call_later(seconds, self._check_time)

    def _check_time(self) -> None:
        """Close the connection if its request comes too slowly; else look again later."""
        self._watch = None
        now = self.loop.time()
        if self.flow.read_paused:  # it is the server that does not read
            self._last = now
        patience = self.limits.pause + self._received / self.limits.bytes_per_second
        end = min(self._last + self.limits.pause, self._began + patience)
        if self._phase == "body" and now < end:
            self._watch = self.loop.call_later(max(0.01, end - now), self._check_time)
            return
        self._refuse()

    def _refuse(self) -> None:
        unanswered = self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE)
        if unanswered and (self._received or self._phase == "body"):
            headers = {
                "content-type": "application/json",
                "content-length": str(len(_TOO_SLOW)),
                "connection": "close",
            }
            head = h11.Response(status_code=408, headers=[*headers.items()])
            for event in (head, h11.Data(data=_TOO_SLOW), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if not self._is_waiting:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._await_reader()

    def _await_reader(self) -> None:
        """End the connection unless what was written is read within the limit."""
        self._cancel_unread()
        self._unread = self.loop.call_later(self.limits.unread, self.transport.abort)

    def _cancel_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def protocol_of(settings: ServeSettings) -> type[asyncio.Protocol]:
    """Return the class of a server's connections."""
    proxies = settings.proxies if settings.behind_proxy else ()
    unlimited = tuple(ipaddress.ip_network(text) for text in (*LOOPBACK, *proxies))
    facts = {"limits": settings.limits, "unlimited": unlimited}
    return cast(type[asyncio.Protocol], type("Connection", (LimitedProtocol,), facts))


# -- Turns -----------------------------------------------------------------------------------------


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


# -- Metrics ---------------------------------------------------------------------------------------


BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """How many requests there were, how they ended, and how long they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._below: Counter[float] = Counter()
        self._seconds = 0.0
        self.began = time.time()

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one finished request."""
        with self._lock:
            self._requests[method, route, status] += 1
            self._seconds += seconds
            self._below[next((limit for limit in BOUNDS if seconds <= limit), float("inf"))] += 1

    def text(self, service: PhotoService) -> str:
        """Return all counts, in the text format of Prometheus 0.0.4."""
        with self._lock:
            lines = [*self._request_lines(), *_service_lines(service)]
        start = f"{self.began:.3f}"
        lines += _family("process_start_time_seconds", "gauge", "when the server began", start)
        if (resident := resident_bytes()) is not None:
            lines += _family(
                "process_resident_memory_bytes", "gauge", "memory of the server", resident
            )
        return "\n".join(lines) + "\n"

    def _request_lines(self) -> Iterator[str]:
        yield from _head("vitsearch_requests_total", "counter", "requests by route and status")
        for (method, route, status), count in sorted(self._requests.items()):
            labels = f'{{method="{method}",route="{route}",status="{status}"}}'
            yield f"vitsearch_requests_total{labels} {count}"
        yield from _histogram(
            "vitsearch_request_seconds",
            "seconds until the whole answer was sent",
            self._below,
            self._seconds,
        )


def _histogram(name: str, text: str, below: "Counter[float]", total: float) -> Iterator[str]:
    yield from _head(name, "histogram", text)
    count = 0
    for limit in BOUNDS:
        count += below[limit]
        yield f'{name}_bucket{{le="{limit}"}} {count}'
    count += below[float("inf")]
    yield f'{name}_bucket{{le="+Inf"}} {count}'
    yield f"{name}_sum {total:.6f}"
    yield f"{name}_count {count}"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _family(name: str, kind: str, text: str, value: object) -> list[str]:
    return [*_head(name, kind, text), f"{name} {value}"]


def _service_lines(service: PhotoService) -> Iterator[str]:
    sizes = dict(service.batch_sizes)
    searches = sum(size * count for size, count in sizes.items())
    thumbnails = service.thumbnails
    for name, kind, text, value in (
        ("photos", "gauge", "photos in the collection", service.count()),
        ("batches_total", "counter", "batches of searches", sum(sizes.values())),
        ("searches_total", "counter", "searches", searches),
        ("largest_batch", "gauge", "most searches in one batch", max(sizes, default=0)),
        ("thumbnails_made_total", "counter", "thumbnails made", thumbnails.made),
        ("thumbnails_found_total", "counter", "thumbnails found on disk", thumbnails.reused),
        ("thumbnails_bytes", "gauge", "bytes of thumbnails on disk", thumbnails.stored_bytes),
    ):
        yield from _family(f"vitsearch_{name}", kind, text, value)


def resident_bytes() -> int | None:
    """Return the memory of this process in bytes, None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


class CountRequests:
    """Counts each request by its route, not by its path, so that invented addresses make no new
    counters.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, service: PhotoService) -> None:
        self.app, self.metrics, self.service = app, metrics, service
        self.open = 0  # requests that are being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        self.open += 1
        self.service.note_request(self.open)

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            self.open -= 1
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other"
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.count(method, route, status, time.perf_counter() - began)
