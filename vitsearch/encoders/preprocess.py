"""Turns a picture into a model's input with numpy and Pillow only.

``prepare`` does the per-picture part (resize, crop) and gives uint8; ``normalise`` does the rest
for a whole batch. Bit for bit what open_clip's torchvision transform and transformers' Pillow
processors compute, so their published figures hold; the settings of both are read here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, isfinite, sqrt
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.encoders.checkpoints import MAX_POSITIONS, MAX_SIDE

ResizeMode = Literal["shortest", "longest", "squash", "patches"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
RGB = tuple[float, float, float]
Box = tuple[float, float, float, float]

OPENAI_MEAN: RGB = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: RGB = (0.26862954, 0.26130258, 0.27577711)

_BY_NUMBER: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MAX_STRIP_LENGTH = 32  # a resized picture this many times longer than the crop is never made whole


class HasSize(Protocol):
    """A picture, or what is known of one."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What a model wants to be done to a picture; every field moves the vector, so all are part of
    the encoder's fingerprint.

    ``size`` is the height and width of the input. ``shortest`` resizes the shorter side to
    ``resize_to`` (default: to cover ``size``) and crops the centre, ``longest`` fits the whole
    picture in and pads with ``fill_color``, ``squash`` ignores the aspect ratio (and crops the
    centre of a square of ``resize_to``, where that is given). ``patches`` keeps the aspect ratio
    and the whole picture, in as many patches of ``size`` as fit in ``max_patches``, so pictures of
    different shapes give inputs of different shapes (NaFlex, arXiv:2502.14786).
    ``half_pixel`` says how an odd margin is split: ``even`` rounds half to even (open_clip),
    ``down`` rounds down (transformers).
    """

    size: tuple[int, int] = (224, 224)
    mean: RGB = OPENAI_MEAN
    std: RGB = OPENAI_STD
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    fill_color: int = 0
    resize_to: int | None = None
    half_pixel: Literal["even", "down"] = "even"
    max_patches: int | None = None

    def __post_init__(self) -> None:
        sides = [*self.size, self.size[0] if self.resize_to is None else self.resize_to]
        if not all(1 <= side <= MAX_SIDE for side in sides):
            raise ValueError(f"pictures of {sides} pixels, beyond 1 to {MAX_SIDE:,}")
        if (self.max_patches is None) != (self.resize_mode != "patches") or not (
            1 <= (self.max_patches or 1) <= MAX_POSITIONS
        ):
            raise ValueError(f"{self.max_patches} patches, beyond 1 to {MAX_POSITIONS:,}")
        numbers = (*self.mean, *self.std)
        if len(numbers) != 6 or not all(map(isfinite, numbers)) or 0 in self.std:
            raise ValueError("a mean or a deviation that is no number, or 0")

    @property
    def decode_at_least(self) -> int | None:
        """Twice the side that is resized to, None where a picture must be decoded whole (see
        `ImageEncoder.decode_at_least`).
        """
        if self.interpolation == "nearest":
            return None
        if self.max_patches is not None:
            return 2 * ceil(max(self.size) * sqrt(self.max_patches))
        return 2 * max(*self.size, self.resize_to or 0)

    def facts(self) -> dict[str, Any]:
        """Return the fields as plain values, for a fingerprint; one that came later is left out
        where it says nothing.
        """
        facts = asdict(self)
        if self.max_patches is None:
            del facts["max_patches"]
        return facts


def prepare(image: Image.Image, how: Preprocess) -> NDArray[np.uint8]:
    """Return the picture resized and cropped, ``(height, width, 3)`` uint8: of the size of the
    input, or in whole patches of that size.

    Any aspect ratio is safe: where the resized picture would be a very long strip, only the part
    that stays is resized.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    layout = layout_of(rgb, how)
    if layout is None:
        return np.asarray(_cropped_first(rgb, _scaled_size(rgb, how), how))
    resized = _resized(rgb, layout.size, layout.interpolation)
    return np.asarray(resized if layout.crop == layout.size else _centred(resized, how))


@dataclass(frozen=True, slots=True)
class Layout:
    """What `prepare` makes of a picture: resized to ``size``, of which it takes ``crop`` from
    ``top`` and ``left`` on, below 0 where it is padded; heights come before widths.
    """

    size: tuple[int, int]
    crop: tuple[int, int]
    top: int
    left: int
    interpolation: Interpolation


def layout_of(image: HasSize, how: Preprocess) -> Layout | None:
    """Return what `prepare` makes of a picture of this size; None where it would be a very long
    strip, of which only a part is resized.
    """
    if how.resize_mode == "patches" or (how.resize_mode == "squash" and how.resize_to is None):
        size = _size_in_patches(image, how) if how.resize_mode == "patches" else how.size
        return Layout(size, size, 0, 0, how.interpolation)
    (height, width), (crop_height, crop_width) = _scaled_size(image, how), how.size
    if (
        max(height / crop_height, width / crop_width) > _MAX_STRIP_LENGTH
        and height >= crop_height
        and width >= crop_width
    ):
        return None
    top, left = _start(height, crop_height, how), _start(width, crop_width, how)
    interpolation = "bicubic" if _covers_oblong(how) else how.interpolation
    return Layout((height, width), how.size, top, left, interpolation)


def seen_region(image: Image.Image, how: Preprocess) -> Box:
    """Return what `prepare` keeps of a picture, (left, top, right, bottom) in its pixels; beyond
    its borders where it is padded.
    """
    if how.resize_mode == "patches" or (how.resize_mode == "squash" and how.resize_to is None):
        return 0.0, 0.0, float(image.width), float(image.height)
    (height, width), (crop_height, crop_width) = _scaled_size(image, how), how.size
    left, top = _start(width, crop_width, how), _start(height, crop_height, how)
    x_scale, y_scale = image.width / width, image.height / height
    return (
        left * x_scale,
        top * y_scale,
        (left + crop_width) * x_scale,
        (top + crop_height) * y_scale,
    )


def normalise(
    batch: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], how: Preprocess
) -> NDArray[np.float32]:
    """Return ``(n, 3, height, width)`` float32 for ``n`` prepared pictures: ``(x / 255 - mean) /
    std`` for each channel.
    """
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    pixels = np.asarray(batch, dtype=np.uint8).reshape(-1, *how.size, 3)
    out = np.empty((len(pixels), 3, *how.size), dtype=np.float32)
    for channel in range(3):  # a picture has 256 levels, so each is normalised once
        table = (levels - np.float32(how.mean[channel])) / np.float32(how.std[channel])
        np.take(table, pixels[..., channel], out=out[:, channel])
    return out


def _covers_oblong(how: Preprocess) -> bool:
    """Tell whether open_clip's rule for oblong inputs applies: both sides covered, rounded, always
    bicubic.
    """
    return how.resize_mode == "shortest" and how.resize_to is None and how.size[0] != how.size[1]


def _scaled_size(image: HasSize, how: Preprocess) -> tuple[int, int]:
    """Return the height and width to resize to, before crop or padding."""
    (height, width), (target_height, target_width) = (image.height, image.width), how.size
    if how.resize_mode == "longest" or _covers_oblong(how):
        ratios = (height / target_height, width / target_width)
        ratio = max(ratios) if how.resize_mode == "longest" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    short = how.resize_to or target_height
    if how.resize_mode == "squash":
        return short, short
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def _size_in_patches(image: HasSize, how: Preprocess) -> tuple[int, int]:
    """Return the height and width of the most whole patches that keep the aspect ratio, as
    transformers' processor of SigLIP 2 chooses them: by halving the range of scales.
    """

    def sides(scale: float) -> tuple[int, int]:
        height, width = (
            max(1, ceil(side * scale / patch)) * patch
            for side, patch in zip((image.height, image.width), how.size, strict=True)
        )
        return height, width

    smallest, largest = 1e-6, 100.0
    while largest - smallest >= 1e-5:
        scale = (smallest + largest) / 2
        height, width = sides(scale)
        if (height // how.size[0]) * (width // how.size[1]) <= (how.max_patches or 1):
            smallest = scale
        else:
            largest = scale
    return sides(smallest)


def _resized(
    image: Image.Image, size: tuple[int, int], interpolation: Interpolation
) -> Image.Image:
    return image.resize((size[1], size[0]), _FILTERS[interpolation])


def _margin(length: int, crop: int, how: Preprocess) -> int:
    return round((length - crop) / 2) if how.half_pixel == "even" else (length - crop) // 2


def _start(length: int, crop: int, how: Preprocess) -> int:
    """Return where the crop starts; below 0 where the picture is shorter than the crop and is
    padded.
    """
    return _margin(length, crop, how) if length >= crop else -((crop - length) // 2)


def _centred(image: Image.Image, how: Preprocess) -> Image.Image:
    """Crop the centre, on a background of ``fill_color`` where the picture is smaller than the
    crop.
    """
    height, width = how.size
    if image.height < height or image.width < width:
        image = _padded(image, how)
    left, top = _margin(image.width, width, how), _margin(image.height, height, how)
    return image.crop((left, top, left + width, top + height))


def _padded(image: Image.Image, how: Preprocess) -> Image.Image:
    height, width = max(image.height, how.size[0]), max(image.width, how.size[1])
    background = Image.new("RGB", (width, height), (how.fill_color,) * 3)
    background.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return background


def _cropped_first(image: Image.Image, size: tuple[int, int], how: Preprocess) -> Image.Image:
    """Resize only the part of the picture that the centre crop keeps."""
    (height, width), (crop_height, crop_width) = size, how.size
    top, left = _margin(height, crop_height, how), _margin(width, crop_width, how)
    y_scale, x_scale = image.height / height, image.width / width
    box = (
        left * x_scale,
        top * y_scale,
        (left + crop_width) * x_scale,
        (top + crop_height) * y_scale,
    )
    return image.resize((crop_width, crop_height), _FILTERS[how.interpolation], box=box)


# -- The settings of other libraries ---------------------------------------------------------------


def from_open_clip(visual: Any) -> Preprocess:
    """Return what open_clip does to a picture for the picture tower of a model."""
    config = visual.preprocess_cfg
    size = config["size"]
    return Preprocess(
        size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        resize_mode=config["resize_mode"] or "shortest",
        fill_color=int(config["fill_color"]),
    )


def from_transformers(values: Mapping[str, Any]) -> Preprocess:
    """Return what transformers' image processor of these settings does; raises ValueError for steps
    that we do not do.
    """
    if not values.get("do_resize", True) or not values.get("do_rescale", True):
        raise ValueError("a picture that is not resized and scaled to 0..1")
    if values.get("do_pad") or values.get("do_thumbnail") or values.get("do_reduce_labels"):
        raise ValueError("a picture that is padded")
    plain = replace(
        _normalisation(values),
        interpolation=_BY_NUMBER[values.get("resample", 3)],
        half_pixel="down",
    )
    if "max_num_patches" in values:
        patch, limit = int(values["patch_size"]), int(values["max_num_patches"])
        return replace(plain, size=(patch, patch), resize_mode="patches", max_patches=limit)
    size, crops = values["size"], values.get("do_center_crop", values.get("crop_size") is not None)
    if isinstance(size, int) and values.get("default_to_square", False):
        size = {"height": size, "width": size}
    crop = _sides(values.get("crop_size")) if crops else None
    shortest = size if isinstance(size, int) else size.get("shortest_edge")
    if shortest is None:
        fixed = int(size["height"]), int(size["width"])
        if crop in (None, fixed):
            return replace(plain, size=fixed, resize_mode="squash")
        if fixed[0] != fixed[1]:
            raise ValueError("a part of a picture of fixed, unequal sides")
        return replace(plain, size=crop, resize_mode="squash", resize_to=fixed[0])
    if not crops:
        raise ValueError("a picture that is not cropped to a fixed size")
    shortest = int(shortest)
    return replace(
        plain, size=crop or (shortest, shortest), resize_mode="shortest", resize_to=shortest
    )


def _normalisation(values: Mapping[str, Any]) -> Preprocess:
    """Return a preprocessing whose ``mean`` and ``std``, of levels from 0 to 1, do all that is done
    to levels: a scale, an offset, and up to two divisions.
    """
    factor = values.get("rescale_factor", 1 / 255) * 255
    factor = 1.0 if abs(factor - 1) < 1e-6 else factor
    mean, std, offset = (0.0,) * 3, (1.0,) * 3, float(values.get("rescale_offset") or 0)
    if values.get("do_normalize", True):
        mean, std = _rgb(values["image_mean"]), _rgb(values["image_std"])
    top = _rgb(values["image_std"]) if values.get("include_top") else (1.0,) * 3
    return Preprocess(
        mean=_rgb([(offset + each) / factor for each in mean]),
        std=_rgb([each * last / factor for each, last in zip(std, top, strict=True)]),
    )


def _sides(crop: Any) -> tuple[int, int] | None:
    if crop is None or isinstance(crop, int):
        return None if crop is None else (crop, crop)
    return int(crop["height"]), int(crop["width"])


def _rgb(values: Sequence[float]) -> RGB:
    red, green, blue = values
    return float(red), float(green), float(blue)
