"""What the settings of a model may ask for: libraries build what a file says before they read its
weights, so that ten million layers take for ever and one huge one takes all memory.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitsearch.errors import EncoderError

MAX_SIDE = 2048  # pixels of a model's input
MAX_LAYERS = 1024
MAX_POSITIONS = 8192
MAX_WIDTH = 32_768
MAX_WORDS = 4_194_304
MAX_GROWTH = 64  # of a text in a tokenizer's replacements
SPARE_PARAMETERS = 16_777_216  # that may be missing in the files: a head, position tables

_LIMITS = (  # the first that fits the last part of a setting's name
    (re.compile(r"vocab|token|_id$|index|label"), MAX_WORDS),
    (re.compile(r"layer|depth|block|head|group|stage|expert|num_channels"), MAX_LAYERS),
    (re.compile(r"position|context|length|seq"), MAX_POSITIONS),
    (re.compile(r"image|img|input_size|crop|patch|grid|window|kernel|stride"), MAX_SIDE),
    (re.compile(r"size|width|dim|hidden|intermediate|mlp|ratio|rank|channels"), MAX_WIDTH),
)
_WIDTHS = ("hidden_size", "width")
_NAMES = ("label2id", "id2label", "label_names")  # of classes, whose names mean nothing here
_ROWS = ("vocab_size", "max_position_embeddings", "context_length")


def check_settings(settings: Mapping[str, Any], files: Sequence[Path], name: str) -> None:
    """Raise EncoderError where the settings of a model ask for more than a model has, or for tables
    larger than its weights in ``files``.
    """
    for key, number in _numbers(settings):
        limit = next((limit for kind, limit in _LIMITS if kind.search(key)), None)
        if limit is not None and not -limit <= number <= limit:
            raise EncoderError(
                f"{name} says that its {key} is {number:,}, more than {limit:,}: fetch it again"
            )
    stored = _bytes(files)
    for part in _parts(settings):
        width = max((part[key] for key in _WIDTHS if _is_count(part.get(key))), default=1)
        rows = max((part[key] for key in _ROWS if _is_count(part.get(key))), default=1)
        side, patch = part.get("image_size"), part.get("patch_size")
        if isinstance(side, int) and isinstance(patch, int) and patch > 0:
            rows = max(rows, (side // patch) ** 2)
        if rows * width > stored + SPARE_PARAMETERS:
            raise EncoderError(
                f"{name} says that it has a table of {rows:,} x {width:,} numbers, more than its "
                f"weights hold ({stored:,} bytes): fetch it again"
            )


def check_parameters(count: int, files: Sequence[Path], name: str) -> None:
    """Raise EncoderError where a model has far more parameters than its files have bytes."""
    stored = _bytes(files)
    if count > stored + SPARE_PARAMETERS:
        raise EncoderError(
            f"{name} says that it has {count:,} parameters, more than its weights hold "
            f"({stored:,} bytes): fetch it again"
        )


def check_sides(values: object, name: str) -> None:
    """Raise EncoderError where a saved processor makes pictures larger than any model reads."""
    if not isinstance(values, Mapping):
        return
    for key, number in _numbers(values):
        if re.search(r"size|crop|height|width|edge|resize|pad", key) and number > MAX_SIDE:
            raise EncoderError(
                f"{name} says that pictures become {number:,} pixels wide or high, more than "
                f"{MAX_SIDE:,} ({key}): fetch it again"
            )


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Raise EncoderError for a tokenizer of `tokenizers` whose replacements, one after the other,
    make a text many times longer.
    """
    check_growth(growth_of(tokenizer), name)


def growth_of(tokenizer: Any) -> float:
    """Return how many times longer the replacements of a tokenizer may make a text."""
    normalizer = getattr(tokenizer, "normalizer", None)
    return _growth(json.loads(normalizer.__getstate__()) if normalizer is not None else None)


def check_growth(growth: float, name: str) -> None:
    """Raise EncoderError for a tokenizer that makes a text many times longer."""
    if growth > MAX_GROWTH:
        raise EncoderError(
            f"{name}: the tokenizer makes a text {growth:,.0f} times longer before it reads it: "
            "fetch it again"
        )


def _growth(step: Any) -> float:
    """Return how many times longer a normalizer may make a text."""
    if not isinstance(step, dict):
        return 1.0
    growth = 1.0
    for inner in step.get("normalizers") or ():
        growth *= _growth(inner)
    if step.get("type") == "Prepend":
        growth *= 1.0 + len(str(step.get("prepend", "")))
    if step.get("type") == "Replace":
        pattern, content = step.get("pattern"), str(step.get("content", ""))
        literal = pattern.get("String") if isinstance(pattern, dict) else None
        # a pattern may match between any two letters
        growth *= max(1.0, len(content) / len(literal) if literal else 1.0 + len(content))
    return growth


def _numbers(settings: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield every whole number of settings, with the last name on its way."""
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            if name not in _NAMES:
                yield from _numbers(value, str(name))
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _numbers(value, key)
    elif _is_count(settings):
        yield key, settings


def _parts(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield settings
    for value in settings.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _bytes(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())
