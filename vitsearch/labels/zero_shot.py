"""The classifier whose weights are prompts: any words will do as labels."""

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
_PROMPTS_AT_ONCE = 2048  # bounds the memory of 10,000 labels with 80 templates


def zero_shot_classifier(
    encoder: Encoder,
    labels: Sequence[str | Label],
    *,
    templates: str | Sequence[str] = "plain",
    background: bool = False,
    multi: bool = False,
) -> LinearClassifier:
    """Return the classifier whose weights are the labels' prompts (Radford et al. 2021, section
    3.1).

    A label is written as in `parse_labels`; its vector is the mean of its normalised prompt
    vectors, normalised again. CLIP-like encoders get a softmax over ``logit_scale`` times the
    cosines, SigLIP-like ones (with a ``logit_bias``) a sigmoid (Zhai et al. 2023). ``templates`` is
    "plain", "simple" (7), "imagenet" (80), or your own, each with ``{}`` where the label goes.
    ``background`` adds the class "none of these", made of prompts that say nothing. With ``multi``
    each label has a probability by itself: for a CLIP-like encoder that of the label against the
    background. Raises QueryError for no label, one alone where its probability could only be 1, an
    empty or doubled one, a template without ``{}``, or ``multi`` with ``background``.
    """
    named = parse_labels(labels)
    prompts = check_templates(templates)
    if not isinstance(encoder, Encoder):
        raise QueryError(
            f"encoder {encoder.name} reads no text, so it cannot label: choose one with a text "
            "encoder"
        )
    if multi and background:
        raise QueryError(
            "multi judges each label against the background already: leave out background"
        )
    softmax = encoder.logit_bias is None
    if softmax and len(named) == 1 and not background and not multi:
        raise QueryError(
            f"one label alone, {named[0].name!r}, would fit every photo: give at least two, or add "
            "--background"
        )
    weight = label_vectors(encoder, named, prompts)
    bias = np.full(len(named), encoder.logit_bias or 0.0, dtype=np.float32)
    names = tuple(label.name for label in named)
    if background or (multi and softmax):
        neutral = unit_rows(encoder.encode_texts(NEUTRAL).mean(axis=0)[None])
        if multi and softmax:
            weight = weight - neutral
        else:
            names, weight, bias = (
                (*names, NOTHING),
                np.concatenate([weight, neutral]),
                np.append(bias, bias[:1]),
            )
    return LinearClassifier(
        names,
        weight * np.float32(encoder.logit_scale),
        bias,
        "softmax" if softmax and not multi else "sigmoid",
        encoder.fingerprint,
    )


def label_vectors(encoder: Encoder, labels: Sequence[Label], templates: Sequence[str]) -> Vectors:
    """Return a unit row ``(labels, dim)`` for each label: the mean of its unit prompt vectors,
    normalised.
    """
    sums = np.zeros((len(labels), encoder.dim), dtype=np.float64)
    waiting: list[tuple[int, str]] = []
    for place, label in enumerate(labels):
        share = [
            (place, readable(template.replace("{}", word)))
            for word in label.words
            for template in templates
        ]
        if waiting and len(waiting) + len(share) > _PROMPTS_AT_ONCE:
            _add(sums, encoder, waiting)
            waiting = []
        waiting += share
    _add(sums, encoder, waiting)
    return unit_rows(sums)


def _add(sums: np.ndarray, encoder: Encoder, prompts: Sequence[tuple[int, str]]) -> None:
    np.add.at(
        sums, [place for place, _ in prompts], encoder.encode_texts([text for _, text in prompts])
    )


def check_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return the prompt templates of a name ("plain", "simple", "imagenet") or of your own list;
    raises QueryError.
    """
    chosen = tuple(
        prompt
        for one in ([templates] if isinstance(templates, str) else templates)
        for prompt in _named(one)
    )
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
