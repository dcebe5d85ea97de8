"""Reads a photo: bytes and fingerprint from disk, then an upright RGB picture and its metadata.

The file of a photo that is already in a collection is opened in one way, by `open_photo`.
Between indexing and showing, anybody who may write into the folder may have put something else in
the place of a photo: a link to another file of this machine, a pipe, a file of passwords. And a
collection that a stranger made may name any path.
"""

import hashlib
import io
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image, ImageChops

from vitsearch.errors import PhotoError, UnreadablePhoto
from vitsearch.photos.columns import read_metadata
from vitsearch.photos.exif import add_boxes, read_tags
from vitsearch.photos.formats import HEAD, container_of, format_of, is_video, open_image
from vitsearch.photos.profiles import PROFILE, changing_profile, to_srgb
from vitsearch.types import MAX_PIXELS, Photo, PhotoInfo

MAX_BYTES = 2_000_000_000
# of a picture with an ICC profile: converted to sRGB, left to the caller with the profile in its
# info, or as they are, which is how photos were decoded before vitsearch read profiles
Colours = Literal["srgb", "profile", "raw"]
WHITE, GREYS = 255, (128, 96, 160, 64)  # that a transparent picture is laid over
# in a picture's info: what says how it is to be turned, which is said no more once it is
_SAYS_TURN = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_SAMPLE = 1_000_000  # pixels that are enough to choose
_MIN_VISIBLE = 16  # of alpha, and of the difference to what lies below, for a pixel to be seen

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # a pipe or device that has just taken its place never blocks
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_OUTSIDE = "it lies outside the photo folder"
_CHANGED = "it has changed since it was indexed: run `vitsearch index`"
# the transposition for each EXIF orientation (Exif 2.32, 4.6.4.A)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_pillow_limit = threading.Lock()


@dataclass(frozen=True, slots=True)
class LoadedPhoto:
    """A photo in memory: an upright RGB picture, its metadata, and the hash of its file."""

    image: Image.Image
    info: PhotoInfo
    fingerprint: bytes


def read_bytes_and_fingerprint(
    path: Path | str, *, max_bytes: int = MAX_BYTES
) -> tuple[bytes, bytes]:
    """Return a file's content and its 16-byte BLAKE2b hash; raises PhotoError like `read_bytes`."""
    data = read_bytes(path, max_bytes=max_bytes)
    return data, fingerprint_of(data)


def fingerprint_of(data: bytes) -> bytes:
    """Return the 16-byte BLAKE2b hash of a photo file's content."""
    return hashlib.blake2b(data, digest_size=16).digest()


def read_bytes(path: Path | str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return a regular file's content.

    A pipe or device never blocks, even if it has just replaced the file. Raises UnreadablePhoto for
    a file that cannot be opened or read, PhotoError for anything that is not a regular file, is
    empty, or is longer than ``max_bytes``, each with a short reason.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise PhotoError(f"the file has {size:,} bytes, over the cap of {max_bytes:,}")
        data: bytes = file.read()
    if not data:
        raise PhotoError("the file is empty (0 bytes)")
    return data


def read_fingerprint(path: Path | str) -> tuple[bytes, bytes]:
    """Return the 16-byte BLAKE2b hash of a file of any size, which is read piece by piece, and its
    first `HEAD` bytes; raises PhotoError like `read_bytes`.
    """
    with _opened(path) as file:
        head = file.read(HEAD)
        file.seek(0)
        digest = fingerprint_of_file(file)
    if not head:
        raise PhotoError("the file is empty (0 bytes)")
    return digest, head


def fingerprint_of_file(file: io.FileIO) -> bytes:
    """Return the 16-byte BLAKE2b hash of what an open file still holds."""
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


@contextmanager
def _opened(path: Path | str) -> Iterator[io.FileIO]:
    """Open a regular file for the block, whose errors of reading are of it too."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
        with open(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PhotoError("not a regular file")
            yield file
    except MemoryError:
        raise PhotoError("not enough memory to read the file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadablePhoto(f"cannot be opened: {reason}") from error


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    side: int | None = None,
    colours: Colours = "srgb",
) -> tuple[Image.Image, PhotoInfo]:
    """Return an upright RGB picture, and its size and metadata, from the content of a photo file.

    EXIF orientation and an ICC profile are applied, transparency is laid over white or, where a
    white picture would vanish, over grey; more than 8 bits are scaled to 8, and of several pictures
    the first is used. The pixel count is checked against ``max_pixels`` before anything is decoded.
    With ``at_least`` a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (in its DCT domain), as
    long as both sides have at least so many pixels, and with ``side`` as long as the longer one
    has; the returned size is the full one. With ``colours`` "profile" an RGB picture in another
    space than sRGB has its profile in its info, for `vitsearch.photos.profiles.prepared`; with
    "raw" profiles are ignored and the ground is white. The picture's info has a ``note`` where a
    person should know how it was read. Raises only PhotoError, with a short reason.
    """
    try:
        try:
            return _decode(data, max_pixels, (at_least, side), colours)
        except Image.DecompressionBombError:
            # Pillow has a global cap of its own, which is lifted only for a photo that it rejects
            with _pillow_limit_at(max_pixels):
                return _decode(data, max_pixels, (at_least, side), colours)
    except PhotoError:
        raise
    except MemoryError:
        raise PhotoError("not enough memory to decode it") from None
    except Exception as error:
        words = " ".join(str(error).split())[:160] or type(error).__name__
        # of a header that ends in the middle of a number; Pillow gives it another class
        cause = error.__cause__ if isinstance(error, SyntaxError) else error
        ends = isinstance(cause, struct.error)
        reason = "it ends too early" if ends else words
        raise PhotoError(f"cannot be decoded: {reason}") from error


@contextmanager
def _pillow_limit_at(max_pixels: int) -> Iterator[None]:
    with _pillow_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max(before or 0, max_pixels)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decode(
    data: bytes, max_pixels: int, sides: tuple[int | None, int | None], colours: Colours
) -> tuple[Image.Image, PhotoInfo]:
    with open_image(data) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise PhotoError(
                f"{width} x {height} = {width * height:,} pixels, over the cap of "
                f"{max_pixels:,} "
                "(raise max_pixels to read it)"
            )
        at_least, side = sides
        least = (at_least, at_least) if at_least else _fitted(image.size, side) if side else None
        reduced = (
            least is not None
            and image.format in ("JPEG", "RAW")
            and image.draft(None, least) is not None
        )
        if image.format == "JPEG2000":
            add_boxes(image, data)
        image.load()
        tags = read_tags(image)
        metadata = read_metadata(tags)
        upright = _rgb(_turned(image, tags.orientation), colours, in_place=True)
    if "upright_size" in image.info:  # of a RAW photo
        width, height = image.info["upright_size"]
    elif not reduced:
        width, height = upright.size
    elif tags.orientation >= 5:
        width, height = height, width
    return upright, PhotoInfo(width, height, metadata)


def upright_rgb(image: Image.Image, *, colours: Colours = "srgb") -> Image.Image:
    """Return an upright 8-bit RGB picture, as `decode` does for a file."""
    return _rgb(_turned(image, read_tags(image).orientation), colours)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = TURNS.get(orientation)
    if turn is None:
        return image
    upright = image.transpose(turn)
    for name in _SAYS_TURN:
        upright.info.pop(name, None)
    return upright


def _rgb(image: Image.Image, colours: Colours, *, in_place: bool = False) -> Image.Image:
    """Return a picture in RGB without a profile, or with one that is still to be applied."""
    profile = None if colours == "raw" else image.info.get(PROFILE)
    if in_place:
        image.info.pop(PROFILE, None)
    plain = _eight_bits(image)
    if plain.has_transparency_data:
        rgba = _rgba(plain, profile)
        ground = WHITE if colours == "raw" else ground_of(rgba)
        below = Image.new("RGBA", rgba.size, (ground,) * 3)
        below.alpha_composite(rgba)
        return below.convert("RGB")
    if plain.mode in ("P", "YCbCr", "HSV"):
        plain = plain.convert("RGB")
    if colours == "profile" and plain.mode == "RGB":
        if changing_profile("RGB", profile):
            plain.info[PROFILE] = profile
        return plain
    shown = to_srgb(plain, profile, in_place=in_place) if profile else plain
    # converting RGB would copy it, which takes half as long as decoding
    return shown if shown.mode == "RGB" else shown.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture of more than 8 bits in 8."""
    if not image.mode.startswith(("I", "F")):
        return image.convert("LA") if image.mode == "La" else image
    # NumPy takes longer to import than all else that decoding needs, and few photos need it
    from vitsearch.photos.depth import eight_bits

    return eight_bits(image)


def _rgba(image: Image.Image, profile: object) -> Image.Image:
    """Return a transparent picture in RGBA, its profile applied."""
    rgba = image.convert("RGBA")
    if profile is None:
        return rgba
    if image.mode in ("L", "LA"):
        grey = rgba.getchannel("R")
        shown = to_srgb(grey, profile)
        if shown is not grey:
            shown.putalpha(rgba.getchannel("A"))
            return shown
    return to_srgb(rgba, profile, in_place=rgba is not image)


def ground_of(image: Image.Image) -> int:
    """Return the grey, 0 to 255, that a picture in RGBA is laid over: white, unless more than half
    of its visible pixels would vanish there.
    """
    if image.width * image.height > _SAMPLE:
        scale = (_SAMPLE / (image.width * image.height)) ** 0.5
        sides = [max(1, round(length * scale)) for length in image.size]
        image = image.resize((sides[0], sides[1]), Image.Resampling.NEAREST)
    alpha = image.getchannel("A").point(lambda value: 255 * (value >= _MIN_VISIBLE))
    visible = alpha.histogram()[255]
    if not visible or 2 * _vanishing(image, alpha, WHITE) <= visible:
        return WHITE
    return min(GREYS, key=lambda grey: _vanishing(image, alpha, grey))


def _vanishing(image: Image.Image, visible: Image.Image, grey: int) -> int:
    """Return how many visible pixels can hardly be told from the grey below them."""
    below = Image.new("RGBA", image.size, (grey,) * 3)
    laid = Image.alpha_composite(below, image)
    red, green, blue, _ = ImageChops.difference(laid, below).split()
    largest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return sum(largest.histogram(visible)[:_MIN_VISIBLE])


def webp(image: Image.Image, side: int, quality: int = 82) -> bytes:
    """Return an RGB picture as WebP, its longest side at most ``side`` pixels, without metadata."""
    out = io.BytesIO()
    thumbnail(image, side).save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """Return a copy that fits a square of ``side`` pixels in its aspect ratio, never enlarged."""
    return image.resize(_fitted(image.size, side), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the size of a picture that fits a square, never larger."""
    scale = min(1.0, side / max(size))
    width, height = (max(1, round(length * scale)) for length in size)
    return width, height


# -- The file of a photo of a collection -----------------------------------------------------------


class PhotoMissing(PhotoError):
    """There is no file at the path of a photo."""


def read_open(file: io.FileIO) -> bytes:
    """Return the rest of an open file; raises PhotoError."""
    try:
        return file.readall()
    except MemoryError:
        raise PhotoError("not enough memory to read the file") from None
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror or error}") from error


def open_photo(root: Path, path: str, indexed: Photo | None = None) -> io.FileIO:
    """Return the file of a photo, opened once, to be read from its beginning and closed by the
    caller; ``path`` is relative to ``root``, with ``/``.

    It is a regular file whose content is of a format that is read here. With ``indexed`` it has the
    size and time that were indexed, or the content. It lies inside the root after links are
    resolved; a link that leads out of it is followed only to the very content that was indexed.
    Raises PhotoMissing where there is no file, PhotoError with a short reason for any other.
    """
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise PhotoError(_OUTSIDE)
    name = os.path.join(root, path)
    try:
        file = io.FileIO(name, "rb", opener=lambda name, _: os.open(name, _FLAGS))
    except FileNotFoundError as error:
        raise PhotoMissing(f"cannot be opened: {error.strerror}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(f"cannot be opened: {reason}") from error
    try:
        _check(file, root, name, indexed)
        file.seek(0)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            raise PhotoError(f"cannot be read: {error.strerror or error}") from error
        raise
    return file


def _check(file: io.FileIO, root: Path, name: str, indexed: Photo | None) -> None:
    facts = os.fstat(file.fileno())
    if not stat.S_ISREG(facts.st_mode):
        raise PhotoError("not a regular file")
    if facts.st_size > MAX_BYTES and not is_video(name):
        raise PhotoError(f"the file has {facts.st_size:,} bytes, over the cap of {MAX_BYTES:,}")
    inside = _is_inside(facts, root, name)
    if indexed is None:
        if not inside:
            raise PhotoError(_OUTSIDE)
    elif not inside or (facts.st_size, facts.st_mtime_ns) != (indexed.size, indexed.mtime_ns):
        if facts.st_size != indexed.size or fingerprint_of_file(file) != indexed.fingerprint:
            raise PhotoError(_CHANGED if inside else _OUTSIDE)
        file.seek(0)
    head = file.read(HEAD)
    if format_of(head) is None and container_of(head) is None:
        raise PhotoError("not a photo: its content is of no picture format that is read here")


def _is_inside(facts: os.stat_result, root: Path, name: str) -> bool:
    """Return whether an open file, reached by a name, lies below a folder."""
    real, folder = os.path.realpath(name), os.path.realpath(root)
    # it is the file that was opened, not one that has taken its place since
    return Path(real).is_relative_to(folder) and os.path.samestat(facts, os.stat(real))
