"""Counts of a running server, in the text format of Prometheus."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitsearch.web.service import PhotoService

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
