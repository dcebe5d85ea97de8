"""Shared by the tests of the web page: an application over a small collection, asked from this
machine or from elsewhere.
"""

import http.client
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from helpers.cli import environment
from vitsearch import index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.web import ServeSettings
from vitsearch.web.app import make_app
from vitsearch.web.privacy import key_cookie
from vitsearch.web.service import PhotoService

HERE, ELSEWHERE = ("127.0.0.1", 50_000), ("192.0.2.7", 50_000)
TOKEN = "a-secret-of-these-tests"
REMOTE = ServeSettings(host="0.0.0.0", token=TOKEN)
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def opened(photos: Path, settings: ServeSettings | None = None) -> Iterator[PhotoService]:
    """Open the service of an indexed folder."""
    service = PhotoService.open(photos, encoder=ColourEncoder(), settings=settings)
    try:
        yield service
    finally:
        service.close()


def indexed_with_exif(folder: Path) -> Path:
    """Index a folder of one photo that says when, where and with what it was taken; return it."""
    with_exif(folder / "a.jpg")
    index_folder(folder, encoder=ColourEncoder())
    return folder


@contextmanager
def asked(
    photos: Path,
    settings: ServeSettings | None = None,
    client: tuple[str, int] = HERE,
    **options: Any,
) -> Iterator[TestClient]:
    """Open a client of the application over an indexed folder; one of this machine has the key."""
    chosen = settings or ServeSettings()
    with opened(photos, chosen) as service:
        with client_of(make_app(service, chosen), chosen, client, **options) as found:
            yield found


def client_of(
    app: Any, settings: ServeSettings, client: tuple[str, int], **options: Any
) -> TestClient:
    """Return a client of an application; one of this machine has the key."""
    name, value = key_cookie(settings)
    options = {"cookies": {name: value} if client == HERE else {}} | options
    return TestClient(app, base_url="http://127.0.0.1:8765", client=client, **options)


@contextmanager
def serving(photos: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run `vitsearch serve` as a process and yield it with its port, once it can be asked."""
    with announced(photos, *options) as (process, address):
        yield process, int(address.partition("http://")[2].partition("/")[0].rpartition(":")[2])


@contextmanager
def announced(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `vitsearch serve` as a process and yield it with the address that it prints."""
    command = [sys.executable, "-c", "from vitsearch.cli import main; main()", "serve"]
    process = subprocess.Popen(
        [*command, *map(str, arguments), "--port", "0"], stderr=subprocess.PIPE, env=environment()
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        assert re.search(
            r"photos?( that are not indexed yet| in \d+ collections)? at http://", line
        ), line
        yield process, line.partition(" at ")[2].partition(" ")[0]
    finally:
        process.kill()
        process.wait()


def fetch(port: int, path: str) -> tuple[int, bytes]:
    """Return the status and body of one GET request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def kill_when(command: Sequence[str], holds: Callable[[], bool]) -> int:
    """Run a process, kill it as a power cut would once a condition holds, and return
    its exit code.
    """
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: process.poll() is not None or holds())
    process.send_signal(signal.SIGKILL)
    return process.wait()


def wait_until(holds: Callable[[], bool], seconds: float = 180.0) -> None:
    """Wait until a condition holds; fail when it never does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def with_exif(path: Path, *, orientation: int = 1, size: tuple[int, int] = (64, 32)) -> Path:
    """Write a JPEG, red on the left and blue on the right, that says when, where and with what it
    was taken.
    """
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2, 0, *size))
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Model 9", orientation
    exif.get_ifd(0x8769)[0x9003] = "2019:07:14 18:30:00"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.0), 3: "E", 4: (2.0, 17.0, 40.0)})
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", exif=exif, quality=95)
    return path


def reason(answer: Any, status: int, code: str) -> str:
    """Return the message of an error whose shape and status are as wanted."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert set(found) == {"error"}
    assert set(found["error"]) == {"code", "message"}
    assert found["error"]["code"] == code
    assert "\n" not in found["error"]["message"]
    return str(found["error"]["message"])


def picture(kind: str, *colours: str, size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    out = BytesIO()
    image = Image.new("RGB", size, colours[0])
    for place, colour in enumerate(colours[1:], 1):
        image.paste(colour, (place * size[0] // len(colours), 0, *size))
    image.save(out, kind, **options)
    return out.getvalue()
