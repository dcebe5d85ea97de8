"""Reads a photo: bytes and fingerprint from disk, then an upright RGB picture and its metadata."""

import hashlib
import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vitsearch.errors import PhotoError, UnreadablePhoto
from vitsearch.photos.columns import read_metadata
from vitsearch.photos.exif import add_boxes, read_tags
from vitsearch.photos.formats import open_image
from vitsearch.types import MAX_PIXELS, PhotoInfo

MAX_BYTES = 2_000_000_000

# the transposition for each EXIF orientation (Exif 2.32, 4.6.4.A)
_TURNS = {
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
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise PhotoError("not a regular file")
            if status.st_size > max_bytes:
                raise PhotoError(
                    f"the file has {status.st_size:,} bytes, over the cap of {max_bytes:,}"
                )
            data = file.read()
    except MemoryError:
        raise PhotoError("not enough memory to read the file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadablePhoto(f"cannot be opened: {reason}") from error
    if not data:
        raise PhotoError("the file is empty (0 bytes)")
    return data


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    side: int | None = None,
) -> tuple[Image.Image, PhotoInfo]:
    """Return an upright RGB picture, and its size and metadata, from the content of a photo file.

    EXIF orientation is applied, transparency is laid over white, more than 8 bits are scaled to 8,
    and of several pictures the first is used. The pixel count is checked against ``max_pixels``
    before anything is decoded. With ``at_least`` a JPEG may be decoded at 1/2, 1/4 or 1/8 of its
    size (in its DCT domain), as long as both sides have at least so many pixels, and with ``side``
    as long as the longer one has; the returned size is the full one. Raises only PhotoError, with a
    short reason.
    """
    try:
        try:
            return _decode(data, max_pixels, at_least, side)
        except Image.DecompressionBombError:
            # Pillow has a global cap of its own, which is lifted only for a photo that it rejects
            with _pillow_limit_at(max_pixels):
                return _decode(data, max_pixels, at_least, side)
    except PhotoError:
        raise
    except MemoryError:
        raise PhotoError("not enough memory to decode it") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
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
    data: bytes, max_pixels: int, at_least: int | None, side: int | None
) -> tuple[Image.Image, PhotoInfo]:
    with open_image(data) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise PhotoError(
                f"{width} x {height} = {width * height:,} pixels, over the cap of "
                f"{max_pixels:,} "
                "(raise max_pixels to read it)"
            )
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
        upright = _upright(image, tags.orientation)
    if "upright_size" in image.info:  # of a RAW photo
        width, height = image.info["upright_size"]
    elif not reduced:
        width, height = upright.size
    elif tags.orientation >= 5:
        width, height = height, width
    return upright, PhotoInfo(width, height, metadata)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an upright 8-bit RGB picture, transparency over white, as `decode` does for a file."""
    return _upright(image, read_tags(image).orientation)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return _rgb(image if turn is None else image.transpose(turn))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # NumPy takes longer to import than all else that decoding needs, and few photos need it
        from vitsearch.photos.depth import eight_bits

        return eight_bits(image).convert("RGB")
    if not image.has_transparency_data:
        # converting RGB would copy it, which takes half as long as decoding
        return image if image.mode == "RGB" else image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


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
