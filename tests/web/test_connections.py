"""Connections that take too long, or too many of them, over real sockets."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.web_client import opened, wait_until
from vitsearch.web import ConnectionLimits, ServeSettings
from vitsearch.web.app import bind, make_server
from vitsearch.web.middleware import LimitedProtocol, protocol_of

QUICK = ConnectionLimits(
    head=0.3, pause=0.3, bytes_per_second=1000, unread=0.3, total=60, per_address=50
)
HEAD = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextmanager
def served(photos: Path, limits: ConnectionLimits = QUICK) -> Iterator[int]:
    """A running server with such limits, and its port."""
    listener = bind("127.0.0.1", 0)
    settings = ServeSettings(port=listener.getsockname()[1], limits=limits, show_exif=True)
    with opened(photos, settings) as service:
        server = make_server(service, settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield settings.port
        finally:
            server.should_exit = True
            thread.join()
            listener.close()


def dial(port: int, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(data)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that still comes, until the server closes."""
    with connection:
        pieces = []
        try:
            while piece := connection.recv(65536):
                pieces.append(piece)
        except ConnectionError:
            pass
        return b"".join(pieces)


def status(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/api/search?q=red")
        return connection.getresponse().status
    finally:
        connection.close()


def test_slow_heads_are_ended_and_others_served_meanwhile(indexed: Path) -> None:
    with served(indexed) as port:
        slow = [dial(port, b"GET / HTTP/1.1\r\nHost: loc") for _ in range(40)]
        silent = [dial(port) for _ in range(10)]
        assert status(port) == 200
        assert {rest(connection)[:13] for connection in slow} == {b"HTTP/1.1 408 "}
        assert {rest(connection) for connection in silent} == {b""}
        assert status(port) == 200


def test_a_head_that_drips_has_no_more_time(indexed: Path) -> None:
    with served(indexed) as port, dial(port, b"GET / HTTP/1.1\r\n") as dripping:
        began = time.monotonic()
        try:
            while time.monotonic() - began < 20:
                dripping.sendall(b"X-A: b\r\n")
                time.sleep(0.05)
        except ConnectionError:
            pass
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("length", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_a_body_that_stops_or_drips_is_ended(indexed: Path, length: str) -> None:
    with served(indexed) as port:
        head = HEAD + length.encode() + b"\r\n\r\n"
        stopped, dripping = dial(port, head), dial(port, head)

        def drip() -> None:
            for _ in range(400):
                try:
                    dripping.sendall(b"1\r\n \r\n" if "chunked" in length else b" ")
                except OSError:
                    return
                time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        for connection in (stopped, dripping):
            answer = rest(connection)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"code":"too_slow"' in answer
        thread.join()
        assert status(port) == 200


def test_a_body_that_is_not_wanted_is_ended_too(indexed: Path) -> None:
    with served(indexed) as port:
        evil = HEAD.replace(b"localhost", b"evil.example") + b"Content-Length: 100000\r\n\r\n"
        assert rest(dial(port, evil)).startswith(b"HTTP/1.1 408 ")


@pytest.mark.slow
def test_a_slow_upload_at_a_fair_rate_is_served(indexed: Path) -> None:
    # it takes longer than the pause that is allowed, and none of its pauses comes near that
    patient = replace(QUICK, head=20.0, pause=2.0, unread=20.0)
    with served(indexed, patient) as port:
        body = b'{"q": "red"' + b" " * 2000 + b"}"
        connection = dial(port, HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 125):
            connection.sendall(body[start : start + 125])
            time.sleep(0.15)
        connection.shutdown(socket.SHUT_WR)
        assert rest(connection).startswith(b"HTTP/1.1 200 ")


def ends(connection: socket.socket, data: bytes) -> bool:
    """Whether the server ends a connection that only sends."""
    try:
        for _ in range(2000):
            connection.sendall(data)
            time.sleep(0.01)
    except ConnectionError:
        return True
    return False


@pytest.mark.slow
def test_an_answer_that_nobody_reads_is_dropped(indexed: Path) -> None:
    with served(indexed) as port:
        ask = b"GET /static/app.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", port))
        with connection:
            assert ends(connection, ask * 20)
        assert status(port) == 200


@pytest.mark.slow
def test_new_connections_take_the_place_of_those_that_wait(indexed: Path) -> None:
    patient = replace(QUICK, head=60.0)
    with served(indexed, patient) as port:
        waiting = [dial(port) for _ in range(patient.total + 20)]
        assert status(port) == 200
        assert sum(rest_of_the_closed(connection) for connection in waiting) >= 20
        for connection in waiting:
            connection.close()


def rest_of_the_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection."""
    connection.settimeout(0.05)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


class _Transport(asyncio.Transport):
    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1), "sockname": ("127.0.0.1", 1)})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


@pytest.mark.parametrize(
    ("address", "count"), [("192.0.2.7", 3), ("127.0.0.1", 8), ("172.18.0.2", 8), ("::1", 8)]
)
def test_one_address_takes_its_share_only(indexed: Path, address: str, count: int) -> None:
    from uvicorn import Config
    from uvicorn.server import ServerState

    limits = ConnectionLimits(total=100, per_address=3)
    settings = ServeSettings(
        token="x" * 16, behind_proxy="https://h", proxies=("172.18.0.0/16",), limits=limits
    )
    config, state = Config(lambda: None, http=protocol_of(settings)), ServerState()
    config.load()

    async def connect() -> int:
        transports = [_Transport(address) for _ in range(8)]
        for transport in transports:
            protocol = config.http_protocol_class(config, state, {})  # type: ignore[call-arg]
            assert isinstance(protocol, LimitedProtocol)
            protocol.connection_made(transport)
            if transport.aborted:
                protocol.connection_lost(None)
        return sum(not transport.aborted for transport in transports)

    assert asyncio.run(connect()) == count
