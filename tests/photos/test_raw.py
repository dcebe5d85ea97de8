"""RAW photos through LibRaw: a DNG made from nothing."""

import importlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.dng import dng, jpeg
from vitsearch.errors import PhotoError
from vitsearch.photos.decode import decode
from vitsearch.photos.formats import format_of
from vitsearch.types import PhotoInfo

pytest.importorskip("rawpy")
COLOURS = [["blue", "red"], ["yellow", "lime"]]  # of the quarters
raw = importlib.import_module("vitsearch.photos.raw")  # which needs rawpy
TURNS = {1: 0, 3: 180, 6: -90, 8: 90}  # what brings a picture of that orientation upright
METADATA = {
    "taken_at": "2019-07-04T12:01:02",
    "taken_from": "EXIF:DateTimeOriginal",
    "camera": "Acme One",
    "latitude": 38.71,
    "longitude": -9.14,
    "lens": "Lens 50 mm",
}


def quarters(width: int, height: int) -> Image.Image:
    picture = Image.new("RGB", (2, 2))
    for y, row in enumerate(COLOURS):
        for x, colour in enumerate(row):
            picture.paste(colour, (x, y, x + 1, y + 1))
    return picture.resize((width, height), Image.Resampling.NEAREST)


def difference(image: Image.Image, upright: Image.Image) -> float:
    """The mean difference of the levels from a picture, away from the borders of its quarters."""
    small = [
        np.asarray(each.resize((8, 8), Image.Resampling.BOX), dtype=float)[[0, 1, 6, 7]][
            :, [0, 1, 6, 7]
        ]
        for each in (image, upright)
    ]
    return float(np.abs(small[0] - small[1]).max())


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(
    ("preview", "at_least", "short"),
    [
        (None, None, 150),  # developed at half size
        (None, 100, 150),
        (None, 200, 300),  # half is too small
        (240, None, 240),  # the preview
        (240, 224, 240),
        (240, 100, 120),  # the preview at half size
        (120, None, 150),  # too small a preview
        (120, 200, 300),
    ],
)
def test_the_picture_is_the_preview_or_developed_and_upright(
    orientation: int, preview: int | None, at_least: int | None, short: int
) -> None:
    sensor = quarters(400, 300)
    inside = None if preview is None else quarters(preview * 4 // 3, preview)
    image, info = decode(dng(sensor, inside, orientation=orientation), at_least=at_least)
    upright = sensor.rotate(TURNS[orientation], expand=True)
    assert info == PhotoInfo(*upright.size, METADATA)
    assert (image.mode, min(image.size)) == ("RGB", short)
    assert (image.width > image.height) == (upright.width > upright.height)
    assert difference(image, upright) < 12


def test_the_smallest_preview_that_is_large_enough_is_taken() -> None:
    sensor = quarters(400, 300)
    green, letterboxed = Image.new("RGB", (200, 150), "green"), Image.new("RGB", (300, 170))
    data = dng(sensor, quarters(400, 300), green, letterboxed, quarters(40, 30))
    for at_least, size, colour in ((140, (200, 150), "green"), (160, (400, 300), "blue")):
        image, info = decode(data, at_least=at_least)
        assert (image.size, info.width) == (size, 400)
        assert difference(image, green if colour == "green" else sensor) < 12
    assert decode(data)[0].size == (400, 300)


def test_a_preview_that_is_upright_already_is_not_turned_again() -> None:
    sensor = quarters(400, 300)
    upright = sensor.rotate(-90, expand=True)
    image, info = decode(dng(sensor, upright, orientation=6))
    assert (image.size, info.width, info.height) == ((300, 400), 300, 400)
    assert difference(image, upright) < 12


def test_a_preview_that_cannot_be_decoded_or_is_too_large_is_passed_over() -> None:
    sensor = quarters(400, 300)
    for preview in (quarters(400, 300), quarters(900, 900)):
        data = dng(sensor, preview)
        if preview.width == 400:
            start = data.index(b"\xff\xda")  # where its data begin
            data = data[: start + 4] + bytes(200) + data[start + 204 :]
        image, _ = decode(data)
        assert (image.size, difference(image, sensor) < 12) == ((200, 150), True)


@pytest.mark.parametrize("preview", [None, quarters(200, 150), quarters(80, 60)])
def test_a_file_that_is_cut_gives_its_preview_or_a_reason(preview: Image.Image | None) -> None:
    """The sensor's data lie at the end; LibRaw would develop what is missing as black."""
    data = bytearray(dng(quarters(400, 300), preview))
    start = data.index(struct.pack("<HHII", 273, 4, 1, 8))  # where the data begin
    data[start + 8 : start + 12] = struct.pack("<I", len(data))
    whole = bytes(data) + data[8 : 8 + 2 * 400 * 300]
    assert difference(decode(whole)[0], quarters(400, 300)) < 12
    cut = whole[: len(data) + 400 * 300]
    if preview is not None and preview.width == 200:
        assert decode(cut)[0].size == (200, 150)
    else:
        with pytest.raises(PhotoError, match="cut"):
            decode(cut)


def test_raw_content_is_told_from_tiff() -> None:
    out = io.BytesIO()
    quarters(40, 30).save(out, "TIFF")
    data = dng(quarters(40, 30))
    names = [(entry := format_of(each)) and entry.name for each in (out.getvalue(), data)]
    assert names == ["TIFF", "RAW"]
    # whatever is cut off
    cut = [format_of(data[:length]) for length in range(8, len(data), 7)]
    assert {entry.name for entry in cut if entry} == {"TIFF", "RAW"}


@pytest.mark.parametrize(
    "head",
    [
        b"FUJIFILMCCD-RAW 0201",
        b"FOVb",
        b"\0MRM",
        b"II\x1a\0\0\0HEAPCCDR",
        b"IIRO",
        b"IIU\0",
        b"II*\0\x10\0\0\0CR\x02\0",
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    ],
)
def test_every_head_of_a_raw_photo_is_recognised_and_its_damage_has_a_reason(head: bytes) -> None:
    entry = format_of(head + bytes(300))
    assert entry is not None
    assert entry.name == "RAW"
    with pytest.raises(PhotoError, match="RAW photo"):
        decode(head + bytes(300))


@pytest.mark.slow
def test_a_folder_of_raw_photos_is_indexed(tmp_path: Path) -> None:
    from vitsearch.collection.update import index_folder

    (tmp_path / "a.DNG").write_bytes(dng(quarters(64, 48)))
    (tmp_path / "named wrong.jpg").write_bytes(dng(quarters(64, 48), quarters(60, 45)))
    (tmp_path / "cut.nef").write_bytes(dng(quarters(64, 48))[:500])
    (tmp_path / "a photo.cr2").write_bytes(jpeg(quarters(64, 48)))
    report = index_folder(tmp_path, encoder="colour")
    assert (report.indexed, report.failed) == (3, 1)


def box(name: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + name + body


def tiff_of(tags: dict[int, Any]) -> bytes:
    exif = Image.Exif()
    exif.update(tags)
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_the_tags_and_the_preview_of_canons_cr3_lie_in_boxes() -> None:
    encoded = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(encoded, "JPEG")
    directories = {
        b"CMT1": tiff_of({271: "Canon", 272: "Canon EOS R5"}),
        b"CMT2": tiff_of({36867: "2019:07:14 18:30:00"}),
    }
    data = box(b"ftyp", b"crx " + bytes(8))
    data += box(b"moov", b"".join(box(*each) for each in directories.items()))
    data += box(b"PRVW", bytes(16) + encoded.getvalue())
    (jpeg,) = raw._jpegs_in(data)
    assert jpeg == encoded.getvalue()
    photo = object.__new__(raw.RawImageFile)
    photo._data = data
    tags = photo._read_tags(None)
    assert (tags[271], tags[272]) == ("Canon", "Canon EOS R5")
    assert tags.get_ifd(34665)[36867] == "2019:07:14 18:30:00"
    assert dict(tags.get_ifd(34853)) == {}
    # damage says nothing
    assert raw._jpegs_in(data[: data.index(b"PRVW")]) == []
    photo._data = data.replace(b"CMT1", b"CMTX")
    assert dict(photo._read_tags(None)) == {}
