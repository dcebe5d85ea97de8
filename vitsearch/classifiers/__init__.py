"""Supervised image classification: a model's classes behind one call, whatever its source."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vitsearch.classifiers.classifier import Head, ImageClassifier
from vitsearch.errors import EncoderError
from vitsearch.untrusted import read_bounded

if TYPE_CHECKING:
    from vitsearch.classifiers.torch_model import Trainable

__all__ = ["Head", "ImageClassifier", "load_classifier", "load_trainable"]


def load_classifier(
    name: str, *, device: str | int = "auto", dtype: Any = "auto"
) -> ImageClassifier:
    """Return an image classifier: "mini", "hf:ORG/NAME", "timm:NAME" or "local-dir:/path".

    ``hf:`` loads transformers' image classifiers (ViT, DeiT, Swin, ...) with the processor that
    lies beside them, ``timm:`` loads timm's models; a folder holds either, or what `finetune`
    wrote, and nothing is downloaded for it. ``device`` is a name ("cpu", "cuda:1") or a GPU's
    number, ``dtype`` a name or a torch.dtype; "auto" is half precision on a GPU and float32
    elsewhere. Raises EncoderError naming what is missing.
    """
    device_name = device if isinstance(device, str) else f"cuda:{device}" if device >= 0 else "cpu"
    number_format = str(dtype).removeprefix("torch.")
    kind = _kind(name)
    if kind == "mini":
        from vitsearch.classifiers.classifier import load_mini_classifier

        return load_mini_classifier(device=device_name, dtype=number_format)
    with _extra(name, "clip"):
        if kind == "fine-tuned mini":
            from vitsearch.classifiers.torch_model import load_finetuned_mini

            return load_finetuned_mini(
                name, _folder_of(name), device=device_name, dtype=number_format
            )
        if kind == "timm":
            from vitsearch.classifiers.timm import load_timm_classifier

            return load_timm_classifier(name, device=device_name, dtype=number_format)
        from vitsearch.classifiers.huggingface import load_hf_classifier

        return load_hf_classifier(name, device=device_name, dtype=number_format)


def load_trainable(name: str, classes: Sequence[str]) -> "Trainable":
    """Return a model with a new head of these classes, in float32 on the CPU.

    ``name`` is as in `load_classifier`. Raises EncoderError.
    """
    kind = _kind(name)
    with _extra(name, "clip"):
        if kind in ("mini", "fine-tuned mini"):
            from vitsearch.classifiers.torch_model import load_mini_trainable

            return load_mini_trainable(name, _folder_of(name) if kind != "mini" else None, classes)
        if kind == "timm":
            from vitsearch.classifiers.timm import load_timm_trainable

            return load_timm_trainable(name, classes)
        from vitsearch.classifiers.huggingface import load_hf_trainable

        return load_hf_trainable(name, classes)


def _kind(name: str) -> Literal["mini", "fine-tuned mini", "timm", "hf"]:
    """Return the kind of model that a name means; raises EncoderError for an unknown source."""
    source, _, rest = name.partition(":")
    if name == "mini":
        return "mini"
    if source not in ("hf", "timm", "local-dir") or not rest:
        raise EncoderError(
            f"there is no classifier {name!r}: write mini, hf:ORG/NAME, timm:NAME or "
            "local-dir:/path/to/model"
        )
    if source != "local-dir":
        return "timm" if source == "timm" else "hf"
    try:
        config = read_bounded(_folder_of(name) / "config.json").decode("utf-8")
    except (OSError, ValueError):
        return "hf"  # its reader names what is missing
    if '"vitsearch-mini"' in config:
        return "fine-tuned mini"
    return "timm" if '"architecture"' in config else "hf"


def _folder_of(name: str) -> Path:
    return Path(name.partition(":")[2]).expanduser()


@contextmanager
def _extra(name: str, extra: str) -> Iterator[None]:
    """Turn a library that is missing into an EncoderError that says what to install."""
    try:
        yield
    except ImportError as error:
        raise EncoderError(
            f"{name} needs an extra ({error.name or error}): pip install 'vitsearch[{extra}]'"
        ) from error
