"""Photos on disk: walk a folder, read a photo, and do either ahead of time in threads."""

from vitsearch.photos.ahead import map_ahead
from vitsearch.photos.decode import (
    MAX_PIXELS,
    LoadedPhoto,
    decode,
    read_bytes_and_fingerprint,
    read_photo,
    thumbnail,
    upright_rgb,
)
from vitsearch.photos.walk import HEIF_EXTENSIONS, PHOTO_EXTENSIONS, WalkOptions, walk

__all__ = [
    "HEIF_EXTENSIONS",
    "MAX_PIXELS",
    "PHOTO_EXTENSIONS",
    "LoadedPhoto",
    "WalkOptions",
    "decode",
    "map_ahead",
    "read_bytes_and_fingerprint",
    "read_photo",
    "thumbnail",
    "upright_rgb",
    "walk",
]
