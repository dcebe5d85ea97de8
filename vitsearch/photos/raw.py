"""RAW photos of cameras through LibRaw: the adapter of rawpy.

The picture is the JPEG that the camera put into the file, where that is large enough, since it is
what the photographer saw and takes a fiftieth of the time; else the sensor's data are developed.
"""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import rawpy
from PIL import Image, ImageFile, JpegImagePlugin

from vitsearch.errors import PhotoError
from vitsearch.photos.exif import EXIF_IFD, GPS_IFD, ORIENTATION
from vitsearch.photos.formats import end_of_strips, jpegs_in

_XMP = 700  # a tag of TIFF
_ORIENTATIONS = {3: 3, 5: 8, 6: 6}  # EXIF's, by the turn that LibRaw gives
# Olympus and Panasonic write their own number where TIFF has 42
_HEADERS = {b"IIRO": b"II*\0", b"IIRS": b"II*\0", b"MMOR": b"MM\0*", b"IIU\0": b"II*\0"}
_BOXES = ("CMT1", "CMT2", "CMT4")  # of a CR3 file: the main, the EXIF and the GPS directory
MIN_PREVIEW = 100  # pixels of the shorter side; below, there is not much to see
MIN_SHARE = 0.9  # of the sensor's data that must be there
MIN_DENSITY = 0.1  # bytes a pixel; what cameras compress most has three times as many
MAX_SHAPE_CHANGE = 0.05  # of a preview, in which the edges of the sensor are cut off
_SEARCHED = 1 << 20  # bytes from the beginning, where these boxes lie


class RawImageFile(ImageFile.ImageFile):
    """A RAW photo; ``size`` is that of the sensor, not turned, until `load` makes it that of the
    picture, and that of the whole photo is ``info["upright_size"]``.

    `draft` says how many pixels both sides of the picture need at least. Without it, the JPEG in
    the file is taken where it has half of the sensor's, and the data are developed at half size.
    """

    format = "RAW"
    format_description = "RAW photo of a camera"

    def _open(self) -> None:
        assert self.fp is not None
        self._data = self.fp.read()
        self._raw = rawpy.RawPy()
        try:
            self._raw.open_buffer(io.BytesIO(self._data))
        except rawpy.LibRawError as error:
            raise PhotoError(f"a RAW photo that cannot be read: {_reason(error)}") from error
        sizes = self._raw.sizes
        cropped = 0 < sizes.crop_width <= sizes.width and 0 < sizes.crop_height <= sizes.height
        self._flip = sizes.flip  # developing changes it
        self._size = (
            (sizes.crop_width, sizes.crop_height) if cropped else (sizes.width, sizes.height)
        )
        self._mode = "RGB"
        self._at_least, self._may_reduce = max(1, min(self._size) // 2), False
        self._tags = Image.Exif()

    def draft(
        self, mode: str | None, size: tuple[int, int] | None
    ) -> tuple[str, tuple[int, int, float, float]]:
        """Have `load` give a picture of at least this size where it can be a smaller one."""
        if size is not None:
            self._at_least, self._may_reduce = max(size), True
        return "RGB", (0, 0, *self._size)

    def getexif(self) -> Image.Exif:
        """Return the tags of the file, with the orientation of the picture that is loaded."""
        return self._tags

    def load(self) -> Any:
        """Take the preview, or develop the sensor's data."""
        if self._data:
            preview = self._preview()
            picture = preview
            if preview is None or min(preview.size) < self._at_least:
                is_seen = preview is not None and min(preview.size) >= MIN_PREVIEW
                picture = self._developed() or (preview if is_seen else None)
            if picture is None:
                raise PhotoError(
                    "a RAW photo that cannot be developed (it is cut, or of an unknown kind), "
                    "without a preview that is large enough"
                )
            self._tags = self._read_tags(preview)
            self._tags[ORIENTATION] = self._orientation(picture)
            turned = self._flip in (5, 6)
            self.info["upright_size"] = self._size[::-1] if turned else self._size
            self.info |= {"icc_profile": picture.info.get("icc_profile")}
            self.info |= {"xmp": self._tags.get(_XMP)}
            picture.load()
            self.im, self._mode, self._size = picture.im, picture.mode, picture.size
            self._raw.close()
            self._data = b""
        return Image.Image.load(self)

    def _preview(self) -> Image.Image | None:
        """Return the largest picture in the file as it lies there, at reduced size where `draft`
        allows it; None for none that can be decoded.
        """
        try:
            if self._may_reduce and (small := self._smallest()):
                return small
            thumbnail = self._raw.extract_thumb()
            if not isinstance(thumbnail.data, bytes):
                return Image.fromarray(thumbnail.data).convert("RGB")
            picture = JpegImagePlugin.JpegImageFile(io.BytesIO(thumbnail.data))
            if picture.width * picture.height > 4 * self.width * self.height:
                return None  # no camera writes one, and it may be a bomb
            if self._may_reduce:
                picture.draft(None, (self._at_least, self._at_least))
            picture.load()
            return picture
        except (rawpy.LibRawError, rawpy.NotSupportedError, OSError, SyntaxError, ValueError):
            return None

    def _smallest(self) -> Image.Image | None:
        """Return the smallest JPEG of the whole photo whose sides are long enough; LibRaw gives
        only the largest, which takes ten times as long.
        """
        fitting = []
        for data in _jpegs_in(self._data):
            with contextlib.suppress(OSError, SyntaxError, ValueError):
                picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
                if min(picture.size) >= self._at_least and self._is_whole(picture):
                    fitting.append(picture)
        for picture in sorted(fitting, key=lambda picture: picture.width)[:1]:
            picture.draft(None, (self._at_least, self._at_least))
            picture.load()
            return picture
        return None

    def _is_whole(self, picture: Image.Image) -> bool:
        """Return whether a picture has the shape of the photo, and not black borders."""
        shapes = [max(size) / min(size) for size in (picture.size, self._size)]
        return picture.width <= 2 * self.width and abs(shapes[0] / shapes[1] - 1) < MAX_SHAPE_CHANGE

    def _developed(self) -> Image.Image | None:
        """Return the sensor's data as a picture, not turned; None where LibRaw cannot do it."""
        if self._ends_early():
            return None
        half = min(self._size) // 2 >= self._at_least
        try:
            pixels = self._raw.postprocess(half_size=half, use_camera_wb=True, user_flip=0)
        except (rawpy.LibRawError, rawpy.NotSupportedError):
            return None
        return Image.fromarray(pixels) if np.ptp(pixels) else None

    def _ends_early(self) -> bool:
        """Return whether the sensor's data are cut off, which LibRaw develops as black."""
        size, raw = len(self._data), self._raw.sizes
        is_tiff = self._data[:2] in (b"II", b"MM")
        end = end_of_strips(self._data) if is_tiff else 0
        return size < max(MIN_SHARE * end, MIN_DENSITY * raw.raw_width * raw.raw_height)

    def _orientation(self, picture: Image.Image) -> int:
        """Return the EXIF orientation of a picture: that of the sensor, unless a preview is upright
        already, which its shape tells.
        """
        flip = self._flip
        width, height = self._size
        is_turned = flip in (5, 6) and (width > height) != (picture.width > picture.height)
        return 1 if is_turned else _ORIENTATIONS.get(flip, 1)

    def _read_tags(self, preview: Image.Image | None) -> Image.Exif:
        """Return the tags of the container; of the preview where the container has none."""
        tags = Image.Exif()
        boxes = _boxes(self._data[:_SEARCHED]) if self._data[4:8] == b"ftyp" else {}
        head = self._data[:4]
        try:
            if boxes:
                tags.load(boxes["CMT1"])
                for number, name in ((EXIF_IFD, "CMT2"), (GPS_IFD, "CMT4")):
                    tags.get_ifd(number).update(_directory(boxes.get(name, b"")))
            elif head in _HEADERS:
                tags.load(_HEADERS[head] + self._data[4:])
            elif head[:2] in (b"II", b"MM"):
                tags.load(self._data)
            elif preview is not None:
                tags = preview.getexif()
        except Exception:  # broken tags say nothing
            return Image.Exif()
        return tags


def _jpegs_in(data: bytes) -> list[bytes]:
    """Return the JPEGs that lie in a RAW photo; of Canon's CR3 that of its box PRVW."""
    if data[4:8] != b"ftyp":
        return jpegs_in(data) if data[:2] in (b"II", b"MM") else []
    start = data.find(b"PRVW", 0, _SEARCHED)
    if start < 4:
        return []
    box = data[start : start - 4 + int.from_bytes(data[start - 4 : start], "big")]
    jpeg = box.find(b"\xff\xd8\xff", 0, 64)
    return [box[jpeg:]] if jpeg >= 0 else []


def _boxes(data: bytes) -> dict[str, bytes]:
    """Return the directories of Canon's CR3, each a TIFF of its own, by their boxes' names."""
    boxes = {}
    for name in _BOXES:
        start = data.find(name.encode())
        if start >= 4:
            end = start - 4 + int.from_bytes(data[start - 4 : start], "big")
            boxes[name] = data[start + 4 : end]
    return boxes


def _directory(data: bytes) -> Mapping[int, Any]:
    tags = Image.Exif()
    if data:
        tags.load(data)
    return dict(tags)


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)
