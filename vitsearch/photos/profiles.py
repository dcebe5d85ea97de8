"""ICC profiles (ICC.1:2022): the colours of a picture as sRGB, the space that encoders and screens
expect.

A profile that is broken, or of another kind than the picture, changes nothing; neither does one
that is sRGB itself, in whichever version: what counts is what it does to colours, not its name.
"""

import io
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Any

from PIL import Image, ImageCms

PROFILE = "icc_profile"  # in a picture's info
MAX_PROFILE_BYTES = 4_000_000  # those of printers have up to 3 MB
_HEADER_BYTES = 132
_SPACES = {"RGB": b"RGB ", "RGBA": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
# that versions of the profile of sRGB differ by, in tables of few points: gamma 2.2 differs by 7
_MAX_DEVIATION = 3
_MIN_WHITE, _MIN_RANGE = 128, 64  # of a profile that is not broken
_STEPS = (0, 32, 64, 96, 128, 160, 192, 224, 255)
_INTENTS = (ImageCms.Intent.PERCEPTUAL, ImageCms.Intent.RELATIVE_COLORIMETRIC)


def changing_profile(mode: str, profile: Any) -> bytes | None:
    """Return the profile where it changes the colours of a picture of this mode, else None."""
    if not isinstance(profile, bytes) or not _HEADER_BYTES <= len(profile) <= MAX_PROFILE_BYTES:
        return None
    if profile[36:40] != b"acsp" or profile[16:20] != _SPACES.get(mode):
        return None
    return profile if profile[12:16] in _CLASSES and _transform(profile, mode) else None


def to_srgb(image: Image.Image, profile: Any, *, in_place: bool = False) -> Image.Image:
    """Return the picture (RGB, RGBA, L or CMYK) in sRGB: itself where its profile changes nothing,
    else a picture in RGB or RGBA; with ``in_place`` the same pixels may be changed.
    """
    known = changing_profile(image.mode, profile)
    transform = _transform(known, image.mode) if known else None
    if transform is None:
        return image
    if in_place and image.mode == transform.output_mode and not image.readonly:
        image.load()
        result = transform.apply_in_place(image)
    else:
        result = transform.apply(image)
    del result.info[PROFILE]  # its own, of sRGB
    return result


def prepared(image: Image.Image, prepare: Callable[[Image.Image], Any], *, resizes: bool) -> Any:
    """Return what ``prepare`` makes of a picture that may still have its profile in its info.

    With ``resizes`` it only resizes and crops, to an array ``(height, width, 3)`` uint8, and the
    profile is applied to that: it costs a tenth of what it does on the picture.
    """
    profile = image.info.pop(PROFILE, None)
    if profile is None:
        return prepare(image)
    if not resizes:
        return prepare(to_srgb(image, profile, in_place=True))
    import numpy as np  # takes longer to import than all else that decoding needs

    return np.array(to_srgb(Image.fromarray(prepare(image)), profile))


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of a profile to sRGB, None where it is broken or changes nothing."""
    output = "RGBA" if mode == "RGBA" else "RGB"
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        transforms = [
            ImageCms.buildTransform(opened, srgb, mode, output, intent) for intent in _INTENTS
        ]
        if any(_is_identity(transform, mode) for transform in transforms if mode != "CMYK"):
            return None
        return transforms[0] if _is_sane(transforms[0], mode) else None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    probes = _probes(mode)
    pairs = zip(
        probes.convert("RGB").tobytes(),
        transform.apply(probes).convert("RGB").tobytes(),
        strict=True,
    )
    return all(abs(before - after) <= _MAX_DEVIATION for before, after in pairs)


def _is_sane(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether white stays light and colours stay apart."""
    white = Image.new(mode, (1, 1), (0, 0, 0, 0) if mode == "CMYK" else "white")
    light = min(transform.apply(white).convert("RGB").tobytes())
    shown = transform.apply(_probes(mode)).convert("RGB").tobytes()
    return light >= _MIN_WHITE and max(shown) - min(shown) >= _MIN_RANGE


@lru_cache(maxsize=8)
def _probes(mode: str) -> Image.Image:
    """Return a picture of a grid of colours and all greys."""
    if mode == "L":
        return Image.frombytes("L", (256, 1), bytes(range(256)))
    if mode == "CMYK":
        colours = bytes(
            value for colour in product((0, 85, 170, 255), repeat=4) for value in colour
        )
        return Image.frombytes("CMYK", (len(colours) // 4, 1), colours)
    greys = [(value,) * 3 for value in range(256)]
    flat = bytes(value for colour in [*product(_STEPS, repeat=3), *greys] for value in colour)
    return Image.frombytes("RGB", (len(flat) // 3, 1), flat).convert(mode)
