"""A trained classifier in a folder: ``classifier.json`` says what it is, ``classifier.safetensors`` holds the numbers."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from vitsearch.errors import ClassifierError

FORMAT = 1
FACTS, NUMBERS = "classifier.json", "classifier.safetensors"


def write_classifier(folder: str | os.PathLike[str], facts: Mapping[str, Any], numbers: Mapping[str, NDArray[Any]]) -> None:
    """Write both files, each aside and then renamed, the facts last; raises ClassifierError."""
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        save_file({name: np.ascontiguousarray(array) for name, array in numbers.items()}, place / f"{NUMBERS}.new")
        (place / f"{FACTS}.new").write_text(json.dumps({"format": FORMAT, **facts}, indent=2) + "\n", encoding="utf-8")
        for name in (NUMBERS, FACTS):
            os.replace(place / f"{name}.new", place / name)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClassifierError(f"cannot write the classifier to {place} ({reason}): choose another place") from error


def read_classifier(
    folder: str | os.PathLike[str], kind: str, shapes: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts and the numbers of a classifier of a kind; raises ClassifierError where they are missing, damaged or of another.

    ``shapes`` names the axes of each array; axes of one name have one length, and "classes" is the number of classes.
    """
    place = Path(folder)
    try:
        facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
        numbers = load_file(place / NUMBERS)
    except FileNotFoundError as error:
        _refuse_model(place)
        raise ClassifierError(f"there is no classifier in {place}: train one with `vitsearch train`") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise ClassifierError(f"the classifier in {place} is damaged ({' '.join(str(error).split())[:120]}): train it again") from error
    wrong = _wrong(facts, numbers, kind, shapes)
    if wrong:
        raise ClassifierError(f"the classifier in {place} is damaged ({wrong}): train it again")
    return facts, numbers


def kind_of(folder: str | os.PathLike[str]) -> str:
    """Return the kind of the classifier in a folder, "" where it does not say; raises ClassifierError where there is none."""
    try:
        facts = json.loads((Path(folder) / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _refuse_model(Path(folder))
        raise ClassifierError(f"there is no classifier in {folder} ({FACTS} cannot be read): train one with `vitsearch train`") from error
    return str(facts.get("kind", "")) if isinstance(facts, dict) else ""


def _refuse_model(place: Path) -> None:
    """Raise ClassifierError where the folder holds a model of photos instead."""
    if (place / "config.json").is_file() and not (place / FACTS).exists():
        raise ClassifierError(
            f"{place} holds a model of photos, not a classifier of vectors: vitsearch classify PHOTOS --model local-dir:{place} uses it"
        )


def _wrong(facts: Any, numbers: Mapping[str, NDArray[Any]], kind: str, shapes: Mapping[str, Sequence[str]]) -> str | None:
    """Return what is wrong with what was read, or None."""
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        return f"{FACTS} is not of format {FORMAT}"
    classes = facts.get("classes")
    if facts.get("kind") != kind:
        return f"it is of kind {facts.get('kind')!r}, not {kind!r}"
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        return "its classes are no list of names"
    if facts.get("activation") not in ("softmax", "sigmoid") or not isinstance(facts.get("fingerprint"), str):
        return f"{FACTS} lacks the activation or the encoder's fingerprint"
    lengths = {"classes": len(classes)}
    for name, axes in shapes.items():
        array = numbers.get(name)
        if array is None or array.ndim != len(axes) or any(lengths.setdefault(a, n) != n for a, n in zip(axes, array.shape, strict=True)):
            return f"its numbers {name!r} have another shape than {', '.join(axes)}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"its numbers {name!r} are not all finite"
    return None
