"""The registry of formats, and that everything which names formats reads it."""

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from helpers.paths import ROOT
from vitsearch.cli import cli
from vitsearch.errors import CollectionError, PhotoError
from vitsearch.photos.decode import decode
from vitsearch.photos.formats import (
    FORMATS,
    HEAD,
    SUFFIXES,
    PhotoFormat,
    format_of,
    media_type_of,
    named_suffixes,
    suffix_of,
)
from vitsearch.photos.sources.source import is_photo


def content(pillow_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(buffer, pillow_name, **options)
    return buffer.getvalue()


def entry(name: str) -> PhotoFormat:
    return next(each for each in FORMATS if each.name == name)


def test_names_and_suffixes_are_unique_and_in_lower_case() -> None:
    suffixes = [suffix for each in FORMATS for suffix in each.suffixes]
    assert sorted(set(suffixes)) == sorted(suffixes)
    assert [suffix for suffix in suffixes if suffix != suffix.lower() or "." in suffix] == []
    assert len({each.name for each in FORMATS}) == len(FORMATS)


@pytest.mark.parametrize(
    ("pillow_name", "name", "media_type"),
    [
        ("JPEG", "JPEG", "image/jpeg"),
        ("PNG", "PNG", "image/png"),
        ("WEBP", "WebP", "image/webp"),
        ("TIFF", "TIFF", None),
        ("BMP", "BMP", None),
        ("GIF", "GIF", "image/gif"),
        ("PPM", "PPM", None),
        ("JPEG2000", "JPEG 2000", None),
        ("AVIF", "AVIF", None),
    ],
)
def test_the_first_bytes_tell_the_format(
    pillow_name: str, name: str, media_type: str | None
) -> None:
    head = content(pillow_name)[:HEAD]
    assert format_of(head) == entry(name)
    matching = {each.name for each in FORMATS if each.magic.match(head)}
    assert matching == ({name} if not entry(name).brands else set())
    assert media_type_of(head) == media_type


# suffixes that cameras, browsers and programs give to content that is read
@pytest.mark.parametrize(
    ("suffixes", "name"),
    [
        ("jpg jpeg jpe jfif jif jfi pjpeg pjp mpo jps insp", "JPEG"),
        ("png apng pns", "PNG"),
        ("tif tiff btf tf8", "TIFF"),
        ("bmp dib", "BMP"),
        ("jp2 j2k j2c jpc jpf jpx jpg2 jph jhc", "JPEG 2000"),
        ("avif avifs", "AVIF"),
        ("heic heif hif heics heifs", "HEIC"),
    ],
)
def test_every_suffix_of_a_format_is_a_photo(suffixes: str, name: str) -> None:
    assert {SUFFIXES[suffix_of(f"IMG.{each.upper()}")].name for each in suffixes.split()} == {name}


def media_file(major: bytes, *compatible: bytes) -> bytes:
    brands = major + bytes(4) + b"".join(compatible)
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x08meta"


@pytest.mark.parametrize(
    ("brands", "name"),
    [
        ((b"avif",), "AVIF"),
        ((b"avis", b"msf1", b"heic"), "AVIF"),
        ((b"mif1", b"mif1", b"avif", b"miaf"), "AVIF"),
        ((b"msf1", b"avis"), "AVIF"),
        ((b"miaf", b"MA1B", b"avif"), "AVIF"),
        ((b"MA1B", b"mif1", b"miaf", b"avif"), "AVIF"),
        ((b"heic", b"mif1", b"avif"), "HEIC"),
        ((b"mif1", b"miaf", b"heix"), "HEIC"),
        ((b"mif1",), "HEIC"),
        ((b"isom", b"iso2", b"mp41"), None),
    ],
)
def test_the_brands_of_a_media_file_tell_its_codec(
    brands: tuple[bytes, ...], name: str | None
) -> None:
    recognised = format_of(media_file(*brands))
    assert (recognised and recognised.name) == name


@pytest.mark.skipif(not entry("AVIF").is_supported(), reason="this Pillow does not read AVIF")
@pytest.mark.parametrize("brand", [b"avif", b"mif1", b"msf1", b"miaf"])
def test_avif_of_any_major_brand_is_read(brand: bytes) -> None:
    data = content("AVIF")
    image, info = decode(data[:8] + brand + data[12:])
    assert (image.size, info.width, info.height) == ((40, 30), 40, 30)


def test_other_content_is_of_no_format() -> None:
    for pillow_name in ("EPS", "PCX", "PDF", "SGI"):
        data = content(pillow_name)
        assert format_of(data) is None
        with pytest.raises(PhotoError, match="not a photo"):
            decode(data)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.jpg", "jpg"), ("a.b.TIF", "tif"), (".jpg", ""), ("jpg", ""), ("a.", "")],
)
def test_the_suffix_of_a_name(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix
    assert is_photo(name) == (suffix in SUFFIXES)


@pytest.mark.slow
@pytest.mark.skipif(not entry("AVIF").is_supported(), reason="this Pillow does not read AVIF")
def test_avif_stills_and_the_first_picture_of_a_sequence_are_indexed(tmp_path: Path) -> None:
    from vitsearch.collection.update import index_folder

    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "still.AVIF")
    frames[1].save(tmp_path / "sequence.avifs", "AVIF", save_all=True, append_images=frames[:1])
    for name, colour in (("still.AVIF", (255, 0, 0)), ("sequence.avifs", (0, 0, 255))):
        image, info = decode((tmp_path / name).read_bytes())
        assert (info.width, info.height) == (40, 30)
        pixel = image.getpixel((20, 15))
        assert isinstance(pixel, tuple)
        assert max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) < 8
    assert index_folder(tmp_path, encoder="colour").indexed == 2


def test_messages_and_help_name_every_format(tmp_path: Path) -> None:
    from vitsearch.collection.update import index_folder

    with pytest.raises(CollectionError) as raised:
        index_folder(tmp_path, encoder="colour")
    assert str(raised.value).endswith(f"looked for {named_suffixes()}")
    shown = CliRunner().invoke(cli, ["index", "--help"]).output
    assert named_suffixes() in " ".join(shown.split())


def test_the_table_of_the_docs_is_that_of_the_registry() -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines()]
    table = {row[0]: row[1:] for row in rows if len(row) == 3}
    for each in FORMATS:
        suffixes = " ".join(f"`{suffix}`" for suffix in each.suffixes)
        assert table[each.name] == [suffixes, f"`[{each.extra.name}]`" if each.extra else ""]
