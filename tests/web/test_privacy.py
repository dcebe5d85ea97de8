"""Who sees when, where and with what photos were taken: who is at this machine is never guessed."""

import io
import re
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from helpers.web_client import BEARER, ELSEWHERE, HERE, TOKEN, asked, indexed_with_exif, with_exif
from vitsearch import index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.web import ServeSettings
from vitsearch.web.privacy import key_cookie

KEY = "the-key-of-this-server"
PAGE = {"Accept": "text/html"}
OPEN = ServeSettings(key=KEY)
WITH_TOKEN = ServeSettings(key=KEY, token=TOKEN)
SHOWN = ServeSettings(key=KEY, show_exif=True)
COOKIE = "; ".join("=".join(pair) for pair in [key_cookie(OPEN)])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return indexed_with_exif(tmp_path_factory.mktemp("photos"))


@contextmanager
def visited(photos: Path, settings: ServeSettings, client: tuple[str, int]) -> Iterator[TestClient]:
    """A client that has no cookie yet."""
    with asked(photos, settings, client, cookies={}, follow_redirects=False) as found:
        yield found


LOCAL: list[dict[str, Any]] = [
    {"headers": {"Cookie": COOKIE}},
    {"params": {"key": KEY}},
    {"headers": {"Cookie": COOKIE, "Host": "localhost:8765"}},
    {"headers": {"Cookie": COOKIE, "Host": "[::1]"}},
]
NOT_LOCAL: list[dict[str, Any]] = [
    {},  # a proxy, ssh -L or socat: this machine's address and name, and no key
    {"headers": {"Host": "localhost"}},
    {"headers": {"Cookie": f"vitsearch-key-8765={KEY}"}},
    {"headers": {"Cookie": COOKIE[:-1]}},
    {"params": {"key": ""}},
    {"params": {"key": KEY + "x"}},
    {"headers": {"Cookie": COOKIE, "X-Forwarded-For": "127.0.0.1"}},
    {"headers": {"Cookie": COOKIE, "Via": "1.1 proxy"}},
    {"headers": {"Cookie": COOKIE, "Host": "photos.example"}},
]


def sees_exif(client: TestClient, given: dict[str, Any]) -> bool:
    facts = client.get("/api/photos/1", **given).json()
    image = client.get("/api/photos/1/image", **given)
    info = client.get("/api/info", **given).json()
    seen = {"camera" in facts, b"Model 9" in image.content, info["exif_shown"]}
    assert len(seen) == 1, (facts, image.headers, info)
    return seen.pop()


@pytest.mark.parametrize("given", LOCAL, ids=str)
def test_the_person_at_this_machine_has_its_key(photos: Path, given: dict[str, Any]) -> None:
    with visited(photos, OPEN, HERE) as client:
        assert sees_exif(client, given)


@pytest.mark.parametrize("given", NOT_LOCAL, ids=str)
def test_everybody_else_sees_no_exif(photos: Path, given: dict[str, Any]) -> None:
    settings = ServeSettings(key=KEY, hosts=("photos.example",))
    with visited(photos, settings, HERE) as client:
        assert not sees_exif(client, given)


def test_the_key_of_another_address_counts_for_nothing(photos: Path) -> None:
    with visited(photos, OPEN, ELSEWHERE) as client:
        assert not sees_exif(client, {"headers": {"Cookie": COOKIE}, "params": {"key": KEY}})


def test_with_a_token_nobody_is_local(photos: Path) -> None:
    with visited(photos, WITH_TOKEN, HERE) as client:
        headers = {**BEARER, "Cookie": COOKIE}
        assert not sees_exif(client, {"headers": headers, "params": {"key": KEY}})


def test_show_exif_shows_it_to_all(photos: Path) -> None:
    with visited(photos, SHOWN, ELSEWHERE) as client:
        assert sees_exif(client, {})


def test_the_address_with_the_key_becomes_a_cookie(photos: Path) -> None:
    with visited(photos, OPEN, HERE) as client:
        page = client.get(f"/?key={KEY}&q=a%26b", headers=PAGE)
        assert (page.status_code, KEY in page.text) == (200, False)
        assert 'content="0; url=/?q=a%26b"' in page.text
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["set-cookie"] == f"{COOKIE}; Path=/; HttpOnly; SameSite=Strict"
        assert KEY not in page.headers["set-cookie"]
        assert sees_exif(client, {})  # the client keeps it


@pytest.mark.parametrize("settings", [OPEN, ServeSettings(token=TOKEN, key=KEY)], ids=["", "token"])
def test_a_wrong_key_is_no_key(photos: Path, settings: ServeSettings) -> None:
    with visited(photos, settings, HERE) as client:
        headers = PAGE | (BEARER if settings.token else {})
        page = client.get("/?key=an-earlier-one", headers=headers)
        assert (page.status_code, "set-cookie" in page.headers) == (200, False)
        assert not sees_exif(client, {"headers": BEARER if settings.token else {}})


def test_each_server_has_a_key_of_its_own() -> None:
    keys = {ServeSettings().key for _ in range(3)}
    assert len(keys) == 3
    assert all(re.fullmatch(r"[\w-]{32}", key) for key in keys)
    assert ServeSettings().key not in repr(ServeSettings(key=KEY))
    assert len({key_cookie(ServeSettings(key=KEY, port=port)) for port in (1, 2)}) == 2


# -- dates of files, and places of this machine ----------------------------------------------------


def test_the_time_of_a_file_is_private(photos: Path) -> None:
    with visited(photos, OPEN, HERE) as client:
        assert "modified_at" not in client.get("/api/photos/1").json()
        for where in ("mtime > '2000'", "not mtime = '2020-01'", "width > 0 or mtime < '1999'"):
            assert client.get("/api/search", params={"q": "red", "where": where}).status_code == 403
            assert client.get("/", params={"where": where}, headers=PAGE).status_code == 403
        assert "modified_at" in client.get("/api/photos/1", params={"key": KEY}).json()
        ask = {"q": "red", "where": "mtime > '2000'", "key": KEY}
        assert len(client.get("/api/search", params=ask).json()["results"]) == 1


@pytest.mark.parametrize(("given", "date"), [({}, (1980, 1, 1, 0, 0, 0)), ({"key": KEY}, None)])
def test_the_dates_of_a_zip(photos: Path, given: dict[str, str], date: Any) -> None:
    # a ZIP has even seconds only
    moment = time.localtime((photos / "a.jpg").stat().st_mtime // 2 * 2)[:6]
    with visited(photos, OPEN, HERE) as client:
        answer = client.post("/export", params=given, data={"id": "1", "as": "zip"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as saved:
        assert [entry.date_time for entry in saved.infolist()] == [date or moment]


def test_where_links_lead_is_shown_at_this_machine_only(tmp_path: Path) -> None:
    with_exif(tmp_path / "a.jpg")
    (tmp_path / "gone.jpg").symlink_to("/home/somebody/private/gone.jpg")
    index_folder(tmp_path, encoder=ColourEncoder())
    given: dict[str, Any] = {"headers": PAGE | {"Cookie": COOKIE}}
    with visited(tmp_path, OPEN, HERE) as client:
        assert "private/gone.jpg" in client.get("/failures", **given).text
        assert "private" not in client.get("/failures", headers=PAGE).text
        assert "a broken link" in client.get("/failures", headers=PAGE).text
    with visited(tmp_path, SHOWN, ELSEWHERE) as client:
        assert "private" not in client.get("/failures", headers=PAGE).text


# -- files that are not the photos that were indexed -----------------------------------------------


def test_what_has_taken_the_place_of_a_photo_is_delivered_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "shadow"
    secret.write_bytes(b"root:*:19000:0:99999:7:::")
    folder = tmp_path / "photos"
    with_exif(folder / "a.jpg")
    index_folder(folder, encoder=ColourEncoder())
    (folder / "a.jpg").unlink()
    (folder / "a.jpg").symlink_to(secret)
    with visited(folder, SHOWN, HERE) as client:
        for path in ("/api/photos/1/image", "/api/photos/1/thumbnail", "/photos/1/why?q=red"):
            answer = client.get(path)
            assert (answer.status_code, b"root:" in answer.content) == (404, False), path
            assert "outside the photo folder" in answer.json()["error"]["message"]
        answer = client.post("/export", data={"id": "1", "as": "zip"})
        with zipfile.ZipFile(io.BytesIO(answer.content)) as saved:
            assert saved.namelist() == ["missing.txt"]


def test_an_image_is_sent_from_what_was_opened(photos: Path) -> None:
    with visited(photos, SHOWN, HERE) as client:
        whole = client.get("/api/photos/1/image")
        assert whole.content == (photos / "a.jpg").read_bytes()
        assert whole.headers["content-length"] == str(len(whole.content))
        head = client.request("HEAD", "/api/photos/1/image")
        assert head.status_code in (200, 405)
