"""The formats of photo files, one entry each; whatever the package knows of a format stands here,
and which TIFF files (TIFF 6.0) are RAW photos, as most RAW photos are.
"""

import importlib
import importlib.util
import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import ImageFile, features

from vitsearch.errors import PhotoError

DNG_VERSION, SUB_IFDS, COMPRESSION, PHOTOMETRIC = 50706, 330, 259, 262
STRIP, STRIP_LENGTH, TILE, TILE_LENGTH, JPEG, JPEG_LENGTH = 273, 279, 324, 325, 513, 514
PANASONIC_JPEG = 0x2E
_NUMBERS = (COMPRESSION, PHOTOMETRIC, JPEG, JPEG_LENGTH)
_LISTS = {SUB_IFDS: 16, STRIP: 10_000, STRIP_LENGTH: 10_000, TILE: 10_000, TILE_LENGTH: 10_000}
_SENSOR = {32803, 34892}  # PhotometricInterpretation: a colour filter array, LinearRaw (DNG 1.7)
_OF_CAMERAS = {32767, 32770, 34713, 65000, 65535}  # compressions of Sony, Samsung, Nikon, Kodak,
MAX_DIRECTORIES, MAX_ENTRIES = 16, 1000  # Pentax; more are not looked at
_Tags = dict[int, tuple[int, ...]]


def holds_raw(data: bytes) -> bool:
    """Return whether a TIFF file holds the data of a sensor; a directory that lies beyond ``data``
    says nothing.
    """
    return any(
        DNG_VERSION in tags
        or _SENSOR.intersection(tags.get(PHOTOMETRIC, ()))
        or _OF_CAMERAS.intersection(tags.get(COMPRESSION, ()))
        for tags in _directories(data)
    )


def jpegs_in(data: bytes) -> list[bytes]:
    """Return the JPEGs in the directories of a RAW photo, in the order in which they are named."""
    spans = []
    for tags in _directories(data):
        if tags.get(COMPRESSION) in ((6,), (7,), None) and len(tags.get(STRIP, ())) == 1:
            spans.append((*tags[STRIP], *tags.get(STRIP_LENGTH, ())))
        spans.append((*tags.get(JPEG, ()), *tags.get(JPEG_LENGTH, ())))
        spans.append(tags.get(PANASONIC_JPEG, ()))
    parts = [data[span[0] : span[0] + span[1]] for span in spans if len(span) == 2]
    return [part for part in parts if part.startswith(b"\xff\xd8\xff")]


def end_of_strips(data: bytes) -> int:
    """Return where the last strip or tile of a TIFF file ends by its directories, 0 for none."""
    ends = [
        start + length
        for tags in _directories(data)
        for starts, lengths in ((STRIP, STRIP_LENGTH), (TILE, TILE_LENGTH))
        for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False)
    ]
    return max(ends, default=0)


def _directories(data: bytes) -> Iterator[_Tags]:
    """Yield the tags of the directories that matter here: each of the chain from the first one,
    followed by those below it.
    """
    order = "<" if data[:2] == b"II" else ">"
    todo, seen = [*_longs(data, order, 4, 1)], set[int]()
    while todo and len(seen) < MAX_DIRECTORIES:
        start = todo.pop()
        if start in seen:
            continue
        seen.add(start)
        tags, following = _directory(data, order, start)
        yield tags
        todo += [*following, *reversed(tags.get(SUB_IFDS, ()))]


def _directory(data: bytes, order: str, start: int) -> tuple[_Tags, tuple[int, ...]]:
    """Return the tags of a directory with their numbers, and where the next one of its chain is."""
    tags: _Tags = {}
    count = min(*_shorts(data, order, start, 1), MAX_ENTRIES) if start + 2 <= len(data) else 0
    end = start + 2 + 12 * count
    for at in range(start + 2, min(end, len(data) - 11), 12):
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, at)
        if tag in _LISTS:
            inside = length * (2 if kind == 3 else 4) <= 4
            where = at + 8 if inside else (*_longs(data, order, at + 8, 1), 0)[0]
            read = _shorts if kind == 3 else _longs
            tags[tag] = read(data, order, where, min(length, _LISTS[tag]))
        elif tag in _NUMBERS and length == 1:
            tags[tag] = (_longs if kind == 4 else _shorts)(data, order, at + 8, 1)
        elif tag == PANASONIC_JPEG:
            tags[tag] = (*_longs(data, order, at + 8, 1), length)
        elif tag == DNG_VERSION:
            tags[tag] = ()
    return tags, tuple(start for start in _longs(data, order, end, 1) if start)


def _longs(data: bytes, order: str, start: int, count: int) -> tuple[int, ...]:
    count = min(count, max(0, len(data) - start) // 4)
    return struct.unpack_from(f"{order}{count}I", data, start) if count else ()


def _shorts(data: bytes, order: str, start: int, count: int) -> tuple[int, ...]:
    count = min(count, max(0, len(data) - start) // 2)
    return struct.unpack_from(f"{order}{count}H", data, start) if count else ()


# -- The formats -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Extra:
    """The optional dependency ``vitsearch[name]`` that a format needs: the distribution that it
    installs, the module of that, and what for.
    """

    name: str
    distribution: str
    module: str
    purpose: str

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'vitsearch[{self.name}]'"


@dataclass(frozen=True, slots=True)
class PhotoFormat:
    """One format of photo files.

    ``suffixes`` are in lower case without the dot, the one that messages show first; none where a
    format is read only under another one's suffix. ``magic`` matches the first bytes of its
    content; ``brands`` are those of its files where it is one of ISO's media files, whose first box
    lists them (ISO/IEC 14496-12, 4.3). ``reader`` is ``module:class``, a subclass of Pillow's
    ``ImageFile``.
    ``feature`` is the part of Pillow that reads it, by its name in ``PIL.features``, None where
    every Pillow has it. ``media_type`` is set where every browser shows the format. ``trusted``
    says that the decoder is one that every browser runs on the files of strangers (libjpeg, libpng
    and zlib, libwebp): any other one decodes in a process of its own. ``companion_of`` names the
    formats of photos whose companions its files are, where both lie in one folder under one name
    (`vitsearch.photos.sidecars`).
    """

    name: str
    suffixes: tuple[str, ...]
    magic: re.Pattern[bytes]
    reader: str
    brands: tuple[bytes, ...] = ()
    feature: str | None = None
    extra: Extra | None = None
    media_type: str | None = None
    trusted: bool = False
    companion_of: tuple[str, ...] = ()

    def problem(self) -> str | None:
        """Return why files of the format cannot be read here, None where they can."""
        if self.extra is None or importlib.util.find_spec(self.extra.module):
            return None
        return f"{self.name} needs an extra: {self.extra.install}"

    def is_supported(self) -> bool:
        """Return whether the Pillow that is installed was built to read the format."""
        return self.feature is None or bool(features.check(self.feature))

    def load_reader(self) -> type[ImageFile.ImageFile]:
        """Return the class that reads the format; raises PhotoError where its package is missing
        or cannot be imported.
        """
        module, _, name = self.reader.partition(":")
        try:
            reader: type[ImageFile.ImageFile] = getattr(importlib.import_module(module), name)
        except ImportError as error:
            if self.extra is None:
                raise PhotoError(
                    f"this Pillow does not read {self.name}: pip install --upgrade pillow"
                ) from error
            raise PhotoError(f"{self.name} content needs an extra: {self.extra.install}") from error
        return reader


def _magic(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


HEAD = 256  # bytes of a file that tell its format
NOTE = "note"  # in a picture's info: what a person should know of how it was read
_NEVER = _magic(rb"(?!)")  # of a format that its brands tell
_HEVC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
# of a file of pictures whose codec the other brands tell (ISO/IEC 23008-12, 10.2)
_ANY_CODEC = (b"mif1", b"mif2", b"mif3", b"msf1", b"miaf", b"MiHB", b"MiHA", b"MiHE")
# of Adobe, Canon, Nikon, Sony, Olympus, Panasonic, Fujifilm, Pentax, Samsung, Hasselblad, Phase
# One, Sigma, Epson, Kodak, Minolta, Leaf, Mamiya and Leica
_RAW_SUFFIXES = (
    *("dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "orf", "rw2", "raf", "pef"),
    *("srw", "3fr", "fff", "iiq", "x3f", "erf", "kdc", "dcr", "mrw", "mos", "mef", "rwl", "raw"),
)
# The order is that of messages. JPEG takes the plain class, since the first picture of a
# multi-picture file is the photo.
FORMATS = (
    PhotoFormat(
        "JPEG",
        ("jpg", "jpeg", "jpe", "jfif", "jif", "jfi", "pjpeg", "pjp", "mpo", "jps", "insp"),
        _magic(rb"\xff\xd8\0{0,200}\xff"),  # what stands between markers is passed over
        "vitsearch.photos.readers:JpegPhoto",
        feature="jpg",
        media_type="image/jpeg",
        trusted=True,
    ),
    PhotoFormat(
        "PNG",
        ("png", "apng", "pns"),
        _magic(rb"\x89PNG\r\n\x1a\n"),
        "vitsearch.photos.readers:PngPhoto",
        feature="zlib",
        media_type="image/png",
        trusted=True,
    ),
    PhotoFormat(
        "WebP",
        ("webp",),
        _magic(rb"RIFF....WEBP"),
        "PIL.WebPImagePlugin:WebPImageFile",
        feature="webp",
        media_type="image/webp",
        trusted=True,
    ),
    PhotoFormat(
        "TIFF",
        ("tiff", "tif", "btf", "tf8"),
        _magic(rb"II[*+]\0|MM\0[*+]"),
        "vitsearch.photos.readers:TiffPhoto",
        feature="libtiff",
    ),
    PhotoFormat("BMP", ("bmp", "dib"), _magic(rb"BM"), "PIL.BmpImagePlugin:BmpImageFile"),
    PhotoFormat(
        "GIF",
        ("gif",),
        _magic(rb"GIF8[79]a"),
        "PIL.GifImagePlugin:GifImageFile",
        media_type="image/gif",
    ),
    PhotoFormat(
        "PPM", ("ppm", "pgm", "pbm", "pnm"), _magic(rb"P[1-6]\s"), "PIL.PpmImagePlugin:PpmImageFile"
    ),
    PhotoFormat(
        "JPEG 2000",
        ("jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "jpg2", "jph", "jhc"),
        _magic(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
        "PIL.Jpeg2KImagePlugin:Jpeg2KImageFile",
        feature="jpg_2000",
    ),
    PhotoFormat(
        "AVIF",
        ("avif", "avifs"),
        _NEVER,
        "PIL.AvifImagePlugin:AvifImageFile",
        brands=(b"avif", b"avis"),
        feature="avif",
    ),
    PhotoFormat(
        "HEIC",
        ("heic", "heif", "hif", "heics", "heifs"),
        _NEVER,
        "pillow_heif:HeifImageFile",
        brands=(*_HEVC_BRANDS, *_ANY_CODEC),
        extra=Extra("heif", "pillow-heif", "pillow_heif", "photos of iPhones"),
    ),
    PhotoFormat(
        "JPEG XL",
        ("jxl",),
        _magic(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
        "vitsearch.photos.readers:JxlImageFile",
        extra=Extra("jxl", "pillow-jxl-plugin", "pillow_jxl", "JPEG XL photos"),
    ),
    PhotoFormat("PSD", ("psd",), _magic(rb"8BPS\0\x01"), "vitsearch.photos.readers:PsdImageFile"),
    PhotoFormat(
        "TGA",
        ("tga", "icb", "vda", "vst"),
        _magic(
            # no magic number: of the header, what must be in it
            rb".(?:\0[\x02\x03\x0a\x0b]\0{5}|\x01[\x01\x09]....[\x0f\x10\x18\x20])"
            rb"....(?!\0\0)..(?!\0\0)..[\x08\x0f\x10\x18\x20][\0-\x3f]"
        ),
        "vitsearch.photos.readers:TgaImageFile",
    ),
    PhotoFormat("QOI", ("qoi",), _magic(rb"qoif"), "PIL.QoiImagePlugin:QoiImageFile"),
    PhotoFormat("ICO", ("ico",), _magic(rb"\0\0\x01\0"), "PIL.IcoImagePlugin:IcoImageFile"),
    PhotoFormat("DDS", ("dds",), _magic(rb"DDS "), "PIL.DdsImagePlugin:DdsImageFile"),
    PhotoFormat(
        "RAW",
        _RAW_SUFFIXES,
        _magic(
            rb"FUJIFILMCCD-RAW|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR|IIR[OS]|MMOR|IIU\0|"
            rb"II\*\0....CR|II\*\0....IIII|MM\0\*....MMMM"
        ),
        "vitsearch.photos.raw:RawImageFile",
        brands=(b"crx ",),
        extra=Extra("raw", "rawpy", "rawpy", "RAW photos of cameras"),
        companion_of=("JPEG", "HEIC"),
    ),
)
# pictures that nothing here reads, and how to have them
_OF_PROGRAMS = "export it as JPEG, PNG or TIFF from the program that made it"
_OF_CONVERTERS = "convert it to JPEG, PNG or TIFF"
_OF_HDR = "export it with a tone mapping as JPEG or TIFF"
WITHOUT_READER = {
    "psb": "save it as PSD or TIFF, flattened",
    **dict.fromkeys(("xcf", "kra", "ora", "afphoto", "afdesign", "pxd", "clip"), _OF_PROGRAMS),
    **dict.fromkeys(("svg", "svgz", "eps", "ai", "cdr", "wmf", "emf"), _OF_PROGRAMS),
    **dict.fromkeys(("exr", "hdr", "rgbe", "pfm"), _OF_HDR),
    **dict.fromkeys(("jxr", "wdp", "hdp", "pcd", "pcx", "bpg", "flif", "jls"), _OF_CONVERTERS),
    **dict.fromkeys(
        ("pam", "sgi", "xbm", "xpm", "pict", "pct", "jng", "mng", "dcm"), _OF_CONVERTERS
    ),
}
# Of a video FFmpeg's demuxer is chosen by these first bytes. What looks like a picture is one: a
# video is looked for after that.
CONTAINERS = {
    "mov": _magic(rb"....(?:ftyp|moov|mdat|free|skip|wide|pnot)"),
    "matroska": _magic(rb"\x1a\x45\xdf\xa3"),
    "avi": _magic(rb"RIFF....AVI "),
    "mpeg": _magic(rb"\0\0\x01\xba"),
    "asf": _magic(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    "flv": _magic(rb"FLV\x01"),
    "mpegts": _magic(rb"\x47.{187}\x47|.{4}\x47.{191}\x47"),
}
_VIDEO_TYPES = {  # browsers play QuickTime under the name of MP4 alone
    "mov": "video/mp4",
    "matroska": "video/x-matroska",
    "avi": "video/x-msvideo",
    "mpeg": "video/mpeg",
    "asf": "video/x-ms-wmv",
    "flv": "video/x-flv",
    "mpegts": "video/mp2t",
}
PLAYED = ("mp4", "m4v", "mov", "webm", "mkv", "3gp")  # suffixes of what browsers play
VIDEO = PhotoFormat(
    "Video",
    (
        *("mp4", "mov", "m4v", "avi", "mkv", "webm", "3gp", "3g2", "mts", "m2ts"),
        *("mpg", "mpeg", "vob", "wmv", "asf", "flv"),
    ),
    _magic(b"|".join(b"(?:%b)" % each.pattern for each in CONTAINERS.values())),
    "av:open",
    extra=Extra("video", "av", "av", "videos"),
    companion_of=("JPEG", "HEIC"),
)
# of the clip that a phone stores beside a photo: a Live Photo, a motion photo
CLIP_SUFFIXES = frozenset({"mov", "mp4"})
SUFFIXES = {suffix: entry for entry in FORMATS for suffix in entry.suffixes}
_TIFF, _RAW = (next(entry for entry in FORMATS if entry.name == name) for name in ("TIFF", "RAW"))
_BRANDS = {brand: entry for entry in FORMATS for brand in entry.brands}


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case without the dot; "" for none, and for a name
    that is nothing else.
    """
    stem, _, suffix = name.rpartition(".")
    return suffix.lower() if stem else ""


def format_of(data: bytes) -> PhotoFormat | None:
    """Return the format of a file's content, of which the first `HEAD` bytes are enough, but for
    RAW photos that are TIFF files; None for one that is not read here.
    """
    if data[4:8] == b"ftyp":
        return next((_BRANDS[brand] for brand in _brands(data) if brand in _BRANDS), None)
    # RAW, the last, comes before TIFF, which the content of most is too
    entry = next((entry for entry in reversed(FORMATS) if entry.magic.match(data)), None)
    return _RAW if entry is _TIFF and holds_raw(data) else entry


def _brands(data: bytes) -> list[bytes]:
    """Return the brands of one of ISO's media files: first those that name a codec, the major brand
    before the compatible ones.
    """
    end = min(int.from_bytes(data[:4], "big"), HEAD)
    brands = [data[8:12], *(data[start : start + 4] for start in range(16, end - 3, 4))]
    return sorted(brands, key=_ANY_CODEC.__contains__)


def container_of(data: bytes) -> str | None:
    """Return FFmpeg's demuxer for a video's content, of which the first `HEAD` bytes are enough;
    None for a picture and for anything else.
    """
    if format_of(data) is not None:
        return None
    return next((name for name, magic in CONTAINERS.items() if magic.match(data)), None)


def video_type(data: bytes) -> str | None:
    """Return the media type of a video by its first bytes, None where it is none."""
    demuxer = container_of(data)
    if demuxer == "matroska" and b"webm" in data[:64]:
        return "video/webm"
    return None if demuxer is None else _VIDEO_TYPES[demuxer]


def is_video(path: str) -> bool:
    """Return whether a file is a video by its name."""
    return suffix_of(path) in VIDEO.suffixes


def open_image(data: bytes) -> ImageFile.ImageFile:
    """Return Pillow's image of a file's content, opened and not yet decoded.

    The class of the format is called directly, since ``Image.open`` would apply a cap of its own
    and try formats that are not photos. Raises PhotoError for another content, or where a package
    is missing; the reader's own errors pass.
    """
    entry = format_of(data)
    if container_of(data) is not None:
        raise PhotoError("a video under the name of a photo: give it its suffix, such as mp4")
    if entry is None:
        raise PhotoError("not a photo: its content is of no picture format that is read here")
    return entry.load_reader()(io.BytesIO(data), "")


def media_type_of(data: bytes) -> str | None:
    """Return the media type of a file's content where every browser shows it, else None."""
    entry = format_of(data)
    return entry.media_type if entry else None


def named_suffixes() -> str:
    """Return the suffixes that a message names, one a format: "jpg, png, ... and heic"."""
    *names, last = (entry.suffixes[0] for entry in FORMATS if entry.suffixes)
    return f"{', '.join(names)} and {last}"
