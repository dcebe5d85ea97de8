"""ICC profiles, and what transparent pictures are laid over."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from helpers.odd_files import encoded, picture
from helpers.profiles import SPACES, grey_profile, rgb_profile
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.photos import read_photo, upright_rgb
from vitsearch.photos.decode import decode
from vitsearch.photos.profiles import PROFILE, changing_profile, prepared, to_srgb

TWO = np.zeros((8, 16, 3), np.uint8)
TWO[:, :8], TWO[:, 8:] = (200, 40, 40), (40, 160, 60)


def in_space(colours: np.ndarray, profile: bytes, mode: str = "RGB") -> Image.Image:
    """The picture whose sRGB colours these are, in the space of a profile."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    made = ImageCms.profileToProfile(
        Image.fromarray(colours), ImageCms.createProfile("sRGB"), opened, outputMode=mode
    )
    assert made is not None
    return made


@pytest.mark.parametrize("space", [space for space in SPACES if space != "srgb"])
@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "WEBP"])
def test_colours_of_other_spaces_are_converted(
    space: str, version: int, format_name: str, tmp_path: Path
) -> None:
    profile = rgb_profile(space, version=version)
    stored = in_space(TWO, profile)
    data = encoded(
        stored,
        format_name,
        icc_profile=profile,
        **({"lossless": True} if format_name == "WEBP" else {}),
    )
    assert np.abs(np.asarray(stored).astype(int) - TWO).mean() > 10
    image, _ = decode(data)
    assert np.abs(np.asarray(image).astype(int) - TWO).max() <= 3
    assert PROFILE not in image.info
    raw, _ = decode(data, colours="raw")
    np.testing.assert_array_equal(np.asarray(raw), np.asarray(stored))
    (tmp_path / "a").write_bytes(data)  # in a child process too
    np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "a").image), np.asarray(image))


@pytest.mark.parametrize("version", [2, 4])
def test_srgb_of_any_version_and_name_changes_nothing(version: int) -> None:
    profile = rgb_profile("srgb", version=version, name="c2")
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    original = picture(size=(64, 48))
    for each in (profile, made):
        assert changing_profile("RGB", each) is None
        image, _ = decode(encoded(original, "PNG", icc_profile=each))
        np.testing.assert_array_equal(np.asarray(image), np.asarray(original))
    assert changing_profile("RGB", rgb_profile("p3", name="sRGB IEC61966-2.1")) is not None


def test_the_profile_is_applied_after_the_reduction_where_that_is_cheaper(tmp_path: Path) -> None:
    profile = rgb_profile("p3")
    data = encoded(
        in_space(np.asarray(picture(size=(640, 480))), profile), "JPEG", icc_profile=profile
    )
    left, _ = decode(data, colours="profile")
    assert left.info[PROFILE] == profile
    (tmp_path / "a.tif").write_bytes(encoded(left, "TIFF", icc_profile=profile))
    child = read_photo(tmp_path / "a.tif", colours="profile").image
    assert (child.info[PROFILE], child.size) == (profile, (640, 480))
    before, _ = decode(data)
    encoder = ColourEncoder()
    late = prepared(left, encoder.prepare, resizes=True)
    assert late.shape == (32, 32, 3)
    assert np.abs(late.astype(int) - encoder.prepare(before)).max() <= 6
    left, _ = decode(data, colours="profile")
    early = prepared(left, encoder.prepare, resizes=False)
    np.testing.assert_array_equal(early, encoder.prepare(before))
    assert prepared(before, encoder.prepare, resizes=True).tobytes() == early.tobytes()


def test_grey_and_cmyk_profiles() -> None:
    ramp = np.tile(np.arange(64, 256, 3, dtype=np.uint8), (8, 1))
    image, _ = decode(encoded(Image.fromarray(ramp), "PNG", icc_profile=grey_profile(1.0)))
    light = ramp / 255
    right = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert np.abs(np.asarray(image).astype(int) - right[..., None]).max() <= 2
    deep = Image.fromarray(ramp.astype(np.uint16) * 257)
    image, _ = decode(encoded(deep, "TIFF", icc_profile=grey_profile(1.0)))
    assert np.abs(np.asarray(image).astype(int) - right[..., None]).max() <= 2
    both = Image.merge("LA", [Image.fromarray(ramp), Image.new("L", (64, 8), 255)])
    image, _ = decode(encoded(both, "PNG", icc_profile=grey_profile(1.0)))
    assert np.abs(np.asarray(image).astype(int) - right[..., None]).max() <= 2


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"junk" * 100,
        rgb_profile("p3")[:300],
        rgb_profile("p3").replace(b"acsp", b"ACSP"),
        rgb_profile("p3").replace(b"RGB ", b"CMYK"),
        rgb_profile("p3").replace(b"mntr", b"link"),
        grey_profile(1.0),
        rgb_profile("p3") + b"\0" * 4_000_000,
        rgb_profile("p3").replace(b"XYZ \0\0\0\0", b"XYZ \0\0\0\0" + b"\0" * 12)[:500],
    ],
    ids=["none", "junk", "cut", "signature", "other space", "link", "grey", "huge", "shifted"],
)
def test_a_broken_or_wrong_profile_is_ignored(profile: bytes) -> None:
    original = picture(size=(64, 48))
    assert changing_profile("RGB", profile) is None
    assert to_srgb(original, profile) is original
    image, _ = decode(encoded(original, "TIFF", icc_profile=profile))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(original))


def test_a_profile_that_makes_all_black_is_broken() -> None:
    profile = bytearray(rgb_profile("p3"))
    for tag in (b"rXYZ", b"gXYZ", b"bXYZ"):
        at = struct.unpack_from(">I", profile, profile.find(tag) + 4)[0]
        profile[at + 8 : at + 20] = bytes(12)
    assert changing_profile("RGB", bytes(profile)) is None


def test_a_picture_of_a_program_is_converted_and_stays_as_it_is() -> None:
    profile = rgb_profile("prophoto")
    stored = in_space(TWO, profile)
    stored.info[PROFILE] = profile
    before = stored.tobytes()
    assert np.abs(np.asarray(upright_rgb(stored)).astype(int) - TWO).max() <= 3
    assert (stored.tobytes(), stored.info[PROFILE]) == (before, profile)


def transparent(colour: tuple[int, int, int], alpha: int = 255, size: int = 40) -> Image.Image:
    """A square of one colour in the middle of nothing."""
    image = Image.new("RGBA", (2 * size, 2 * size), (255, 255, 255, 0))
    image.paste((*colour, alpha), (size // 2, size // 2, size // 2 + size, size // 2 + size))
    return image


@pytest.mark.parametrize(
    ("colour", "alpha", "ground", "shown"),
    [
        ((255, 255, 255), 255, 128, 255),
        ((245, 245, 245), 255, 128, 245),
        ((255, 255, 255), 100, 128, 178),
        ((0, 0, 0), 255, 255, 0),
        ((128, 128, 128), 255, 255, 128),
        ((255, 255, 255), 8, 255, 255),  # can hardly be seen anywhere
    ],
)
def test_white_on_white_is_laid_over_grey(
    colour: tuple[int, int, int], alpha: int, ground: int, shown: int
) -> None:
    data = encoded(transparent(colour, alpha), "PNG")
    image, _ = decode(data)
    assert image.getpixel((0, 0)) == (ground,) * 3
    assert image.getpixel((40, 40)) == (shown,) * 3
    assert decode(data, colours="raw")[0].getpixel((0, 0)) == (255, 255, 255)
    np.testing.assert_array_equal(
        np.asarray(upright_rgb(transparent(colour, alpha))), np.asarray(image)
    )


def test_the_grey_is_the_one_on_which_the_fewest_vanish() -> None:
    image = transparent((255, 255, 255))
    image.paste((128, 128, 128, 255), (20, 20, 60, 38))
    assert decode(encoded(image, "PNG"))[0].getpixel((0, 0)) == (96, 96, 96)
    image.paste((128, 128, 128, 255), (20, 20, 60, 42))  # more than half is visible on white
    assert decode(encoded(image, "PNG"))[0].getpixel((0, 0)) == (255, 255, 255)


def test_a_large_logo_is_judged_by_a_sample() -> None:
    data = encoded(transparent((255, 255, 255), size=700), "WEBP", lossless=True)
    assert decode(data)[0].getpixel((0, 0)) == (128, 128, 128)
