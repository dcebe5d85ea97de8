"""``timm:NAME``: the image towers of timm without their heads, with the transform of their
configuration. They read no text.
"""

from collections.abc import Sequence
from math import floor
from pathlib import Path
from typing import Any

import timm

from vitsearch.encoders.checkpoints import (
    check_saved,
    check_settings,
    fingerprint_files,
    one_line,
    read_json,
    weights_hash,
)
from vitsearch.encoders.hub import hub_folder
from vitsearch.encoders.lazy_weights import build_lazily
from vitsearch.encoders.preprocess import Preprocess
from vitsearch.encoders.torch_encoder import (
    TorchImageEncoder,
    Towers,
    choose_device,
    choose_dtype,
)
from vitsearch.errors import EncoderError
from vitsearch.untrusted import guarded
from vitsearch.vit.weights import vit_from_timm

FILES = [["config.json"], ["model.safetensors"]]
_data: Any = timm.data  # carries no types


def load_timm(model: str, *, device: str = "auto", dtype: str = "auto") -> TorchImageEncoder:
    """Return the image tower of that name in timm, ``ARCH`` or ``ARCH.TAG``, from the cache of the
    Hugging Face hub where it is complete there, else downloaded.

    Raises EncoderError for a name that timm does not have, or files that cannot be had or read.
    """
    if not timm.is_model(model):
        near = ", ".join(timm.list_models(f"*{model.partition('.')[0]}*", pretrained=True)[:3])
        raise EncoderError(
            f"timm has no model {model!r}: try {near or 'vit_small_patch14_dinov2.lvd142m'}"
        )
    try:
        known: Any = timm.get_pretrained_cfg(model)
    except RuntimeError:  # it has no such tag
        known = None
    repo = known.hf_hub_id if known else None
    if not repo:
        tagged = ", ".join(timm.list_pretrained(f"{model.partition('.')[0]}.*")[:3])
        raise EncoderError(
            f"timm has no trained weights for {model!r}: "
            + (f"try {tagged}" if tagged else "name another model")
        )
    return load_timm_folder(hub_folder(repo, FILES), f"timm:{model}", device=device, dtype=dtype)


def load_timm_folder(folder: Path, name: str, *, device: str, dtype: str) -> TorchImageEncoder:
    """Return the image tower that timm saved in a folder; raises EncoderError naming the file that
    is missing or damaged.
    """
    check_saved(folder, FILES, name)
    target, number_format = choose_device(device), choose_dtype(dtype, choose_device(device))
    weights, spelling = [folder / "model.safetensors"], f"local-dir:{folder}"
    config = checked_config(folder, weights, name)
    try:
        net: Any = timm.create_model(spelling, pretrained=True, num_classes=0)
    except Exception as error:  # timm, torch and safetensors each raise their own
        raise EncoderError(
            f"{name}: cannot read the model in {folder} ({one_line(error)}): fetch it again"
        ) from error
    with guarded(EncoderError, f"{name}: the settings in {folder}", "fetch it again"):
        preprocess = _preprocess(_data.resolve_data_config({}, model=net))
    towers = Towers(
        model=net,
        dim=int(getattr(net, "head_hidden_size", None) or net.num_features),
        encode_images=net,
        image_tower=lambda: vit_from_timm(net),
        files=tuple(fingerprint_files(folder)),
    )
    facts = {
        "source": "timm",
        "architecture": config.get("architecture"),
        "arguments": config.get("model_args"),
        "pool": config.get("global_pool"),
        "weights": weights_hash(weights),
    }
    return TorchImageEncoder(
        name, towers, preprocess=preprocess, facts=facts, device=target, dtype=number_format
    )


def checked_config(folder: Path, weights: Sequence[Path], name: str) -> dict[str, Any]:
    """Return the settings of a model that timm saved in a folder; raises EncoderError where they
    ask for more than its weights hold.
    """
    config = read_json(folder / "config.json", name)
    check_settings(config, weights, name)
    spelling = f"local-dir:{folder}"
    build_lazily(lambda: timm.create_model(spelling, pretrained=False), weights, name)
    return config


def _preprocess(config: dict[str, Any]) -> Preprocess:
    """Return timm's transform for evaluation; raises ValueError for one that vitsearch does not
    do.
    """
    channels, height, width = config["input_size"]
    squashes = config["crop_mode"] == "squash"
    if channels != 3 or config["crop_mode"] not in ("center", "squash"):
        raise ValueError(f"pictures of {channels} channels, cropped as {config['crop_mode']!r}")
    resized = floor(height / config["crop_pct"])
    if height != width and not (squashes and config["crop_pct"] == 1):
        raise ValueError(f"pictures of {height} x {width}, cropped")
    return Preprocess(
        size=(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        resize_mode="squash" if squashes else "shortest",
        resize_to=None if squashes and resized == height else resized,
    )
