"""Photos on disk: walk a folder, read a photo, in a child process where it may hang, and do either
ahead of time in threads.
"""

from vitsearch.photos.decode import (
    MAX_PIXELS,
    LoadedPhoto,
    decode,
    read_bytes_and_fingerprint,
    read_photo,
    thumbnail,
    upright_rgb,
)
from vitsearch.photos.isolated import InlineDecoder, PhotoDecoder, ProcessDecoder, photo_decoder
from vitsearch.photos.prefetch import prefetch_map
from vitsearch.photos.walk import HEIF_EXTENSIONS, PHOTO_EXTENSIONS, WalkOptions, walk

__all__ = [
    "HEIF_EXTENSIONS",
    "MAX_PIXELS",
    "PHOTO_EXTENSIONS",
    "InlineDecoder",
    "LoadedPhoto",
    "PhotoDecoder",
    "ProcessDecoder",
    "WalkOptions",
    "decode",
    "photo_decoder",
    "prefetch_map",
    "read_bytes_and_fingerprint",
    "read_photo",
    "thumbnail",
    "upright_rgb",
    "walk",
]
