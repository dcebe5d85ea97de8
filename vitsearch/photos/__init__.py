"""Photos on disk: find them in a folder, read one, in a child process where its decoder may hang or
crash, and many ahead of time in threads. `formats` lists what is read.

A name is imported from its module when it is first used, so that a child loads only what decoding
needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitsearch.photos.decode import LoadedPhoto as LoadedPhoto
    from vitsearch.photos.decode import read_bytes_and_fingerprint as read_bytes_and_fingerprint
    from vitsearch.photos.decode import thumbnail as thumbnail
    from vitsearch.photos.decode import upright_rgb as upright_rgb
    from vitsearch.photos.decoder import PhotoDecoder as PhotoDecoder
    from vitsearch.photos.decoder import read_photo as read_photo
    from vitsearch.photos.prefetch import prefetch_map as prefetch_map
    from vitsearch.photos.walk import WalkOptions as WalkOptions
    from vitsearch.types import MAX_PIXELS as MAX_PIXELS

_MODULES = {
    "LoadedPhoto": "photos.decode",
    "MAX_PIXELS": "types",
    "PhotoDecoder": "photos.decoder",
    "WalkOptions": "photos.walk",
    "prefetch_map": "photos.prefetch",
    "read_bytes_and_fingerprint": "photos.decode",
    "read_photo": "photos.decoder",
    "thumbnail": "photos.decode",
    "upright_rgb": "photos.decode",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"vitsearch.{_MODULES[name]}"), name)
