"""Videos on the page and in its interface: a result a file, the moment, and parts of the file."""

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("av")
pytest.importorskip("fastapi")

from fastapi.testclient import TestClient
from PIL import Image

from helpers.photos import paint
from helpers.videos import Clip, make_video
from helpers.web_client import BEARER, ELSEWHERE, REMOTE, asked, wait_until
from vitsearch import Collection, index_folder
from vitsearch.encoders.colour import ColourEncoder

PAGE = {"accept": "text/html"}
COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("photos")
    paint(made / "a.png", "orange")
    clip = Clip(codec="libvpx", size=(160, 120))  # every Chromium plays it
    make_video(made / "clip.webm", *COLOURS, clip=clip)
    index_folder(made, encoder=ColourEncoder(), video_every=1)
    return made


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with asked(folder) as found:
        yield found


def moments(client: TestClient) -> list[int]:
    """Return the ids of the video's moments, found by their colours."""
    answers = (client.get("/api/search", params={"q": word, "k": 1}) for word in COLOURS)
    return [answer.json()["results"][0]["id"] for answer in answers]


def test_a_result_is_the_best_moment_of_a_file(client: TestClient) -> None:
    (blue, other) = client.get("/api/search", params={"q": "blue"}).json()["results"]
    assert (blue["path"], blue["time"]) == ("clip.webm", 2.0)
    assert (other["path"], "time" in other) == ("a.png", False)
    facts = client.get(f"/api/photos/{blue['id']}").json()
    assert {name: facts[name] for name in ("path", "time", "duration", "width", "height")} == {
        "path": "clip.webm",
        "time": 2.0,
        "duration": 3.0,
        "width": 160,
        "height": 120,
    }
    assert client.get("/api/info").json()["photos"] == 2
    page = client.get("/", headers=PAGE).text
    assert page.count('class="tile ') == 2  # a video once
    assert 'alt="clip.webm at 0:00"' in page


@pytest.mark.slow
def test_thumbnails_show_the_moment(client: TestClient) -> None:
    seen = []
    for photo_id in moments(client):
        answer = client.get(f"/api/photos/{photo_id}/thumbnail")
        with Image.open(io.BytesIO(answer.content)) as picture:
            red, green, blue = picture.convert("RGB").getpixel((80, 60))  # type: ignore[misc]
        seen.append(
            max(COLOURS, key=dict(zip(COLOURS, (red, green, blue), strict=True)).__getitem__)
        )
    assert tuple(seen) == COLOURS


def test_parts_of_a_video(client: TestClient, folder: Path) -> None:
    data = (folder / "clip.webm").read_bytes()
    address = f"/api/photos/{moments(client)[1]}/image"
    whole = client.get(address)
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["content-type"] == "video/webm"
    assert whole.headers["accept-ranges"] == "bytes"
    size, tag = len(data), whole.headers["etag"]
    for asked_for, first, last in (
        ("bytes=0-9", 0, 9),
        ("bytes=100-", 100, size - 1),
        ("bytes=-7", size - 7, size - 1),
        (f"bytes=5-{10 * size}", 5, size - 1),
    ):
        part = client.get(address, headers={"Range": asked_for, "If-Range": tag})
        assert (part.status_code, part.content) == (206, data[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
    beyond = client.get(address, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.content) == (416, b"")
    assert beyond.headers["content-range"] == f"bytes */{size}"
    for ignored in ("bytes=", "bytes=9-1-", "lines=1-2", "bytes=0-1,4-5"):
        assert client.get(address, headers={"Range": ignored}).content == data
    assert client.get(address, headers={"Range": "bytes=0-9", "If-Range": '"x"'}).content == data


@pytest.mark.slow
def test_who_may_not_see_metadata_sees_the_moment_alone(client: TestClient, folder: Path) -> None:
    photo_id = moments(client)[2]
    with asked(folder, REMOTE, ELSEWHERE, headers=BEARER) as remote:
        answer = remote.get(f"/api/photos/{photo_id}/image")
        page = remote.get(f"/photos/{photo_id}", headers=PAGE).text
    assert answer.headers["content-type"] == "image/webp"
    here = client.get(f"/photos/{photo_id}", headers=PAGE).text
    assert ("<video controls preload" in page, "data-plays" in page) == (False, False)
    assert "<video controls preload" in here


def test_what_is_taken_along_is_the_file(client: TestClient) -> None:
    ids = moments(client)[1:]
    form = [("id", str(each)) for each in ids]
    body = "&".join(f"{name}={value}" for name, value in [*form, ("as", "paths")])
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "origin": "http://127.0.0.1:8765",
    }
    assert client.post("/export", content=body, headers=headers).content == b"clip.webm\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium on the path")
def test_the_page_shows_the_moment_of_a_video(folder: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    from helpers.web_site import KEY, serving

    with serving(folder) as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_context(base_url=address).new_page()
        faults: list[str] = []
        page.on(
            "response",
            lambda answer: faults.append(answer.url) if answer.status >= 400 else None,
        )
        page.goto(f"/?key={KEY}&q=blue")
        page.wait_for_url("/?q=blue")  # the page of the key goes on to it
        page.locator(".tile a.photo-link").first.click()
        sync_api.expect(page.locator("[data-viewer]")).to_be_visible(timeout=60_000)
        video = page.locator("video[data-video]")
        sync_api.expect(video).to_have_attribute("src", re.compile(r"/image#t=2$"), timeout=60_000)
        wait_until(lambda: video.evaluate("each => each.readyState") >= 2)
        # it plays from there on, and may have come to its end
        state = "each => [each.currentTime >= 2, each.duration, each.error]"
        assert video.evaluate(state) == [True, 3, None]
        # on a phone too
        assert video.evaluate("each => getComputedStyle(each).maxWidth") == "100%"
        assert faults == []
        browser.close()


def test_the_collection_counts_files(folder: Path) -> None:
    with Collection.open(folder) as collection:
        assert (len(collection), collection.store.count()) == (2, 4)
