"""A real server of photos on loopback that is slow, busy, gone, endless, leads in circles, or has
something else, by the path that it is asked for.
"""

import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

from PIL import Image


def jpeg(shade: int) -> bytes:
    out = BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(out, "JPEG")
    return out.getvalue()


class Site(ThreadingHTTPServer):
    """A server of loopback that counts what it is asked for, and how much at a time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.down: set[str] = set()  # what it does not give for now
        self.now = self.at_once = 0
        self.lock = threading.Lock()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site, name = self.server, self.path[1:]
        with site.lock:
            site.asked[name] += 1
            site.agents.add(self.headers["User-Agent"])
        with suppress(OSError):  # the client has gone
            self.answer(name, site.asked[name])

    def answer(self, name: str, time_asked: int) -> None:
        kind, _, rest = name.partition("/")
        if kind == "busy" and time_asked <= 2:
            self.say(503)
        elif kind in ("down", "gone") or name in self.server.down:
            self.say(404 if kind == "gone" else 503)
        elif kind == "loop":
            self.say(302, Location="/loop")
        elif kind == "hop":
            self.say(302, Location=f"/{rest}")
        elif kind == "inside":
            self.say(302, Location="http://[::1]/secret")
        elif kind == "drip":
            self.say(200, **{"Content-Length": "1000"})
            for _ in range(1000):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif kind == "headers":  # that never end
            self.send_response(200)
            self.flush_headers()
            self.repeat(b"X-More: x\r\n")
        elif kind == "continue":
            self.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif kind == "trailers":
            self.protocol_version = "HTTP/1.1"
            self.say(200, b"1\r\nx\r\n0\r\n", **{"Transfer-Encoding": "chunked"})
            self.repeat(b"X-More: x\r\n")
        elif kind == "cut":
            self.say(200, b"half", **{"Content-Length": "1000"})
        elif kind == "endless":
            self.say(200)
            while True:
                self.wfile.write(bytes(50_000))
        else:
            site = self.server
            with site.lock:
                site.now += 1
                site.at_once = max(site.at_once, site.now)
            time.sleep(0.02)
            with site.lock:
                site.now -= 1
            body = jpeg(int(rest)) if kind == "photo" else b"<html>"
            self.say(200, body, **{"Content-Length": str(10**12 if kind == "huge" else len(body))})

    def repeat(self, line: bytes) -> None:
        for _ in range(60):
            self.wfile.write(line)
            time.sleep(0.05)

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def photo_site(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Run a server for the block, one of https with ``tls``."""
    server = Site()
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
