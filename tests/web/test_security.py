"""What a server refuses, and that it stays whole: names, tokens, other sites, traversal, SIGTERM,
and a collection that changes.
"""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from helpers.cli import environment, vitsearch
from helpers.photos import paint, shade
from helpers.web_client import (
    BEARER,
    ELSEWHERE,
    REMOTE,
    TOKEN,
    asked,
    fetch,
    kill_when,
    picture,
    reason,
    serving,
    wait_until,
)
from vitsearch import index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.web import ServeSettings
from vitsearch.web.security import HEADERS, host_is_ours, token_cookie

PAGE = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def api(indexed: Path) -> Iterator[TestClient]:
    with asked(indexed) as client:
        yield client


@pytest.fixture
def remote(indexed: Path) -> Iterator[TestClient]:
    with asked(indexed, REMOTE, ELSEWHERE) as client:
        yield client


# -- names -----------------------------------------------------------------------------------------

OWN = (
    "127.0.0.1",
    "127.0.0.1:8765",
    "localhost",
    "LOCALHOST:80",
    "localhost.:8765",
    "[::1]:8765",
    "[::1]",
)
FOREIGN = (
    "evil.example",
    "evil.example:8765",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "192.0.2.1",
    "",
    "localhost:8765:1",
    "a@localhost",
    "localhost/x",
    "localhost evil.example",
    "127.0.0.1:",
    "[::1",
    "::1",
    "\u2026",
    "localhost\t",
    "0x7f.1",
)


@pytest.mark.parametrize("host", OWN)
def test_own_names(api: TestClient, host: str) -> None:
    assert api.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_names_of_others(host: str) -> None:
    assert not host_is_ours(host, ServeSettings())


@pytest.mark.parametrize(
    "address", ["/", "/healthz", "/api/search?q=red", "/static/app.css", "/api/photos/1/image"]
)
def test_a_request_to_another_name_is_refused_everywhere(api: TestClient, address: str) -> None:
    assert "another name" in reason(
        api.get(address, headers={"Host": "evil.example"}), 400, "bad_request"
    )
    assert "another name" in reason(
        api.post("/api/search", json={"q": "red"}, headers={"Host": "evil.example"}),
        400,
        "bad_request",
    )


def test_the_names_of_a_server_for_others() -> None:
    settings = ServeSettings(host="0.0.0.0", token=TOKEN, hosts=("Photos.example",))
    assert all(
        host_is_ours(host, settings)
        for host in ("photos.example:8765", "192.0.2.1", "[2001:db8::1]:80", socket.gethostname())
    )
    assert not any(
        host_is_ours(host, settings) for host in ("evil.example", "photos.example.evil.example", "")
    )


# -- token -----------------------------------------------------------------------------------------

WRONG: list[dict[str, Any]] = [
    {},
    {"headers": {"Authorization": "Bearer "}},
    {"headers": {"Authorization": f"Bearer {TOKEN}x"}},
    {"headers": {"Authorization": f"Bearer {TOKEN[:-1]}"}},
    {"headers": {"Authorization": f"Basic {TOKEN}"}},
    {"headers": {"Authorization": b"Bearer \xff\xfe"}},
    {"params": {"token": ""}},
    {"params": {"token": TOKEN.upper()}},
    {"params": {"token": "t\u00f6ken"}},
    {"headers": {"Cookie": f"vitsearch-8765={TOKEN}"}},
    {"headers": {"Cookie": "vitsearch-8765="}},
]


@pytest.mark.parametrize("given", WRONG, ids=str)
def test_no_token_or_a_wrong_one(remote: TestClient, given: dict[str, Any]) -> None:
    answer = remote.get("/api/info", **given)
    assert TOKEN not in reason(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "set-cookie" not in answer.headers


GUARDED = (
    "/api/search?q=red",
    "/api/similar/1",
    "/api/photos/1",
    "/api/photos/1/thumbnail",
    "/api/photos/1/image",
    "/api/labels",
    "/api/info",
    "/api/openapi.json",
    "/api/docs",
    "/metrics",
    "/api/nothing",
    "/nothing",
)


@pytest.mark.parametrize("address", GUARDED)
def test_every_address_asks_for_the_token(remote: TestClient, address: str) -> None:
    reason(remote.get(address), 401, "unauthorized")
    assert remote.get(address, headers=BEARER).status_code in (200, 404)


def test_what_needs_no_token(remote: TestClient) -> None:
    assert remote.get("/healthz").json() == {"status": "ok"}
    page = remote.get("/", headers=PAGE)
    assert page.status_code == 401
    assert 'name="token"' in page.text
    assert "red.png" not in page.text


def test_a_cookie_takes_the_place_of_the_token(remote: TestClient) -> None:
    first = remote.get("/?token=" + TOKEN + "&q=a%26b", headers=PAGE)
    assert first.status_code == 200
    assert 'content="0; url=/?q=a%26b"' in first.text
    name, value = token_cookie(REMOTE)
    cookie = first.headers["set-cookie"]
    assert cookie.startswith(f"{name}={value}; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie + first.text
    assert remote.get("/api/info").status_code == 200  # the client keeps it


def test_the_first_request_of_a_program_is_answered_itself(remote: TestClient) -> None:
    answer = remote.get("/api/info", params={"token": TOKEN})
    assert answer.json()["photos"] == 4
    assert "SameSite=Strict" in answer.headers["set-cookie"]


@pytest.mark.parametrize("path", ["//evil.example/x", "///evil.example", "/\\evil.example"])
def test_the_token_sends_nobody_elsewhere(remote: TestClient, path: str) -> None:
    page = remote.get(f"http://127.0.0.1:8765{path}?token={TOKEN}", headers=PAGE)
    found = re.search(r'url=([^"]*)"', page.text)
    assert found
    assert re.match(r"/(?![/\\])", found[1])


def test_each_token_has_its_own_cookie() -> None:
    cookies = {
        token_cookie(ServeSettings(token=token, port=port))
        for token in ("one token", "two token")
        for port in (1, 2)
    }
    assert len(cookies) == 4
    assert len({value for _, value in cookies}) == 2


# -- other sites -----------------------------------------------------------------------------------

CROSS = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8765"},
]


@pytest.mark.parametrize("headers", CROSS, ids=str)
def test_another_site_posts_nothing(api: TestClient, headers: dict[str, str]) -> None:
    assert "another site" in reason(
        api.post("/api/search", json={"q": "red"}, headers=headers), 403, "forbidden"
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:8765"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_our_own_page_and_programs_post(api: TestClient, headers: dict[str, str]) -> None:
    assert api.post("/api/search", json={"q": "red"}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "/",
        "/api/search?q=red",
        "/api/search?q=",
        "/api/photos/1/image",
        "/api/photos/1/thumbnail",
        "/nothing",
    ],
)
def test_the_headers_of_every_answer(api: TestClient, address: str) -> None:
    answer = api.get(address)
    assert {name: answer.headers.get(name) for name in HEADERS} == dict(HEADERS)
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


# -- paths -----------------------------------------------------------------------------------------

TRAVERSALS = [
    "/static/../../../../etc/passwd",
    "/static/..%2f..%2f..%2fetc/passwd",
    "/static/%2e%2e/%2e%2e/app.py",
    "/static/..\\..\\app.py",
    "/static//etc/passwd",
    "/static/%00",
    "/static/app.css%00.png",
    "/api/photos/../../etc/passwd",
    "/api/photos/..%2f..%2fetc%2fpasswd",
    "/api/photos/..%2f..%2fetc%2fpasswd/image",
    "/api/photos/%2e%2e/image",
    "/api/photos/red.png/image",
    "/api/photos/1e0/image",
    "/api/photos/1%00/image",
    "/api/photos/-1/image",
    "/api/photos/99999999999999999999/image",
    "/api/similar/..%2fred.png",
    "/.vitsearch/photos.db",
    "/api/photos/1/..%2f..%2fx",
]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one running server for all tests that only ask."""
    folder = tmp_path_factory.mktemp("one")
    paint(folder / "red.png", "red")
    index_folder(folder, encoder=ColourEncoder())
    with serving(folder) as (_, found):
        yield found


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_address_leads_to_a_file(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        )  # no client tidies it up
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.match(rb"HTTP/1.1 40[045] ", answer)
    assert b"root:" not in answer
    assert b"SQLite format" not in answer


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "others can reach 0.0.0.0: give --token"),
        (["--host", "::"], "others can reach ::"),
        (["--host", "0.0.0.0", "--token", ""], "give --token"),
        (["--host", "0.0.0.0", "--token", "short"], "fewer than 16"),
        (
            ["--host", "no.such.name.invalid", "--token", TOKEN],
            "cannot serve on no.such.name.invalid",
        ),
        (["--collection", "nowhere"], "no collection in nowhere"),
    ],
)
def test_what_is_not_served(indexed: Path, options: list[str], said: str) -> None:
    done = vitsearch("serve", indexed, "--port", "0", *options)
    assert (done.returncode, done.stdout) == (1, b"")
    assert said in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken(indexed: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = vitsearch("serve", indexed, "--port", port)
    assert done.returncode == 1
    assert re.fullmatch(
        (
            rf"vitsearch: cannot serve on 127.0.0.1, port {port} \(.*\): choose another --port or "
            r"--host\n"
        ),
        done.stderr.decode(),
    )


@pytest.mark.slow
def test_the_token_may_come_from_the_environment(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITSEARCH_TOKEN", TOKEN)
    with serving(indexed, "--host", "0.0.0.0") as (_, port):
        assert fetch(port, "/api/info")[0] == 401
        assert fetch(port, f"/api/info?token={TOKEN}")[0] == 200


@pytest.mark.slow
def test_without_its_extra_the_command_says_what_to_install(indexed: Path, tmp_path: Path) -> None:
    (tmp_path / "block" / "fastapi").mkdir(parents=True)
    (tmp_path / "block" / "fastapi" / "__init__.py").write_text(
        "raise ModuleNotFoundError('no', name='fastapi')\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'block')!r}); from vitsearch.cli "
        "import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", str(indexed)],
        capture_output=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 1
    assert (
        done.stderr.decode()
        == "vitsearch: the web page needs the package fastapi: pip install 'vitsearch[web]'\n"
    )


# -- life and death --------------------------------------------------------------------------------


@pytest.mark.slow
def test_sigterm_finishes_the_requests_that_run(indexed: Path) -> None:
    data = picture("PNG", "red")
    body = (
        b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'
        + data
        + b"\r\n--x--\r\n"
    )
    lines = [
        "POST /api/search HTTP/1.1",
        "Host: localhost",
        "Content-Type: multipart/form-data; boundary=x",
        f"Content-Length: {len(body)}",
    ]
    head = "\r\n".join([*lines, "", ""])
    with (
        serving(indexed) as (process, port),
        socket.create_connection(("127.0.0.1", port), timeout=30) as running,
    ):
        running.sendall(head.encode() + body[:50])
        wait_until(
            lambda: b"vitsearch_photos 4" in fetch(port, "/metrics")[1]
        )  # it has taken the first request too
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(port))
        assert process.poll() is None  # it waits for the rest of the request
        running.sendall(body[50:])
        answer = b"".join(iter(lambda: running.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b'"path":"red.png","score":1.0' in answer
        assert process.wait(timeout=120) == 0
        assert process.stderr is not None
        assert process.stderr.read().decode() == "vitsearch: stopped\n"


def refuses(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return False
    except OSError:
        return True


INDEX = "import sys; from vitsearch import index_folder; index_folder(sys.argv[1], batch_size=2)"
ALL = "/api/search?q=red&k=1000"


@pytest.mark.slow
def test_while_indexing_is_killed_and_started_again_clients_see_the_old_or_the_new(
    indexed: Path,
) -> None:
    answers: list[tuple[int, int]] = []
    stop = threading.Event()
    command = [sys.executable, "-c", INDEX, str(indexed)]

    def ask(port: int) -> None:
        while not stop.is_set():
            answers.append(counted(port))

    with serving(indexed) as (_, port):
        clients = [threading.Thread(target=ask, args=(port,)) for _ in range(3)]
        for client in clients:
            client.start()
        codes = []
        for number in range(3):
            for one in range(40):
                paint(indexed / f"new-{number}" / f"{one:02}.png", shade(40 * number + one))
            before = counted(port)[1]
            codes.append(kill_when(command, lambda: counted(port)[1] > before))  # noqa: B023
        assert kill_when(command, lambda: False) == 0
        wait_until(lambda: counted(port) == (200, 124))
        stop.set()
        for client in clients:
            client.join()
    assert -signal.SIGKILL in codes
    assert {status for status, _ in answers} <= {200, 503}
    seen = [count for status, count in answers if status == 200]
    assert len(seen) > len(answers) / 2
    assert {count % 2 for count in seen} == {0}  # whole batches only: the old state or the new


def counted(port: int) -> tuple[int, int]:
    """Return the status of a search for everything, and how many photos it found."""
    status, body = fetch(port, ALL)
    return status, body.count(b'"id"')


@pytest.mark.slow
def test_a_server_that_is_killed_leaves_nothing_broken(indexed: Path) -> None:
    with serving(indexed) as (process, port):
        assert fetch(port, "/api/search?q=red&k=2")[0] == 200
        for photo in range(1, 5):
            assert fetch(port, f"/api/photos/{photo}/thumbnail")[0] == 200
        process.kill()
        process.wait()
    with serving(indexed) as (_, port):
        began = time.monotonic()
        assert fetch(port, "/api/photos/1/thumbnail")[0] == 200
        assert time.monotonic() - began < 60
        assert b"vitsearch_thumbnails_found_total 1" in fetch(port, "/metrics")[1]
