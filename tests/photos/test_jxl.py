"""JPEG XL through libjxl."""

import io
from typing import Any

import pytest
from PIL import Image

from vitsearch.errors import PhotoError
from vitsearch.photos.decode import decode
from vitsearch.types import PhotoInfo

pytest.importorskip("pillow_jxl")
from vitsearch.photos.readers import JxlImageFile, codestream, size_of


def encoded(picture: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JXL", **options)
    return out.getvalue()


@pytest.mark.parametrize("in_container", [False, True])
@pytest.mark.parametrize(
    "size",
    [
        (1, 1),
        (8, 8),
        (64, 48),
        (640, 480),
        (333, 77),
        (16, 9),
        (1920, 1080),
        (1000, 3000),
        (5000, 3),
    ],
)
def test_the_size_is_known_before_anything_is_decoded(
    size: tuple[int, int], in_container: bool
) -> None:
    data = encoded(Image.new("L", size), use_container=in_container)
    assert size_of(codestream(data)) == size
    assert JxlImageFile(io.BytesIO(data)).size == size


def test_exif_and_xmp_are_read_and_the_decoder_turns_the_picture() -> None:
    exif = Image.Exif()
    exif[274], exif[271], exif[272] = 6, "Acme", "One"
    exif.get_ifd(0x8769)[36867] = "2019:07:04 12:01:02"
    xmp = b'<rdf:Description xmp:Rating="4"/>'
    picture = Image.new("RGB", (64, 48), "red")
    image, info = decode(encoded(picture, exif=exif.tobytes(), xmp=xmp, lossless=True))
    assert info == PhotoInfo(
        64,
        48,
        {
            "taken_at": "2019-07-04T12:01:02",
            "taken_from": "EXIF:DateTimeOriginal",
            "camera": "Acme One",
            "rating": 4,
        },
    )
    assert image.getcolors() == [(64 * 48, (255, 0, 0))]


@pytest.mark.filterwarnings("ignore")
def test_a_file_made_from_a_jpeg_gives_that_jpeg(tmp_path: Any) -> None:
    exif = Image.Exif()
    exif[274] = 6
    picture = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    picture.save(tmp_path / "a.jpg", exif=exif.tobytes())
    with Image.open(tmp_path / "a.jpg") as jpeg:
        data = encoded(jpeg)
    image, info = decode(data)
    expected, _ = decode((tmp_path / "a.jpg").read_bytes())
    assert (image.size, info.width, info.height) == ((48, 64), 48, 64)
    assert image.tobytes() == expected.tobytes()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_every_mode_is_read(mode: str) -> None:
    image, _ = decode(encoded(Image.new(mode, (20, 10)), lossless=True))
    assert (image.mode, image.size) == ("RGB", (20, 10))


def test_damage_and_bombs_are_refused() -> None:
    data = encoded(Image.new("RGB", (640, 480), "red"))
    bomb = b"\xff\x0a" + (3 << 1 | (2**30 - 1) << 3 | 1 << 33).to_bytes(10, "little") + bytes(50)
    for broken in (data[:3], data[:20], b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)):
        with pytest.raises(PhotoError):
            decode(broken)
    with pytest.raises(PhotoError, match="over the cap"):
        decode(bomb)
