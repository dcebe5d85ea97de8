"""What transformers' image processors do to a picture, as `Preprocess`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from vitsearch.encoders.checkpoints import read_json
from vitsearch.encoders.preprocess import RGB, Interpolation, Preprocess
from vitsearch.errors import EncoderError
from vitsearch.untrusted import guarded

_FILTERS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_DEFAULTS = (  # settings that a saved processor may leave to its class
    "size",
    "crop_size",
    "resample",
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "rescale_factor",
    "rescale_offset",
    "do_normalize",
    "image_mean",
    "image_std",
    "include_top",
    "default_to_square",
    "patch_size",
    "max_num_patches",
)


def read_preprocess(folder: Path, name: str) -> Preprocess:
    """Return the preprocessing that the model's authors saved; raises EncoderError for steps that
    we do not do.
    """
    file = folder / "preprocessor_config.json"
    if file.is_file():
        values = read_json(file, name)
    else:  # a processor saved whole by transformers 5
        file = folder / "processor_config.json"
        values = read_json(file, name).get("image_processor", {})
    problem = "asks for preprocessing that vitsearch does not do"
    with guarded(EncoderError, f"{name}: the file {file}", "fetch it again", problem=problem):
        return _preprocess(_with_defaults(values, folder, name))


def _with_defaults(values: Mapping[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Return a processor's settings with those that transformers' class of it adds."""
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    kind = kind.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    if not kind.endswith("ImageProcessor") or not hasattr(transformers, kind):
        model = str(read_json(folder / "config.json", name).get("model_type"))
        names = IMAGE_PROCESSOR_MAPPING_NAMES.get(model)
        kind = str(next(iter(names.values()), "")) if isinstance(names, dict) else ""
    made = getattr(transformers, kind or "-", None)
    defaults = {key: getattr(made, key, None) for key in _DEFAULTS}
    return {key: value for key, value in defaults.items() if value is not None} | dict(values)


def _preprocess(values: Mapping[str, Any]) -> Preprocess:
    if not values.get("do_resize", True) or not values.get("do_rescale", True):
        raise ValueError("a picture that is not resized and scaled to 0..1")
    if values.get("do_pad") or values.get("do_thumbnail") or values.get("do_reduce_labels"):
        raise ValueError("a picture that is padded")
    plain = replace(
        _normalisation(values),
        interpolation=_FILTERS[values.get("resample", 3)],
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
