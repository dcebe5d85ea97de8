"""The pages as the server draws them: searches in addresses, what is refused, what names may hold,
and what may be taken along.
"""

import csv
import io
import os
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.photos import paint, shade
from helpers.web_client import HERE, asked, client_of, opened

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from vitsearch import Collection, Term, index_folder
from vitsearch.arrays import unit_rows
from vitsearch.collection.map import FILE, current_map, lay_out, read_map
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import QueryError, VitsearchError
from vitsearch.photos.columns import METADATA
from vitsearch.storage import PhotoReader, user_data
from vitsearch.storage.filesystem import writer_lock
from vitsearch.storage.store import PhotoStore
from vitsearch.web import ServeSettings
from vitsearch.web.app import make_app, warm_app
from vitsearch.web.pages import (
    FIELDS,
    PER_PAGE,
    SORTS,
    Filters,
    PageQuery,
    PickedPhoto,
    UploadedRef,
    clean,
    context,
    fitted,
    label_lines,
    page_number,
    read_filters,
    read_page_query,
    selection,
    size_text,
)
from vitsearch.web.pages.cache import Facets
from vitsearch.web.pages.photo import cell
from vitsearch.web.privacy import key_cookie
from vitsearch.web.service import PhotoService

PAGE = {"accept": "text/html"}
HOSTILE = '"><img src=x onerror=alert(1)>.png'
Open = Callable[..., TestClient]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 photos in two folders, one twice, one with a name that is markup, one with a name that is
    no UTF-8, and a broken one.
    """
    root = tmp_path_factory.mktemp("pages")
    for number in range(66):
        paint(root / ("a/b" if number % 2 else "c") / f"p{number:02}.png", shade(number))
    paint(root / "red.png", "red")
    (root / "twin.png").write_bytes((root / "red.png").read_bytes())
    paint(root / HOSTILE, "blue")
    paint(root / "caf\udce9.png", "green")
    (root / "bad.jpg").write_bytes(b"\xff\xd8\xff no photo")
    index_folder(root, encoder=ColourEncoder())
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return shutil.copytree(made, tmp_path / "photos")


@pytest.fixture
def visit(folder: Path) -> Iterator[Open]:
    """Opens a client of the folder's pages: one of this machine, or a remote one."""
    clients: list[TestClient] = []

    def open_client(*, remote: bool = False, **settings: Any) -> TestClient:
        chosen = ServeSettings(**settings)
        service = PhotoService.open(folder, encoder=ColourEncoder(), settings=chosen)
        name, value = key_cookie(chosen)
        client = TestClient(
            make_app(service, chosen),
            base_url="http://localhost",
            headers=PAGE,
            cookies={} if remote else {name: value},
            client=("192.0.2.7" if remote else "127.0.0.1", 5000),
            follow_redirects=False,
        )
        client.__enter__()
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        client.__exit__(None, None, None)


def photo_ids(folder: Path) -> dict[str, int]:
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        return {photo.path: photo.photo_id for photo in found.photos()}


def shown(text: str) -> list[int]:
    """Return the ids of the photos of a page, in order."""
    return [int(part.partition('"')[0]) for part in text.split('name="id" value="')[1:]]


# -- addresses -------------------------------------------------------------------------------------


def test_an_address_is_read() -> None:
    key = "0123456789abcdef" * 2
    given_ = [
        ("q", " red "),
        ("w7", "-0.5"),
        ("w3", "2"),
        (f"u{key}", "1"),
        ("w9", "0"),
        ("w8", ""),
        ("label", "cat"),
        ("page", "3"),
        ("x", "1"),
    ]
    assert read_page_query(given_) == PageQuery(
        "red",
        (PickedPhoto(7, -0.5), PickedPhoto(3, 2.0)),
        (UploadedRef(key, 1.0),),
        Filters(label="cat"),
        3,
    )


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("w1", "much", "a weight is a number, not 'much'"),
        ("w1", "nan", "a weight is a number from -10 to 10, not nan"),
        ("w1", "1e400", "a weight is a number from -10 to 10, not 1e400"),
        ("w9999999999999999999", "1", "a photo is named by its number"),
        ("page", "0", "a page is a number from 1 on"),
        ("page", "-1", "a page is a number from 1 on"),
        ("page", "9999999", "a page is a number from 1 on"),
        ("q", "x" * 2001, "the search has 2,001 characters, more than 2,000: make it shorter"),
    ],
)
def test_an_address_that_makes_no_sense(name: str, value: str, reason: str) -> None:
    with pytest.raises(QueryError) as raised:
        read_page_query([(name, value)])
    assert str(raised.value) == reason


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20).map(str.strip)
weights = st.integers(-100_000, 100_000).filter(bool).map(lambda number: number / 10_000)
searches = st.builds(
    PageQuery,
    texts,
    st.dictionaries(st.integers(0, 2**63 - 1), weights, max_size=5).map(
        lambda found: tuple(PickedPhoto(*item) for item in found.items())
    ),
    st.dictionaries(st.text("0123456789abcdef", min_size=32, max_size=32), weights, max_size=2).map(
        lambda found: tuple(UploadedRef(*item) for item in found.items())
    ),
    st.fixed_dictionaries({name: texts for name in FIELDS}).map(read_filters),
    st.integers(1, 999_999),
    sort=st.sampled_from(("", *SORTS)),
)


@settings(deadline=None)
@given(searches)
def test_every_search_comes_back_from_its_address(search: PageQuery) -> None:
    assert read_page_query(search.pairs(page=True)) == search


def test_a_search_is_refined() -> None:
    search = read_page_query([("q", "red"), ("page", "4")])
    assert search.like(5).address() == "/?q=red&w5=0.5"
    assert search.like(5).unlike(5).address() == "/?q=red&w5=-0.5"
    assert search.like(5).unlike(6).without("w5").address() == "/?q=red&w6=-0.5"
    assert PageQuery().like(5).address("/x") == "/x?w5=1"


def test_filters_join() -> None:
    filters = read_filters(
        {
            "after": "2019",
            "under": "a",
            "camera": "it's",
            "label": "(none)",
            "where": "width > 1 or width < 1",
        }
    )
    assert str(filters.tree()) == str(
        __import__("vitsearch.filters", fromlist=["filter_all"]).filter_all(
            "(width > 1 or width < 1) and camera = 'it''s' and label is null",
            after="2019",
            under="a",
        )
    )
    with pytest.raises(QueryError, match="nope"):
        Filters(where="nope = 1").tree()
    with pytest.raises(QueryError):
        Filters(where="width > 1) or (width < 9").tree()


def test_lists_are_limited() -> None:
    assert label_lines("cat, dog\n\n bird = a | b ,") == ["cat", "dog", "bird = a | b"]
    assert selection(["3", "1", "3"]) == [3, 1]
    assert page_number("") == 1
    for wrong in ([], ["x"], ["-1"], ["1"] * 1001):
        with pytest.raises(QueryError):
            selection(wrong)
    with pytest.raises(QueryError, match="up to 500 labels, not 501"):
        label_lines(",".join(map(str, range(501))))


# -- pages -----------------------------------------------------------------------------------------


def test_every_photo_is_on_one_page_of_the_results(visit: Open, folder: Path) -> None:
    client = visit()
    for search in ("/?", "/?q=red&"):
        pages = [shown(client.get(f"{search}page={number}").text) for number in (1, 2, 3)]
        assert list(map(len, pages)) == [60, 10, 0]
        assert sorted(pages[0] + pages[1]) == sorted(photo_ids(folder).values())


def months(text: str) -> list[tuple[str, int]]:
    """Return the months of a page with the numbers of the photos that it shows of them."""
    sections = re.split(r'<section class="month" id="m', text)[1:]
    return [(part.partition('"')[0], len(shown(part))) for part in sections]


@pytest.mark.slow
def test_photos_stand_under_the_months_in_which_they_were_taken(visit: Open, folder: Path) -> None:
    dates = {"2021:05:02 10:00:00": 59, "2019:07:14 18:30:00": 3, "2019": 1}
    for number, date in enumerate(d for d, count in dates.items() for _ in range(count)):
        tags = Image.Exif()
        tags.get_ifd(0x8769)[0x9003] = date
        picture = Image.new("RGB", (24, 16), (3 * number, 90, 200 - number))
        picture.save(folder / f"dated-{number:02}.jpg", exif=tags.tobytes())
    index_folder(folder, encoder=ColourEncoder())
    client = visit()
    first, second = (client.get(f"/?page={number}").text for number in (1, 2))
    assert "133 photos, newest first" in first
    assert months(first) == [("2021-05", 59), ("2019-07", 1)]
    assert months(second) == [("2019-07", 2), ("2019", 1), ("", 57)]
    assert re.findall(r'href="([^"]+)" title="([^"]+)" data-month', first) == [
        ("/#m2021-05", "May 2021: 59"),
        ("/#m2019-07", "July 2019: 3"),
        ("/?page=2#m2019", "2019, without a month: 1"),
        ("/?page=2#m", "Undated: 70"),
    ]
    narrowed = client.get("/?where=path+like+'dated%25'").text
    assert "63 photos fit, newest first" in narrowed
    ids = photo_ids(folder)
    by_name = shown(client.get("/?sort=name").text)
    assert by_name == [ids[name] for name in sorted(ids, key=os.fsencode)][:60]
    assert shown(client.get("/?sort=added").text) == sorted(ids.values(), reverse=True)[:60]
    by_date = client.get("/?q=red&sort=taken").text
    assert [name for name, _ in months(by_date)] == ["2021-05", "2019-07"]
    assert "The best 133 matches, newest first" in by_date
    assert client.get("/?sort=size").status_code == 400
    stranger = visit(remote=True)
    assert "133 photos, last added first" in stranger.get("/").text
    assert months(stranger.get("/?q=red&sort=taken").text) == []
    assert stranger.get("/?sort=taken").status_code == 403


def test_results_are_those_of_the_collection(visit: Open, folder: Path) -> None:
    ids = photo_ids(folder)
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        plain = [hit.photo_id for hit in found.search("blue", 60)]
        mixed = [
            hit.photo_id for hit in found.search([Term("blue"), Term(folder / "red.png", 2.0)], 60)
        ]
    client = visit()
    assert shown(client.get("/?q=blue").text) == plain
    assert shown(client.get(f"/?q=blue&w{ids['red.png']}=2").text) == mixed
    alike = shown(client.get(f"/?w{ids['red.png']}=1").text)
    assert ids["twin.png"] in alike[:2]  # one of the shades is the same red
    assert ids["red.png"] not in alike


def test_what_is_wrong_is_said_on_the_page(visit: Open, folder: Path) -> None:
    client = visit()
    for address, status, words in (
        ("/?q=./red.png", 400, "a query here names no file"),
        ("/?q=~root/x", 400, "a query here names no file"),
        ("/?q=red+%2B", 400, "is empty"),
        ("/?q=red&where=size", 400, "a comparison after size"),
        ("/?q=red&under=..", 400, "under is a folder"),
        ("/?q=red&w1=x", 400, "a weight is a number"),
        ("/?w77777=1", 400, "there is no photo 77777"),
        (f"/?u{'0' * 32}=1", 400, "forgotten"),
        ("/?page=99999", 400, "the offset is from 0"),
        ("/labels?labels=a,a", 400, "given twice"),
        ("/labels?labels=a", 400, "one label alone"),
        ("/labels?page=x", 400, "a page is a number"),
        ("/photos/77777", 404, "there is no photo 77777"),
        ("/photos/x", 400, "integer"),
        (f"/brought/{'0' * 32}", 404, "forgotten"),
        ("/refine?q=red", 400, "nothing is selected"),
        ("/nowhere", 404, "Not there"),
    ):
        answer = client.get(address)
        assert (answer.status_code, words in answer.text, "<header" in answer.text) == (
            status,
            True,
            True,
        ), (address, answer.text[-900:])


@pytest.mark.slow
def test_names_are_text_on_every_page(visit: Open, folder: Path) -> None:
    client = visit()
    (folder / ".vitsearch" / "x").mkdir()
    ids = photo_ids(folder)
    for address in (
        "/",
        "/?q=blue",
        f"/photos/{ids[HOSTILE]}",
        "/map/list",
        "/labels?labels=red,blue&class=blue",
        "/?q=<img+src=y>",
    ):
        text = client.get(address).text
        assert "<img src=x" not in text, address
        assert "<img src=y" not in text, address
    assert "caf\ufffd.png" in client.get(f"/photos/{ids['caf' + chr(0xDCE9) + '.png']}").text


@pytest.mark.slow
def test_no_page_has_script_or_style_in_it(visit: Open, folder: Path) -> None:
    client = visit()
    for address in (
        "/",
        "/?q=red&w1=1",
        "/photos/1",
        "/labels?labels=red,blue&class=red",
        "/duplicates",
        "/failures",
        "/map",
        "/map/list",
        "/help",
    ):
        text = client.get(address).text
        assert " style=" not in text, address
        assert "<style" not in text, address
        assert "<script>" not in text, address
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", ""), address
        assert "https://" not in text, address


def test_a_photo_is_brought_and_refines(visit: Open, folder: Path, tmp_path: Path) -> None:
    client = visit()
    data = paint(tmp_path / "brought.png", "red", size=(40, 30)).read_bytes()
    answer = client.post("/photo", files={"photo": ("x.png", data)}, data={"under": "c", "w3": "1"})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/?w3=1&u")
    assert answer.headers["location"].endswith("=1&under=c")
    key = answer.headers["location"].partition("&u")[2].partition("=")[0]
    assert client.get(f"/brought/{key}").headers["content-type"] == "image/webp"
    ids = photo_ids(folder)
    assert {ids["red.png"], ids["twin.png"]} <= set(shown(client.get(f"/?u{key}=1").text)[:3])
    assert client.post("/photo", files={"photo": ("x.png", b"<svg/>")}).status_code == 400
    assert client.post("/photo", data={"photo": "words"}).status_code == 400
    assert client.post("/photo", files={"photo": ("x.png", b"")}).status_code == 400


def test_another_site_brings_and_takes_nothing(visit: Open) -> None:
    client = visit()
    for address, form in (
        ("/photo", {"files": {"photo": ("x.png", b"x")}}),
        ("/export", {"data": {"id": "1", "as": "zip"}}),
    ):
        assert (
            client.post(address, headers={"origin": "http://elsewhere.example"}, **form).status_code
            == 403
        )
        assert (
            client.post(address, headers={"sec-fetch-site": "cross-site"}, **form).status_code
            == 403
        )


def test_a_selection_is_taken_along(visit: Open, folder: Path) -> None:
    client, ids = visit(), photo_ids(folder)
    odd = "caf\udce9.png"
    form = {"id": [str(ids[name]) for name in ("red.png", "twin.png", odd)]}
    paths = client.post("/export", data=form | {"as": "paths"})
    assert paths.content == b"red.png\ntwin.png\ncaf\xe9.png\n"
    assert paths.headers["content-disposition"] == 'attachment; filename="photos.txt"'
    rows = client.post("/export", data=form | {"as": "csv"}).content.split(b"\r\n")
    names = ["id", "path", "width", "height", "bytes", "label", "label_score", *METADATA]
    assert rows[0] == ",".join(names).encode()
    assert rows[1].startswith(f"{ids['red.png']},red.png,24,16,".encode())
    (folder / "twin.png").unlink()
    with zipfile.ZipFile(
        io.BytesIO(client.post("/export", data=form | {"as": "zip"}).content)
    ) as saved:
        assert saved.testzip() is None
        assert saved.namelist() == ["red.png", "caf_xe9.png", "missing.txt"]
        assert saved.read("red.png") == (folder / "red.png").read_bytes()
        assert saved.read("missing.txt") == b"twin.png\n"
    assert client.post("/export", data=form | {"as": "exe"}).status_code == 400
    assert client.post("/export", data={"as": "zip"}).status_code == 400


def change(client: TestClient, action: str, **fields: Any) -> str:
    """Change an album, and return where the page goes then."""
    answer = client.post("/albums", data={"do": action, **fields})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


@pytest.mark.slow
def test_albums_are_kept_in_the_collection(visit: Open, folder: Path) -> None:
    client, ids = visit(), photo_ids(folder)
    red, twin, blue = (ids[name] for name in ("red.png", "twin.png", HOSTILE))
    assert "No album yet" in client.get("/albums").text
    assert change(client, "add", album="Rome & co", id=[red, blue]) == "/album?name=Rome+%26+co"
    change(client, "add", album="Rome & co", id=[twin, red])
    change(client, "first", **{"from": "Rome & co"}, id=[blue])
    change(client, "favourite", id=[twin])
    assert 'aria-pressed="true"' in client.get(f"/photos/{twin}/about").text
    change(client, "favourite", id=[twin])
    assert 'aria-pressed="false"' in client.get(f"/photos/{twin}/about").text
    assert change(client, "rename", album="Rome", **{"from": "Rome & co"}) == "/album?name=Rome"
    change(client, "save", name="reds", search="/?q=red&label=cat&page=3&x=1")
    change(client, "save", name="old", search="/?after=2019")
    change(client, "forget", name="old")
    change(client, "add", album="empty")
    change(client, "delete", **{"from": "empty"})
    # another server, and after the file of one photo is gone
    (folder / "red.png").unlink()
    index_folder(folder, encoder=ColourEncoder())
    again = visit()
    assert shown(again.get("/album?name=Rome").text) == [blue, twin]
    assert 'href="/?q=red&amp;label=cat">reds</a>' in again.get("/albums").text
    paths = again.post("/export", data={"of": "Rome", "as": "paths"})
    assert paths.content.decode().split("\n")[:2] == [HOSTILE, "twin.png"]
    with zipfile.ZipFile(
        io.BytesIO(again.post("/export", data={"of": "Rome", "as": "html"}).content)
    ) as saved:
        assert saved.namelist() == ["photos/00001.webp", "photos/00002.webp", "index.html"]
        page = saved.read("index.html").decode()
    assert page.count("<figure>") == 2
    assert "<img src=x" not in page
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        assert found.albums() == {
            "albums": [
                {"name": "Favourites", "photos": []},
                {"name": "Rome", "photos": [HOSTILE, "twin.png"]},
            ],
            "searches": [{"name": "reds", "address": "/?q=red&label=cat"}],
        }
    for form, status in (
        ({"do": "add", "album": " "}, 400),
        ({"do": "add", "album": "x" * 101}, 400),
        ({"do": "add", "album": "a\u202eb"}, 400),
        ({"do": "paint"}, 400),
        ({"do": "save", "name": "all", "search": "/"}, 400),
    ):
        assert again.post("/albums", data=form).status_code == status, form
    assert again.get("/album?name=nothing").status_code == 400
    with writer_lock(folder / ".vitsearch"):
        busy = again.post("/albums", data={"do": "add", "album": "x"})
    assert (busy.status_code, "being indexed" in busy.text) == (503, True)


def test_who_may_change_albums(visit: Open, folder: Path) -> None:
    """The person at this machine, and with --allow-edits who has the token; no other site."""
    secret = {"host": "192.0.2.1", "token": "a secret token to give"}
    headers = {"authorization": f"Bearer {secret['token']}", "host": "192.0.2.1"}
    form = {"do": "add", "album": "x"}
    for allowed, status in ((False, 403), (True, 303)):
        client = visit(remote=True, allow_edits=allowed, **secret)
        assert client.post("/albums", data=form, headers={"host": "192.0.2.1"}).status_code == 401
        client.headers.update(headers)
        assert client.post("/albums", data=form).status_code == status
        assert ("Add to album" in client.get("/").text) == allowed
        assert client.get("/albums").status_code == 200
    assert visit(remote=True).post("/albums", data=form).status_code == 403
    other_site = {"sec-fetch-site": "cross-site"}
    assert visit().post("/albums", data=form, headers=other_site).status_code == 403
    with pytest.raises(VitsearchError, match="--allow-edits lets others"):
        ServeSettings(allow_edits=True).check()


def test_a_zip_has_a_limit(visit: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitsearch.web.pages.photo.MAX_BYTES", 100)
    answer = visit().post("/export", data={"id": ["1", "2", "3"], "as": "zip"})
    assert answer.status_code == 400
    assert "a ZIP holds up to 100 bytes" in answer.text


@pytest.mark.slow
def test_remote_users_see_no_exif(visit: Open, folder: Path) -> None:
    ids = photo_ids(folder)
    secret = {"host": "192.0.2.1", "token": "a secret token"}
    headers = {"authorization": "Bearer a secret token", "host": "192.0.2.1"}
    for show, status in ((False, 403), (True, 200)):
        client = visit(remote=True, show_exif=show, **secret)
        client.headers.update(headers)
        assert client.get("/?after=2019").status_code == status
        assert client.get("/?where=latitude+>+0").status_code == status
        assert client.get("/?where=width+>+0").status_code == 200
        form = {"id": [str(ids["red.png"])]}
        assert (b"latitude" in client.post("/export", data=form | {"as": "csv"}).content) == show
        with zipfile.ZipFile(
            io.BytesIO(client.post("/export", data=form | {"as": "zip"}).content)
        ) as saved:
            assert saved.namelist() == (["red.png"] if show else ["red.png.webp"])


def test_new_photos_are_seen_without_a_restart(visit: Open, folder: Path) -> None:
    client = visit()
    assert "70 photos, newest first" in client.get("/").text
    places = client.get("/map/places")
    assert len(places.content) == 70 * 16
    assert (
        client.get("/map/places", headers={"if-none-match": places.headers["etag"]}).status_code
        == 304
    )
    paint(folder / "new.png", "yellow")
    index_folder(folder, encoder=ColourEncoder())
    assert "71 photos, newest first" in client.get("/").text
    assert shown(client.get("/?q=yellow").text)[0] == photo_ids(folder)["new.png"]
    assert (
        len(client.get("/map/places", headers={"if-none-match": places.headers["etag"]}).content)
        == 71 * 16
    )


@pytest.fixture
def trash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of files in the system's trash, in place of the person's."""
    system = pytest.importorskip("send2trash.plat_other", reason="the trash of freedesktop.org")
    home = tmp_path / "data"
    monkeypatch.setenv("HOME", str(tmp_path))  # it must be on the disk of the photos
    monkeypatch.setattr(system, "XDG_DATA_HOME", os.fsencode(home))
    monkeypatch.setattr(system, "HOMETRASH_B", os.fsencode(home / "Trash"))
    return home / "Trash" / "files"


@pytest.mark.slow
def test_what_becomes_of_the_others(visit: Open, folder: Path, trash: Path) -> None:
    client, ids = visit(allow_delete=True), photo_ids(folder)
    keep = {"kind": "same", "keep1": str(ids["twin.png"])}
    page = client.get("/duplicates").text
    assert re.findall("Proposed: (.*?)<", page) == ["the shortest path"]
    assert "To the trash" in page
    listed = client.post("/duplicates", data=keep | {"do": "paths"})
    assert listed.content == b"red.png\n"
    album = client.post("/duplicates", data=keep | {"do": "album", "album": "Copies"})
    assert album.headers["location"] == "/album?name=Copies"
    assert shown(client.get("/album?name=Copies").text) == [ids["red.png"]]
    question = client.post("/duplicates", data=keep | {"do": "trash"}).text
    assert "Move 1 photo to the trash?" in question
    assert (folder / "red.png").exists()
    unseen = {"do": "trash", "confirmed": "yes"}
    assert client.post("/duplicates", data=keep | unseen).status_code == 400
    (listed,) = re.findall('name="listed" value="(.*?)"', question)
    assert listed == f"{ids['twin.png']}-{ids['red.png']}"
    # nor what joined the group since it was listed
    (folder / "triplet.png").write_bytes((folder / "red.png").read_bytes())
    index_folder(folder, encoder=ColourEncoder())
    keep["listed"] = listed
    refused = client.post("/duplicates", data=keep | unseen)
    assert (refused.status_code, "have changed meanwhile" in refused.text) == (400, True)
    (folder / "triplet.png").unlink()
    index_folder(folder, encoder=ColourEncoder())
    # nothing goes whose copy is not there any more
    (folder / "twin.png").rename(folder / "away")
    stays = client.post("/duplicates", data=keep | {"do": "trash", "confirmed": "yes"}).text
    assert "red.png: cannot be opened: No such file or directory" in stays
    (folder / "twin.png").hardlink_to(folder / "red.png")
    stays = client.post("/duplicates", data=keep | {"do": "trash", "confirmed": "yes"}).text
    assert "red.png: is the same file as twin.png" in stays
    (folder / "twin.png").unlink()
    (folder / "away").rename(folder / "twin.png")
    done = client.post("/duplicates", data=keep | {"do": "trash", "confirmed": "yes"}).text
    assert "1 photo is in the trash" in done
    assert [file.name for file in trash.iterdir()] == ["red.png"]
    assert (folder / "twin.png").read_bytes() == (trash / "red.png").read_bytes()
    assert not (folder / "red.png").exists()
    assert ids["red.png"] not in photo_ids(folder).values()
    assert "No file is there twice" in client.get("/duplicates").text
    # it comes back with its id, and so into its albums
    (trash / "red.png").rename(folder / "red.png")
    index_folder(folder, encoder=ColourEncoder())
    assert photo_ids(folder)["red.png"] == ids["red.png"]
    for form, status in (
        ({"do": "paths", "kind": "same"}, 400),
        ({"do": "paths", "kind": "same", "keep1": str(ids[HOSTILE])}, 400),
        ({"do": "paths", "kind": "same", "keep1": "x"}, 400),
        (keep | {"keep2": str(ids["red.png"]), "do": "paths"}, 400),
        (keep | {"do": "delete"}, 400),
        (keep | {"do": "album", "album": " "}, 400),
    ):
        assert client.post("/duplicates", data=form).status_code == status, form
    go = keep | {"do": "trash", "confirmed": "yes"}
    with writer_lock(folder / ".vitsearch"):
        assert client.post("/duplicates", data=go).status_code == 503
    for other in (visit(), visit(remote=True, allow_delete=True)):
        assert other.post("/duplicates", data=go).status_code == 403
        assert "To the trash" not in other.get("/duplicates").text
    other_site = {"sec-fetch-site": "cross-site"}
    assert client.post("/duplicates", data=go, headers=other_site).status_code == 403
    assert (folder / "red.png").exists()


def test_a_large_group_counts_whole(visit: Open, folder: Path) -> None:
    """Only its first photos are drawn, among them the one that is proposed."""
    content = (folder / "red.png").read_bytes()
    for number in range(42):
        (folder / "c" / f"copy of red {number:02}.png").write_bytes(content)
    (folder / "z.png").write_bytes(content)
    index_folder(folder, encoder=ColourEncoder())
    client, ids = visit(), photo_ids(folder)
    page = client.get("/duplicates").text
    assert '<section class="group" data-size="45"' in page
    assert "45 times" in page
    assert "and 5 more, which are among the others too" in page
    assert page.count('name="keep1"') == 40
    proposed = re.findall(r'value="(\d+)"[^>]* data-proposed', page)
    assert proposed == [str(ids["z.png"])]
    keep = {"kind": "same", "keep1": proposed[0], "do": "paths"}
    assert client.post("/duplicates", data=keep).content.count(b"\n") == 44


def test_labels_are_spread(visit: Open, folder: Path) -> None:
    client = visit()
    assert "No labels are stored" in client.get("/labels").text
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        predictions = found.label(["red", "green", "blue"])
        found.store_labels(predictions)
    expected = sorted(
        (one for one in predictions if one.label == "green"), key=lambda one: (-one.score, one.path)
    )
    for address in ("/labels?class=green", "/labels?labels=red,green%0Ablue&class=green"):
        assert shown(client.get(address).text) == [one.photo_id for one in expected][:60]


@pytest.mark.slow
def test_labels_are_judged_and_trained_on(visit: Open, folder: Path) -> None:
    client, ids = visit(), photo_ids(folder)
    red, twin, blue = (ids[name] for name in ("red.png", "twin.png", HOSTILE))
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        found.store_labels(found.label(["red", "green", "blue"]))
    page = client.get("/labels").text
    assert "No examples yet" in page
    assert page.count('class="judge"') == 24  # eight of each label
    for said, to in (
        ({"do": f"right {red} red", "back": "/labels?class=red"}, f"/labels?class=red#photo{red}"),
        ({"do": f"wrong {blue} blue", "back": "//other.example/labels"}, f"/labels#photo{blue}"),
        ({"do": f"as {blue}", f"as {blue}": "odd name", "back": ""}, f"/labels#photo{blue}"),
        ({"do": "ticked", "label": " red ", "id": [red, twin]}, "/labels"),
    ):
        answer = client.post("/labels", data=said)
        assert (answer.status_code, answer.headers["location"]) == (303, to)
    programs = {"accept": "application/json"}
    assert client.post("/labels", data={"do": f"wrong {twin} green"}, headers=programs).json() == {
        "photos": [{"photo_id": twin, "label": "red", "wrong": ["green"]}],
        "summary": "3 examples",
        "can_undo": True,
    }
    undone = client.post("/labels", data={"do": "undo"}, headers=programs).json()
    assert undone["photos"] == [{"photo_id": twin, "label": "red", "wrong": []}]
    # what was said is taken back by saying it again
    client.post("/labels", data={"do": f"right {twin} red"})
    assert shown(client.get("/labels?show=examples").text) == sorted([red, blue])
    assert twin in {*shown(client.get("/labels?show=unsure").text)} | {
        *shown(client.get("/labels?show=unsure&page=2").text)
    }
    assert list(csv.reader(client.get("/labels/examples.csv").text.splitlines())) == [
        ["path", "label"],
        [HOSTILE, "odd name"],
        ["red.png", "red"],
    ]
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        before = {photo.path: (photo.label, photo.label_score) for photo in found.photos()}
    assert "No photo fits the filters" in client.get("/?label=odd+name").text
    client.post("/labels", data={"do": "train", "method": "prototype"})
    # what was listed by label before is listed anew
    assert ids[HOSTILE] in shown(client.get("/?label=odd+name").text)
    assert 'value="restore"' in client.get("/labels").text
    client.post("/labels", data={"do": "restore"})
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        assert before == {photo.path: (photo.label, photo.label_score) for photo in found.photos()}
        assert found.store.check() == []
    assert "No photo fits the filters" in client.get("/?label=odd+name").text
    assert 'value="restore"' not in client.get("/labels").text
    client.post("/labels", data={"do": "restore"})  # nothing is left to bring back
    client.post("/labels", data={"do": "train", "method": "prototype"})
    again = visit().get("/labels").text  # another server
    assert "Trained on 2 examples of 2 labels (prototype" in again
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        labels = {photo.path: photo.label for photo in found.photos()}
    assert (labels["red.png"], labels[HOSTILE], {*labels.values()}) == (
        "red",
        "odd name",
        {"red", "odd name"},
    )
    paint(folder / "more.png", "red")
    index_folder(folder, encoder=ColourEncoder())
    client.post("/labels", data={"do": "apply"})
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        assert {photo.path: photo.label for photo in found.photos()}["more.png"] == "red"
    for form, status in (
        ({"do": "paint"}, 400),
        ({"do": "right x red"}, 400),
        ({"do": "ticked", "label": " ", "id": [red]}, 400),
        ({"do": "train", "method": "magic"}, 400),
        ({"do": f"right {red} " + "x" * 201}, 400),
    ):
        assert client.post("/labels", data=form).status_code == status, form
    with writer_lock(folder / ".vitsearch"):
        assert client.post("/labels", data={"do": f"right {red} red"}).status_code == 503
        assert client.post("/labels", data={"do": "apply"}).status_code == 503
    remote = visit(remote=True)
    assert remote.post("/labels", data={"do": f"right {red} red"}).status_code == 403
    page = remote.get("/labels").text
    assert ('class="judge"' in page, 'id="train"' in page) == (False, False)
    other_site = {"sec-fetch-site": "cross-site"}
    assert client.post("/labels", data={"do": "undo"}, headers=other_site).status_code == 403


# -- the map ---------------------------------------------------------------------------------------


def groups(count: int, each: int, *, seed: int) -> Any:
    """Return unit rows around some middles."""
    chance = np.random.default_rng(seed)
    middles = chance.normal(size=(count, 32)).repeat(each, axis=0)
    return unit_rows(middles + 0.15 * chance.normal(size=middles.shape))


def test_photos_that_look_alike_lie_together() -> None:
    places = lay_out(groups(6, 40, seed=3))
    assert places.shape == (240, 2)
    assert places.min() >= 0
    assert places.max() <= 1
    away = ((places[:, None] - places[None]) ** 2).sum(axis=2)
    np.fill_diagonal(away, np.inf)
    assert (away.argsort(axis=1)[:, :5] // 40 == np.arange(240)[:, None] // 40).mean() > 0.95
    assert (lay_out(groups(6, 40, seed=3)) == places).all()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 20])
def test_few_photos_and_equal_ones_have_places(count: int) -> None:
    for rows in (unit_rows(np.ones((count, 8))), unit_rows(np.eye(8)[np.arange(count) % 8])):
        places = lay_out(rows)
        assert places.shape == (count, 2)
        assert ((places >= 0) & (places <= 1)).all()


def test_the_map_is_kept_and_grows(folder: Path) -> None:
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        first = current_map(found)
        stamp = (folder / ".vitsearch" / FILE).stat().st_mtime_ns
        assert (current_map(found).positions == first.positions).all()
        assert (folder / ".vitsearch" / FILE).stat().st_mtime_ns == stamp
    paint(
        folder / "another.png", "red", size=(40, 30)
    )  # another file, so that it is not the other one under a new name
    (folder / "twin.png").unlink()
    index_folder(folder, encoder=ColourEncoder())
    ids = photo_ids(folder)
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        second = current_map(found)
    assert second.ids.tolist() == sorted(ids.values())
    kept = np.isin(second.ids, first.ids)
    assert (second.positions[kept] == first.positions[np.isin(first.ids, second.ids)]).all()
    twins = np.isin(
        second.ids, [ids["red.png"], ids["c/p34.png"], ids["c/p00.png"]]
    )  # of the same colour, or nearly
    away = np.abs(second.positions[twins] - second.positions[second.ids == ids["another.png"]]).max(
        axis=1
    )
    assert away.min() <= 0.1


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00"])
def test_a_damaged_map_is_drawn_again(folder: Path, damage: bytes) -> None:
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        places = current_map(found).positions
        (folder / ".vitsearch" / FILE).write_bytes(damage)
        assert read_map(folder / ".vitsearch" / FILE, found.config.encoder_fingerprint) is None
        assert (current_map(found).positions == places).all()


# -- words -----------------------------------------------------------------------------------------


def test_words_for_people() -> None:
    assert [size_text(count) for count in (0, 999, 1500, 25_000, 3_400_000, 2_000_000_000)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "25 kB",
        "3.4 MB",
        "2.0 GB",
    ]
    assert [fitted(*size, 320) for size in ((640, 480), (1, 5000), (0, 0))] == [
        (320, 240),
        (1, 320),
        (1, 1),
    ]
    assert clean("a\u202egnp.jpg\x00\udcff") == "a\ufffdgnp.jpg\ufffd\ufffd"
    assert clean("家族 \U0001f468\u200d\U0001f469.jpg") == "家族 \U0001f468\u200d\U0001f469.jpg"
    assert [cell(value) for value in ("=1+1", "@x", "plain", 3.5, None)] == [
        "'=1+1",
        "'@x",
        "plain",
        3.5,
        None,
    ]


def test_what_was_not_taken_is_on_the_page_of_files_not_indexed(visit: Open, folder: Path) -> None:
    paint(folder / ".hidden.png", "red")
    (folder / "notes.txt").write_text("x")
    index_folder(folder, encoder=ColourEncoder())
    text = visit().get("/failures").text
    assert 'role="status">1 file could not be read<' in text
    assert "left out: 1 of other kinds, 1 hidden (.txt 1)" in text


def test_while_the_filters_are_counted_other_requests_are_answered(
    visit: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, counted = visit(), context.facets_of
    answered: list[int] = []
    late: list[bool] = []

    def slowly(store: PhotoReader) -> Facets:
        other = threading.Thread(
            target=lambda: answered.append(client.get("/api/photos/1").status_code), daemon=True
        )
        other.start()
        other.join(10)
        late.append(other.is_alive())
        return counted(store)

    monkeypatch.setattr(context, "facets_of", slowly)
    assert client.get("/").status_code == 200
    assert (answered, late) == ([200], [False])


@pytest.mark.slow
def test_only_ranked_photos_are_remembered_one_by_one(visit: Open) -> None:
    """A listing may have a million photos, and each filter is another one."""
    client = visit()
    for search in ("", "?where=id+%3E+1", "?sort=name", "?w2=1"):
        assert client.get(f"/photos/1{search}").status_code == 200
    memory = client.app.state.page_memory  # type: ignore[attr-defined]
    assert [key[0].picks for key in memory.sequences._entries] == [(PickedPhoto(2, 1.0),)]


def test_the_first_page_is_worked_out_before_it_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ServeSettings()
    with opened(folder, chosen) as service:
        app = warm_app(service, chosen)
        service.picture_threads.shutdown(wait=True)

        def again(_: PhotoReader) -> Facets:
            raise AssertionError("worked out once more")

        monkeypatch.setattr(context, "facets_of", again)
        monkeypatch.setattr(PhotoStore, "ids_where", again)
        with client_of(app, chosen, HERE) as client:
            page = client.get("/")
    assert page.status_code == 200
    assert len(shown(page.text)) == PER_PAGE


def test_saved_searches_are_counted_before_albums_are_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with user_data.writing(folder / ".vitsearch") as store:
        user_data.put_search(store, "reds", "/?q=red")
        user_data.put_search(store, "rest", "/?where=width+%3E+1")
    chosen = ServeSettings()
    with opened(folder, chosen) as service:
        app = warm_app(service, chosen)
        service.picture_threads.shutdown(wait=True)

        def again(*_: Any, **__: Any) -> Any:
            raise AssertionError("searched once more")

        monkeypatch.setattr(PhotoService, "ask", again)
        with client_of(app, chosen, HERE) as client:
            page = client.get("/albums")
    assert page.status_code == 200
    counts = re.findall(r"[0-9,]+ photos?(?: or more)?", page.text)
    assert counts == [
        f"{len(photo_ids(folder)):,} photos",
        f"{len(photo_ids(folder)):,} photos",
    ]


def test_texts_are_sent_compressed_and_pictures_as_they_are(folder: Path) -> None:
    with asked(folder) as client:

        def encoding(address: str, accepted: str = "gzip") -> str | None:
            answer = client.get(address, headers={"Accept-Encoding": accepted})
            assert answer.status_code == 200
            return answer.headers.get("Content-Encoding")

        first = min(photo_ids(folder).values())
        assert encoding("/") == encoding("/static/app.css") == "gzip"
        assert encoding("/", accepted="identity") is None
        assert encoding("/healthz") is None  # too short
        assert encoding(f"/api/photos/{first}/thumbnail?size=384") is None
        part = client.get("/static/app.css", headers={"Range": "bytes=0-9999"})
        assert (part.status_code, len(part.content)) == (206, 10_000)
        assert "Content-Encoding" not in part.headers
        plain = client.get("/", headers={"Accept-Encoding": "identity"})
        assert client.get("/").text == plain.text
