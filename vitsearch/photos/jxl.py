"""JPEG XL (ISO/IEC 18181) through libjxl: the adapter of pillow-jxl-plugin.

The plugin's own class decodes when it opens a file; this one reads the size before that, so that a
picture of too many pixels is never decoded.
"""

import io
import re
from typing import Any

from PIL import Image, ImageFile, JpegImagePlugin
from pillow_jxl import Decoder

from vitsearch.errors import PhotoError
from vitsearch.photos.exif import ORIENTATION, iso_boxes

CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_ENOUGH = 12  # bytes of a codestream that hold its size
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_TIFF = re.compile(rb"II\*\0|MM\0\*")
_LENGTHS = (9, 13, 18, 30)  # bits of a side


class JxlImageFile(ImageFile.ImageFile):
    """A JPEG XL file, of several frames the first; one made from a JPEG gives that JPEG."""

    format = "JPEG XL"
    format_description = "JPEG XL"

    def _open(self) -> None:
        assert self.fp is not None
        self._data = self.fp.read()
        self._size = size_of(codestream(self._data))
        self._mode = "RGB"

    def load(self) -> Any:
        """Decode the picture, and the EXIF and XMP of its container."""
        if self._data:
            jpeg, facts, pixels, profile, boxes = Decoder(num_threads=1)(self._data)
            self._data = b""
            if jpeg:
                picture: Image.Image = JpegImagePlugin.JpegImageFile(io.BytesIO(pixels))
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
