"""Several collections on one server: each below its address, a switcher, and a search in all."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from helpers.cli import vitsearch
from helpers.photos import paint
from helpers.web_client import (
    BEARER,
    ELSEWHERE,
    HERE,
    TOKEN,
    announced,
    client_of,
    reason,
    wait_until,
    with_exif,
)
from vitsearch import Collection, index_folder, search_all
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import CollectionError
from vitsearch.web import ServeSettings
from vitsearch.web.several import Several
from vitsearch.web.several_app import below, several_app

PAGE = {"accept": "text/html"}
VIEWS = (
    "",
    "albums",
    "labels",
    "map",
    "map/list",
    "duplicates",
    "failures",
    "help",
    "index",
    "places",
)
ADDRESS = re.compile(
    r'\s(?:href|src|action|formaction|data-(?!label)[a-z-]+)="(/[^"]*)"|[ "](/[^ "]*) \d+w'
)


NAMES = ("a/Reds", "b/Reds", "Mini", "New")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two collections of one encoder with the same name, one of another, and a folder without."""
    root = tmp_path_factory.mktemp("several")
    first, second, other, new = (root / name for name in NAMES)
    for number in range(3):
        paint(first / f"red{number}.png", "red", size=(24 + number, 16))
        paint(other / f"red{number}.png", "red")
    paint(second / "blue.png", "blue")
    paint(second / "red.png", "red", "red", "orange")
    paint(new / "green.png", "green")
    with_exif(first / "old.jpg")
    index_folder(first, encoder=ColourEncoder())
    index_folder(second, encoder=ColourEncoder())
    index_folder(other, encoder="mini")
    return root


@pytest.fixture
def folders(made: Path, tmp_path: Path) -> list[Path]:
    """Copies of them."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return [tmp_path / name for name in NAMES]


@contextmanager
def visited(
    folders: list[Path],
    settings: ServeSettings | None = None,
    client: tuple[str, int] = HERE,
    **options: Any,
) -> Iterator[TestClient]:
    chosen = settings or ServeSettings()
    app = several_app(Several([str(folder) for folder in folders]), chosen)
    with client_of(app, chosen, client, follow_redirects=False, **options) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of all of them, for tests that change none: each start warms up three services."""
    root = shutil.copytree(made, tmp_path_factory.mktemp("read") / "several")
    with visited([root / name for name in NAMES]) as opened:
        yield opened


def test_which_collections_there_are(client: TestClient) -> None:
    assert client.get("/api/collections").json() == {
        "collections": [
            {"name": "Reds", "address": "/in/reds/", "encoder": "colour", "photos": 4},
            {"name": "Reds", "address": "/in/reds-2/", "encoder": "colour", "photos": 2},
            {"name": "Mini", "address": "/in/mini/", "encoder": "mini", "photos": 3},
            {"name": "New", "address": "/in/new/", "encoder": None, "photos": 0},
        ]
    }
    page = client.get("/", headers=PAGE).text
    cards = re.findall(r'<span class="what">(\w+)</span><span class="quiet">([^<]*)<', page)
    assert cards == [
        ("Reds", "4 photos, colour"),
        ("Reds", "2 photos, colour"),
        ("Mini", "3 photos, mini"),
        ("New", "not indexed yet"),
    ]
    assert client.get("/in/", headers=PAGE).text == page
    assert client.get("/healthz").json() == {"status": "ok"}
    assert set(client.get("/api/openapi.json").json()["paths"]) == {
        "/api/collections",
        "/api/search",
        "/healthz",
    }
    assert client.get("/in/else/", headers=PAGE).status_code == 404


def test_one_that_cannot_be_read_is_listed_with_the_others(folders: list[Path]) -> None:
    with visited(folders[:2]) as client:
        (folders[0] / ".vitsearch" / "photos.db").write_bytes(b"damaged")
        answer = client.get("/api/collections")
        assert (answer.status_code, answer.json()["collections"]) == (
            200,
            [
                {"name": "Reds", "address": "/in/reds/", "encoder": None, "photos": 0},
                {"name": "Reds", "address": "/in/reds-2/", "encoder": "colour", "photos": 2},
            ],
        )


@pytest.mark.slow
def test_a_collection_is_served_as_if_it_were_alone(folders: list[Path]) -> None:
    with visited(folders) as client:
        assert client.get("/in/reds").headers["location"].endswith("/in/reds/")
        assert client.get("/in/reds-2/api/info").json()["photos"] == 2
        found = client.get("/in/reds-2/api/search?q=blue").json()["results"][0]
        assert found["path"] == "blue.png"
        picture = client.get(f"/in/reds-2/api/photos/{found['id']}/thumbnail")
        assert picture.headers["content-type"] == "image/webp"
        made = client.post("/in/reds-2/albums", data={"do": "add", "album": "x", "id": found["id"]})
        assert (made.status_code, made.headers["location"]) == (303, "/in/reds-2/album?name=x")
        assert client.get("/in/reds/album?name=x").status_code == 400
        assert client.get("/in/new/albums", headers=PAGE).headers["location"] == "/in/new/"
        assert b"vitsearch_photos 2" in client.get("/in/reds-2/metrics").content


@pytest.mark.parametrize("view", VIEWS)
def test_every_address_of_a_page_is_below_its_collection(client: TestClient, view: str) -> None:
    page = client.get(f"/in/reds/{view}", headers=PAGE | {"accept-encoding": "identity"})
    assert page.status_code == 200
    assert int(page.headers["content-length"]) == len(page.content)
    addresses = {first or second for first, second in ADDRESS.findall(page.text)}
    outside = {each for each in addresses if not each.startswith(("/in/reds/", "/static/"))}
    assert outside == {"/in/", "/in/reds-2/", "/in/mini/", "/in/new/"}
    for each in sorted(addresses):
        if "photo" not in each and each not in ("/in/reds/export", "/in/reds/refine"):
            assert client.get(each.partition("#")[0], headers=PAGE).status_code in (200, 405)


def test_text_that_looks_like_an_address_stays() -> None:
    page = (
        '<a href="/x?q=a" title="/x"><img src="/p" srcset="/p 1w, /q 2w" alt="/p">'
        '<a href="//else"><a href="/static/a.css"><a href="/in/b/"><input value="/x" data-why="/y">'
        '<b data-label="/y">'
        " href=&#34;/z&#34;"
    )
    assert below(page, "/in/a") == (
        '<a href="/in/a/x?q=a" title="/x"><img src="/in/a/p" srcset="/in/a/p 1w, /in/a/q 2w" '
        'alt="/p"><a href="//else"><a href="/static/a.css"><a href="/in/b/"><input value="/x" '
        'data-why="/in/a/y"><b data-label="/y"> href=&#34;/z&#34;'
    )


# -- a search in all -------------------------------------------------------------------------------


def test_a_search_in_all_of_one_encoder(client: TestClient, made: Path) -> None:
    expected = [
        (Path(hit.file).name, round(hit.score, 6))
        for hit in search_all([str(made / name) for name in NAMES[:2]], "red", 10)
    ]
    answer = client.get("/api/search?q=red&k=10").json()
    assert [(hit["path"], hit["score"]) for hit in answer["results"]] == expected
    assert answer["searched"] == ["Reds", "Reds"]
    addresses = {hit["path"]: hit["address"] for hit in answer["results"]}
    assert addresses["red.png"] == "/in/reds-2/"
    assert addresses["red0.png"] == "/in/reds/"
    second = client.get("/api/search?q=red&k=2&offset=1").json()["results"]
    assert second == answer["results"][1:3]
    other = client.get("/api/search?q=red&encoder=mini").json()
    assert other["searched"] == ["Mini"]
    assert reason(client.get("/api/search?q=red&encoder=else"), 400, "bad_request") == (
        "no collection here has this encoder: colour, mini"
    )
    page = client.get("/?q=red", headers=PAGE).text
    assert "Best match first, in Reds and Reds. Not searched: Mini (mini) and New (not" in page
    links = re.findall(r'<a class="photo-link" href="(/in/[^"]*)"', page)
    assert links == [f"{hit['address']}photos/{hit['id']}?q=red" for hit in answer["results"]]
    assert all(client.get(link, headers=PAGE).status_code == 200 for link in links)
    broken = client.get("/?q=red+-", headers=PAGE)
    assert (broken.status_code, 'value="red -"' in broken.text) == (400, True)


@pytest.mark.slow
def test_what_a_photo_says_is_understood_for_who_may_see_it(folders: list[Path]) -> None:
    with visited(folders[:2]) as client:
        answer = client.get("/api/search?q=red+in+2019").json()
        assert [hit["path"] for hit in answer["results"]] == ["old.jpg"]
        assert [each["title"] for each in answer["understood"]] == ["2019"]
        assert client.get("/api/search?q=in+2019").json()["results"][0]["path"] == "old.jpg"
    with visited(folders[:2], client=ELSEWHERE) as client:
        answer = client.get("/api/search?q=red+in+2019").json()
        assert answer["understood"] == []
        assert "old.jpg" not in [hit["path"] for hit in answer["results"]][:1]


@pytest.mark.slow
def test_the_order_tells_no_dates_to_who_may_not_see_them(folders: list[Path]) -> None:
    for folder in folders[:2]:
        paint(folder / "sub" / "a.png", "red")
        with_exif(folder / "sub" / "z.jpg")
        index_folder(folder, encoder=ColourEncoder())
    expected = {HERE: ["z.jpg", "z.jpg", "a.png", "a.png"], ELSEWHERE: ["a.png", "z.jpg"] * 2}
    for client, names in expected.items():
        with visited(folders[:2], client=client) as opened:
            answer = opened.get("/api/search?q=folder+sub").json()
            assert [Path(hit["path"]).name for hit in answer["results"]] == names


@pytest.mark.slow
def test_one_encoder_is_loaded_for_all(folders: list[Path]) -> None:
    again = folders[3]
    index_folder(again, encoder="mini")
    several = Several([str(each) for each in folders])
    try:
        several_app(several, ServeSettings())
        services = [member.service for member in several.members]
        assert services[0].encoder is services[1].encoder
        assert services[2].encoder is services[3].encoder
        assert services[2].source.encoding is services[3].source.encoding
        assert several.content == "10 photos in 4 collections"
    finally:
        several.close()


def test_a_collection_stays_open_for_searches_that_began_before_another_replaced_it(
    folders: list[Path],
) -> None:
    several = Several([str(folder) for folder in folders[:2]])
    try:
        several_app(several, ServeSettings())
        (group,) = several.groups()
        with several.members[0].service.engine.using() as before:
            shutil.rmtree(folders[0] / ".vitsearch")
            paint(folders[0] / "red3.png", "red")
            index_folder(folders[0], encoder=ColourEncoder())
            hits, _ = group.search("red", k=10, private=True)
            assert before.search("red")  # it is still open
        assert [member.path for member, _ in hits].count("/in/reds") == 5
        with pytest.raises(CollectionError):
            before.search("red")
    finally:
        several.close()


# -- indexing, who may, the command ----------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_is_indexed_and_joins_the_search(folders: list[Path]) -> None:
    with visited(folders) as client:
        assert "New is not indexed yet" in client.get("/in/new/", headers=PAGE).text
        begun = client.post("/in/new/index", data={"do": "start", "encoder": "colour"})
        assert begun.headers["location"] == "/in/new/"
        wait_until(lambda: client.get("/in/new/api/index").json()["status"] == "done")
        assert client.get("/in/new/api/info").json()["photos"] == 1
        answer = client.get("/api/search?q=green&k=1").json()
        assert answer["searched"] == ["Reds", "Reds", "New"]
        assert [hit["collection"] for hit in answer["results"]] == ["New"]


def test_a_token_protects_all(folders: list[Path]) -> None:
    settings = ServeSettings(host="0.0.0.0", token=TOKEN)
    with visited(folders[:2], settings, ELSEWHERE) as client:
        for address in (
            "/",
            "/in/reds/",
            "/api/collections",
            "/in/reds/api/info",
            "/in/reds/healthz",
        ):
            assert client.get(address).status_code == 401
        assert client.get("/static/app.css").status_code == 200
        assert client.get("/in/reds/api/info", headers=BEARER).status_code == 200
        login = client.post("/login", data={"token": TOKEN, "to": "/in/reds/?q=red"})
        assert login.headers["location"] == "/in/reds/?q=red"
        assert client.post("/in/reds/index", data={"do": "start"}).status_code == 403


@pytest.mark.slow
def test_the_command_serves_several(folders: list[Path]) -> None:
    with announced(*folders[:2], f"{folders[0]}/") as (process, _):
        process.terminate()
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read().endswith(b"vitsearch: stopped\n")
    done = vitsearch("serve", *folders[:2], "--collection", "x")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--collection goes with one folder of photos" in done.stderr
    gone = vitsearch("serve", folders[0], folders[0].with_name("gone"))
    assert gone.returncode == 1
    assert gone.stderr.startswith(b"vitsearch: no such folder: ")
    with Collection.open(folders[0]) as collection:
        assert len(collection) == 4


# -- a photo as the query --------------------------------------------------------------------------


def test_a_photo_is_searched_for_in_all_of_one_encoder(client: TestClient, made: Path) -> None:
    """An uploaded one, and one of a collection, which is left out itself."""
    sent = {"photo": ("b.png", (made / NAMES[1] / "blue.png").read_bytes(), "image/png")}
    answer = client.post("/api/search", files=sent, data={"k": "2"}).json()
    first = answer["results"][0]
    assert (first["path"], first["address"], first["score"]) == ("blue.png", "/in/reds-2/", 1.0)
    assert (answer["searched"], answer["k"], answer["understood"]) == (["Reds", "Reds"], 2, [])
    by_photo = {"photo": first["id"], "of": "/in/reds-2/", "k": 4}
    others = client.get("/api/search", params=by_photo).json()["results"]
    paths = [(hit["address"], hit["path"]) for hit in others]
    assert len(paths) == 4
    assert ("/in/reds-2/", "blue.png") not in paths
    rest = client.get("/api/search", params=by_photo | {"k": 3, "offset": 1}).json()
    assert rest["results"] == others[1:]
    both = client.get("/api/search", params=by_photo | {"q": "red", "k": 1}).json()
    assert both["results"][0]["path"].startswith("red")
    assert reason(client.get("/api/search"), 400, "bad_request") == (
        "a search needs words, or a photo"
    )
    for parameters, status in (
        ({"photo": 99, "of": "/in/reds/"}, 404),
        ({"photo": 1, "of": "/in/else/"}, 400),
        ({"photo": 1, "of": "/in/new/"}, 400),
        ({"photo": 1, "of": "/in/reds/", "encoder": "mini"}, 400),
        ({"photo": 2**63}, 400),
    ):
        assert client.get("/api/search", params=parameters).status_code == status, parameters
    other = client.post("/api/search", files=sent, data={"encoder": "mini"}).json()
    assert other["searched"] == ["Mini"]
    broken = {"photo": ("b.png", b"none", "image/png")}
    assert client.post("/api/search", files=broken).status_code == 400
    assert client.post("/api/search", data={"q": "red"}).status_code == 400


def test_the_page_of_all_takes_a_photo(client: TestClient, made: Path) -> None:
    sent = {"photo": ("b.png", (made / NAMES[1] / "blue.png").read_bytes(), "image/png")}
    brought = client.post("/photo", files=sent, headers=PAGE)
    assert brought.status_code == 303
    page = client.get(brought.headers["location"], headers=PAGE).text
    links = re.findall(r'<a class="photo-link" href="(/in/[^"]*)"', page)
    blue = client.get("/in/reds-2/api/search?q=blue&k=1").json()["results"][0]["id"]
    assert links[0] == f"/in/reds-2/photos/{blue}"
    picture = re.search(r'src="(/brought/[^"]*)"', page)
    assert picture is not None
    assert client.get(picture[1]).headers["content-type"] == "image/webp"
    said = client.post("/photo", files=sent, headers={"accept": "application/json"}).json()
    assert said == {"address": brought.headers["location"]}
    like = next(each for each in re.findall(r'href="(/\?photo=[^"]*)"', page))
    alike = client.get(like.replace("&amp;", "&"), headers=PAGE).text
    others = re.findall(r'<a class="photo-link" href="(/in/[^"]*)"', alike)
    assert others == links[1:]
    words = client.post("/photo", files=sent, data={"q": "red"}, headers=PAGE)
    assert words.headers["location"].startswith("/?q=red&model=")
    broken = {"photo": ("b.png", b"none", "image/png")}
    refused = client.post("/photo", files=broken, data={"q": "red"}, headers=PAGE)
    assert (refused.status_code, 'value="red"' in refused.text) == (400, True)
    for address in ("/?like=x", "/?photo=x&of=/in/reds/", "/?photo=99&of=/in/reds/"):
        assert client.get(address, headers=PAGE).status_code == 400
    assert client.get("/brought/colour/x").status_code == 404
