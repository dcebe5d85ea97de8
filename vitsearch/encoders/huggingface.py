"""``hf:ORG/NAME``: transformers' CLIP, SigLIP and fixed-size SigLIP 2 models, with our own
preprocessing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging

from vitsearch.encoders.checkpoints import (
    TRANSFORMERS_FILES,
    check_saved,
    check_settings,
    check_tokenizer,
    fingerprint_files,
    one_line,
    read_json,
    weights_hash,
)
from vitsearch.encoders.hub import hub_folder
from vitsearch.encoders.lazy_weights import LazyWeights, build_lazily, find_weights
from vitsearch.encoders.preprocess import RGB, Interpolation, Preprocess
from vitsearch.encoders.tokenizer import (
    PortableTokenizer,
    TokenRules,
    check_tokenizer_files,
    portable_fast,
    siglip_cleaned,
)
from vitsearch.encoders.torch_encoder import (
    Tokens,
    TorchEncoder,
    Towers,
    choose_device,
    choose_dtype,
)
from vitsearch.errors import EncoderError
from vitsearch.untrusted import guarded
from vitsearch.vit.weights import vit_from_transformers

_EXTRAS = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
]
_FILTERS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_MOVES_NOTHING = {
    "transformers_version",
    "_name_or_path",
    "architectures",
    "torch_dtype",
    "dtype",
    "_commit_hash",
    "initializer_factor",
}
_IMAGE_NAMES = ("vision_model.", "visual_projection.")

Tokenize = Callable[[Sequence[str]], Tokens]


def load_hf(model: str, *, device: str = "auto", dtype: str = "auto") -> TorchEncoder:
    """Return the encoder ``ORG/NAME`` of the Hugging Face hub, from the cache where it is complete
    there, else downloaded.

    Raises EncoderError for another kind of model, or for files that cannot be had or read.
    """
    if model.count("/") != 1 or not all(model.split("/")):
        raise EncoderError(
            f"hf:{model} is no name of a model: it is hf:ORG/NAME, as in "
            "hf:openai/clip-vit-base-patch32"
        )
    return load_transformers_folder(
        hub_folder(model, TRANSFORMERS_FILES, also=_EXTRAS),
        f"hf:{model}",
        device=device,
        dtype=dtype,
    )


def load_transformers_folder(folder: Path, name: str, *, device: str, dtype: str) -> TorchEncoder:
    """Return the encoder that transformers saved in a folder; raises EncoderError naming the file
    that is missing or damaged.
    """
    check_saved(folder, TRANSFORMERS_FILES, name)
    target, number_format = choose_device(device), choose_dtype(dtype, choose_device(device))
    config = read_json(folder / "config.json", name)
    _check_kind(config, name)
    check_settings(config, _weight_files(folder), name)
    preprocess = read_preprocess(folder, name)
    net, waiting = _load_model(folder, name)
    tokenize, portable = _load_tokenizer(folder, name, config, net)
    facts = {
        "source": "transformers",
        "config": _lasting(config),
        "weights": weights_hash(_weight_files(folder)),
        "tokenizer": weights_hash(_tokenizer_files(folder)),
    }
    towers = _towers(net, tokenize, portable, fingerprint_files(folder), waiting)
    return TorchEncoder(
        name, towers, preprocess=preprocess, facts=facts, device=target, dtype=number_format
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
        return _preprocess(values)


def _preprocess(values: Mapping[str, Any]) -> Preprocess:
    if (
        not values.get("do_resize", True)
        or not values.get("do_rescale", True)
        or abs(values.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9
    ):
        raise ValueError("a picture that is not resized and scaled to 0..1")
    size, crop = values["size"], values.get("crop_size")
    plain = Preprocess(
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation=_FILTERS[values.get("resample", 3)],
        half_pixel="down",
    )
    if values.get("do_normalize", True):
        plain = replace(plain, mean=_rgb(values["image_mean"]), std=_rgb(values["image_std"]))
    shortest = size if isinstance(size, int) else size.get("shortest_edge")
    if shortest is None:
        return replace(plain, size=(int(size["height"]), int(size["width"])), resize_mode="squash")
    if not values.get("do_center_crop", crop is not None):
        raise ValueError("a picture that is not cropped to a fixed size")
    height, width = (
        (crop, crop)
        if isinstance(crop, int)
        else (crop["height"], crop["width"])
        if crop
        else (shortest, shortest)
    )
    return replace(
        plain, size=(int(height), int(width)), resize_mode="shortest", resize_to=int(shortest)
    )


def _rgb(values: Sequence[float]) -> RGB:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _check_kind(config: Mapping[str, Any], name: str) -> None:
    kind = config.get("model_type")
    if kind == "siglip2":
        raise EncoderError(
            f"{name} is a NaFlex model (pictures of any size), which cannot be used here: try "
            "hf:google/siglip2-base-patch16-224"
        )
    if kind not in ("clip", "siglip"):
        raise EncoderError(
            f"{name} is a model of kind {kind!r}, not clip or siglip: use open_clip:ARCH/TAG "
            "where open_clip has it"
        )


def _load_model(folder: Path, name: str) -> tuple[nn.Module, LazyWeights | None]:
    """Return the model, and what of its weights waits in the files; None: all of it
    has been read.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind: Any = AutoModel  # its methods carry no types
        lazy = build_lazily(
            lambda: kind.from_config(
                deepcopy(config), dtype=torch.float32, trust_remote_code=False
            ),
            _weight_files(folder),
            name,
        )
        waiting = (
            find_weights(lazy, _weight_files(folder), image=_IMAGE_NAMES, unread=".position_ids")
            if lazy
            else None
        )
        if lazy is not None and waiting is not None:
            return lazy, waiting
        net, report = read_weights(AutoModel, folder, config=config)
    except (ImportError, EncoderError):
        raise
    except Exception as error:  # transformers, torch and safetensors each raise their own
        files = ", ".join(file.name for file in _weight_files(folder))
        raise EncoderError(
            f"{name}: cannot read {files} in {folder} ({one_line(error)}): fetch the model again"
        ) from error
    check_complete(report, folder, name)
    return net, None


def read_weights(kind: Any, folder: Path, **options: Any) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return the model of a folder in float32, read by one of transformers' auto classes, and its
    report of what was missing.
    """
    with without_bar():
        net, report = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    return net, report


def check_complete(report: Mapping[str, Any], folder: Path, name: str) -> None:
    """Raise EncoderError where `read_weights` reports tensors that are missing or of
    another shape.
    """
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise EncoderError(
            f"{name}: the weights in {folder} lack {len(absent)} tensors ({absent[0]}, ...): "
            "fetch the model again"
        )


@contextmanager
def without_bar() -> Iterator[None]:
    """Hide the bar that transformers draws for the milliseconds it takes to load or
    save weights.
    """
    bars: Any = logging  # these functions carry no types
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _load_tokenizer(
    folder: Path, name: str, config: Mapping[str, Any], net: Any
) -> tuple[Tokenize, PortableTokenizer | None]:
    """Return the tokenizer as a function, and without transformers where it is a fast one."""
    check_tokenizer_files(folder, name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a damaged file, or a package that this tokenizer needs
        raise EncoderError(
            f"{name}: cannot read the tokenizer in {folder} ({one_line(error)})"
        ) from error
    check_tokenizer(getattr(tokenizer, "backend_tokenizer", None), name)
    length = int(net.config.text_config.max_position_embeddings)
    if config["model_type"] == "clip":
        portable = portable_fast(
            tokenizer, TokenRules("none", length, tokenizer.pad_token_id, full=False, mask=True)
        )
        return lambda texts: dict(
            tokenizer(
                list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"
            )
        ), portable
    tokenizer.padding_side = "right"
    strips = _strips_punctuation(folder, name)
    clean = siglip_cleaned if strips else str.lower
    rules = TokenRules(
        "siglip" if strips else "lower", length, tokenizer.pad_token_id, full=True, mask=False
    )

    def tokenize(texts: Sequence[str]) -> Tokens:
        """Lower-case and pad to the full length, as SigLIP was trained; the mask is left out for
        the same reason.
        """
        cleaned = [clean(text) for text in texts]
        return {
            "input_ids": tokenizer(
                cleaned,
                padding="max_length",
                truncation=True,
                max_length=length,
                return_tensors="pt",
            )["input_ids"]
        }

    return tokenize, portable_fast(tokenizer, rules)


def _strips_punctuation(folder: Path, name: str) -> bool:
    file = folder / "tokenizer_config.json"
    return file.is_file() and str(read_json(file, name).get("tokenizer_class", "")).startswith(
        "SiglipTokenizer"
    )


def _towers(
    net: Any,
    tokenize: Tokenize,
    portable: PortableTokenizer | None,
    files: Sequence[Path],
    waiting: LazyWeights | None,
) -> Towers:
    bias = getattr(net, "logit_bias", None)
    return Towers(
        model=net,
        dim=int(
            getattr(net.config, "projection_dim", None) or net.config.vision_config.hidden_size
        ),
        encode_images=lambda pixels: _features(net.get_image_features(pixel_values=pixels)),
        tokenize=tokenize,
        encode_texts=lambda tokens: _features(net.get_text_features(**tokens)),
        logit_scale=float(net.logit_scale.detach().exp().mean()),
        logit_bias=None if bias is None else float(bias.detach().mean()),
        image_tower=lambda: vit_from_transformers(
            net.vision_model, projection=getattr(net, "visual_projection", None)
        ),
        files=tuple(files),
        portable=lambda: portable,
        waiting=waiting,
    )


def _features(output: Any) -> Tensor:
    """Return the vectors from what transformers gives: a tensor before version 5, an
    object since.
    """
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features


def _lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without what says nothing about the vectors."""
    return {
        key: _lasting(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _MOVES_NOTHING
    }


def _weight_files(folder: Path) -> list[Path]:
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    shards = sorted(folder.glob("model-*.safetensors"))
    return shards or [folder / "pytorch_model.bin"]


def _tokenizer_files(folder: Path) -> list[Path]:
    names = {name for group in TRANSFORMERS_FILES[3:] for name in group} | set(_EXTRAS)
    return [folder / name for name in sorted(names) if (folder / name).is_file()]
