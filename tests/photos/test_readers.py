"""JPEGs and PNGs with something wrong beside their pixels, or a little of them missing."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.odd_files import encoded, picture
from helpers.profiles import rgb_profile
from helpers.remarks import logged_remarks
from vitsearch.collection.update import index_folder
from vitsearch.errors import PhotoError
from vitsearch.photos import upright_rgb
from vitsearch.photos.decode import decode
from vitsearch.photos.readers import NOTE, without_bad_chunks

PHOTO = picture(size=(800, 600))
JPEG = encoded(PHOTO, "JPEG", quality=92)
PROGRESSIVE = encoded(PHOTO, "JPEG", quality=92, progressive=True)
PNG = encoded(PHOTO, "PNG")


def pixels(data: bytes, at_least: int | None = None) -> np.ndarray:
    return np.asarray(decode(data, at_least=at_least)[0]).astype(int)


# -- JPEG ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_least", [None, 100])
@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE], ids=["baseline", "progressive"])
@pytest.mark.parametrize("missing", [1, 2, 20])
def test_the_end_may_be_missing(data: bytes, missing: int, at_least: int | None) -> None:
    image, info = decode(data[:-missing], at_least=at_least)
    assert (info.width, info.height) == (800, 600)
    assert image.info[NOTE] == "the file is cut off at its end, the picture is there"
    off = np.abs(np.asarray(image).astype(int) - pixels(data, at_least))
    assert off[: -off.shape[0] // 20].max() <= (0 if data is JPEG else 40)


def cut_at_row(data: bytes, row: int) -> bytes:
    """A baseline JPEG of 600 rows up to about this row, found by decoding it."""
    low, high = data.find(b"\xff\xda") + 20, len(data)
    while high - low > 8:
        middle = (low + high) // 2
        grey = np.asarray(Image.open(io.BytesIO(data[:middle] + b"\xff\xd9")).convert("RGB"))
        there = 600 - int((grey[::-1] != 128).any(axis=(1, 2)).argmax())
        low, high = (middle, high) if there < row else (low, middle)
    return data[:high]


@pytest.mark.parametrize("at_least", [None, 100])
def test_nine_tenths_of_the_rows_are_a_photo_and_fewer_are_not(at_least: int | None) -> None:
    good = decode(cut_at_row(JPEG, 560), at_least=at_least)[0]
    note = good.info[NOTE]
    assert note.startswith("the file is cut off: the last ")
    assert 4 <= float(note.split("the last ")[1].split("%")[0]) <= 10
    scale = 600 // good.height
    right = pixels(JPEG, at_least)
    np.testing.assert_array_equal(np.asarray(good)[: 520 // scale], right[: 520 // scale])
    for row in (500, 300, 16):
        with pytest.raises(PhotoError, match="it is cut off: .*% of its picture is missing"):
            decode(cut_at_row(JPEG, row), at_least=at_least)
    with pytest.raises(PhotoError):
        decode(JPEG[:300])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_that_are_cut_off(mode: str) -> None:
    data = encoded(PHOTO.convert(mode), "JPEG", quality=92)
    image, _ = decode(data[:-40])
    assert image.size == (800, 600)
    with pytest.raises(PhotoError, match="it is cut off"):
        decode(data[: len(data) // 2])


def test_a_black_or_grey_picture_without_its_end_is_there() -> None:
    for colour in ("black", (128, 128, 128), "white"):
        data = encoded(Image.new("RGB", (320, 240), colour), "JPEG")
        image, _ = decode(data[:-2])
        assert set(image.tobytes()) == set(Image.new("RGB", (1, 1), colour).tobytes())


def test_a_progressive_jpeg_is_there_once_a_scan_reached_nine_tenths_of_its_rows() -> None:
    scans = [at for at in range(len(PROGRESSIVE)) if PROGRESSIVE[at : at + 2] == b"\xff\xda"]
    coarse, _ = decode(PROGRESSIVE[: scans[1]])
    assert NOTE in coarse.info
    assert np.abs(np.asarray(coarse).astype(int) - np.asarray(PHOTO)).mean() < 6
    with pytest.raises(PhotoError, match="it is cut off"):
        decode(PROGRESSIVE[: scans[0] + (scans[1] - scans[0]) // 2])


def test_the_note_is_told_when_it_is_indexed_and_comes_out_of_a_child(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG[:-2])
    with logged_remarks() as lines:
        report = index_folder(tmp_path, encoder="colour", decode_timeout=100)
    assert (report.indexed, report.failed) == (1, 0)
    assert lines == ["a.jpg: the file is cut off at its end, the picture is there"]


def lossless(width: int, height: int) -> bytes:
    """A lossless JPEG (SOF3) of one grey."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([255, marker]) + struct.pack(">H", len(body) + 2) + body

    frame = segment(0xC3, struct.pack(">BHHB", 8, height, width, 1) + bytes([1, 0x11, 0]))
    codes = segment(0xC4, bytes([0, 1] + [0] * 15 + [0]))
    scan = segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
    return b"\xff\xd8" + frame + codes + scan + bytes(width * height // 8) + b"\xff\xd9"


@pytest.mark.parametrize("at_least", [None, 200, 600])
def test_a_lossless_jpeg_is_decoded_whole(at_least: int | None) -> None:
    image, info = decode(lossless(1600, 1200), at_least=at_least)
    assert (image.size, info.width, info.height) == ((1600, 1200), 1600, 1200)
    assert set(image.tobytes()) == {128}


EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010F] = 6, "Maker"
WITH_ALL = encoded(PHOTO, "JPEG", quality=92, exif=EXIF, icc_profile=rgb_profile("p3"))


@pytest.mark.parametrize(
    "odd",
    [
        b"\xff\xe0\0\7JFIF\0",
        b"\xff\xe0\0\2",
        b"\xff\xe0\0\6JFIF",
        b"\xff\xe2\0\x0eICC_PROFILE\0",
        b"\xff\xe2\0\x0fICC_PROFILE\0\1",
        b"\xff\xed\0\x15Photoshop 3.0\x008BIM\4",
        b"\xff\xee\0\x07Adobe",
        b"\xff\xe1\0\2",
        b"\xff\xfe\0\2",
        b"\0\0",
        b"\0" * 100,
    ],
)
def test_odd_segments_never_refuse_a_picture(odd: bytes) -> None:
    plain = JPEG[:2] + odd + JPEG[20:]  # in place of JFIF
    np.testing.assert_array_equal(pixels(plain), pixels(JPEG))
    image, info = decode(WITH_ALL[:2] + odd + WITH_ALL[2:])
    right, facts = decode(WITH_ALL)
    assert info == facts
    np.testing.assert_array_equal(np.asarray(image), np.asarray(right))
    assert (info["camera"], info.width) == ("Maker", 600)


# -- PNG -------------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def with_chunks(*chunks: bytes, last: bool = False, data: bytes = PNG) -> bytes:
    at = len(data) - 12 if last else 33
    return data[:at] + b"".join(chunks) + data[at:]


BOMB = zlib.compress(bytes(200_000_000), 9)
CHUNKS = {
    "text over a cap": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"node 12345 " * 100_000)),
    "long text": chunk(b"tEXt", b"workflow\0" + b"node 12345 " * 100_000),
    "long international text": chunk(b"iTXt", b"workflow\0\0\0\0\0" + b"node 12345 " * 100_000),
    "bomb": chunk(b"zTXt", b"a\0\0" + BOMB),
    "international bomb": chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB),
    "bomb of a profile": chunk(b"iCCP", b"icc\0\0" + BOMB),
    "many bombs": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000), 9)) * 100,
    "wrong crc": chunk(b"tEXt", b"Comment\0hello", 1),
    "wrong crc of a private chunk": chunk(b"prVt", b"hello", 1),
    "wrong crc of the profile": chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"junk"), 1),
    "wrong crc of EXIF": chunk(b"eXIf", EXIF.tobytes()[6:], 1),
    "unknown method of the profile": chunk(b"iCCP", b"icc\0\1junk"),
    "junk in the profile": chunk(b"iCCP", b"icc\0\0junk"),
    "profile without a name": chunk(b"iCCP", b"x" * 100),
    "unknown method of a text": chunk(b"zTXt", b"a\0\7junk"),
    "short pHYs": chunk(b"pHYs", b"\0"),
    "short gAMA": chunk(b"gAMA", b"\0"),
    "short cHRM": chunk(b"cHRM", b"\0"),
    "empty sRGB": chunk(b"sRGB", b""),
    "short tRNS": chunk(b"tRNS", b"\0"),
    "short acTL": chunk(b"acTL", b"\0"),
    "frames out of order": chunk(b"acTL", struct.pack(">II", 3, 0)) + chunk(b"fcTL", bytes(26)) * 2,
    "empty texts": chunk(b"tEXt", b"") + chunk(b"zTXt", b"") + chunk(b"iTXt", b""),
}


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("last", [False, True], ids=["before the picture", "behind it"])
def test_ancillary_chunks_never_refuse_a_picture(name: str, last: bool) -> None:
    image, info = decode(with_chunks(CHUNKS[name], last=last))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(PHOTO))
    assert (info.width, info.height, dict(info.metadata)) == (800, 600, {})


def test_texts_are_read_within_a_bound() -> None:
    memory = pytest.importorskip("tracemalloc")
    memory.start()
    with_all = with_chunks(*(CHUNKS[name] for name in CHUNKS if "bomb" in name))
    without_bad_chunks(with_all)
    peak = memory.get_traced_memory()[1]
    memory.stop()
    assert peak < 20_000_000


def test_a_sound_png_is_left_as_it_is_and_keeps_what_it_says() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    data = encoded(PHOTO, "PNG", exif=exif, icc_profile=rgb_profile("p3"), dpi=(72, 72))
    assert without_bad_chunks(data) is data
    image, info = decode(with_chunks(CHUNKS["wrong crc"], CHUNKS["bomb"], data=data))
    right, facts = decode(data)
    assert (info, info["camera"]) == (facts, "Maker")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(right))


def raw_png(depth: int, kind: int, rows: bytes, transparent: bytes, size: tuple[int, int]) -> bytes:
    head = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0)
    chunks = [chunk(b"IHDR", head), chunk(b"tRNS", transparent)]
    chunks += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_the_transparent_colour_counts_at_every_depth() -> None:
    deep = b"\0" + struct.pack(">4H", 1000, 1001, 30000, 65535)
    image, _ = decode(raw_png(16, 0, deep, struct.pack(">H", 1000), (4, 1)))
    assert [image.getpixel((x, 0))[0] for x in range(4)] == [255, 4, 117, 255]
    image, _ = decode(raw_png(4, 0, b"\0\x3f\x80", struct.pack(">H", 3), (4, 1)))
    assert [image.getpixel((x, 0))[0] for x in range(4)] == [255, 255, 136, 0]
    image, _ = decode(raw_png(2, 0, b"\0\x1b", struct.pack(">H", 0), (4, 1)))
    assert [image.getpixel((x, 0))[0] for x in range(4)] == [255, 85, 170, 255]
    image, _ = decode(raw_png(1, 0, b"\0\x40", struct.pack(">H", 0), (2, 1)))
    assert {image.getpixel((x, 0)) for x in range(2)} == {(128,) * 3, (255,) * 3}
    colours = struct.pack(">6H", 0x1234, 0x2345, 0x3456, 0x4567, 0x5678, 0x6789)
    image, _ = decode(raw_png(16, 2, b"\0" + colours, colours[:6], (2, 1)))
    assert [image.getpixel((x, 0)) for x in range(2)] == [(255,) * 3, (0x45, 0x56, 0x67)]


def test_premultiplied_grey() -> None:
    image = Image.new("LA", (4, 4), (200, 128)).convert("La")
    assert upright_rgb(image).getpixel((0, 0)) == (227, 227, 227)
