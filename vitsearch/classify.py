"""Labels as vectors: a linear classifier, and the one whose weights are prompts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitsearch.encoders.protocol import Encoder
from vitsearch.errors import QueryError
from vitsearch.vectors import Vectors, unit_rows

PLAIN = ("a photo of a {}.",)
_BLOCK = 16_384  # rows scored at once: bounds the memory, not the number of photos


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """Scores of classes as a linear function of a vector.

    ``weight`` is ``(classes, dim)`` and ``bias`` ``(classes,)`` float32. ``activation`` "softmax" gives probabilities that sum to 1
    over the classes, "sigmoid" one probability for each class by itself.
    """

    classes: tuple[str, ...]
    weight: Vectors
    bias: Vectors
    activation: Literal["softmax", "sigmoid"] = "softmax"

    def logits(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 logits of ``(n, dim)`` vectors."""
        rows = np.asarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.weight.shape[1]:
            raise QueryError(f"expected (n, {self.weight.shape[1]}) vectors, got shape {rows.shape}")
        result: Vectors = rows @ self.weight.T + self.bias
        return result

    def predict_proba(self, vectors: Vectors) -> Vectors:
        """Return ``(n, classes)`` float32 probabilities of ``(n, dim)`` vectors, columns in the order of ``classes``."""
        rows = np.asarray(vectors)
        out = np.empty((len(rows), len(self.classes)), dtype=np.float32)
        for start in range(0, len(rows), _BLOCK):
            logits = self.logits(rows[start : start + _BLOCK]).astype(np.float64)
            out[start : start + _BLOCK] = _softmax(logits) if self.activation == "softmax" else _sigmoid(logits)
        return out

    def predict(self, vectors: Vectors) -> list[str]:
        """Return the most probable label of each vector; of equal ones the first in ``classes``."""
        rows = np.asarray(vectors)
        best: list[str] = []
        for start in range(0, len(rows), _BLOCK):
            best.extend(self.classes[i] for i in self.logits(rows[start : start + _BLOCK]).argmax(axis=1))
        return best


def zero_shot_classifier(encoder: Encoder, labels: Sequence[str], *, templates: str | Sequence[str] = "plain") -> LinearClassifier:
    """Return the classifier whose weights are the labels' prompts (Radford et al. 2021, section 3.1).

    A label's vector is the mean of its normalised prompt vectors, normalised again. CLIP-like encoders get a softmax over
    ``logit_scale`` times the cosines, SigLIP-like ones (with a ``logit_bias``) a sigmoid (Zhai et al. 2023).
    ``templates`` is "plain", "simple" (7), "imagenet" (80), or your own, each with ``{}`` where the label goes.
    Raises QueryError for no label, an empty or doubled one, or a template without ``{}``.
    """
    names = check_labels(labels)
    prompts = check_templates(templates)
    if not isinstance(encoder, Encoder):
        raise QueryError(f"encoder {encoder.name} reads no text, so it cannot label: choose one with a text encoder")
    rows = [encoder.encode_texts([readable(prompt.replace("{}", name)) for prompt in prompts]).mean(axis=0) for name in names]
    weight = unit_rows(np.stack(rows)) * np.float32(encoder.logit_scale)
    bias = np.full(len(names), encoder.logit_bias or 0.0, dtype=np.float32)
    return LinearClassifier(names, weight, bias, "softmax" if encoder.logit_bias is None else "sigmoid")


def readable(text: str) -> str:
    """Return a text whose bytes that were not UTF-8 (surrogates, from a terminal of another encoding) are question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels without surrounding spaces; raises QueryError for none, an empty or a doubled one."""
    if isinstance(labels, str):
        raise QueryError(f"labels are a list of strings, not one string: [{labels!r}, ...]")
    names = tuple(label.strip() for label in labels)
    if not names:
        raise QueryError("there is no label: give at least two, such as --labels 'cat,dog'")
    if not all(names):
        raise QueryError("a label is empty: take out the doubled comma or the blank entry")
    doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if doubled:
        raise QueryError(f"a label is given twice: {', '.join(doubled[:5])}: give each once")
    return names


def check_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return the prompt templates of a name ("plain", "simple", "imagenet") or of your own list; raises QueryError."""
    chosen = tuple(prompt for one in ([templates] if isinstance(templates, str) else templates) for prompt in _named(one))
    wrong = [template for template in chosen if "{}" not in template]
    if wrong or not chosen:
        shown = wrong[0] if wrong else ""
        raise QueryError(f"template {shown!r} has no {{}} for the label: write 'a photo of a {{}}', or one of plain, simple, imagenet")
    return chosen


def _named(template: str) -> Sequence[str]:
    if template == "plain":
        return PLAIN
    if template in ("simple", "imagenet"):
        stored: dict[str, list[str]] = json.loads(files("vitsearch").joinpath("templates.json").read_text(encoding="utf-8"))
        return stored[template]
    return [template]


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.exp(-np.logaddexp(0, -logits))  # does not overflow, and keeps the small ones
    return result
