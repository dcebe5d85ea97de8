"""The HTTP interface: what each route answers, and what it refuses with which reason."""

import io
import json
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from helpers.photos import COLOURS, paint
from helpers.web_client import BEARER, ELSEWHERE, REMOTE, asked, opened, picture, reason, with_exif
from vitsearch import Collection, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.photos.columns import PRIVATE
from vitsearch.web import ServeSettings


@pytest.fixture
def api(indexed: Path) -> Iterator[TestClient]:
    with asked(indexed) as client:
        yield client


@pytest.fixture
def ids(indexed: Path) -> dict[str, int]:
    with Collection.open(indexed, encoder=ColourEncoder()) as collection:
        return {Path(photo.path).stem: photo.photo_id for photo in collection.photos()}


# -- search ----------------------------------------------------------------------------------------


def test_words_that_filter(api: TestClient, ids: dict[str, int], indexed: Path) -> None:
    """A folder in the words of a query filters, and a query of nothing else lists the newest."""
    phrase = {"title": "folder sub", "where": "path >= 'sub/' and path < 'sub0'"}
    answer = api.get("/api/search", params={"q": "red in the folder sub"}).json()
    assert answer["understood"] == [phrase]
    assert [hit["path"] for hit in answer["results"]] == ["sub/blue.png"]
    alone = api.post("/api/search", json={"q": "folder sub", "k": 5}).json()
    assert alone == {
        "results": [{"id": ids["blue"], "path": "sub/blue.png", "score": 0.0}],
        "k": 5,
        "offset": 0,
        "notes": [],
        "understood": [phrase],
    }
    literal = api.get("/api/search", params={"q": "folder sub", "literal": True}).json()
    assert (literal["understood"], len(literal["results"])) == ([], len(ids))
    assert api.post("/api/search", json={"q": "folder sub", "literal": True}).json() == (
        literal | {"k": 50}
    )
    narrowed = {"q": "red folder sub", "where": "path like '%red%'"}
    assert api.get("/api/search", params=narrowed).json()["results"] == []


def test_dates_in_words_are_for_who_may_see_exif(tmp_path: Path) -> None:
    with_exif(paint(tmp_path / "dated.png", "red"))
    index_folder(tmp_path, encoder=ColourEncoder())
    query = {"q": "red since 1990", "k": 1}
    with asked(tmp_path) as here:
        answer = here.get("/api/search", params=query).json()
        assert [each["title"] for each in answer["understood"]] == ["since 1990"]
    with asked(tmp_path, REMOTE, ELSEWHERE, headers=BEARER) as elsewhere:
        answer = elsewhere.get("/api/search", params=query).json()
        assert (answer["understood"], len(answer["results"])) == ([], 1)


def test_the_order_tells_no_dates_to_who_may_not_see_them(tmp_path: Path) -> None:
    paint(tmp_path / "sub" / "a.png", "red")
    with_exif(tmp_path / "sub" / "z.jpg")
    index_folder(tmp_path, encoder=ColourEncoder())
    query = {"q": "folder sub"}
    with asked(tmp_path) as here:
        paths = [hit["path"] for hit in here.get("/api/search", params=query).json()["results"]]
        assert paths == ["sub/z.jpg", "sub/a.png"]
    with asked(tmp_path, REMOTE, ELSEWHERE, headers=BEARER) as elsewhere:
        answer = elsewhere.get("/api/search", params=query).json()
        assert [hit["path"] for hit in answer["results"]] == ["sub/a.png", "sub/z.jpg"]


def test_search_by_words(api: TestClient, indexed: Path) -> None:
    with Collection.open(indexed, encoder=ColourEncoder()) as collection:
        hits = collection.search("2:red + blue - green", 3)
    wanted = [{"id": hit.photo_id, "path": hit.path, "score": round(hit.score, 6)} for hit in hits]
    found = api.get("/api/search", params={"q": "2:red + blue - green", "k": 3}).json()
    assert found == {"results": wanted, "k": 3, "offset": 0, "notes": [], "understood": []}
    assert (
        api.get("/api/search?q=2:red %2B blue - green&k=2&offset=1").json()["results"] == wanted[1:]
    )
    assert [
        hit["path"]
        for hit in api.get("/api/search", params={"q": "red", "where": "path like 'sub/%'"}).json()[
            "results"
        ]
    ] == ["sub/blue.png"]
    assert [
        hit["path"] for hit in api.get("/api/search?q=red&min_score=0.9").json()["results"]
    ] == ["red.png"]


BAD = {
    "/api/search": "q: Field required",
    "/api/search?q=": "at least 1 character",
    "/api/search?q=%20": "the query is empty",
    "/api/search?q=red%20%2B": "term of the query",
    "/api/search?q=0:red": "weight of 0",
    "/api/search?q=red&k=0": "k: Input should be greater than or equal to 1",
    "/api/search?q=red&k=1001": "k: Input should be less than or equal to 1000",
    "/api/search?q=red&k=many": "k: Input should be a valid integer",
    "/api/search?q=red&offset=-1": "offset",
    "/api/search?q=red&min_score=2": "min_score",
    "/api/search?q=red&where=colour%3D1": "no column 'colour'",
    "/api/search?q=red&where=year%20>": "expected a number",
    "/api/search?q=.%2Fred.png": "names no file",
    "/api/search?q=" + "r" * 2001: "at most 2000 characters",
    "/api/similar/red": "photo_id: Input should be a valid integer",
    "/api/similar/0": "photo_id",
    "/api/labels?labels=red": "at least two",
    "/api/labels?labels=,": "give labels",
    "/api/labels?labels=red,red": "twice",
    "/api/photos/1/thumbnail?size=5": "size",
    "/api/search?photo=1": "/api/search has no parameter photo: it has q, k, offset, where, "
    "min_score, min_relevance, literal",
    "/api/search?q=red&filter=year=2019": "no parameter filter: it has q, k",
    "/api/similar/1?min_relevance=0.5": "no parameter min_relevance: it has k, offset",
    "/api/info?q=red": "/api/info has no parameter q: it has none",
}


@pytest.mark.parametrize("address", BAD)
def test_what_is_refused_with_the_reason(api: TestClient, address: str) -> None:
    assert BAD[address] in reason(api.get(address), 400, "bad_request")


@pytest.mark.parametrize(
    "what",
    ["/api/similar/{}", "/api/photos/{}", "/api/photos/{}/thumbnail", "/api/photos/{}/image"],
)
def test_a_photo_that_is_not_there(api: TestClient, what: str) -> None:
    assert "no photo 999" in reason(api.get(what.format(999)), 404, "not_found")


def test_an_address_or_method_that_is_not_there(api: TestClient) -> None:
    reason(api.get("/api/nothing"), 404, "not_found")
    reason(api.put("/api/info"), 405, "method_not_allowed")
    assert api.put("/api/info").headers["allow"] == "GET"


def test_similar_photos(api: TestClient, ids: dict[str, int], indexed: Path) -> None:
    with Collection.open(indexed, encoder=ColourEncoder()) as collection:
        hits = collection.similar(indexed / "red.png", 10)
    found = api.get(f"/api/similar/{ids['red']}").json()["results"]
    assert [(hit["id"], hit["path"]) for hit in found] == [(hit.photo_id, hit.path) for hit in hits]


def test_search_by_terms_and_by_a_vector(api: TestClient, ids: dict[str, int]) -> None:
    terms = [
        {"text": "red"},
        {"photo": ids["blue"], "weight": 0.5},
        {"photo": ids["green"], "weight": -1},
    ]
    found = api.post("/api/search", json={"terms": terms, "k": 5}).json()
    assert [hit["path"] for hit in found["results"]] == ["red.png", "yellow.png"]
    with Collection.open(api.app.state.service.source.root, encoder=ColourEncoder()) as collection:  # type: ignore[attr-defined]
        photos, vectors = collection.vectors()
    numbers = vectors[[photo.path for photo in photos].index("yellow.png")].tolist()
    assert (
        api.post("/api/search", json={"vector": numbers, "k": 1}).json()["results"][0]["path"]
        == "yellow.png"
    )
    both = api.post("/api/search", json={"q": "red", "vector": numbers, "k": 2}).json()["results"]
    assert {hit["path"] for hit in both} == {"red.png", "yellow.png"}


BODIES: dict[str, Any] = {
    "{": "JSON",
    "[]": "Input should be",
    "{}": "the query is empty",
    '{"q": ""}': "the query is empty",
    '{"terms": []}': "the query is empty",
    '{"q": "red", "k": "5"}': "k: Input should be a valid integer",
    '{"q": "red", "k": 1001}': "k: Input should be less than or equal to 1000",
    '{"q": "red", "path": "/etc/passwd"}': "path: Extra inputs are not permitted",
    '{"terms": [{"text": "red", "photo": 1}]}': "either a text or the id",
    '{"terms": [{"weight": 1}]}': "either a text or the id",
    '{"terms": [{"text": "red", "weight": 0}]}': "weight must be a number other than 0",
    '{"terms": [{"text": "red", "weight": NaN}]}': "weight",
    '{"terms": [{"text": "red"}, {"text": "red", "weight": -1}]}': "cancel each other out",
    '{"terms": [{"photo": "one"}]}': "photo",
    '{"vector": [1, 2]}': "has shape (2,)",
    '{"vector": []}': "has shape (0,)",
    '{"vector": [' + ",".join(["0"] * 27) + "]}": "all zeros",
    '{"vector": [' + ",".join(["1e300"] * 27) + "]}": "not finite",
    '{"q": "red", "where": "nothing"}': "no column",
    '{"q": "' + "r" * 2001 + '"}': "at most 2000 characters",
    '{"terms": ' + "[" * 5000 + "]" * 5000 + "}": "",
}


@pytest.mark.parametrize("body", BODIES, ids=[body[:40] for body in BODIES])
def test_bodies_that_are_refused_with_the_reason(api: TestClient, body: str) -> None:
    answer = api.post("/api/search", content=body, headers={"Content-Type": "application/json"})
    assert BODIES[body] in reason(answer, 400, "bad_request")


def test_a_body_of_another_kind_is_refused(api: TestClient) -> None:
    assert "text/plain" in reason(
        api.post("/api/search", content="red", headers={"Content-Type": "text/plain"}),
        400,
        "bad_request",
    )
    assert "of no type" in reason(api.post("/api/search"), 400, "bad_request")
    assert "photo" in reason(api.post("/api/search", files={"other": b"x"}), 400, "bad_request")
    broken = api.post("/api/search", content=b"x", headers={"Content-Type": "multipart/form-data"})
    reason(broken, 400, "bad_request")


# -- uploads ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_search_by_an_uploaded_photo(api: TestClient, indexed: Path, kind: str) -> None:
    data = picture(kind, "red", "blue")
    (indexed.parent / "query").write_bytes(data)
    with Collection.open(indexed, encoder=ColourEncoder()) as collection:
        hits = collection.search(indexed.parent / "query", 3)
    found = api.post(
        "/api/search", files={"photo": ("../../x.php", data, "text/html")}, data={"k": "3"}
    ).json()
    assert found["results"] == [
        {"id": hit.photo_id, "path": hit.path, "score": round(hit.score, 6)} for hit in hits
    ]
    fields = {
        "k": "1",
        "q": "green",
        "terms": json.dumps([{"text": "blue", "weight": -5}]),
        "where": "path like '%.png'",
    }
    assert (
        api.post("/api/search", files={"photo": data}, data=fields).json()["results"][0]["path"]
        != "sub/blue.png"
    )


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG that says that it is huge, and is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    lines = (
        b"".join(packer.compress(b"\0" * (width // 8 + 1)) for _ in range(height)) + packer.flush()
    )
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def broken(data: bytes) -> bytes:
    return data[: len(data) // 2]


HOSTILE = {
    "bomb": lambda: bomb(20_000, 20_000),
    "wide bomb": lambda: bomb(2_000_000_000 // 8, 1),
    "bomb in its header": lambda: (
        picture("BMP", "red")[:18] + struct.pack("<ii", 2**30, 2**30) + picture("BMP", "red")[26:]
    ),
    "truncated JPEG": lambda: broken(picture("JPEG", "red", size=(400, 300))),
    "truncated PNG": lambda: picture("PNG", "red", "blue")[:60],
    "head of a GIF": lambda: b"GIF89a",
    "head of a HEIC": lambda: b"\0\0\0\x18ftypheic",
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "HTML": lambda: b"<!doctype html><script>alert(1)</script>",
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n(/etc/passwd) run",
    "zip": lambda: b"PK\x03\x04" + b"\0" * 100,
    "zeros": lambda: b"\0" * 1000,
    "text": lambda: b"red",
    "nothing": lambda: b"",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_uploads_that_are_no_photo_are_refused(api: TestClient, kind: str) -> None:
    answer = api.post("/api/search", files={"photo": ("photo.jpg", HOSTILE[kind](), "image/jpeg")})
    assert "/" not in reason(answer, 400, "bad_request").replace("image/", "")
    assert api.get("/api/search?q=red&k=1").json()["results"][0]["path"] == "red.png"


def test_uploads_that_are_too_large_are_refused(api: TestClient) -> None:
    hundred = b"\xff\xd8\xff" + bytes(100_000_000)
    assert "20,000,000 bytes" in reason(
        api.post("/api/search", files={"photo": hundred}), 413, "too_large"
    )
    unsaid = {
        "Content-Type": "multipart/form-data; boundary=x"
    }  # sent in parts, without its length
    parts = (
        part
        for part in (
            b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n',
            *[bytes(1 << 20)] * 40,
        )
    )
    assert "more than" in reason(
        api.post("/api/search", content=parts, headers=unsaid), 413, "too_large"
    )
    json_type = {"Content-Type": "application/json"}
    assert "in JSON" in reason(
        api.post("/api/search", content=b'{"q": "' + b"r" * 2_000_000 + b'"}', headers=json_type),
        413,
        "too_large",
    )
    lying = {"Content-Type": "application/json", "Content-Length": "9" * 30}
    reason(api.post("/api/search", content=b"{}", headers=lying), 413, "too_large")
    assert api.get("/healthz").json() == {"status": "ok"}


def test_forms_of_too_many_parts_are_refused(api: TestClient) -> None:
    many = [("photo", (f"{number}.png", picture("PNG", "red"), "image/png")) for number in range(3)]
    reason(api.post("/api/search", files=many), 400, "bad_request")
    reason(
        api.post(
            "/api/search",
            files={"photo": picture("PNG", "red")},
            data={f"f{n}": "x" for n in range(100)},
        ),
        400,
        "bad_request",
    )
    reason(
        api.post(
            "/api/search", files={"photo": picture("PNG", "red")}, data={"terms": "[" * 100_000}
        ),
        400,
        "bad_request",
    )


@pytest.mark.slow
def test_a_photo_that_takes_too_long_is_refused(indexed: Path) -> None:
    with asked(indexed, ServeSettings(decode_seconds=0.001, upload_pixels=10**9)) as api:
        data = picture("PNG", *COLOURS, size=(6000, 4000))
        began = time.monotonic()
        assert "longer than 0.001 s" in reason(
            api.post("/api/search", files={"photo": data}), 400, "bad_request"
        )
        assert time.monotonic() - began < 60  # it was stopped, not waited for
        assert api.get("/healthz").status_code == 200


def test_an_upload_of_too_many_pixels_is_refused(indexed: Path) -> None:
    with asked(indexed, ServeSettings(upload_pixels=1000)) as api:
        assert "over the cap of 1,000" in reason(
            api.post("/api/search", files={"photo": picture("PNG", "red")}), 400, "bad_request"
        )


# -- photos ----------------------------------------------------------------------------------------


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    """A folder of one picture in each of several formats, one of them with EXIF, indexed."""
    folder = tmp_path / "kinds"
    with_exif(folder / "a.jpg", orientation=6)
    for kind in ("PNG", "WEBP", "GIF", "TIFF", "BMP"):
        (folder / f"b.{kind.lower()}").write_bytes(picture(kind, "green", "red"))
    (folder / "c.jpg").write_bytes(picture("PNG", "green"))  # its name lies
    (folder / "a.CR2").write_bytes(b"II*\0 the RAW of a.jpg")
    index_folder(folder, encoder=ColourEncoder())
    return folder


def paths_of(folder: Path) -> dict[str, int]:
    with Collection.open(folder, encoder=ColourEncoder()) as collection:
        return {photo.path: photo.photo_id for photo in collection.photos()}


@pytest.mark.slow
def test_the_facts_of_a_photo(kinds: Path) -> None:
    ids = paths_of(kinds)
    with asked(kinds) as api:
        found = api.get(f"/api/photos/{ids['a.jpg']}").json()
    stat = (kinds / "a.jpg").stat()
    modified = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(stat.st_mtime_ns // 10**9))
    assert found.pop("fingerprint") != ""
    assert found == {
        "id": ids["a.jpg"],
        "path": "a.jpg",
        "text": None,
        "companions": ["a.CR2"],
        "bytes": stat.st_size,
        "modified_at": modified,
        "width": 32,
        "height": 64,
        "label": None,
        "label_score": None,
        "taken_at": "2019-07-14T18:30:00",
        "taken_from": "EXIF:DateTimeOriginal",
        "taken_offset": None,
        "camera": "Maker Model 9",
        "latitude": 48.8583333,
        "longitude": 2.2944444,
        "city": "Paris",
        "region": "Île-de-France",
        "country": "France",
        "lens": None,
        "rating": None,
        "keywords": None,
        "description": None,
        "duration": None,
        "time": None,
    }


@pytest.mark.slow
def test_a_zip_and_the_page_of_a_photo_have_its_companion(kinds: Path) -> None:
    ids = paths_of(kinds)
    (kinds / "b.jpg").write_bytes(b"not beside a photo that was indexed")
    with asked(kinds) as api:
        page = api.get(f"/photos/{ids['a.jpg']}").text
        saved = api.post("/export", data={"id": [ids["a.jpg"], ids["b.png"]], "as": "zip"})
    assert "<dt>With it</dt><dd>a.CR2</dd>" in page
    with zipfile.ZipFile(io.BytesIO(saved.content)) as files:
        assert files.namelist() == ["a.jpg", "a.CR2", "b.png"]
        assert files.read("a.CR2") == (kinds / "a.CR2").read_bytes()


@pytest.mark.slow
def test_the_image_of_a_photo(kinds: Path) -> None:
    ids = paths_of(kinds)
    types = {
        "a.jpg": "image/jpeg",
        "b.png": "image/png",
        "b.webp": "image/webp",
        "b.gif": "image/gif",
        "c.jpg": "image/png",
    }
    with asked(kinds) as api:
        for name, kind in types.items():
            answer = api.get(f"/api/photos/{ids[name]}/image")
            assert (answer.status_code, answer.headers["content-type"], answer.content) == (
                200,
                kind,
                (kinds / name).read_bytes(),
            )
        for name in ("b.tiff", "b.bmp"):
            answer = api.get(f"/api/photos/{ids[name]}/image")
            assert (answer.headers["content-type"], Image.open(BytesIO(answer.content)).size) == (
                "image/webp",
                (40, 30),
            )


@pytest.mark.slow
def test_remote_users_see_no_exif(kinds: Path) -> None:
    ids = paths_of(kinds)
    with asked(kinds, REMOTE, ELSEWHERE, headers=BEARER) as api:
        assert not PRIVATE & set(api.get(f"/api/photos/{ids['a.jpg']}").json())
        answer = api.get(f"/api/photos/{ids['a.jpg']}/image")
        assert answer.headers["content-type"] == "image/webp"
        assert b"Model 9" not in answer.content
        with Image.open(BytesIO(answer.content)) as image:
            assert (image.size, dict(image.getexif())) == ((32, 64), {})
        for where in (
            "latitude > 48",
            "not year = 2019",
            "camera is null",
            "path like 'a%' or (taken_at < '2019' and month = 7)",
        ):
            answer = api.get("/api/search", params={"q": "red", "where": where})
            assert "--show-exif" in reason(answer, 403, "forbidden")
            reason(api.post("/api/search", json={"q": "red", "where": where}), 403, "forbidden")
            reason(
                api.get(f"/api/similar/{ids['a.jpg']}", params={"where": where}), 403, "forbidden"
            )
            reason(
                api.get("/api/labels", params={"labels": "red,green", "where": where}),
                403,
                "forbidden",
            )
        assert api.get("/api/search", params={"q": "red", "where": "width > 10"}).status_code == 200
        assert api.get("/api/info").json()["exif_shown"] is False


@pytest.mark.slow
def test_remote_users_see_exif_where_that_is_said(kinds: Path) -> None:
    ids = paths_of(kinds)
    shown = ServeSettings(host="0.0.0.0", token=REMOTE.token, show_exif=True)
    with asked(kinds, shown, ELSEWHERE, headers=BEARER) as api:
        assert api.get(f"/api/photos/{ids['a.jpg']}").json()["camera"] == "Maker Model 9"
        assert (
            api.get(f"/api/photos/{ids['a.jpg']}/image").content == (kinds / "a.jpg").read_bytes()
        )


@pytest.mark.slow
def test_a_proxy_makes_a_remote_user(kinds: Path) -> None:
    ids = paths_of(kinds)
    with asked(kinds) as api:
        assert "camera" in api.get(f"/api/photos/{ids['a.jpg']}").json()
        assert (
            "camera"
            not in api.get(
                f"/api/photos/{ids['a.jpg']}", headers={"X-Forwarded-For": "127.0.0.1"}
            ).json()
        )


@pytest.mark.parametrize("what", ["thumbnail", "image"])
def test_pictures_are_asked_for_again_by_their_tag(
    api: TestClient, ids: dict[str, int], indexed: Path, what: str
) -> None:
    address = f"/api/photos/{ids['red']}/{what}"
    first = api.get(address)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, max-age=300"
    again = api.get(address, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert api.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
    index_folder(paint(indexed / "red.png", "orange").parent, encoder=ColourEncoder())
    changed = api.get(address, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)


@pytest.mark.slow
def test_the_sizes_of_thumbnails(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    paint(folder / "wide.png", *COLOURS, size=(2000, 500))
    index_folder(folder, encoder=ColourEncoder())
    with asked(folder) as api:
        sizes = {
            size: Image.open(BytesIO(api.get(f"/api/photos/1/thumbnail?size={size}").content)).size
            for size in (16, 160, 161, 1280)
        }
    assert sizes == {16: (160, 40), 160: (160, 40), 161: (320, 80), 1280: (1280, 320)}


def test_a_file_that_is_gone_or_no_photo_any_more(
    api: TestClient, ids: dict[str, int], indexed: Path
) -> None:
    (indexed / "red.png").unlink()
    (indexed / "green.png").write_bytes(b"<script>alert(1)</script>")
    for what in ("thumbnail", "image"):
        assert "not there any more" in reason(
            api.get(f"/api/photos/{ids['red']}/{what}"), 404, "not_found"
        )
        assert "has changed since it was indexed" in reason(
            api.get(f"/api/photos/{ids['green']}/{what}"), 404, "not_found"
        )


def test_a_name_that_is_no_utf8_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    paint(folder / "red.png", "red").rename(folder / "r\udcffd\u202e.png")
    index_folder(folder, encoder=ColourEncoder())
    with asked(folder) as api:
        assert api.get("/api/search?q=red").json()["results"][0]["path"] == "r\ufffdd\u202e.png"
        assert api.get("/api/photos/1").json()["path"] == "r\ufffdd\u202e.png"
        assert api.get("/api/photos/1/image").status_code == 200


# -- the collection --------------------------------------------------------------------------------


def test_labels(api: TestClient, ids: dict[str, int], indexed: Path) -> None:
    found = api.get(
        "/api/labels", params={"labels": "red, blue = blue | navy", "examples": 1}
    ).json()
    assert [
        (one["label"], one["photos"], [hit["path"] for hit in one["examples"]])
        for one in found["labels"]
    ] == [
        ("red", 3, ["red.png"]),
        ("blue", 1, ["sub/blue.png"]),
    ]
    some = api.get(
        "/api/labels", params={"labels": "red,blue", "where": "path like 'sub/%'", "examples": 0}
    ).json()
    assert some == {"labels": [{"label": "blue", "photos": 1, "examples": []}], "unlabelled": 0}
    assert api.get("/api/labels").json() == {"labels": [], "unlabelled": 4}
    with Collection.open(indexed, encoder=ColourEncoder()) as collection:
        collection.store_labels(collection.label(["red", "blue"])[:1])
    assert api.get("/api/labels").json()["unlabelled"] == 3


def test_info_health_and_metrics(api: TestClient, indexed: Path) -> None:
    info = api.get("/api/info").json()
    assert (
        info["photos"],
        info["encoder"],
        info["dim"],
        info["reads_text"],
        info["exif_shown"],
    ) == (4, "colour", 27, True, True)
    assert str(indexed) not in json.dumps(info)
    assert api.get("/healthz").json() == {"status": "ok"}
    api.get("/api/search?q=red")
    api.get("/api/photos/1/thumbnail")
    api.get("/a/path/that/a/stranger/made")
    metrics = api.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = metrics.text.splitlines()
    assert {
        'vitsearch_requests_total{method="GET",route="/api/search",status="200"} 1',
        'vitsearch_requests_total{method="GET",route="other",status="404"} 1',
        "vitsearch_photos 4",
        "vitsearch_searches_total 1",
        "vitsearch_thumbnails_made_total 1",
        "vitsearch_request_seconds_count 5",
    } <= set(lines)
    assert "stranger" not in metrics.text


def test_a_collection_that_cannot_be_read_is_a_short_503(api: TestClient, indexed: Path) -> None:
    (indexed / ".vitsearch").rename(indexed / ".away")
    for address in (
        "/api/search?q=red",
        "/api/similar/1",
        "/api/photos/1",
        "/api/photos/1/thumbnail",
        "/api/info",
        "/healthz",
        "/metrics",
    ):
        answer = api.get(address)
        assert answer.headers["retry-after"] == "1"
        assert str(indexed) not in reason(answer, 503, "busy")
    (indexed / ".away").rename(indexed / ".vitsearch")
    assert api.get("/api/search?q=red").status_code == 200


def test_the_description_for_programs_and_for_people(api: TestClient) -> None:
    described = api.get("/api/openapi.json").json()
    assert {path: sorted(operations) for path, operations in described["paths"].items()} == {
        "/api/search": ["get", "post"],
        "/api/similar/{photo_id}": ["get"],
        "/api/photos/{photo_id}": ["get"],
        "/api/photos/{photo_id}/thumbnail": ["get"],
        "/api/photos/{photo_id}/image": ["get"],
        "/api/labels": ["get"],
        "/api/info": ["get"],
        "/api/index": ["delete", "get", "post"],
        "/healthz": ["get"],
        "/metrics": ["get"],
    }
    assert "422" not in json.dumps(described["paths"])
    page = api.get("/api/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in described["paths"]:
        assert path in page.text
    assert "http://" not in page.text.replace("http://127.0.0.1", "")
    assert "<script" not in page.text


def test_the_service_ends_with_the_application(indexed: Path) -> None:
    with opened(indexed) as service:
        from vitsearch.web.app import make_app

        with TestClient(make_app(service, ServeSettings()), base_url="http://localhost") as api:
            assert api.get("/healthz").status_code == 200
        with TestClient(make_app(service, ServeSettings()), base_url="http://localhost") as api:
            reason(api.get("/api/search?q=red"), 503, "busy")
