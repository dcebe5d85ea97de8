"""A client of the S3 server on loopback that the fixture `s3` starts (conftest.py)."""

import threading
import urllib.error
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3

BUCKET = "photos"


def s3_client() -> Any:
    """Return a client of the server that the environment names."""
    return boto3.client("s3")


def put(objects: dict[str, bytes]) -> None:
    """Store objects by key."""
    client = s3_client()
    for key, data in objects.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=data)


class BusyStore(ThreadingHTTPServer):
    """A server before the one at ``endpoint`` that answers the first ``refusals`` requests for each
    photo with 503, as S3 does under load.
    """

    def __init__(self, endpoint: str, refusals: int) -> None:
        super().__init__(("127.0.0.1", 0), _BusyHandler)
        self.endpoint, self.refusals = endpoint, refusals
        self.requests: Counter[str] = Counter()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        """The address to use in place of that of the server behind it."""
        return f"http://127.0.0.1:{self.server_port}"


class _BusyHandler(BaseHTTPRequestHandler):
    server: BusyStore

    def do_GET(self) -> None:
        self.server.requests[self.path] += self.path.endswith(".png")
        if 0 < self.server.requests[self.path] <= self.server.refusals:
            self._answer(503, b"<Error><Code>SlowDown</Code><Message>Slow down</Message></Error>")
            return
        headers = {name: text for name, text in self.headers.items() if name != "Host"}
        request = urllib.request.Request(self.server.endpoint + self.path, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                self._answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read())

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Write nothing."""
