"""When and where a photo was taken, and what people wrote about it, as exiftool reads them."""

import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.odd_files import encoded, picture
from vitsearch import Collection, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.photos.dates import date_of_name, parse_date
from vitsearch.photos.decode import decode
from vitsearch.photos.exif import FileTags, Tags, add_boxes
from vitsearch.types import Value

EXIF, GPS = 0x8769, 0x8825
MODIFIED, ORIGINAL, DIGITIZED, OFFSET = 0x0132, 0x9003, 0x9004, 0x9011
EDITED = "2020:05:15 10:25:45"


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def xmp(attributes: str = "", inside: str = "") -> bytes:
    """An XMP packet as a segment of a JPEG."""
    spaces = " ".join(
        f'xmlns:{name}="{url}"'
        for name, url in {
            "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
            "dc": "http://purl.org/dc/elements/1.1/",
            "exif": "http://ns.adobe.com/exif/1.0/",
            "xmp": "http://ns.adobe.com/xap/1.0/",
            "photoshop": "http://ns.adobe.com/photoshop/1.0/",
        }.items()
    )
    packet = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {spaces}><rdf:Description rdf:about="" '
        f"{attributes}>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet.encode())


def iptc(*records: tuple[int, bytes]) -> bytes:
    """Records of IPTC's application part as a segment of a JPEG."""
    data = b"".join(
        b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(value)) + value
        for number, value in records
    )
    padded = data + b"\0" * (len(data) % 2)
    return segment(
        0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + padded
    )


def facts(
    *segments: bytes,
    main: dict[int, Any] | None = None,
    exif: dict[int, Any] | None = None,
    gps: dict[int, Any] | None = None,
) -> dict[str, Value | None]:
    """The metadata of a JPEG with these segments and tags that have a value."""
    tags = Image.Exif()
    tags.update(main or {})
    tags.get_ifd(EXIF).update(exif or {})
    tags.get_ifd(GPS).update(gps or {})
    data = encoded(picture(1), "JPEG", exif=tags.tobytes())
    info = decode(data[:2] + b"".join(segments) + data[2:])[1]
    names = ("taken_at", "taken_from", "taken_offset", "latitude", "longitude")
    words = ("keywords", "description")
    return {name: info[name] for name in (*names, *words) if info[name] is not None}


def when(at: str, source: str, offset: str | None = None) -> dict[str, Value | None]:
    known = {"taken_at": at, "taken_from": source, "taken_offset": offset}
    return {name: value for name, value in known.items() if value}


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2019:07:04 12:30:05", ("2019-07-04T12:30:05", "")),
        ("2019:07:04 12:30:05.123", ("2019-07-04T12:30:05", "")),
        ("2019-07-04T12:30:05Z", ("2019-07-04T12:30:05", "+00:00")),
        ("2019-07-04T12:30:05.25+05:30", ("2019-07-04T12:30:05", "+05:30")),
        ("2019/07/04 12:30", ("2019-07-04T12:30:00", "")),
        ("2019:07:04", ("2019-07-04", "")),
        ("2019:07:04 ", ("2019-07-04", "")),
        ("2019:07", ("2019-07", "")),
        ("2019", ("2019", "")),
        ("2019:07:00 00:00:00", ("2019-07", "")),
        ("1995:00:00 00:00:00", ("1995", "")),
        ("2019:  :     :  :  ", ("2019", "")),
        ("2019:07:     :  :  ", ("2019-07", "")),
        ("2019:07:04   :  :  ", ("2019-07-04", "")),
        ("2019: 7: 4  9: 5: 1", ("2019-07-04T09:05:01", "")),
        ("2019:7:4 9:5:1", ("2019-07-04T09:05:01", "")),
        ("2019:07:04 24:15:00", ("2019-07-04T00:15:00", "")),
        ("2016:12:31 23:59:60", ("2016-12-31T23:59:59", "")),
        ("2019:07:04 11:45:01 PM", ("2019-07-04T23:45:01", "")),
        ("2019:07:04 12:45:01 a.m.", ("2019-07-04T00:45:01", "")),
        ("2019:07:04 12:45:01pm", ("2019-07-04T12:45:01", "")),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("2019:02:30 00:00:00", None),
        ("2019:13:01 00:00:00", None),
        ("2019:07:04 25:00:00", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates_as_they_are_written(text: str, date: tuple[str, str] | None) -> None:
    assert parse_date(text) == date


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("IMG_20190704_120102.jpg", "2019-07-04T12:01:02"),
        ("20190704_120102(0).jpg", "2019-07-04T12:01:02"),
        ("PXL_20190704_120102123.MP.jpg", "2019-07-04T12:01:02"),
        ("IMG-20190704-WA0001.jpg", "2019-07-04"),
        ("Screenshot_2019-07-04-12-01-02.png", "2019-07-04T12:01:02"),
        ("Screenshot_20190704-120102_Chrome.png", "2019-07-04T12:01:02"),
        ("2019-07-04 12.01.02.jpg", "2019-07-04T12:01:02"),
        ("Screen Shot 2019-07-04 at 1.01.02 PM.png", "2019-07-04"),
        ("Screen Shot 2019-07-04 at 01.01.02 PM.png", "2019-07-04T13:01:02"),
        ("WhatsApp Image 2019-07-04 at 12.01.02.jpeg", "2019-07-04T12:01:02"),
        ("photo_2019-07-04_12-01-02.jpg", "2019-07-04T12:01:02"),
        ("signal-2019-07-04-120102.jpg", "2019-07-04T12:01:02"),
        ("2019_07_04.jpg", "2019-07-04"),
        ("trip 2019/07/IMG_0001.jpg", None),
        ("DSC_20191.jpg", None),
        ("IMG_20191304_120102.jpg", None),
        ("12345678901234.jpg", None),
        ("120190704120102.jpg", None),
        ("1562241662000.jpg", None),
        ("2019.jpg", None),
    ],
)
def test_dates_of_names(name: str, date: str | None) -> None:
    dated = date_of_name(f"a 20180101/{name}")
    assert (dated and dated.at) == date
    if dated:
        assert (dated.source, dated.offset) == ("name", "+00:00" if name[:4] == "PXL_" else "")


def test_what_is_trusted_most_says_when() -> None:
    original, digitized = "2011:07:19 11:36:38", "2012:07:19 11:36:38"
    in_xmp = xmp('exif:DateTimeOriginal="1998-05-06T07:08:09+02:00"')
    in_iptc = iptc((55, b"19851125"), (60, b"101112+0100"))
    in_gps = {29: "2019:07:04", 7: (12.0, 30.0, 5.0)}
    edited = {MODIFIED: EDITED}
    everything: dict[str, Any] = {"main": edited, "gps": in_gps}
    assert facts(
        in_xmp,
        in_iptc,
        exif={ORIGINAL: original, DIGITIZED: digitized, OFFSET: "-03:00"},
        **everything,
    ) == when("2011-07-19T11:36:38", "EXIF:DateTimeOriginal", "-03:00")
    assert facts(in_xmp, in_iptc, main={**edited, ORIGINAL: original}) == when(
        "2011-07-19T11:36:38", "EXIF:DateTimeOriginal"
    )
    assert facts(in_xmp, in_iptc, main={**edited, DIGITIZED: digitized}) == when(
        "2012-07-19T11:36:38", "EXIF:DateTimeDigitized"
    )
    assert facts(in_xmp, in_iptc, **everything) == when(
        "1998-05-06T07:08:09", "XMP-exif:DateTimeOriginal", "+02:00"
    )
    assert facts(in_iptc, **everything) == when("1985-11-25T10:11:12", "IPTC:DateCreated", "+01:00")
    assert facts(**everything) == when("2019-07-04T12:30:05", "GPS:GPSDateStamp", "+00:00")
    assert facts(gps={29: "2019:07:04"}) == when("2019-07-04", "GPS:GPSDateStamp", "+00:00")
    assert facts(main=edited) == when("2020-05-15T10:25:45", "EXIF:ModifyDate")
    assert facts(iptc((55, b"19850000")), main=edited) == when("1985", "IPTC:DateCreated")
    assert facts() == {}


SYDNEY = {"latitude": -33.8568056, "longitude": 151.215}


@pytest.mark.parametrize(
    ("gps", "place"),
    [
        ({1: "S", 2: (33.0, 51.0, 24.5), 3: "E", 4: (151.0, 12.0, 54.0)}, SYDNEY),
        ({1: "South", 2: (33.0, 51.0, 24.5), 3: "east", 4: (151.0, 12.0, 54.0)}, SYDNEY),
        ({1: "s", 2: (33.0, 51.0, 24.5, 0.0), 3: "EAST", 4: (151.0, 12.0, 54.0, 0.0)}, SYDNEY),
        ({1: "S", 2: (32.0, 111.0, 24.5), 3: "E", 4: (151.0, 0.0, 774.0)}, SYDNEY),
        ({1: "", 2: (33.0, 51.0, 24.5), 3: "", 4: (151.0, 12.0, 54.0)}, {}),
        ({1: "S", 2: (91.0, 0.0, 0.0), 3: "E", 4: (151.0, 12.0, 54.0)}, {}),
        ({1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}, {}),
        (
            {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (9.0, 30.0, 0.0)},
            {"latitude": 0.0, "longitude": 9.5},
        ),
    ],
)
def test_places(gps: dict[int, Any], place: dict[str, float]) -> None:
    assert facts(gps=gps) == place


def box(kind: bytes, body: bytes, *, large: bool = False) -> bytes:
    """A box of JPEG 2000."""
    if large:
        return struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body
    return struct.pack(">I4s", 8 + len(body), kind) + body


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_what_the_boxes_of_jpeg_2000_say(large: bool, prefix: bytes) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    tags.get_ifd(EXIF)[ORIGINAL] = "2011:07:19 11:36:38"
    tags.get_ifd(GPS).update({1: "S", 2: (33.0, 51.0, 24.5), 3: "E", 4: (151.0, 12.0, 54.0)})
    words = xmp(inside="<dc:subject><rdf:Bag><rdf:li>opera</rdf:li></rdf:Bag></dc:subject>")
    packet = words[words.index(b"<x:") :]
    data = encoded(picture(1, size=(60, 40)), "JPEG2000")
    start = data.index(b"jp2c") - 4
    exif = box(b"uuid", b"JpgTiffExif->JP2" + prefix + tags.tobytes()[6:], large=large)
    uuid = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
    written = data[:start] + exif + box(b"uuid", uuid + packet) + data[start:]
    image, info = decode(written)
    assert (image.size, info.width, info.height) == ((40, 60), 40, 60)
    assert info.metadata == {
        **when("2011-07-19T11:36:38", "EXIF:DateTimeOriginal"),
        **SYDNEY,
        "keywords": "opera",
    }
    image = Image.new("RGB", (4, 3))
    for broken in (struct.pack(">I4s", 5, b"uuid"), b"\0\0\0\1uuid" + b"\0" * 40, b"\xff" * 20):
        add_boxes(image, broken * 2000)
    assert {"exif", "xmp"}.isdisjoint(image.info)


@pytest.mark.parametrize("text", ["33 51 24.48", "33, 51, 24.48", "33.8568"])
def test_degrees_written_as_text(text: str) -> None:
    tags = Tags({1: "S", 2: text})
    assert tags.degrees(2, 1, positive="N", negative="S", limit=90) == -33.8568


def test_places_of_xmp() -> None:
    assert facts(xmp('exif:GPSLatitude="33,51.408S" exif:GPSLongitude="151,12,54E"')) == {
        "latitude": -33.8568,
        "longitude": 151.215,
    }
    for latitude, longitude in (
        ("33,51.408S", "151,12.9E"),
        ("33,51,24.48S", "151,12,54E"),
        ("33.8568S", "151.215E"),
        ("-33.8568", "+151.215"),
        ("33,51.408 s", "151,12.9 e"),
        ("33 51 24.48 S", "151 12 54 E"),
        ("S33,51.408", "E151,12.9"),
        ("33,51.408South", "151,12.9East"),
        ("33°51'24.48&quot;S", "151°12'54&quot;E"),
        ("33 deg 51' 24.48&quot; S", "151 deg 12' 54&quot; E"),
    ):
        assert facts(xmp(f'exif:GPSLatitude="{latitude}" exif:GPSLongitude="{longitude}"')) == {
            "latitude": -33.8568,
            "longitude": 151.215,
        }
    for broken in (
        'exif:GPSLatitude="33,51.408"',
        'exif:GPSLatitude="x,1S"',
        'exif:GPSLatitude="99,1N"',
    ):
        assert facts(xmp(f'{broken} exif:GPSLongitude="151,12,54E"')) == {}


def test_words_that_people_wrote() -> None:
    written = xmp(
        'photoshop:Headline="no"',
        "<dc:subject><rdf:Bag><rdf:li>wedding</rdf:li><rdf:li>Ana &amp; Leo</rdf:li>"
        "<rdf:li> </rdf:li></rdf:Bag></dc:subject>"
        '<dc:title><rdf:Alt><rdf:li xml:lang="x-default">The cake</rdf:li></rdf:Alt></dc:title>'
        '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">Cut\nat noon</rdf:li></rdf:Alt>'
        "</dc:description>",
    )
    assert facts(written) == {
        "keywords": "wedding, Ana & Leo",
        "description": "The cake: Cut at noon",
    }
    records = ((25, b"wedding"), (25, "Zürich".encode("latin-1")), (120, "Küche".encode()))
    assert facts(iptc(*records)) == {"keywords": "wedding, Zürich", "description": "Küche"}
    assert facts(written, iptc(*records)) == {
        "keywords": "wedding, Ana & Leo, Zürich",
        "description": "The cake: Cut at noon",
    }


def test_a_flood_of_words_is_cut() -> None:
    many = xmp(
        inside=f"<dc:subject><rdf:Bag>{'<rdf:li>a very long word</rdf:li>' * 500}"
        f"{''.join(f'<rdf:li>{number:019}</rdf:li>' for number in range(500))}"
        "</rdf:Bag></dc:subject>"
    )
    words = facts(many)["keywords"]
    assert isinstance(words, str)
    assert (len(words), words[:39]) == (2000, f"a very long word, {0:019}, ")


def test_many_lists_that_never_end_cost_no_time() -> None:
    tags = FileTags(Tags({}), Tags({}), Tags({}), b"<dc:subject>" * 80_000)
    assert tags.xmp_list("dc:subject") == []  # searched from each of them it would take minutes


def test_the_name_of_the_file_goes_before_the_date_of_the_last_change(tmp_path: Path) -> None:
    edited, original = Image.Exif(), Image.Exif()
    edited[MODIFIED] = EDITED
    original.get_ifd(EXIF)[ORIGINAL] = "2011:07:19 11:36:38"
    photos = {
        "IMG-20190704-WA0001.jpg": encoded(picture(1), "JPEG"),
        "IMG_20190705_120102.jpg": encoded(picture(2), "JPEG", exif=edited.tobytes()),
        "IMG_20190706_120102.jpg": encoded(picture(3), "JPEG", exif=original.tobytes()),
        "edited.jpg": encoded(picture(4), "JPEG", exif=edited.tobytes()),
        "copy.jpg": encoded(picture(1), "JPEG"),
    }
    for name, data in photos.items():
        (tmp_path / name).write_bytes(data)
    index_folder(tmp_path, encoder=ColourEncoder())
    with Collection.open(tmp_path) as collection:
        dates = {
            photo.path: (photo.info["taken_at"], photo.info["taken_from"])
            for photo in collection.photos()
        }
    assert dates == {
        "IMG-20190704-WA0001.jpg": ("2019-07-04", "name"),
        "IMG_20190705_120102.jpg": ("2019-07-05T12:01:02", "name"),
        "IMG_20190706_120102.jpg": ("2011-07-19T11:36:38", "EXIF:DateTimeOriginal"),
        "edited.jpg": ("2020-05-15T10:25:45", "EXIF:ModifyDate"),
        "copy.jpg": (None, None),
    }
