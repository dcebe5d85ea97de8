"""Supervised image classification: the classes that a model was trained on, whatever its source, behind one call."""

from pathlib import Path
from typing import Any

from vitsearch.errors import EncoderError
from vitsearch.supervised.classifier import Head, ImageClassifier

__all__ = ["Head", "ImageClassifier", "load_classifier"]


def load_classifier(name: str, *, device: str | int = "auto", dtype: Any = "auto") -> ImageClassifier:
    """Return an image classifier: "mini", "hf:ORG/NAME", "timm:NAME" or "local-dir:/path".

    ``hf:`` takes transformers' image classifiers (ViT, DeiT, Swin, ...) with the processor that lies beside them, ``timm:`` timm's models;
    a folder holds either, and nothing is downloaded for it. ``device`` is a name ("cpu", "cuda:1") or a GPU's number, ``dtype`` a name or a
    torch.dtype; "auto" is half precision on a GPU and float32 elsewhere. Raises EncoderError naming what is missing.
    """
    source, _, rest = name.partition(":")
    place = device if isinstance(device, str) else f"cuda:{device}" if device >= 0 else "cpu"
    number_format = str(dtype).removeprefix("torch.")
    if name == "mini":
        from vitsearch.supervised.mini import load_mini_classifier

        return load_mini_classifier(device=place, dtype=number_format)
    if source not in ("hf", "timm", "local-dir") or not rest:
        raise EncoderError(f"there is no classifier {name!r}: write mini, hf:ORG/NAME, timm:NAME or local-dir:/path/to/model")
    try:
        if source == "timm" or (source == "local-dir" and _is_timm(Path(rest))):
            from vitsearch.supervised.timm import load_timm_classifier

            return load_timm_classifier(name, device=place, dtype=number_format)
        from vitsearch.supervised.hf import load_hf_classifier

        return load_hf_classifier(name, device=place, dtype=number_format)
    except ImportError as error:
        raise EncoderError(f"{name} needs an extra ({error.name or error}): pip install 'vitsearch[clip]'") from error


def _is_timm(folder: Path) -> bool:
    """Return whether a folder's ``config.json`` is timm's, which names an architecture."""
    try:
        return '"architecture"' in (folder.expanduser() / "config.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
