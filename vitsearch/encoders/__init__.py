"""Encoders by name: ``mini``, ``colour``, ``open_clip:ARCH/TAG``, ``hf:ORG/NAME``, ``local-dir:/path``."""

from collections.abc import Callable

from vitsearch.encoders.protocol import Encoder, ImageEncoder
from vitsearch.errors import EncoderError

__all__ = ["Encoder", "ImageEncoder", "load_encoder"]

SPELLINGS = (
    "mini, colour, open_clip:ARCH/TAG (open_clip:ViT-B-32/laion2b_s34b_b79k), "
    "hf:ORG/NAME (hf:openai/clip-vit-base-patch32), local-dir:/path"
)


def load_encoder(name: str, device: str = "auto", dtype: str = "auto") -> Encoder:
    """Return the encoder of that name, ready to encode.

    ``device`` is "auto", "cpu", "cuda", "cuda:1" or "mps"; ``dtype`` is "auto", "float32", "float16" or "bfloat16"
    (auto: float32 on a CPU, float16 on a GPU). Raises EncoderError with the spellings to try, the extra to install, or the missing file.
    """
    source, _, model = name.partition(":")
    loader = _LOADERS.get(source)
    if loader is None or (source in _WITH_MODEL) != bool(model):
        raise EncoderError(f"unknown encoder {name!r}: try one of {SPELLINGS}; `vitsearch models` lists more")
    try:
        return loader(model, device, dtype)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _CLIP_PACKAGES:
            raise
        raise EncoderError(f"encoder {name!r} needs the package {error.name}: pip install 'vitsearch[clip]'") from error


def _mini(model: str, device: str, dtype: str) -> Encoder:
    from vitsearch.encoders.mini.encoder import load_mini

    return load_mini(device=device, dtype=dtype)


def _colour(model: str, device: str, dtype: str) -> Encoder:
    from vitsearch.encoders.colour import ColourEncoder

    return ColourEncoder()


def _open_clip(model: str, device: str, dtype: str) -> Encoder:
    from vitsearch.encoders.open_clip import load_open_clip

    return load_open_clip(model, device=device, dtype=dtype)


def _hf(model: str, device: str, dtype: str) -> Encoder:
    from vitsearch.encoders.hf import load_hf

    return load_hf(model, device=device, dtype=dtype)


def _local_dir(model: str, device: str, dtype: str) -> Encoder:
    from vitsearch.encoders.local_dir import load_local_dir

    return load_local_dir(model, device=device, dtype=dtype)


_LOADERS: dict[str, Callable[[str, str, str], Encoder]] = {
    "mini": _mini,
    "colour": _colour,
    "open_clip": _open_clip,
    "hf": _hf,
    "local-dir": _local_dir,
}
_WITH_MODEL = {"open_clip", "hf", "local-dir"}
_CLIP_PACKAGES = {"torch", "torchvision", "open_clip", "transformers", "huggingface_hub"}
