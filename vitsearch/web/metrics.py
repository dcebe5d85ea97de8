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
    """What was asked, how it ended, and how long it took."""

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
            self._below[next((bound for bound in BOUNDS if seconds <= bound), float("inf"))] += 1

    def text(self, service: PhotoService) -> str:
        """Return all counts, in the text format of Prometheus 0.0.4."""
        with self._lock:
            lines = [*self._request_lines(), *_service_lines(service)]
        lines += _family(
            "process_start_time_seconds",
            "gauge",
            "when the server began",
            [("", f"{self.began:.3f}")],
        )
        if (resident := resident_bytes()) is not None:
            lines += _family(
                "process_resident_memory_bytes",
                "gauge",
                "memory of the server",
                [("", str(resident))],
            )
        return "\n".join(lines) + "\n"

    def _request_lines(self) -> Iterator[str]:
        counted = [
            (f'{{method="{method}",route="{route}",status="{status}"}}', str(count))
            for (method, route, status), count in sorted(self._requests.items())
        ]
        yield from _family(
            "vitsearch_requests_total", "counter", "requests by route and status", counted
        )
        yield from _histogram(
            "vitsearch_request_seconds",
            "seconds until the whole answer was sent",
            self._below,
            self._seconds,
        )


def _histogram(name: str, text: str, below: "Counter[float]", total: float) -> Iterator[str]:
    yield from (f"# HELP {name} {text}", f"# TYPE {name} histogram")
    count = 0
    for bound in BOUNDS:
        count += below[bound]
        yield f'{name}_bucket{{le="{bound}"}} {count}'
    count += below[float("inf")]
    yield from (
        f'{name}_bucket{{le="+Inf"}} {count}',
        f"{name}_sum {total:.6f}",
        f"{name}_count {count}",
    )


def _family(name: str, kind: str, text: str, values: "list[tuple[str, str]]") -> list[str]:
    return [
        f"# HELP {name} {text}",
        f"# TYPE {name} {kind}",
        *(f"{name}{labels} {value}" for labels, value in values),
    ]


def _service_lines(service: PhotoService) -> list[str]:
    sizes = dict(service.batch_sizes)
    kept = service.thumbnails
    return [
        *_family(
            "vitsearch_photos", "gauge", "photos in the collection", [("", str(service.count()))]
        ),
        *_family(
            "vitsearch_batches_total",
            "counter",
            "batches of searches",
            [("", str(sum(sizes.values())))],
        ),
        *_family(
            "vitsearch_searches_total",
            "counter",
            "searches",
            [("", str(sum(size * n for size, n in sizes.items())))],
        ),
        *_family(
            "vitsearch_largest_batch",
            "gauge",
            "most searches in one batch",
            [("", str(max(sizes, default=0)))],
        ),
        *_family(
            "vitsearch_thumbnails_made_total", "counter", "thumbnails made", [("", str(kept.made))]
        ),
        *_family(
            "vitsearch_thumbnails_found_total",
            "counter",
            "thumbnails found on disk",
            [("", str(kept.found))],
        ),
        *_family(
            "vitsearch_thumbnails_bytes",
            "gauge",
            "bytes of thumbnails on disk",
            [("", str(kept.kept_bytes))],
        ),
    ]


def resident_bytes() -> int | None:
    """Return the memory of this process in bytes, None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


class CountRequests:
    """Counts each request by its route, not by its path: an address that a stranger invents makes
    no new count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other"
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.count(method, route, status, time.perf_counter() - began)
