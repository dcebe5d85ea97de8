"""PSD, TGA, QOI, ICO and DDS: whole values of pictures made from nothing."""

import io
import struct

import pytest
from PIL import Image

from vitsearch.errors import PhotoError
from vitsearch.photos.decode import decode

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
PIXELS = [RED, BLUE, BLUE, RED]  # of a picture of 2 x 2


def psd(
    channels: list[bytes], *, mode: int = 3, depth: int = 8, layers: int = 0, merged: bool = True
) -> bytes:
    """A PSD of 2 x 2 pixels (Adobe Photoshop File Formats Specification)."""
    info = struct.pack(">4sHBBI", b"8BIM", 1057, 0, 0, 6) + struct.pack(">IBB", 1, merged, 0)
    layer_info = struct.pack(">IIh", 6, 2, layers) if layers else b""
    return (
        struct.pack(">4sH6xHIIHH", b"8BPS", 1, len(channels), 2, 2, depth, mode)
        + bytes(4)
        + struct.pack(">I", len(info))
        + info
        + (layer_info or bytes(4))
        + b"\0\0"
        + b"".join(channels)
    )


R, G, B = b"\xff\0\0\xff", bytes(4), b"\0\xff\xff\0"


def pixels(data: bytes) -> list[tuple[int, ...]]:
    image, info = decode(data)
    assert (image.mode, info.width, info.height) == ("RGB", *image.size)
    return [*image.getdata()]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (psd([R, G, B]), PIXELS),
        (psd([b"\xff\x80\0\xff"], mode=1), [WHITE, (128,) * 3, (0,) * 3, WHITE]),
        (psd([R, G, B, b"\0\0\xff\xff"], layers=-1), [WHITE, WHITE, BLUE, RED]),  # transparency
        (psd([R, G, B, b"\0\0\xff\xff"], layers=1), PIXELS),  # a stored selection
        (psd([R, G, B, b"\0\0\xff\xff"]), PIXELS),
        (psd([G, b"\xff" * 4, b"\xff" * 4, b"\xff" * 4], mode=4), [(255, 0, 0)] * 4),
    ],
)
def test_the_merged_picture_of_a_psd(data: bytes, expected: list[tuple[int, ...]]) -> None:
    if data[24:26] == b"\0\4":  # CMYK is stored inverted: here all cyan, by Pillow's plain formula
        expected = [(0, 255, 255)] * 4
    assert pixels(data) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (psd([R, G, B], merged=False), "without a merged picture"),
        (psd([R * 2, G * 2, B * 2], depth=16), "a PSD of 16 bits"),
        (psd([R, G]), "cannot be decoded"),
        (psd([R, G, B])[:-5], "cannot be decoded"),
        (psd([R, G, B])[:30], "cut or damaged"),
        (psd([R, G, B], mode=65), "cut or damaged"),
    ],
)
def test_a_psd_that_is_not_read_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(PhotoError, match=reason):
        decode(data)


def tga(kind: int, depth: int, body: bytes, *, flags: int = 0x20, colours: bytes = b"") -> bytes:
    """A Targa file of 2 x 2 pixels, from the upper left."""
    table = (1, 0, len(colours) // 3, 24) if colours else (0, 0, 0, 0)
    head = struct.pack("<BBBHHBHHHHBB", 0, table[0], kind, *table[1:], 0, 0, 2, 2, depth, flags)
    return head + colours + body


BGR = b"".join(bytes(pixel[::-1]) for pixel in PIXELS)
BGRA = b"".join(bytes(pixel[::-1]) + b"\0" for pixel in PIXELS)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tga(2, 24, BGR), PIXELS),
        (tga(2, 24, BGR, flags=0), PIXELS[2:] + PIXELS[:2]),  # from the lower left
        (tga(2, 24, BGR, flags=0x30), [BLUE, RED, RED, BLUE]),  # from the upper right
        (tga(2, 32, BGRA + bytes(26)), PIXELS),  # the fourth byte says nothing
        (tga(2, 32, BGRA + bytes(26), flags=0x28), [WHITE] * 4),  # transparency
        (tga(10, 24, b"\1" + BGR[:6] + b"\0" + BGR[6:9] + b"\x80" + BGR[9:]), PIXELS),
        (tga(3, 8, b"\0\xff\xff\0"), [(0, 0, 0), WHITE, WHITE, (0, 0, 0)]),
        (tga(1, 8, b"\0\1\1\0", colours=BGR[:6]), PIXELS),
    ],
)
def test_targa(data: bytes, expected: list[tuple[int, ...]]) -> None:
    assert pixels(data) == expected


@pytest.mark.parametrize("name", ["ICO", "QOI", "DDS"])
def test_what_pillow_writes_is_read(name: str) -> None:
    picture = Image.new("RGB", (32, 32), RED)
    picture.paste(BLUE, (0, 0, 16, 16))
    out = io.BytesIO()
    picture.save(out, name)
    assert decode(out.getvalue())[0].tobytes() == picture.tobytes()
