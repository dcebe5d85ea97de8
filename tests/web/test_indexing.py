"""Indexing from the page and over HTTP, where there is no collection yet and where there is."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from helpers.cli import vitsearch
from helpers.photos import COLOURS, paint
from helpers.web_client import (
    BEARER,
    ELSEWHERE,
    HERE,
    TOKEN,
    client_of,
    fetch,
    reason,
    serving,
    wait_until,
)
from vitsearch import index_folder
from vitsearch.collection.runs import IndexRunner
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.options import IndexOptions, options_of
from vitsearch.storage.filesystem import writer_lock
from vitsearch.web import ServeSettings
from vitsearch.web.indexing import encoders, offered, without_root
from vitsearch.web.pages.indexing import LOCKED, IndexRequest, time_text
from vitsearch.web.sites import Site

pytestmark = pytest.mark.slow

PAGE = {"accept": "text/html"}
IDLE = {
    "status": "idle",
    "stage": "",
    "done": 0,
    "total": None,
    "failed": 0,
    "seconds": 0.0,
    "rate": None,
    "remaining": None,
    "report": None,
    "error": "",
    "remarks": [],
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "Holidays"
    for colour in COLOURS:
        paint(folder / f"{colour}.png", colour)
    paint(folder / "raw" / "gray.png", "gray")
    return folder


@contextmanager
def visited(
    photos: Path,
    settings: ServeSettings | None = None,
    client: tuple[str, int] = HERE,
    **options: Any,
) -> Iterator[TestClient]:
    """A client of a site, which has the key where it is of this machine."""
    chosen = settings or ServeSettings()
    app = Site.of(str(photos)).start(chosen)
    with client_of(app, chosen, client, follow_redirects=False, **options) as opened:
        yield opened


def ended(client: TestClient, **options: Any) -> dict[str, Any]:
    """Wait for the end of a run, and return how it ended."""

    def state() -> dict[str, Any]:
        found: dict[str, Any] = client.get("/api/index", **options).json()
        return found

    wait_until(lambda: state()["status"] not in ("running", "stopping"))
    return state()


def text_of(page: str) -> str:
    """Return what a person reads on a page."""
    return " ".join(re.sub(r"<[^>]*>", " ", page.partition("<main")[2]).split())


# -- a folder without a collection -----------------------------------------------------------------


def test_a_folder_that_is_not_indexed_becomes_the_page_of_its_collection(photos: Path) -> None:
    with visited(photos) as client:
        page = client.get("/", headers=PAGE)
        assert page.status_code == 200
        assert "Holidays is not indexed yet" in text_of(page.text)
        assert '<option value="mini">' in page.text
        assert "/albums" not in page.text
        assert client.get("/healthz").json() == {"status": "ok"}
        there = client.get("/albums?page=2", headers=PAGE)
        assert (there.status_code, there.headers["location"]) == (303, "/")
        assert reason(client.get("/api/info"), 503, "busy") == (
            "these photos are not indexed yet: open the page to begin, or POST /api/index"
        )
        assert client.get("/photos").status_code == 404
        assert set(client.get("/api/openapi.json").json()["paths"]) == {"/api/index", "/healthz"}
        assert client.get("/api/index").json() == IDLE
        begun = client.post("/api/index", json={"encoder": "colour", "exclude": ["raw"]})
        assert (begun.status_code, begun.json()["status"]) == (202, "running")
        end = ended(client)
        assert (end["status"], end["error"], end["done"], end["total"]) == ("done", "", 4, 4)
        assert (end["report"]["indexed"], end["report"]["left_out"]) == (4, {"excluded": 1})
        assert client.get("/api/info").json()["photos"] == 4
        assert 'name="q"' in client.get("/", headers=PAGE).text
        outcome = text_of(client.get("/index", headers=PAGE).text)
        assert ": 4 new or changed. 4 photos are searchable. See them" in outcome
        assert '"/places"' in client.get("/index", headers=PAGE).text


def test_the_form_starts_a_run_and_stops_it(photos: Path) -> None:
    for number in range(100):
        paint(photos / "more" / f"{number}.png", (number, number // 2, 99))
    with visited(photos) as client:
        form = {"do": "start", "encoder": "mini", "exclude": "raw\n\n*.jpg ", "video_every": "2.5"}
        form |= {"dtype": "float32", "decode_timeout": "20", "exact_decode": "yes"}
        begun = client.post("/index", data=form, headers=PAGE)
        assert (begun.status_code, begun.headers["location"]) == (303, "/")
        page = client.get("/", headers=PAGE)
        assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in page.text
        assert 'value="stop"' in page.text
        again = client.post("/index", data=form, headers=PAGE)
        assert again.status_code == 400
        assert "the photos are being indexed already: wait, or stop that run" in again.text
        wait_until(lambda: client.get("/api/index").json()["done"] > 0)
        assert re.search(
            r"\d+ of 104 photos, [\d.]+ a second", text_of(client.get("/", headers=PAGE).text)
        )
        assert client.post("/index", data={"do": "stop"}, headers=PAGE).status_code == 303
        assert ended(client)["status"] == "stopped"
        stored = client.get("/api/info").json()["photos"]
        assert 0 < stored < 104
        page = client.get("/index", headers=PAGE)
        assert "What was indexed stays, and the next run goes on from there." in page.text
        assert "raw\n*.jpg</textarea>" in page.text
        assert 'name="video_every" value="2.5"' in page.text
        assert client.post("/api/index", json={"exclude": ["raw"]}).status_code == 202
        assert client.delete("/api/index").status_code == 200
        assert ended(client)["status"] in ("stopped", "done")


def test_what_another_program_has_indexed_is_shown(photos: Path) -> None:
    with visited(photos) as client:
        assert client.get("/", headers=PAGE).status_code == 200
        index_folder(photos, encoder=ColourEncoder())
        assert client.get("/", headers=PAGE).headers["location"] == "/"
        assert client.get("/api/info").json()["photos"] == 5
        assert client.get("/api/index").json() == IDLE


def test_a_collection_that_cannot_be_opened_is_told(photos: Path) -> None:
    with visited(photos) as client:
        folder = photos / ".vitsearch"
        folder.mkdir()
        (folder / "collection.json").write_text("{")
        page = client.get("/", headers=PAGE)
        assert page.status_code == 503
        assert "Holidays/.vitsearch" in page.text
        assert str(photos) not in page.text


def test_an_empty_folder_says_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with visited(folder) as client:
        assert client.post("/api/index").status_code == 202
        end = ended(client)
        assert end["status"] == "failed"
        assert end["error"].startswith("no photos found in empty: ")
        assert end["error"] in text_of(client.get("/", headers=PAGE).text).replace("&#39;", "'")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"encoder": "hf:openai/clip-vit-base-patch99"},
            "the model 'hf:openai/clip-vit-base-patch99' is not on this machine: choose one of "
            "{encoders}, or run `vitsearch index` with it",
        ),
        (
            {"video_every": 0.01},
            "the moments of a video must be at least 0.1 seconds apart, not 0.01",
        ),
        (
            {"dtype": "int9"},
            "dtype is one of auto, float32, float16, bfloat16, int8, not 'int9'",
        ),
        (
            {"decode_timeout": 0},
            "the time limit for decoding a photo must be a finite number of "
            "seconds above 0, got 0.0",
        ),
        ({"profile": "/tmp/x"}, "profile: Extra inputs are not permitted"),
        ({"exclude": "raw"}, "exclude: Input should be a valid list"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    photos: Path, body: dict[str, Any], message: str
) -> None:
    with visited(photos) as client:
        answer = client.post("/api/index", json=body)
        text = reason(answer, 400, "bad_request")
        assert text == message.replace("{encoders}", ", ".join(encoders()))
        assert client.get("/api/index").json() == IDLE


def test_what_was_written_stays_in_a_form_that_is_refused(photos: Path) -> None:
    with visited(photos) as client:
        form = {"encoder": "colour", "exclude": "<raw>", "video_every": "often", "ocr": "yes"}
        page = client.post("/index", data=form, headers=PAGE)
        assert page.status_code == 400
        assert "Seconds between two moments of a video, at least: " in page.text
        assert "&lt;raw&gt;</textarea>" in page.text
        assert '<option value="colour" selected>' in page.text
        assert 'value="often"' in page.text
        assert '<option value="yes" selected>' in page.text


# -- a collection ----------------------------------------------------------------------------------


def test_failures_are_tried_again(photos: Path) -> None:
    """The file is as large and as old as before: without "try again" it is not read."""
    good = (photos / "red.png").read_bytes()
    late = photos / "late.png"
    late.write_bytes(b"x" * len(good))
    os.utime(late, ns=(10**18, 10**18))
    index_folder(photos, encoder=ColourEncoder())
    late.write_bytes(good)
    os.utime(late, ns=(10**18, 10**18))
    with visited(photos) as client:
        assert "1 file could not be read" in client.get("/failures", headers=PAGE).text
        assert client.post("/index", data={"do": "start"}).headers["location"] == "/index"
        assert ended(client)["report"]["indexed"] == 0
        assert "Try again" in client.get("/failures", headers=PAGE).text
        assert client.post("/index", data={"do": "retry"}).status_code == 303
        assert ended(client)["report"]["indexed"] == 1
        page = client.get("/failures", headers=PAGE).text
        assert "Every photo of the folder is in the collection." in page
        assert "Try again" not in page
        # it was for that run alone
        assert not re.search('name="retry"[^>]* checked', client.get("/index", headers=PAGE).text)


@pytest.mark.parametrize("is_command", [True, False])
def test_what_the_last_run_left_out_stays_out(photos: Path, is_command: bool) -> None:
    """Also after a restart of the server, and where the command made the last run."""
    (photos / "broken.png").write_bytes(b"cut off")
    (photos / "linked").symlink_to(photos.parent / "Elsewhere")
    paint(photos.parent / "Elsewhere" / "far.png", "yellow")
    if is_command:
        options = ("--exclude", "raw", "--follow-symlinks", "--encoder", "colour")
        assert vitsearch("index", str(photos), *options).returncode == 0
    else:
        with visited(photos) as client:
            body = {"encoder": "colour", "exclude": ["raw"], "follow_symlinks": True}
            assert client.post("/api/index", json=body).status_code == 202
            assert ended(client)["report"]["indexed"] == 5
    with visited(photos) as client:
        form = client.get("/index", headers=PAGE).text
        assert re.search(r'<textarea[^>]*name="exclude"[^>]*>raw</textarea>', form)
        assert re.search('name="follow_symlinks"[^>]* checked', form)
        button = client.get("/failures", headers=PAGE).text
        assert 'name="do" value="retry"' in button
        assert client.post("/index", data={"do": "retry"}).status_code == 303
        report = ended(client)["report"]
        counts = [report[name] for name in ("indexed", "removed", "failed", "unchanged")]
        assert counts == [0, 0, 1, 5]
        assert client.post("/api/index", json={"retry": True}).status_code == 202
        report = ended(client)["report"]
        assert [report[name] for name in ("indexed", "removed", "failed", "unchanged")] == counts
        # the form itself has the last word
        assert client.post("/index", data={"do": "start", "retry": "yes"}).status_code == 303
        report = ended(client)["report"]
        assert [report[name] for name in ("indexed", "removed")] == [1, 1]


def test_a_run_elsewhere_is_told(photos: Path) -> None:
    index_folder(photos, encoder=ColourEncoder())
    with visited(photos) as client:
        with writer_lock(photos / ".vitsearch"):
            assert client.post("/index", data={"do": "start"}).status_code == 303
            assert ended(client)["status"] == "failed"
            assert LOCKED in text_of(client.get("/index", headers=PAGE).text)
            assert len(client.get("/api/search?q=red").json()["results"]) > 0
        assert client.post("/index", data={"do": "start"}).status_code == 303
        assert ended(client)["status"] == "done"
        with writer_lock(photos / ".vitsearch"):  # it was given back
            pass


def test_new_photos_come_by_the_page_and_their_run_holds_the_lock(photos: Path) -> None:
    index_folder(photos, encoder="mini")
    for number in range(32):
        paint(photos / "more" / f"{number}.png", (number, 255 - number, 99))
    with visited(photos) as client:
        client.post("/index", data={"do": "start"})
        wait_until(lambda: client.get("/api/index").json()["stage"] == "embedding")
        done = vitsearch("index", photos)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"is writing to" in done.stderr
        busy = client.post("/albums", data={"do": "add", "album": "x"})
        assert busy.status_code == 503
        assert ended(client)["report"]["indexed"] == 32
        assert client.get("/api/info").json()["photos"] == 37


# -- who may ---------------------------------------------------------------------------------------

WITH_TOKEN = ServeSettings(host="0.0.0.0", token=TOKEN)
EDITS = replace(WITH_TOKEN, allow_edits=True)


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize(
    ("settings", "client", "headers", "may"),
    [
        (ServeSettings(), HERE, {}, True),
        (ServeSettings(), HERE, {"X-Forwarded-For": "192.0.2.1"}, False),
        (ServeSettings(), ELSEWHERE, {}, False),
        (WITH_TOKEN, ELSEWHERE, BEARER, False),
        (EDITS, ELSEWHERE, BEARER, True),
    ],
)
def test_who_may_index(
    photos: Path,
    settings: ServeSettings,
    client: tuple[str, int],
    headers: dict[str, str],
    may: bool,
    is_indexed: bool,
) -> None:
    if is_indexed:
        index_folder(photos, encoder=ColourEncoder())
    with visited(photos, settings, client, headers=headers) as visitor:
        page = visitor.get("/", headers=PAGE)
        assert page.status_code == 200
        assert ("Index the photos" in page.text or 'href="/index"' in page.text) == may
        statuses = [
            visitor.get("/api/index").status_code,
            visitor.delete("/api/index").status_code,
            visitor.post("/index", data={"do": "stop"}).status_code,
            visitor.post("/api/index", json={"encoder": "colour"}).status_code,
        ]
        assert statuses == ([200, 200, 303, 202] if may else [403] * 4)
        if may:
            ended(visitor)
        else:
            assert visitor.get("/index").status_code == (403 if is_indexed else 200)


def test_no_other_site_can_start_a_run(photos: Path) -> None:
    with visited(photos) as client:
        for method, address in (
            ("POST", "/index"),
            ("POST", "/api/index"),
            ("DELETE", "/api/index"),
        ):
            other = client.request(method, address, headers={"Sec-Fetch-Site": "cross-site"})
            assert other.status_code == 403
        assert client.get("/api/index").json() == IDLE


# -- one list of settings, and the command ---------------------------------------------------------


def test_the_settings_are_those_of_indexing() -> None:
    titled = {name for name, (_, option) in options_of(IndexOptions).items() if option.title}
    assert set(IndexRequest.model_fields) == titled
    first, later = set(offered(is_new=True)), set(offered(is_new=False))
    assert first | later == titled
    assert (first - later, later - first) == (
        {"encoder", "dtype"},
        {"retry", "reread", "keep_missing", "accept_missing"},
    )
    assert list(encoders())[:2] == ["mini", "colour"]


def test_messages_name_no_folder_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "Holidays"
    photos.mkdir()
    monkeypatch.chdir(photos)
    text = f"{photos}/a.png, {photos}-old and {tmp_path}/Index/photos.db: no. Wait."
    expected = f"Holidays/a.png, {photos}-old and Index/photos.db: no. Wait."
    for root in (Path("."), photos):
        assert without_root(text, IndexRunner(root, Path("../Index"))) == expected
    assert without_root("no. Wait.", IndexRunner(Path("/"), Path("/.vitsearch"))) == "no. Wait."


def test_times_in_words() -> None:
    words = [time_text(seconds) for seconds in (0.2, 59, 60, 3500, 3600, 40_000)]
    assert words == ["1 second", "59 seconds", "1 minute", "58 minutes", "1 h 0 min", "11 h 7 min"]


def test_serve_starts_without_a_collection(photos: Path) -> None:
    with serving(photos) as (process, port):
        status, body = fetch(port, "/api/info")
        assert (status, b"not indexed yet" in body) == (503, True)
        process.terminate()
        assert process.wait(30) == 0
    with pytest.raises(AssertionError, match="no such folder"), serving(photos / "gone"):
        pass
