from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from helpers.odd_files import encoded, picture
from vitsearch.photos.decode import decode
from vitsearch.types import PhotoInfo, Value

MAKE, MODEL, DATE, RATING = 0x010F, 0x0110, 0x0132, 0x4746
EXIF, GPS = 0x8769, 0x8825
ORIGINAL, DIGITIZED, LENS = 0x9003, 0x9004, 0xA434


def info(
    top: dict[int, Any],
    *,
    exif: dict[int, Any] | None = None,
    gps: dict[int, Any] | None = None,
    format_name: str = "JPEG",
) -> PhotoInfo:
    tags = Image.Exif()
    tags.update(top)
    tags.get_ifd(EXIF).update(exif or {})
    tags.get_ifd(GPS).update(gps or {})
    return decode(encoded(picture(1), format_name, exif=tags.tobytes()))[1]


def position(
    latitude: Any, longitude: Any, *, north: Any = "N", east: Any = "E"
) -> tuple[Value | None, Value | None]:
    facts = info({}, gps={1: north, 2: latitude, 3: east, 4: longitude})
    return facts["latitude"], facts["longitude"]


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "JPEG2000"])
def test_everything_at_once(format_name: str) -> None:
    facts = info(
        {MAKE: "Canon", MODEL: "EOS 5D", DATE: "2020:01:01 00:00:00"},
        exif={ORIGINAL: "2019:07:04 12:30:05"},
        gps={1: "S", 2: (33.0, 51.0, 24.5), 3: "E", 4: (151.0, 12.0, 54.0)},
        format_name=format_name,
    )
    if format_name == "JPEG2000":  # Pillow neither writes nor reads EXIF in it
        assert facts == PhotoInfo(96, 64)
    else:
        assert facts == PhotoInfo(
            96,
            64,
            {
                "taken_at": "2019-07-04T12:30:05",
                "taken_from": "EXIF:DateTimeOriginal",
                "camera": "Canon EOS 5D",
                "latitude": -33.8568056,
                "longitude": 151.215,
            },
        )


@pytest.mark.parametrize(
    ("original", "digitized", "changed", "expected"),
    [
        (
            "2019:07:04 12:30:05",
            "2020:01:01 01:01:01",
            "2021:01:01 01:01:01",
            "2019-07-04T12:30:05",
        ),
        (None, "2020:01:01 01:01:01", "2021:01:01 01:01:01", "2020-01-01T01:01:01"),
        ("0000:00:00 00:00:00", None, "2021:01:01 01:01:01", "2021-01-01T01:01:01"),
        ("    :  :     :  :  ", "2019:02:30 00:00:00", None, None),
        ("2019-07-04T12:30", None, None, "2019-07-04T12:30:00"),
        ("2019:07:04 12:30:05\0junk", None, None, "2019-07-04T12:30:05"),
        ("yesterday", None, None, None),
        (None, None, None, None),
    ],
)
def test_taken_at(
    original: str | None, digitized: str | None, changed: str | None, expected: str | None
) -> None:
    exif = {
        tag: text
        for tag, text in ((ORIGINAL, original), (DIGITIZED, digitized))
        if text is not None
    }
    assert info({DATE: changed} if changed else {}, exif=exif)["taken_at"] == expected


@pytest.mark.parametrize(
    ("make", "model", "expected"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D70", "NIKON D70"),
        ("SONY", "ILCE-7M3", "SONY ILCE-7M3"),
        ("  Apple\0\0", " iPhone\n12  mini ", "Apple iPhone 12 mini"),
        ("Google", "", "Google"),
        ("", "Pixel 7", "Pixel 7"),
        ("", " ", None),
    ],
)
def test_camera(make: str, model: str, expected: str | None) -> None:
    assert info({MAKE: make, MODEL: model})["camera"] == expected


def test_a_very_long_camera_name_is_cut() -> None:
    assert info({MODEL: "x" * 5000})["camera"] == "x" * 100


def test_position_in_each_quarter_of_the_world() -> None:
    assert position((1.0, 30.0, 0.0), (2.0, 15.0, 36.0)) == (1.5, 2.26)
    assert position((1.0, 30.0, 0.0), (2.0, 15.0, 36.0), north="S", east="W") == (-1.5, -2.26)
    assert position((90.0, 0.0, 0.0), (180.0, 0.0, 0.0), east="W") == (90.0, -180.0)


@pytest.mark.parametrize(
    ("latitude", "longitude", "north"),
    [
        ((90.0, 0.0, 1.0), (0.0, 0.0, 0.0), "N"),
        ((0.0, 0.0, 0.0), (181.0, 0.0, 0.0), "N"),
        ((1.0, 2.0, 3.0), (1.0, 2.0, 3.0), "X"),
        ((1.0, 2.0, 3.0), (1.0, 2.0, 3.0), ""),
        ((IFDRational(0, 0), 0.0, 0.0), (1.0, 2.0, 3.0), "N"),
    ],
)
def test_a_broken_position_is_none(latitude: Any, longitude: Any, north: str) -> None:
    assert position(latitude, longitude, north=north) == (None, None)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("EF24-70mm f/2.8L II USM", "EF24-70mm f/2.8L II USM"), (" \0", None), (None, None)],
)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_lens(format_name: str, model: str | None, expected: str | None) -> None:
    exif = {} if model is None else {LENS: model}
    assert info({}, exif=exif, format_name=format_name)["lens"] == expected


@pytest.mark.parametrize(
    ("exif", "xmp", "expected"),
    [
        (5, "", 5),
        (0, "<xmp:Rating>3</xmp:Rating>", 0),
        (6, "<xmp:Rating>3</xmp:Rating>", None),
        (None, "<xmp:Rating>3</xmp:Rating>", 3),
        (None, "<xmp:Rating> 4.0 </xmp:Rating>", 4),
        (None, '<rdf:Description xmp:CreatorTool="x" xmp:Rating="2"/>', 2),
        (None, "<rdf:Description\nxmp:Rating='1'/>", 1),
        (None, '<rdf:Description xmp:Rating="-1"/>', None),
        (None, '<rdf:Description xmp:Rating="9"/>', None),
        (None, '<rdf:Description xmp:Rating="2.5"/>', None),
        (None, '<rdf:Description xmp:Rating="inf"/>', None),
        (None, '<rdf:Description xmp:Rating="nan"/>', None),
        (None, '<rdf:Description xmp:Rating="good"/>', None),
        (None, '<rdf:Description xmp:RatingPercent="50" other:Rating="5"/>', None),
        (None, "", None),
    ],
)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_rating(format_name: str, exif: int | None, xmp: str, expected: int | None) -> None:
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{xmp}</rdf:RDF></x:xmpmeta>'
    tags = Image.Exif()
    tags.update({} if exif is None else {RATING: exif})
    options: dict[str, Any] = {"exif": tags.tobytes()}
    if format_name == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet)
    else:
        options["xmp"] = packet.encode()
    assert decode(encoded(picture(1), format_name, **options))[1]["rating"] == expected


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0" + b"\xff" * 500,
        b"nonsense",
    ],
)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore")
def test_broken_exif_never_fails_a_photo(format_name: str, block: bytes) -> None:
    assert decode(encoded(picture(1), format_name, exif=block))[1] == PhotoInfo(96, 64)
