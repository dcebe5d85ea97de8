"""Zero-shot classification: the weights are prompts, so any words can be labels."""

import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np

from vitsearch.arrays import Vectors, unit_rows
from vitsearch.encoders.base import Encoder
from vitsearch.encoders.language import readable
from vitsearch.errors import QueryError
from vitsearch.labels.classifier import LinearClassifier
from vitsearch.labels.labels import NOTHING, Label, parse_labels

PLAIN = ("a photo of a {}.",)
NEUTRAL = (
    "a photo.",
    "a picture.",
    "an image.",
    "a photo of something.",
    "something else.",
    "a photo of an object.",
    "a scene.",
)
_MAX_PENDING = (
    2048  # prompts encoded together: bounds the memory of 10,000 labels with 80 templates
)


def zero_shot_classifier(
    encoder: Encoder,
    labels: Sequence[str | Label],
    *,
    templates: str | Sequence[str] = "plain",
    background: bool = False,
    multi: bool = False,
) -> LinearClassifier:
    """Return the classifier whose weights are the vectors of the labels' prompts.

    A label is written as in `parse_labels`; its vector is the mean of its normalised prompt
    vectors, normalised again (Radford et al. 2021, section 3.1). CLIP-like encoders get a softmax
    over ``logit_scale`` times the cosines, SigLIP-like ones (with a ``logit_bias``) a sigmoid (Zhai
    et al. 2023). ``templates`` is "plain", "simple" (7), "imagenet" (80), or your own, each with
    ``{}`` where the label goes. ``background`` adds the class "none of these", made of prompts that
    say nothing. With ``multi`` each label has a probability of its own: for a CLIP-like encoder
    that of the label against the background. Raises QueryError for no label, a single one whose
    probability could only be 1, an empty or repeated one, a template without ``{}``, or ``multi``
    with ``background``.
    """
    named = parse_labels(labels)
    prompts = check_templates(templates)
    if not isinstance(encoder, Encoder):
        raise QueryError(
            f"encoder {encoder.name} reads no text, so it cannot label: "
            "choose one with a text encoder"
        )
    if multi and background:
        raise QueryError(
            "multi judges each label against the background already: leave out background"
        )
    softmax = encoder.logit_bias is None
    if softmax and len(named) == 1 and not background and not multi:
        raise QueryError(
            f"one label alone, {named[0].name!r}, would fit every photo: give at "
            "least two, or add --background"
        )
    weight = label_vectors(encoder, named, prompts)
    bias = np.full(len(named), encoder.logit_bias or 0.0, dtype=np.float32)
    names = tuple(label.name for label in named)
    if background or (multi and softmax):
        neutral = unit_rows(encoder.encode_texts(NEUTRAL).mean(axis=0)[None])
        if multi and softmax:
            weight = weight - neutral
        else:
            names = (*names, NOTHING)
            weight = np.concatenate([weight, neutral])
            bias = np.append(bias, bias[:1])
    return LinearClassifier(
        names,
        weight * np.float32(encoder.logit_scale),
        bias,
        "softmax" if softmax and not multi else "sigmoid",
        encoder.fingerprint,
    )


def label_vectors(encoder: Encoder, labels: Sequence[Label], templates: Sequence[str]) -> Vectors:
    """Return ``(labels, dim)``: the normalised mean of each label's unit prompt vectors."""
    sums = np.zeros((len(labels), encoder.dim), dtype=np.float64)
    pending: list[tuple[int, str]] = []
    for row, label in enumerate(labels):
        prompts = [
            (row, readable(template.replace("{}", word)))
            for word in label.words
            for template in templates
        ]
        if pending and len(pending) + len(prompts) > _MAX_PENDING:
            _add(sums, encoder, pending)
            pending = []
        pending += prompts
    _add(sums, encoder, pending)
    return unit_rows(sums)


def _add(sums: np.ndarray, encoder: Encoder, prompts: Sequence[tuple[int, str]]) -> None:
    np.add.at(
        sums, [row for row, _ in prompts], encoder.encode_texts([text for _, text in prompts])
    )


def check_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return the prompt templates of a name ("plain", "simple", "imagenet") or of your own list.

    Raises QueryError.
    """
    listed = [templates] if isinstance(templates, str) else templates
    chosen = tuple(prompt for template in listed for prompt in _named(template))
    wrong = [template for template in chosen if "{}" not in template]
    if wrong or not chosen:
        shown = wrong[0] if wrong else ""
        raise QueryError(
            f"template {shown!r} has no {{}} for the label: write 'a photo of a {{}}', or one of "
            "plain, simple, imagenet"
        )
    return chosen


def _named(template: str) -> Sequence[str]:
    if template == "plain":
        return PLAIN
    if template in ("simple", "imagenet"):
        stored: dict[str, list[str]] = json.loads(
            files("vitsearch").joinpath("templates.json").read_text(encoding="utf-8")
        )
        return stored[template]
    return [template]
