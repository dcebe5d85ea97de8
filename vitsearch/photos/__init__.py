"""Photos on disk: find them in a folder, read one, in a child process where decoding may hang, and
both ahead of time in threads. `formats` lists what is read.
"""

from vitsearch.photos.decode import (
    LoadedPhoto,
    read_bytes_and_fingerprint,
    read_photo,
    thumbnail,
    upright_rgb,
)
from vitsearch.photos.isolated import InlineDecoder, PhotoDecoder, ProcessDecoder, photo_decoder
from vitsearch.photos.prefetch import prefetch_map
from vitsearch.photos.walk import WalkOptions
from vitsearch.types import MAX_PIXELS

__all__ = [
    "MAX_PIXELS",
    "InlineDecoder",
    "LoadedPhoto",
    "PhotoDecoder",
    "ProcessDecoder",
    "WalkOptions",
    "photo_decoder",
    "prefetch_map",
    "read_bytes_and_fingerprint",
    "read_photo",
    "thumbnail",
    "upright_rgb",
]
