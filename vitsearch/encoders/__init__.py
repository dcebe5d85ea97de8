"""Encoders by name: ``mini``, ``colour``, ``open_clip:ARCH/TAG``, ``hf:ORG/NAME``,
``local-dir:/path``.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from vitsearch.encoders.base import Encoder, ImageEncoder
from vitsearch.encoders.checkpoints import local_folder
from vitsearch.errors import EncoderError

# -- local-dir -------------------------------------------------------------------------------------

if TYPE_CHECKING:
    from vitsearch.encoders.torch_encoder import TorchEncoder

OPEN_CLIP_CONFIG = "open_clip_config.json"
TRANSFORMERS_CONFIG = "config.json"


def load_local_dir(path: str, *, device: str = "auto", dtype: str = "auto") -> "TorchEncoder":
    """Return the encoder in a folder of either layout; where both are there, open_clip's.

    An open_clip folder holds ``open_clip_config.json`` and weights, a transformers folder
    ``config.json``, ``model.safetensors``, ``preprocessor_config.json`` and a tokenizer. Raises
    EncoderError naming the file that is missing or damaged.
    """
    folder = local_folder(path)
    name = f"local-dir:{folder}"
    if (folder / OPEN_CLIP_CONFIG).is_file():
        from vitsearch.encoders.open_clip import load_open_clip_folder

        return load_open_clip_folder(folder, name, device=device, dtype=dtype)
    if (folder / TRANSFORMERS_CONFIG).is_file():
        from vitsearch.encoders.huggingface import load_transformers_folder

        return load_transformers_folder(folder, name, device=device, dtype=dtype)
    raise EncoderError(
        f"the folder {folder} holds no model: neither {OPEN_CLIP_CONFIG} (open_clip) nor "
        f"{TRANSFORMERS_CONFIG} (transformers) is in it"
    )


# -- Encoders by name ------------------------------------------------------------------------------

if TYPE_CHECKING:
    from vitsearch.encoders.onnx.cache import OnnxExport
    from vitsearch.encoders.torch_encoder import TorchEncoder

__all__ = ["Encoder", "ImageEncoder", "load_encoder", "prepare_model"]

SPELLINGS = (
    "mini, colour, open_clip:ARCH/TAG (open_clip:ViT-B-32/laion2b_s34b_b79k), "
    "hf:ORG/NAME (hf:openai/clip-vit-base-patch32), local-dir:/path"
)


def _silent(note: str) -> None:
    pass


def load_encoder(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    *,
    runtime: str = "auto",
    export: bool = False,
    throughput: bool = False,
    tell: Callable[[str], None] = _silent,
) -> Encoder:
    """Return the encoder of that name, ready to encode.

    ``device`` is "auto", "cpu", "cuda", "cuda:1" or "mps"; ``dtype`` is "auto", "float32",
    "float16", "bfloat16" or "int8" (auto: float32 on a CPU, float16 on a GPU). ``runtime`` says
    what runs a CLIP or SigLIP model: "torch"; "onnx", on a CPU in float32 or int8, its export made
    where there is none; "auto": ONNX Runtime on a CPU where there is an export, else torch. With
    ``export``, auto makes one too, and where that cannot be, ``tell`` is given one line and torch
    runs the model. ``throughput`` is for many pictures rather than a query at a time: ONNX Runtime
    computes each batch with one thread, and `encode_prepared` is to be called from as many threads
    as ``callers`` says. Raises EncoderError with the spellings to try, the extra to install, or the
    missing file.
    """
    source, model = _parsed(name)
    try:
        if source == "mini":
            return _mini(device, dtype, throughput)
        if source not in _WITH_MODEL:
            return _LOADERS[source](model, device, dtype)
        return _two_towers(
            name, device, dtype, runtime, export=export, throughput=throughput, tell=tell
        )
    except ModuleNotFoundError as error:
        raise _as_missing_extra(name, error) from error


def prepare_model(name: str, *, dtype: str = "float32") -> "OnnxExport":
    """Make the export of a CLIP or SigLIP model for ONNX Runtime ahead, in float32 or int8, where
    there is none that is whole.

    Raises EncoderError for a model that cannot be loaded or exported.
    """
    from vitsearch.encoders.onnx import cache as runtime

    source, _ = _parsed(name)
    if source not in _WITH_MODEL:
        raise EncoderError(f"encoder {name!r} needs no preparation: it runs without torch as it is")
    try:
        return runtime.prepare_model(name, _in_torch(name), dtype=dtype)
    except ModuleNotFoundError as error:
        raise _as_missing_extra(name, error) from error


def _parsed(name: str) -> tuple[str, str]:
    """Return the source and the model; raises EncoderError with the spellings to try."""
    source, _, model = name.partition(":")
    if source not in _LOADERS or (source in _WITH_MODEL) != bool(model):
        raise EncoderError(
            f"unknown encoder {name!r}: try one of {SPELLINGS}; `vitsearch models` lists more"
        )
    return source, model


def _as_missing_extra(name: str, error: ModuleNotFoundError) -> Exception:
    if error.name is None or error.name.partition(".")[0] not in _CLIP_PACKAGES:
        return error
    return EncoderError(
        f"encoder {name!r} needs the package {error.name}: pip install 'vitsearch[clip]'"
    )


def _two_towers(
    name: str,
    device: str,
    dtype: str,
    runtime: str,
    *,
    export: bool,
    throughput: bool,
    tell: Callable[[str], None],
) -> Encoder:
    from vitsearch.encoders.onnx.cache import check_runtime, find_encoder, make_encoder

    check_runtime(runtime, device, dtype)
    in_torch = _in_torch(name)
    found = find_encoder(name, device, dtype, runtime, in_torch, throughput=throughput)
    if found is not None:
        return found
    if export or runtime == "onnx" or dtype == "int8":
        made: Encoder = make_encoder(
            name, device, dtype, runtime, in_torch, tell=tell, throughput=throughput
        )
        return made
    return in_torch(device, dtype)


def _in_torch(name: str) -> "Callable[[str, str], TorchEncoder]":
    source, _, model = name.partition(":")
    return lambda device, dtype: _LOADERS[source](model, device, dtype)  # type: ignore[return-value]


def _mini(device: str, dtype: str, throughput: bool) -> Encoder:
    from vitsearch.encoders.mini.encoder import load_mini

    return load_mini(device=device, dtype=dtype, throughput=throughput)


def _colour(model: str, device: str, dtype: str) -> Encoder:
    from vitsearch.encoders.colour import ColourEncoder

    return ColourEncoder()


def _open_clip(model: str, device: str, dtype: str) -> Encoder:
    from vitsearch.encoders.open_clip import load_open_clip

    return load_open_clip(model, device=device, dtype=dtype)


def _hf(model: str, device: str, dtype: str) -> Encoder:
    from vitsearch.encoders.huggingface import load_hf

    return load_hf(model, device=device, dtype=dtype)


def _local_dir(model: str, device: str, dtype: str) -> Encoder:
    return load_local_dir(model, device=device, dtype=dtype)


_LOADERS: dict[str, Callable[[str, str, str], Encoder]] = {
    "mini": lambda model, device, dtype: _mini(device, dtype, False),
    "colour": _colour,
    "open_clip": _open_clip,
    "hf": _hf,
    "local-dir": _local_dir,
}
_WITH_MODEL = {"open_clip", "hf", "local-dir"}
_CLIP_PACKAGES = {"torch", "torchvision", "open_clip", "transformers", "huggingface_hub"}
