import hashlib
import io
import os
import re
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from helpers.odd_files import (
    HAS_HEIF,
    bad_contents,
    bomb,
    encoded,
    good_contents,
    make_odd_files,
    oriented,
    picture,
)
from vitsearch.errors import PhotoError
from vitsearch.photos import LoadedPhoto, read_bytes_and_fingerprint, read_photo, thumbnail
from vitsearch.photos.decode import decode
from vitsearch.types import PhotoInfo


def difference(image: Image.Image, other: Image.Image) -> float:
    """The mean difference of two RGB pictures of one size, in levels of 255."""
    assert (image.mode, other.mode, image.size) == ("RGB", "RGB", other.size)
    return float(
        np.abs(np.asarray(image, dtype=np.float32) - np.asarray(other, dtype=np.float32)).mean()
    )


def is_readable(read: Callable[[], tuple[Image.Image, PhotoInfo]]) -> bool:
    """Whether a read gives a sound picture; False for a PhotoError with a reason of one line."""
    reason = ""
    try:
        image, info = read()
    except PhotoError as error:
        reason = str(error)
    if reason:
        assert "\n" not in reason
        return False
    assert (image.mode, image.size) == ("RGB", (info.width, info.height))
    return True


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.slow
def test_odd_files_end_as_they_should(tmp_path: Path) -> None:
    def read(path: str) -> tuple[Image.Image, PhotoInfo]:
        photo = read_photo(tmp_path / path)
        return photo.image, photo.info

    states = make_odd_files(tmp_path)
    assert {path: is_readable(partial(read, path)) for path in states} == {
        path: state == "indexed" for path, state in states.items()
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.jpg", "it is cut off: 53% of its picture is missing"),
        ("truncated.png", "cannot be decoded: .*truncated"),
        ("header.jpg", "cannot be decoded: it ends too early$"),
        ("text.jpg", "not a photo: its content is of no picture format"),
        (
            "bomb.png",
            (
                r"100000 x 100000 = 10,000,000,000 pixels, over the cap of 250,000,000 \(raise "
                r"max_pixels to read it\)"
            ),
        ),
        ("page.gif", "not a photo"),
    ],
)
def test_bad_content_says_why(name: str, reason: str) -> None:
    with pytest.raises(PhotoError, match=reason):
        decode(bad_contents()[name])


def test_read_photo_gives_picture_facts_and_hash_of_the_whole_content(tmp_path: Path) -> None:
    content = encoded(picture(1), "PNG")
    (tmp_path / "a.png").write_bytes(content)
    photo = read_photo(tmp_path / "a.png")
    assert photo == LoadedPhoto(
        photo.image, PhotoInfo(96, 64), hashlib.blake2b(content, digest_size=16).digest()
    )
    assert difference(photo.image, picture(1)) == 0


def test_not_regular_missing_empty_and_huge_files_are_refused_without_waiting(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").write_bytes(b"")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with open(tmp_path / "sparse.jpg", "wb") as file:
        file.truncate(3_000_000_000)
    reasons = {}
    for name in ("pipe.jpg", "zero.jpg", "loop.jpg", "sparse.jpg", "gone.jpg", ".", "nul\0.jpg"):
        with pytest.raises(PhotoError) as caught:
            read_bytes_and_fingerprint(tmp_path / name)
        reasons[name] = str(caught.value)
    # in the words of this version of Python
    assert re.fullmatch("cannot be opened: .*embedded null .*", reasons.pop("nul\0.jpg"))
    assert reasons == {
        "pipe.jpg": "not a regular file",
        "zero.jpg": "the file is empty (0 bytes)",
        "loop.jpg": "cannot be opened: Too many levels of symbolic links",
        "sparse.jpg": "the file has 3,000,000,000 bytes, over the cap of 2,000,000,000",
        "gone.jpg": "cannot be opened: No such file or directory",
        ".": "cannot be opened: Is a directory",
    }


class TestPixelCap:
    def test_the_cap_is_ours_below_pillows(self) -> None:
        content = encoded(picture(1, (40, 30)), "PNG")
        assert decode(content, max_pixels=1200)[1] == PhotoInfo(40, 30)
        with pytest.raises(PhotoError, match=r"40 x 30 = 1,200 pixels, over the cap of 1,199 "):
            decode(content, max_pixels=1199)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    def test_the_cap_is_ours_above_pillows_and_pillows_is_left_as_it_was(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        for name, content in good_contents().items():
            assert decode(content)[0].mode == "RGB", name
            assert Image.MAX_IMAGE_PIXELS == 100

    def test_a_huge_header_is_refused_in_every_thread(self) -> None:
        reasons: list[str] = []

        def try_it() -> None:
            try:
                decode(bomb(2**31 - 1, 2**31 - 1))
            except PhotoError as error:
                reasons.append(str(error))

        threads = [threading.Thread(target=try_it) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(reasons) == 4
        assert len(set(reasons)) == 1
        assert "over the cap" in reasons[0]


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(
        ("format_name", "options"),
        [
            ("PNG", {}),
            ("TIFF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("WEBP", {"lossless": True}),
        ],
    )
    def test_every_turn_is_undone_exactly(
        self, orientation: int, format_name: str, options: dict[str, object]
    ) -> None:
        image, info = decode(oriented(picture(1), orientation, format_name, **options))
        assert info == PhotoInfo(96, 64)
        assert difference(image, picture(1)) == 0

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_jpeg_turns_as_pillow_does(self, orientation: int) -> None:
        content = oriented(picture(1), orientation, quality=95)
        with Image.open(io.BytesIO(content)) as stored:
            expected = ImageOps.exif_transpose(stored).convert("RGB")
        assert difference(decode(content)[0], expected) == 0
        assert difference(expected, picture(1)) < 3

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_an_unknown_turn_is_none(self, value: int) -> None:
        assert decode(oriented(picture(1), value))[1] == PhotoInfo(96, 64)

    def test_a_reduced_decode_keeps_the_full_size_in_the_facts(self) -> None:
        image, info = decode(oriented(picture(1, (1600, 1200)), 6), at_least=256)
        assert (image.size, info) == ((400, 300), PhotoInfo(1600, 1200))
        assert (
            difference(image, picture(1, (1600, 1200)).resize((400, 300), Image.Resampling.BOX)) < 4
        )

    def test_a_small_photo_is_not_reduced(self) -> None:
        image, info = decode(encoded(picture(1, (300, 200)), "JPEG"), at_least=256)
        assert (image.size, info) == ((300, 200), PhotoInfo(300, 200))


class TestColour:
    def test_sixteen_bits_are_scaled_and_not_clipped(self) -> None:
        ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        expected = np.rint(ramp / 257).astype(np.uint8)
        for format_name in ("PNG", "TIFF", "PPM"):
            image, _ = decode(encoded(Image.fromarray(ramp), format_name))
            np.testing.assert_array_equal(
                np.asarray(image), np.dstack([expected] * 3), err_msg=format_name
            )

    def test_big_endian_sixteen_bits(self) -> None:
        ramp = np.arange(65536, dtype=">u2").reshape(256, 256)
        strip = ramp.tobytes()
        tags = [
            (256, 3, 256),
            (257, 3, 256),
            (258, 3, 16),
            (259, 3, 1),
            (262, 3, 1),
            (273, 4, 8),
            (277, 3, 1),
            (278, 3, 256),
            (279, 4, len(strip)),
        ]
        entries = b"".join(
            struct.pack(">HHI", tag, kind, 1)
            + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
            for tag, kind, value in tags
        )
        content = (
            b"MM\0*"
            + struct.pack(">I", 8 + len(strip))
            + strip
            + struct.pack(">H", len(tags))
            + entries
            + b"\0\0\0\0"
        )
        image, _ = decode(content)
        np.testing.assert_array_equal(
            np.asarray(image)[..., 0], np.rint(ramp / 257).astype(np.uint8)
        )

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0.0, 0.5, 1.0], [0, 128, 255]),
            ([0.0, 100.0, 255.0], [0, 100, 255]),
            ([-10.0, 0.0, 10.0], [0, 128, 255]),
            ([0.0, 5000.0, 10000.0], [0, 128, 255]),
            ([float("nan"), 0.0, 1.0], [0, 0, 255]),
            ([7000.0, 7000.0, 7000.0], [0, 0, 0]),
        ],
    )
    def test_floats_are_brought_to_eight_bits(
        self, values: list[float], expected: list[int]
    ) -> None:
        image, _ = decode(encoded(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF"))
        assert [image.getpixel((x, 0)) for x in range(3)] == [(level,) * 3 for level in expected]

    def test_wide_integers_are_stretched(self) -> None:
        image, _ = decode(
            encoded(Image.fromarray(np.array([[-1000, 0, 1000]], dtype=np.int32)), "TIFF")
        )
        assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_alpha_lies_over_white(self, mode: str) -> None:
        image = Image.new("RGBA", (3, 1), (0, 0, 0, 255))
        image.putpixel((1, 0), (0, 0, 0, 128))
        image.putpixel((2, 0), (0, 0, 0, 0))
        upright, _ = decode(encoded(image.convert(mode), "PNG"))
        assert [upright.getpixel((x, 0)) for x in range(3)] == [
            (0, 0, 0),
            (127, 127, 127),
            (255, 255, 255),
        ]

    @pytest.mark.parametrize(
        ("mode", "transparency"), [("P", 0), ("P", b"\0"), ("RGB", (0, 0, 0)), ("L", 0), ("1", 0)]
    )
    def test_a_transparent_colour_lies_over_what_shows_the_others(
        self, mode: str, transparency: object
    ) -> None:
        image = Image.new("RGB", (2, 1), "black")
        image.putpixel((1, 0), (255, 255, 255))
        stored = image.quantize(2) if mode == "P" else image.convert(mode)
        if mode == "P":
            transparency = (
                stored.getpixel((0, 0))
                if transparency == 0
                else bytes(255 * (index != stored.getpixel((0, 0))) for index in range(2))
            )
        upright, _ = decode(encoded(stored, "PNG", transparency=transparency))
        assert [upright.getpixel((x, 0)) for x in range(2)] == [(128,) * 3, (255,) * 3]

    def test_cmyk_as_photo_programs_write_it(self) -> None:
        upright, _ = decode(
            encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
        )
        assert difference(upright, Image.new("RGB", (8, 8), "red")) < 4

    @pytest.mark.parametrize("name", ["animated.gif", "animated.webp", "pages.tiff"])
    def test_the_first_of_several_pictures(self, name: str) -> None:
        assert difference(decode(good_contents()[name])[0], picture(2)) < 8

    @pytest.mark.slow
    @pytest.mark.skipif(not HAS_HEIF, reason="needs pillow-heif")
    def test_heic_leaves_pillows_list_of_formats_alone(self, tmp_path: Path) -> None:
        make_odd_files(tmp_path)
        before = dict(Image.OPEN)
        assert difference(read_photo(tmp_path / "phone.HEIC").image, picture(50)) < 8
        assert before == Image.OPEN


def test_heic_content_without_its_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PhotoError, match=r"pip install 'vitsearch\[heif\]'"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0")


FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000"]


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_file_cut_in_its_pixels_fails(format_name: str) -> None:
    noise = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    )
    content = encoded(noise.quantize(256) if format_name == "GIF" else noise, format_name)
    # nine tenths of the rows of a JPEG, in blocks of 16, are a photo: tests/photos/test_readers.py
    for share in (0.05, 0.3, 0.6, 0.8 if format_name == "JPEG" else 0.95):
        with pytest.raises(PhotoError):
            decode(content[: int(len(content) * share)])


SEEDS = {name: encoded(picture(1, (40, 24)), name) for name in FORMATS} | {
    "EXIF": oriented(picture(1, (40, 24)), 6),
    "EXIF TIFF": oriented(picture(1, (40, 24)), 6, "TIFF"),
}


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=4)), max_size=6),
    st.floats(0, 1),
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_photo_gives_a_picture_or_a_photo_error(
    name: str, changes: list[tuple[int, bytes]], cut: float
) -> None:
    content = bytearray(SEEDS[name])
    for place, new in changes:
        place %= len(content)
        content[place : place + len(new)] = new
    is_readable(
        lambda: decode(bytes(content[: round(len(content) * (1 - cut**4))]), max_pixels=4_000_000)
    )


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(
        [
            b"",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"II*\0",
            b"BM",
            b"P6 ",
            b"\0\0\0\x18ftypheic",
            b"\0\0\0\x18ftypavif",
        ]
    ),
)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_give_a_photo_error_or_a_picture(tail: bytes, head: bytes) -> None:
    is_readable(lambda: decode(head + tail, max_pixels=1_000_000))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 100))
def test_a_thumbnail_fits_keeps_its_proportions_and_is_never_enlarged(
    width: int, height: int, side: int
) -> None:
    small = thumbnail(Image.new("RGB", (width, height)), side)
    scale = min(1, side / max(width, height))
    assert small.size == (max(1, round(width * scale)), max(1, round(height * scale)))
