"""JPEGs that a decoder other than libjpeg is given too: what such a decoder may do otherwise than
this one, or not at all, is left out (ITU-T T.81).
"""

import io
from dataclasses import dataclass

from PIL.JpegImagePlugin import JpegImageFile

from vitsearch.photos.columns import read_metadata
from vitsearch.photos.decode import TURNS, Colours
from vitsearch.photos.exif import read_tags
from vitsearch.photos.profiles import PROFILE, changing_profile
from vitsearch.types import PhotoInfo

MAX_SEGMENTS = 1_000  # before the first scan: 64 MB of notes
_START, _SCAN, _END = b"\xff\xd8", 0xDA, b"\xff\xd9"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # of every process
_READ_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, of Huffman
# sampling factors of grey, 4:4:4, 4:2:2 and 4:2:0
_SAMPLINGS = (b"\x11", b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")
_YCBCR = b"\x01\x02\x03"  # the components' numbers
_YCBCR_TRANSFORM = 1  # of Adobe's segment


@dataclass(frozen=True, slots=True)
class PlainJpeg:
    """What the head of a JPEG says: the width and height that are stored, the EXIF orientation, the
    size as shown and the metadata, and an RGB profile that changes its colours.
    """

    size: tuple[int, int]
    orientation: int
    info: PhotoInfo
    profile: bytes | None = None


def read_plain_jpeg(data: bytes, *, colours: Colours = "profile") -> PlainJpeg | None:
    """Return what the head of a file's content says where it is a plain JPEG, else None.

    Plain is one that has its end, is baseline or progressive in 8 bits, grey or YCbCr in 4:4:4,
    4:2:2 or 4:2:0, and without a grey profile that changes it. Nothing is decoded, and nothing is
    raised.
    """
    try:
        frame = _frame_of(data)
        if frame is None or not _is_plain(frame):
            return None
        image = JpegImageFile(io.BytesIO(data), "")
        if image.info.get("adobe_transform", _YCBCR_TRANSFORM) != _YCBCR_TRANSFORM:
            return None
        tags = read_tags(image)
        size = (int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big"))
        profile = None
        if colours != "raw":
            profile = changing_profile(image.mode, image.info.get(PROFILE))
        if image.size != size or 0 in size or (profile and image.mode == "L"):
            return None
        shown = size[::-1] if tags.orientation >= 5 else size
        orientation = tags.orientation if tags.orientation in TURNS else 1
        return PlainJpeg(size, orientation, PhotoInfo(*shown, read_metadata(tags)), profile)
    except Exception:  # whatever is odd here is said by the reader of all JPEGs
        return None


def _is_plain(frame: bytes) -> bool:
    """Return whether a frame header has 8 bits, and components and a sampling that are read."""
    count = frame[5]
    components = frame[6 : 6 + 3 * count]
    return (
        frame[0] == 8
        and len(frame) == 6 + 3 * count
        and components[1::3] in _SAMPLINGS
        and (count == 1 or components[::3] == _YCBCR)
    )


def _frame_of(data: bytes) -> bytes | None:
    """Return the frame header of a JPEG whose segments follow each other up to the first scan, and
    that has an end behind it; None where that is not so or the process is another.
    """
    if not data.startswith(_START):
        return None
    at, frames = len(_START), list[bytes]()
    for _ in range(MAX_SEGMENTS):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # fill bytes are left to libjpeg
            return None
        body = data[at + 4 : (end := at + 2 + int.from_bytes(data[at + 2 : at + 4], "big"))]
        if end < at + 4 or marker == 0 or 0xD0 <= marker <= 0xD9:
            return None
        if marker == _SCAN:
            return frames[0] if len(frames) == 1 and data.rfind(_END, end) > 0 else None
        if marker in _FRAMES:
            if marker not in _READ_FRAMES:
                return None
            frames.append(body)
        at = end
    return None
