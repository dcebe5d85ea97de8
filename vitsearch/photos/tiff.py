"""TIFF (revision 6.0 and its supplements): the photo among the pages, and kinds of pixels that
Pillow's reader does not know or reads wrong.

For those the file is described anew, as a grey picture of 8 bits as wide as a row has bytes: so
libtiff only decompresses, and `vitsearch.photos.depth` says what the bytes mean.
"""

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL.TiffImagePlugin import TiffImageFile

from vitsearch.errors import PhotoError

MAX_PAGES = 64  # that are looked through for the photo
MAX_TAGS = 4096
(SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION) = 254, 255, 256, 257, 258, 259
(PHOTOMETRIC, FILL_ORDER, OFFSETS, SAMPLES, ROWS, SIZES) = 262, 266, 273, 277, 278, 279
(PLANAR, PREDICTOR, COLOURS, TILE_WIDTH, TILE_HEIGHT) = 284, 317, 320, 322, 323
(TILE_OFFSETS, TILE_SIZES, SUB_PAGES, INKS, EXTRA, FORMAT) = 324, 325, 330, 332, 338, 339
SUBSAMPLING = 530
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
# none, and LZW, deflate (two numbers), PackBits, LZMA, Zstandard: they turn any bytes into fewer
_OF_BYTES = frozenset((1, 5, 8, 32946, 32773, 34925, 50000))
_OF_PIXELS = frozenset((2, 3, 4, 6, 7))  # of CCITT and JPEG
_COMPRESSIONS = {33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC"}
_COMPRESSIONS |= {34892: "lossy JPEG", 34933: "PNG", 50001: "WebP", 50002: "JPEG XL"}
_COMPRESSIONS |= {34676: "SGILog", 34677: "SGILog", 52546: "JPEG XL"}
_OF_PICTURE = frozenset(
    (
        *(WIDTH, HEIGHT, BITS, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, SIZES, PLANAR, PREDICTOR),
        *(COLOURS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES, INKS, EXTRA, FORMAT),
        *(SUBSAMPLING, SUB_PAGES),
    )
)
_KINDS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr"}
_KINDS |= {8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "raw sensor", 34892: "linear raw"}
_KINDS |= {32844: "LogL", 32845: "LogLuv"}
CHANNELS = {
    0: 1,
    1: 1,
    2: 3,
    3: 1,
    5: 4,
    6: 3,
    8: 3,
    9: 3,
}  # of a kind of colours that is read here
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Layout:
    """How a page stores its pixels; ``extra`` says what each channel beyond the colours is,
    ``unit`` how many pixels, across and down, share one pair of Cb and Cr.
    """

    width: int
    height: int
    bits: tuple[int, ...]
    format: int
    photometric: int
    planar: bool
    predictor: int
    compression: int
    extra: tuple[int, ...]
    order: str
    unit: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        kind = _KINDS.get(self.photometric, f"colours of kind {self.photometric}")
        numbers = {SIGNED: "signed ", FLOAT: "floating-point ", 5: "complex ", 6: "complex "}
        bits = "/".join(map(str, dict.fromkeys(self.bits)))
        return f"{bits}-bit {numbers.get(self.format, '')}{kind} in {len(self.bits)} channels"


class Directory:
    """One page of a TIFF: its tags, as they stand in the file.

    Raises ValueError or struct.error where there is none at ``offset`` (None: the first).
    """

    def __init__(self, data: bytes, offset: int | None = None) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = data[2:4] in (b"+\0", b"\0+")
        self._entry = struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))
        self._pointer = struct.Struct(self.order + ("Q" if self.big else "I"))
        if offset is None:
            offset = self._pointer.unpack_from(data, 8 if self.big else 4)[0]
        number = struct.Struct(self.order + ("Q" if self.big else "H"))
        (count,) = number.unpack_from(data, offset)
        if count > MAX_TAGS:
            raise ValueError("too many tags")
        self.offset, start = offset, offset + number.size
        self.entries = {
            tag: (kind, length, value)
            for tag, kind, length, value in (
                self._entry.unpack_from(data, start + self._entry.size * index)
                for index in range(count)
            )
        }
        end = start + self._entry.size * count
        try:
            self.next = int(self._pointer.unpack_from(data, end)[0])
        except struct.error:
            self.next = 0

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the whole numbers of a tag, empty where there are none."""
        kind, count, field = self.entries.get(tag, (0, 0, b""))
        if kind not in _TYPES or not 0 < count <= len(self.data):
            return ()
        numbers = struct.Struct(f"{self.order}{count}{_TYPES[kind]}")
        if numbers.size <= len(field):
            return numbers.unpack_from(field)
        (offset,) = self._pointer.unpack(field)
        return numbers.unpack_from(self.data, offset) if offset < len(self.data) else ()

    def number(self, tag: int, default: int) -> int:
        """Return the first number of a tag, or the default."""
        return next(iter(self.numbers(tag)), default)

    @property
    def is_reduced(self) -> bool:
        """Whether it is a smaller picture of another page, or a mask."""
        return bool(self.number(SUBFILE, 0) & 0b101) or self.number(OLD_SUBFILE, 0) == 2

    def layout(self) -> Layout:
        """Return how the pixels are stored."""
        count = self.number(SAMPLES, 1)
        bits, formats = self.numbers(BITS) or (1,), self.numbers(FORMAT) or (UNSIGNED,)
        if not 0 < count <= MAX_TAGS or len(set(formats)) > 1:
            raise PhotoError("a TIFF whose channels are not alike is not read here")
        return Layout(
            width=self.number(WIDTH, 0),
            height=self.number(HEIGHT, 0),
            bits=bits * count if len(bits) == 1 else bits[:count],
            format=UNSIGNED if formats[0] == 4 else formats[0],
            photometric=self.number(PHOTOMETRIC, 0),
            planar=self.number(PLANAR, 1) == 2 and count > 1,
            predictor=self.number(PREDICTOR, 1),
            compression=self.number(COMPRESSION, 1),
            extra=self.numbers(EXTRA),
            order=self.order,
            unit=self._unit(),
        )

    def _unit(self) -> tuple[int, int]:
        if self.number(PHOTOMETRIC, 0) != 6:
            return 1, 1
        across, down = (
            (*self.numbers(SUBSAMPLING), 2, 2)[:2] if self.numbers(SUBSAMPLING) else (2, 2)
        )
        return min(max(across, 1), 4), min(max(down, 1), 4)

    def described(self, tags: Mapping[int, Sequence[int]], *, bare: bool = False) -> bytes:
        """Return the file with this page as its only one, described by these tags where those of
        the picture are concerned; with ``bare`` it has no others but what decompresses it.
        """
        entries = {
            tag: entry
            for tag, entry in self.entries.items()
            if (tag in (COMPRESSION, FILL_ORDER) if bare else tag not in _OF_PICTURE)
        }
        pad = b"\0" * (len(self.data) % 2)
        at = len(self.data) + len(pad)
        for tag, values in tags.items():
            field = struct.pack(f"{self.order}{len(values)}{'Q' if self.big else 'I'}", *values)
            if len(field) > self._pointer.size:
                pad, field, at = pad + field, self._pointer.pack(at), at + len(field)
            entries[tag] = 16 if self.big else 4, len(values), field
        count = struct.pack(self.order + ("Q" if self.big else "H"), len(entries))
        table = b"".join(self._entry.pack(tag, *entries[tag]) for tag in sorted(entries))
        start = 8 if self.big else 4
        head = self.data[:start] + self._pointer.pack(at)
        rest = memoryview(self.data)[len(head) :]
        return b"".join([head, rest, pad, count, table, self._pointer.pack(0)])

    def alone(self) -> bytes:
        """Return the file with this page as its first."""
        start = 8 if self.big else 4
        end = start + self._pointer.size
        head = self.data[:start] + self._pointer.pack(self.offset)
        return head + self.data[end:]


def photo_page(data: bytes) -> Directory:
    """Return the first page, or sub-page, that is not a reduced picture of another one; the first
    where all are.
    """
    first = page = Directory(data)
    if not first.is_reduced:
        return first
    seen = {first.offset}
    for _ in range(MAX_PAGES):
        for offset in page.numbers(SUB_PAGES)[:MAX_PAGES]:
            try:
                sub_page = Directory(data, offset)
            except (ValueError, struct.error):
                continue
            if not sub_page.is_reduced:
                return sub_page
        if not page.next or page.next in seen:
            break
        seen.add(page.next)
        try:
            page = Directory(data, page.next)
        except (ValueError, struct.error):
            break
        if not page.is_reduced:
            return page
    return first


def is_read_by_pillow(layout: Layout, page: Directory) -> bool:
    """Return whether Pillow's own reader gives the right pixels."""
    bits, colours, count = set(layout.bits), layout.photometric, len(layout.bits)
    of_bytes = layout.compression in _OF_BYTES
    if layout.format != UNSIGNED:
        return False
    if colours == 3:
        return bits <= {1, 2, 4, 8} and max(page.numbers(COLOURS), default=0) > 255
    if colours == 6:
        return bits == {8} and not of_bytes
    if layout.planar:
        return bits == {8} and (colours, count) in ((2, 3), (5, 4))
    if bits == {16}:
        return of_bytes and (colours, count) in ((1, 1), (2, 3), (2, 4), (5, 4))
    if bits == {8}:
        return count <= {0: 1, 1: 2, 2: 4, 5: 4, 8: 3}.get(colours, 0)
    return bits <= {1, 2, 4} and colours in (0, 1) and count == 1


def check_compression(layout: Layout) -> None:
    """Raise PhotoError for a compression that is not read here."""
    if layout.compression not in _OF_BYTES | _OF_PIXELS:
        name = _COMPRESSIONS.get(layout.compression, f"way {layout.compression}")
        raise PhotoError(f"a TIFF compressed by {name} is not read here")


def plain_tags(layout: Layout) -> dict[int, Sequence[int]]:
    """Return tags of a grey picture of the same size, whose pixels are not read."""
    sides = {WIDTH: (layout.width,), HEIGHT: (layout.height,), ROWS: (layout.height,)}
    return {**sides, BITS: (8,), PHOTOMETRIC: (1,), SAMPLES: (1,), OFFSETS: (8,), SIZES: (1,)}


def check_layout(layout: Layout, page: Directory) -> None:
    """Raise PhotoError unless the page can be read by `planes` and
    `vitsearch.photos.depth.picture_of`.
    """
    bits, channels = set(layout.bits), CHANNELS.get(layout.photometric)
    extra = len(layout.bits) - (channels or 0)
    sizes = {UNSIGNED: {*range(1, 17), 32, 64}, SIGNED: {8, 16, 32, 64}, FLOAT: {16, 32, 64}}
    if channels is None or not bits <= sizes.get(layout.format, set()) or len(bits) != 1:
        raise PhotoError(f"a TIFF of {layout} is not read here")
    width = max(bits)
    kind = layout.format, width
    special = {3: {(UNSIGNED, bit) for bit in range(1, 17)}, 6: {(UNSIGNED, 8)}}
    special |= {8: {(UNSIGNED, 8), (UNSIGNED, 16), (FLOAT, 32)}, 9: {(UNSIGNED, 8), (UNSIGNED, 16)}}
    if layout.compression in _OF_PIXELS or kind not in special.get(layout.photometric, {kind}):
        raise PhotoError(f"a TIFF of {layout} is not read here")
    if layout.photometric in special and extra:
        raise PhotoError(f"a TIFF of {layout} is not read here")
    if layout.unit != (1, 1) and (layout.planar or layout.predictor != 1):
        raise PhotoError(f"a TIFF of {layout}, its colours in separate planes, is not read here")
    if extra < 0 or extra > max(1, len(layout.extra)) or page.number(INKS, 1) != 1:
        raise PhotoError(f"a TIFF of {layout} is not read here: it is not known which is which")
    if layout.predictor not in (1, 2, 3) or (
        layout.predictor == 2 and width not in (8, 16, 32, 64)
    ):
        raise PhotoError(f"a TIFF of {layout} with predictor {layout.predictor} is not read here")


@dataclass(frozen=True, slots=True)
class Plane:
    """The decompressed bytes of one plane, or of all channels together: ``rows`` of ``across``
    tiles, each of which has ``size`` bytes a row; ``width`` pixels of ``channels`` samples.
    """

    data: bytes
    rows: int
    across: int
    size: int
    width: int
    channels: int


def planes(page: Directory, layout: Layout) -> "list[Plane]":
    """Return the planes of a page; raises OSError or ValueError where they are damaged."""
    tiled = bool(page.numbers(TILE_WIDTH))
    width = page.number(TILE_WIDTH, 0) if tiled else layout.width
    height = page.number(TILE_HEIGHT, 0) if tiled else page.number(ROWS, layout.height)
    if min(width, height, layout.width, layout.height) < 1:
        raise ValueError("a picture without pixels")
    height = height if tiled else min(height, layout.height)
    across, down = -(-layout.width // width), -(-layout.height // height)
    offsets = page.numbers(TILE_OFFSETS if tiled else OFFSETS)
    sizes = page.numbers(TILE_SIZES if tiled else SIZES)
    count = len(layout.bits) if layout.planar else 1
    # of YCbCr a unit of pixels takes the place of a pixel: all its Y, then Cb and Cr
    of_unit = layout.unit[0] * layout.unit[1] + 2 if layout.photometric == 6 else len(layout.bits)
    channels = 1 if layout.planar else of_unit
    rows, width, height = _units(layout.height, width, height, unit=layout.unit)
    size = -(-width * channels * layout.bits[0] // 8)
    each = across * down
    if len(offsets) < count * each:
        raise ValueError("image file is truncated")
    return [
        Plane(
            _decompressed(
                page,
                (size * across, rows, size, height),
                offsets[part * each : (part + 1) * each],
                sizes[part * each : (part + 1) * each],
                tiled=tiled,
            ),
            rows,
            across,
            size,
            width,
            channels,
        )
        for part in range(count)
    ]


def _units(rows: int, width: int, height: int, *, unit: tuple[int, int]) -> tuple[int, int, int]:
    """Return the rows of a picture, and the sides of a tile, in units of pixels."""
    return -(-rows // unit[1]), -(-width // unit[0]), -(-height // unit[1])


def _decompressed(
    page: Directory,
    sides: tuple[int, int, int, int],
    offsets: Sequence[int],
    sizes: Sequence[int],
    *,
    tiled: bool,
) -> bytes:
    """Return the bytes of the tiles or strips, row by row; ``sides`` are those of the picture and
    of a tile in bytes and rows.
    """
    width, height, tile_width, tile_height = sides
    sizes = sizes or (tile_width * tile_height,) * len(offsets)  # only where nothing is compressed
    tags: dict[int, Sequence[int]] = {WIDTH: (width,), HEIGHT: (height,), BITS: (8,)}
    tags |= {PHOTOMETRIC: (1,), SAMPLES: (1,)}
    if tiled:
        tags |= {TILE_WIDTH: (tile_width,), TILE_HEIGHT: (tile_height,)}
        tags |= {TILE_OFFSETS: offsets, TILE_SIZES: sizes}
    else:
        tags |= {OFFSETS: offsets, SIZES: sizes, ROWS: (tile_height,)}
    with TiffImageFile(io.BytesIO(page.described(tags, bare=True)), "") as image:
        image.load()
        return image.tobytes()
