"""Readers of JPEG, PNG, TIFF, PSD, Targa and JPEG XL that read what every viewer shows: a picture
is not refused for a damaged note beside its pixels, nor for the few bytes that its end lacks, and
none is read wrong. They are Pillow's readers, given content that they take; JPEG XL has libjxl.

JPEG: ITU-T T.81; PNG: W3C, third edition; JPEG XL: ISO/IEC 18181.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageChops, ImageFile, ImageOps, PsdImagePlugin, TgaImagePlugin
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from vitsearch.errors import PhotoError
from vitsearch.photos import tiff
from vitsearch.photos.exif import ORIENTATION, iso_boxes
from vitsearch.photos.formats import NOTE

MIN_ROWS = 0.9  # of a JPEG that is cut off, for it to be a photo
_VERSION_INFO, _EXIF, _XMP = 1057, 1058, 1060  # resources of Photoshop
_END = b"\xff\xd9"
_NEUTRAL = (127, 128)  # of every channel: what libjpeg gives where there is no data
_WITHOUT_LENGTH = frozenset((*range(0xD0, 0xD9), 0x01))  # markers without a length

MAX_TEXT_BYTES = 1_000_000  # of one text of a PNG when it is decompressed
MAX_TEXTS_BYTES = 4_000_000  # of all of them
MAX_PNG_PROFILE = 1_000_000
_SIZES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"eXIf": 8}  # at least
_TRANSPARENCY_SIZES = {0: 2, 2: 6, 3: 1}  # by the kind of colours: grey, RGB, palette
_GREY_SCALES = {"L;2": 85, "L;4": 17}
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_SIGNATURE_BYTES = 8


class JpegPhoto(JpegImageFile):
    """A JPEG; the first picture of a file with several.

    One that is cut off is read where at least `MIN_ROWS` of its rows are there, with a note; a
    progressive one has a row as soon as one scan brought it, in less detail. One that cannot be
    decoded at a reduced size, as the lossless process, is decoded whole.
    """

    def __init__(self, fp: io.BytesIO, filename: str = "") -> None:
        self._content = fp.getvalue()
        self._least: tuple[int, int] | None = None
        try:
            super().__init__(fp, filename)
        except Exception:
            self._open_without_applications(filename)

    def _open_without_applications(self, filename: str) -> None:
        plain = without_applications(self._content)
        try:
            super().__init__(io.BytesIO(plain), filename)
        except Exception:
            plain = without_applications(plain, picture_only=True)
            super().__init__(io.BytesIO(plain), filename)
        self._content = plain

    def draft(
        self, mode: str | None, size: tuple[int, int] | None
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Have it decoded at 1/2, 1/4 or 1/8 of its size, at least ``size``."""
        self._least = size
        return super().draft(mode, size)

    def load(self) -> Any:
        """Decode the picture; raises OSError or PhotoError."""
        try:
            return super().load()
        except OSError as error:
            if self.tile and "truncated" in str(error):
                self.info[NOTE] = _note(self._load_cut_off())
            elif self._least:
                self._take(self._content, None)
            else:
                raise
        return Image.Image.load(self)

    def _load_cut_off(self) -> float:
        """Decode as if the end were there, and return the share of its rows that are missing."""
        begun, self.tile = self._im is not None, []
        # what is not decoded is black in the first try and grey in the second
        first = self.copy() if begun else None
        try:
            self._take(self._content + _END, self._least)
        except OSError:
            if not self._least:
                raise
            self._take(self._content + _END, None)
        missing = _rows_alike(self, _NEUTRAL)
        if first is not None and first.size == self.size:
            missing = min(missing, _rows_alike(first, (0,)))
        share = missing / self.height
        if share > 1 - MIN_ROWS:
            raise PhotoError(f"it is cut off: {share:.0%} of its picture is missing")
        return share

    def _take(self, content: bytes, size: tuple[int, int] | None) -> None:
        """Take the pixels of a content, decoded by Pillow at a reduced size or whole."""
        other = JpegImageFile(io.BytesIO(content), "")
        if size:
            other.draft(None, size)
        other.load()
        self.im, self._mode, self._size, self.tile = other.im, other.mode, other.size, []


def _rows_alike(picture: Image.Image, values: tuple[int, ...]) -> int:
    """Return how many rows at the bottom are all of one colour, whose channels have the values."""
    last = picture.getpixel((picture.width - 1, picture.height - 1))
    channels = last if isinstance(last, tuple) else (last,)
    if not set(channels) <= set(values):
        return 0
    plain = Image.new(picture.mode, picture.size, last)
    difference = ImageChops.difference(picture, plain)
    boxes = [band.getbbox() for band in difference.split()]
    return picture.height - max((box[3] for box in boxes if box), default=0)


def _note(share: float) -> str:
    if not share:
        return "the file is cut off at its end, the picture is there"
    return f"the file is cut off: the last {share:.1%} of the picture is missing"


def without_applications(data: bytes, *, picture_only: bool = False) -> bytes:
    """Return a JPEG without what stands between its segments, and without those before its picture
    that are not needed to decode it and are not EXIF, XMP, an ICC profile or IPTC; with
    ``picture_only`` without these too.
    """
    segments, at = [data[:2]], 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        marker = data[at + 1]
        if marker in (0x00, 0xFF) or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            return b"".join([*segments, data[at:]])
        needed = not 0xE0 <= marker <= 0xEF and marker != 0xFE
        if needed or _is_known(data[at + 4 : end], picture_only):
            segments.append(data[at:end])
        at = max(end, at + 4)
    return data


def _is_known(body: bytes, picture_only: bool) -> bool:
    if body.startswith(b"Adobe"):  # says how colours are stored
        return len(body) >= 12
    if picture_only:
        return False
    starts = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0")
    icc = body.startswith(b"ICC_PROFILE\0") and len(body) > 14
    return icc or body.startswith(starts)


class PngPhoto(PngImageFile):
    """A PNG, of which the chunks that are not the picture never refuse it.

    Those with a wrong checksum or a wrong form are left out, and so are texts and profiles that
    would take too much memory.
    """

    def __init__(self, fp: io.BytesIO, filename: str = "") -> None:
        content = without_bad_chunks(fp.getvalue())
        try:
            super().__init__(io.BytesIO(content), filename)
        except Exception:
            super().__init__(io.BytesIO(without_bad_chunks(content, picture_only=True)), filename)
        self._scale_transparency()

    def _scale_transparency(self) -> None:
        """Give the transparent colour in 8 bits where the pixels have them and the file has not."""
        raw_mode = self.tile[0].args if self.tile else None
        value = self.info.get("transparency")
        if isinstance(value, int) and raw_mode in _GREY_SCALES:
            self.info["transparency"] = value * _GREY_SCALES[raw_mode] & 255
        elif isinstance(value, tuple) and raw_mode == "RGB;16B":
            self.info["transparency"] = tuple(part >> 8 for part in value)


def without_bad_chunks(data: bytes, *, picture_only: bool = False) -> bytes:
    """Return a PNG without the ancillary chunks that a reader may stumble over, or without any but
    transparency; the same object where there is none.
    """
    view = memoryview(data)
    parts, start, texts = [], 0, 0
    for at, kind, body in _chunks(view):
        end = at + 12 + len(body)
        if not kind[0] & 0x20:  # critical: the picture itself
            continue
        size = _text_size(kind, body)
        right = zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(view[end - 4 : end], "big")
        good = (
            right and _is_well_formed(kind, body, data[25]) and 0 <= size <= MAX_TEXTS_BYTES - texts
        )
        if good and (kind == b"tRNS" or not picture_only):
            texts += size
            continue
        parts.append(view[start:at])
        start = end
    return b"".join([*parts, view[start:]]) if start else data


def _chunks(view: memoryview) -> Iterator[tuple[int, bytes, memoryview]]:
    """Yield where each whole chunk begins, its type and its body."""
    at = _SIGNATURE_BYTES
    while at + 12 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, at)
        if at + 12 + length > len(view) or kind == b"IEND":
            return
        yield at, kind, view[at + 8 : at + 8 + length]
        at += 12 + length


def _is_well_formed(kind: bytes, body: memoryview, colours: int) -> bool:
    if kind in _TEXTS:
        return True
    if kind == b"tRNS":
        return len(body) >= _TRANSPARENCY_SIZES.get(colours, 0)
    if kind == b"iCCP":
        name, _, rest = bytes(body[:81]).partition(b"\0")
        return rest[:1] == b"\0" and _inflated_size(body[len(name) + 2 :], MAX_PNG_PROFILE) > 0
    return kind in _SIZES and len(body) >= _SIZES[kind]


def _text_size(kind: bytes, body: memoryview) -> int:
    """Return how many bytes a text has when it is read, 0 for another chunk, -1 for one that cannot
    be read.
    """
    if kind not in _TEXTS:
        return 0
    if kind == b"tEXt":
        return len(body) if len(body) <= MAX_TEXT_BYTES else -1
    if len(body) > MAX_TEXT_BYTES:
        return -1
    _, _, rest = bytes(body).partition(b"\0")
    if kind == b"zTXt":
        return _inflated_size(rest[1:], MAX_TEXT_BYTES) if rest[:1] == b"\0" else -1
    if rest[:1] in (b"\0", b""):
        return len(body)
    parts = rest[2:].split(b"\0", 2)
    return _inflated_size(parts[2], MAX_TEXT_BYTES) if len(parts) == 3 else -1


def _inflated_size(data: bytes | memoryview, limit: int) -> int:
    """Return how many bytes a zlib stream has, at most ``limit``, else -1."""
    stream = zlib.decompressobj()
    try:
        size = len(stream.decompress(data, limit))
    except zlib.error:
        return -1
    return size if stream.eof else -1


class TiffPhoto(TiffImageFile):
    """A TIFF; raises PhotoError for a kind of pixels that is not read here, naming it."""

    def __init__(self, fp: io.BytesIO, filename: str = "") -> None:
        data = fp.getvalue()
        self._odd: tuple[tiff.Directory, tiff.Layout] | None = None
        try:
            page = tiff.photo_page(data)
            layout = page.layout()
        except (ValueError, struct.error):
            super().__init__(fp, filename)  # it says what is wrong
            return
        if page.big and page.order == ">":
            raise PhotoError("a BigTIFF in big-endian order is not read here")
        tiff.check_compression(layout)
        if tiff.is_read_by_pillow(layout, page):
            content = data if page.offset == tiff.Directory(data).offset else page.alone()
            super().__init__(io.BytesIO(content), filename)
            return
        tiff.check_layout(layout, page)
        # Pillow opens it for its tags
        super().__init__(io.BytesIO(page.described(tiff.plain_tags(layout))), filename)
        self._odd = page, layout

    def load(self) -> Any:
        """Decode the picture; raises OSError, ValueError or PhotoError."""
        if self._odd is None:
            return super().load()
        page, layout = self._odd
        # NumPy takes longer to import than all else that decoding needs, and few photos need it
        from vitsearch.photos.depth import picture_of

        picture = picture_of(layout, tiff.planes(page, layout), page.numbers(tiff.COLOURS))
        self.im, self._mode, self.tile, self._odd = picture.im, picture.mode, [], None
        self._size = picture.size
        ImageOps.exif_transpose(self, in_place=True)
        return Image.Image.load(self)


class PsdImageFile(PsdImagePlugin.PsdImageFile):
    """The merged picture of a Photoshop file, its EXIF and its XMP."""

    def _open(self) -> None:
        assert self.fp is not None
        head = self.fp.read(26)
        depth = int.from_bytes(head[22:24], "big")
        if depth in (16, 32):
            raise PhotoError(f"cannot be decoded: a PSD of {depth} bits, of which 8 are read")
        self.fp.seek(0)
        try:
            super()._open()
        except (struct.error, LookupError) as error:
            raise PhotoError("cannot be decoded: a PSD that is cut or damaged") from error
        resources = {number: data for number, _, data in reversed(self.resources)}
        if resources.get(_VERSION_INFO, b"\0\0\0\0\1")[4:5] == b"\0":
            raise PhotoError(
                "a PSD without a merged picture: save it again with Maximize Compatibility"
            )
        if self.mode == "RGBA" and not self._is_transparent():
            self._mode, self.tile = "RGB", self.tile[:3]  # the fourth is a stored selection
        if _EXIF in resources:
            self.info["exif"] = resources[_EXIF]
        if _XMP in resources:
            self.info["xmp"] = resources[_XMP]

    def _is_transparent(self) -> bool:
        """Return whether the first channel behind the colours is transparency, which a negative
        number of layers says (Adobe Photoshop File Formats, Layer info).
        """
        assert self.fp is not None
        if self._layers_position is None:
            return False
        before = self.fp.tell()
        self.fp.seek(self._layers_position)
        count = int.from_bytes(self.fp.read(2), "big", signed=True)
        self.fp.seek(before)
        return count < 0


class TgaImageFile(TgaImagePlugin.TgaImageFile):
    """A Targa picture, whose fourth byte is transparency only where its header says so."""

    def _open(self) -> None:
        assert self.fp is not None
        self._alpha_bits = self.fp.read(18)[17] & 15
        self.fp.seek(0)
        super()._open()

    def load_end(self) -> None:
        """Turn the picture, and make one without transparency opaque."""
        super().load_end()
        if self.mode == "RGBA" and not self._alpha_bits:
            self.im.fillband(3, 255)


# -- JPEG XL ---------------------------------------------------------------------------------------


CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_ENOUGH = 12  # bytes of a codestream that hold its size
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_TIFF = re.compile(rb"II\*\0|MM\0\*")
_LENGTHS = (9, 13, 18, 30)  # bits of a side


class JxlImageFile(ImageFile.ImageFile):
    """A JPEG XL file, of several frames the first; one made from a JPEG gives that JPEG.

    The plugin's own class decodes when it opens a file; this one reads the size before that, so
    that a picture of too many pixels is never decoded.
    """

    format = "JPEG XL"
    format_description = "JPEG XL"

    def _open(self) -> None:
        assert self.fp is not None
        self._data = self.fp.read()
        self._size = size_of(codestream(self._data))
        self._mode = "RGB"

    def load(self) -> Any:
        """Decode the picture, and the EXIF and XMP of its container."""
        from pillow_jxl import Decoder

        if self._data:
            jpeg, facts, pixels, profile, boxes = Decoder(num_threads=1)(self._data)
            self._data = b""
            if jpeg:
                picture: Image.Image = JpegImageFile(io.BytesIO(pixels))
                picture.load()
                self.info = {**picture.info}
            else:
                mode = "F" if facts.mode == "F;16" else facts.mode
                picture = Image.frombytes(mode, (facts.width, facts.height), pixels)
                self.info = {"icc_profile": profile, **_metadata(boxes)}
            self.im, self._mode, self._size = picture.im, picture.mode, picture.size
            if not jpeg:
                self.getexif().pop(ORIENTATION, None)  # the decoder has turned it already
        return Image.Image.load(self)


def _metadata(boxes: Any) -> dict[str | tuple[int, int], Any]:
    info: dict[str | tuple[int, int], Any] = {}
    for box in boxes:
        if box.box_type == b"Exif" and (header := _TIFF.search(data := bytes(box.data), 0, 16)):
            info["exif"] = data[header.start() :]  # its distance stands before it, or does not
        elif box.box_type == b"xml ":
            info["xmp"] = bytes(box.data)
    return info


def codestream(data: bytes) -> bytes:
    """Return the beginning of the codestream of a file, joined from the boxes that it lies in."""
    if not data.startswith(CONTAINER):
        return data[:_ENOUGH]
    stream = b""
    for kind, start, end in iso_boxes(data):
        if kind == b"jxlp":
            start += 4  # a part begins with its number
        if kind in (b"jxlc", b"jxlp"):
            stream += data[start : min(end, start + _ENOUGH)]
        if len(stream) >= _ENOUGH:
            break
    return stream


def size_of(stream: bytes) -> tuple[int, int]:
    """Return width and height, as coded, of a codestream (its SizeHeader); raises PhotoError."""
    if stream[:2] != b"\xff\x0a":
        raise PhotoError("cannot be decoded: a JPEG XL file that is cut or damaged")
    bits = int.from_bytes(stream[2:12], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take(_LENGTHS[take(2)])

    small = take(1) == 1
    height, ratio = side(), take(3)
    if not ratio:
        return side(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height
