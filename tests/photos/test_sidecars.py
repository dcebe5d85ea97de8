"""Sidecars of photos: whose they are, what they say, and that a run of indexing notices them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.collections import CountingEncoder, counts
from helpers.odd_files import encoded, picture
from vitsearch import Collection, index_folder
from vitsearch.outputs.sidecars import write_sidecars
from vitsearch.photos.sidecars import FolderSidecars, read_sidecars, with_sidecars
from vitsearch.types import PhotoInfo, Prediction, Value

LONG = "a" * 60


@pytest.mark.parametrize(
    ("photo", "sidecar"),
    [
        ("x.jpg", "x.xmp"),
        ("x.jpg", "x.jpg.xmp"),
        ("x.JPG", "X.jpg.XMP"),
        ("x.JPG", "x.Xmp"),
        ("x.jpg", "x.jpg.json"),
        ("x.JPG", "x.jpg.json"),
        ("x.jpg", "x.JPG.json"),
        ("x.jpg", "x.json"),
        ("x.jpg", "x.heic.json"),
        ("x.jpg", "x.jpg.supplemental-metadata.json"),
        ("x.jpg", "x.jpg.supplemental-me.json"),
        ("x.jpg", "x.jpg.s.json"),
        ("x.jpg", "x.jpg..json"),
        ("x(1).jpg", "x(1).jpg.json"),
        ("x(1).jpg", "x.jpg(1).json"),
        ("x(1).jpg", "x.jpg.supplemental-metadata(1).json"),
        ("x(1).jpg", "x.jpg.suppl(1).json"),
        ("x(12).JPG", "x.jpg.supplemental-metadata(12).json"),
        ("x(1).jpg", "x(1).json"),
        ("x-edited.jpg", "x.jpg.json"),
        ("x-bearbeitet.jpg", "x.jpg.supplemental-metadata.json"),
        ("x-editada.jpg", "x.jpg.json"),
        ("x-EDITED.jpg", "x.jpg.json"),
        ("x-edited(1).jpg", "x.jpg(1).json"),
        ("x(1)-edited.jpg", "x.jpg.supplemental-metadata(1).json"),
        ("Bär.jpg", "Ba\u0308r.jpg.json"),
        (f"{LONG[:42]}.jpg", f"{LONG[:42]}.jpg.json"),
        (f"{LONG[:40]}.jpg", f"{LONG[:40]}.jpg.s.json"),
        (f"{LONG[:43]}.jpg", f"{LONG[:43]}.jp.json"),
        (f"{LONG[:46]}.jpg", f"{LONG[:46]}.json"),
        (f"{LONG[:47]}.jpg", f"{LONG[:46]}.json"),
        (f"{LONG[:47]}(1).jpg", f"{LONG[:46]}(1).json"),
        (f"{LONG[:43]}-edi.jpg", f"{LONG[:43]}.jp.json"),
    ],
)
def test_whose_a_sidecar_is(photo: str, sidecar: str) -> None:
    others = ["y.jpg", "xx.jpg", "x1.jpg", "edited.jpg", "(1).jpg"]
    assert FolderSidecars([sidecar], [*others, photo]).of == {photo: [sidecar]}


@pytest.mark.parametrize(
    ("photo", "name"),
    [
        ("x.jpg", "x_01.jpg.xmp"),
        ("x.jpg", "x.jpg(1).json"),
        ("x.jpg", "xx.jpg.json"),
        ("x(1).jpg", "x.jpg.json"),
        ("x(2).jpg", "x.jpg(1).json"),
        ("metadata.jpg", "x.json"),
        ("x-edit.jpg", "x.jpg.json"),
        (f"{LONG[:47]}(1).jpg", f"{LONG[:46]}.json"),
    ],
)
def test_whose_it_is_not(photo: str, name: str) -> None:
    assert FolderSidecars([name], [photo]).of == {}


def test_of_several_the_nearest_name_goes_first() -> None:
    names = ["x.xmp", "X.xmp", "x.jpg.xmp", "X.jpg.xmp", "x.jpg.json", "x.heic.json", "x.json"]
    sidecars = FolderSidecars(names, ["x.jpg", "X.jpg", "x.png"])
    assert sidecars.of == {
        "x.jpg": ["x.jpg.xmp", "x.xmp", "x.jpg.json"],
        "X.jpg": ["X.jpg.xmp", "X.xmp", "x.jpg.json"],
        "x.png": ["x.xmp", "x.json"],
    }
    assert sidecars.used == {*names} - {"x.heic.json"}


# -- what they say ---------------------------------------------------------------------------------

LIGHTROOM = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmp:Rating="4"
 xmp:CreateDate="2011-07-19T11:36:38+02:00"
 exif:GPSLatitude="33,51.408S" exif:GPSLongitude="151,12.9E"><dc:subject><rdf:Bag>
 <rdf:li>opera</rdf:li></rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"""
OPERA = {
    "taken_at": "2011-07-19T11:36:38",
    "taken_from": "sidecar XMP-xmp:CreateDate",
    "taken_offset": "+02:00",
    "latitude": -33.8568,
    "longitude": 151.215,
    "rating": 4,
    "keywords": "opera",
}
DIGIKAM = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><a:RDF
 xmlns:a="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 <a:Description xmlns:e="http://ns.adobe.com/exif/1.0/" xmlns:d="http://purl.org/dc/elements/1.1/">
 <e:DateTimeOriginal>1998-05-06T07:08:09</e:DateTimeOriginal><d:title><a:Alt>
 <a:li xml:lang="x-default">Hafen</a:li></a:Alt></d:title></a:Description></a:RDF></x:xmpmeta>"""
HARBOUR = {
    "taken_at": "1998-05-06T07:08:09",
    "taken_from": "sidecar XMP-exif:DateTimeOriginal",
    "description": "Hafen",
}
TAKEOUT = {
    "title": "x.jpg",
    "description": "At the\nopera",
    "creationTime": {"timestamp": "1600000000"},
    "photoTakenTime": {"timestamp": "1562241605", "formatted": "04.07.2019, 12:00:05 UTC"},
    "geoData": {"latitude": 0.0, "longitude": 0.0, "altitude": 0.0},
    "geoDataExif": {"latitude": 38.7223, "longitude": -9.1393},
    "people": [{"name": "Ana"}, {"name": "Leo"}],
}
LISBON = {
    "taken_at": "2019-07-04T12:00:05",
    "taken_from": "Takeout photoTakenTime",
    "taken_offset": "+00:00",
    "latitude": 38.7223,
    "longitude": -9.1393,
    "keywords": "Ana, Leo",
    "description": "At the opera",
}


def said(folder: Path, name: str, data: bytes) -> list[Any]:
    (folder / name).write_bytes(data)
    return read_sidecars(str(folder), f"{name}/1/1")


@pytest.mark.parametrize(
    ("name", "text", "facts"),
    [
        ("x.xmp", LIGHTROOM, OPERA),
        ("x.jpg.XMP", DIGIKAM, HARBOUR),
        ("x.jpg.json", json.dumps(TAKEOUT), LISBON),
        (
            "x.json",
            json.dumps({"photoTakenTime": {"timestamp": "-1"}, "geoData": "x", "people": 3}),
            {
                "taken_at": "1969-12-31T23:59:59",
                "taken_from": "Takeout photoTakenTime",
                "taken_offset": "+00:00",
            },
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_sidecars_say(
    tmp_path: Path, name: str, text: str, facts: dict[str, Value], encoding: str
) -> None:
    assert said(tmp_path, name, text.encode(encoding)) == [facts]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.json", b"[" * 100_000),
        ("x.json", b'{"photoTakenTime": {"timestamp": "1e99"}}'),
        ("x.json", b'{"photoTakenTime": {"timestamp": 99999999999999999999}}'),
        ("x.json", b'{"photoTakenTime": {"timestamp": "0"}, "geoData": {"latitude": NaN}}'),
        ("x.json", b'{"geoData": {"latitude": 91, "longitude": 1}}'),
        ("x.json", b'{"description": "of another program"}'),
        ("x.json", b'{"geoData": []}' + b" " * (1 << 20)),
        ("x.json", b""),
        ("x.xmp", b"\xff\xfe\x00"),
        ("x.xmp", b"<dc:subject>" * 300_000),
        ("x.xmp", b"exif:DateTimeOriginal= " * 100_000),
        ("x.xmp", b"\0" * (16 * 1024 * 1024 + 1)),
    ],
)
def test_broken_and_hostile_ones_say_nothing(tmp_path: Path, name: str, data: bytes) -> None:
    assert said(tmp_path, name, data) == []


def test_one_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.xmp")
    assert read_sidecars(str(tmp_path), "x.xmp/1/1") == []
    with pytest.raises(FileNotFoundError):
        read_sidecars(str(tmp_path), "gone.xmp/1/1")


def test_the_file_goes_before_its_sidecars() -> None:
    edited = {"taken_at": "2020-05-15", "taken_from": "EXIF:ModifyDate", "taken_offset": "+09:00"}
    taken = {"taken_at": "2011", "taken_from": "EXIF:DateTimeOriginal"}
    own = {**taken, "latitude": 1.0, "longitude": 2.0, "keywords": "a, opera", "rating": 5}
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {**OPERA, "keywords": "opera, Ana, Leo", "description": "At the opera"}),
        (
            {**edited, "rating": 0},
            {**OPERA, "keywords": "opera, Ana, Leo", "description": "At the opera"},
        ),
        (own, {**own, "keywords": "a, opera, Ana, Leo", "description": "At the opera"}),
    ]
    for facts, merged in cases:
        assert with_sidecars(PhotoInfo(3, 2, facts), [OPERA, LISBON]).metadata == merged


# -- indexing --------------------------------------------------------------------------------------


def index(folder: Path, **options: Any) -> tuple[dict[str, int], int]:
    encoder = CountingEncoder()
    report = index_folder(folder, encoder=encoder, **options)
    return counts(report), encoder.embedded


def dates(folder: Path) -> dict[str, tuple[Value | None, Value | None]]:
    with Collection.open(folder) as collection:
        return {
            photo.path: (photo.info["taken_from"], photo.info["keywords"])
            for photo in collection.photos()
        }


def test_a_sidecar_that_comes_changes_or_goes_is_noticed_without_embedding(tmp_path: Path) -> None:
    edited = Image.Exif()
    edited[0x0132] = "2020:05:15 10:25:45"
    (tmp_path / "x.jpg").write_bytes(encoded(picture(1), "JPEG", exif=edited.tobytes()))
    (tmp_path / "y.png").write_bytes(encoded(picture(2), "PNG"))
    assert index(tmp_path)[1] == 2
    assert dates(tmp_path) == {"x.jpg": ("EXIF:ModifyDate", None), "y.png": (None, None)}
    (tmp_path / "x.xmp").write_text(LIGHTROOM)
    (tmp_path / "y.png.json").write_text(json.dumps(TAKEOUT))
    done, embedded = index(tmp_path)
    assert (done, embedded) == ({"unchanged": 2}, 0)
    both = {
        "x.jpg": ("sidecar XMP-xmp:CreateDate", "opera"),
        "y.png": ("Takeout photoTakenTime", "Ana, Leo"),
    }
    assert dates(tmp_path) == both
    assert index_folder(tmp_path, encoder=CountingEncoder()).extensions == {}
    (tmp_path / "x.xmp").write_text(LIGHTROOM.replace("opera", "the opera"))
    (tmp_path / "y.png.json").unlink()
    assert index(tmp_path)[1] == 0
    assert dates(tmp_path) == {
        "x.jpg": ("sidecar XMP-xmp:CreateDate", "the opera"),
        "y.png": (None, None),
    }
    assert index(tmp_path, exclude=["*.xmp"])[1] == 0
    assert dates(tmp_path)["x.jpg"] == ("EXIF:ModifyDate", None)


def test_facts_of_sidecars_move_with_a_photo_but_not_to_its_copies(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "x.jpg").write_bytes(encoded(picture(1), "JPEG"))
    (folders[0] / "x.xmp").write_text(LIGHTROOM)
    index(tmp_path)
    shutil.copy(folders[0] / "x.jpg", folders[1])
    assert index(tmp_path)[1] == 0
    opera = ("sidecar XMP-xmp:CreateDate", "opera")
    assert dates(tmp_path) == {"a/x.jpg": opera, "b/x.jpg": (None, None)}
    shutil.move(folders[0] / "x.jpg", folders[2])
    assert index(tmp_path)[1] == 0
    assert dates(tmp_path) == {"b/x.jpg": (None, None), "c/x.jpg": (None, None)}
    shutil.move(folders[0] / "x.xmp", folders[2])
    index(tmp_path)
    (folders[2] / "x.jpg").rename(tmp_path / "away")
    index(tmp_path)
    (tmp_path / "away").rename(folders[2] / "x.jpg")
    done, embedded = index(tmp_path)
    assert (done, embedded) == ({"unchanged": 1, "restored": 1}, 0)
    assert dates(tmp_path) == {"b/x.jpg": (None, None), "c/x.jpg": opera}


def test_labels_that_were_written_do_not_come_back_as_words_of_people(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(picture(1), "JPEG"))
    (tmp_path / "y.jpg").write_bytes(encoded(picture(2), "JPEG"))
    (tmp_path / "y.xmp").write_text(LIGHTROOM)
    predictions = [Prediction(name, "animal > dog", 0.9) for name in ("x.jpg", "y.jpg")]
    write_sidecars(predictions, root=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.xmp")) == ["x.jpg.xmp", "y.xmp"]
    index(tmp_path)
    opera = ("sidecar XMP-xmp:CreateDate", "opera")
    assert dates(tmp_path) == {"x.jpg": (None, None), "y.jpg": opera}
