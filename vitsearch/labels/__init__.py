"""Labels as vectors: what turns the vectors of a collection into labels, and how sure it is; and
zero-shot classification, whose weights are prompts, so any words can be labels.
"""

import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np

from vitsearch.arrays import Vectors, unit_rows
from vitsearch.encoders.base import Encoder
from vitsearch.encoders.language import readable, texts_in
from vitsearch.errors import QueryError
from vitsearch.labels.classifier import (
    Decision,
    LabelClassifier,
    LabelScore,
    LinearClassifier,
    predict,
)
from vitsearch.labels.few_shot import (
    Calibration,
    TipClassifier,
    calibrate,
    prototype_classifier,
    tip_classifier,
)
from vitsearch.labels.labels import NOTHING, Label, parse_labels

PLAIN = ("a photo of a {}.",)
# what photos show, broadly: the mean of these words is what any words have in common
THINGS = (
    "dog, cat, horse, cow, pig, chicken, duck, owl, eagle, snake, frog, turtle, shark, whale, "
    "crab, spider, bee, butterfly, elephant, lion, bear, monkey, mouse, rabbit, deer, apple, "
    "banana, grape, tomato, carrot, potato, mushroom, bread, cheese, egg, cake, pizza, soup, "
    "rice, fish, meat, chocolate, coffee, wine, bottle, cup, plate, knife, spoon, chair, table, "
    "bed, sofa, lamp, mirror, carpet, curtain, clock, door, window, stairs, oven, refrigerator, "
    "sink, bathtub, toilet, towel, soap, toothbrush, scissors, hammer, saw, ladder, bucket, "
    "broom, rope, key, candle, umbrella, suitcase, backpack, hat, coat, shirt, dress, trousers, "
    "shoe, glove, tie, ring, glasses, watch, mask, helmet, computer, keyboard, telephone, "
    "television, camera, radio, headphones, printer, book, newspaper, letter, map, calendar, "
    "coin, banknote, diagram, screenshot, receipt, passport, painting, statue, flag, balloon, "
    "doll, teddy bear, kite, dice, chess board, ball, tennis racket, skateboard, bicycle, "
    "motorcycle, car, truck, bus, train, ship, sailing boat, airplane, helicopter, rocket, "
    "tractor, guitar, piano, violin, trumpet, drum, tree, flower, grass, leaf, cactus, forest, "
    "mountain, desert, beach, island, river, lake, waterfall, cave, cloud, rainbow, snow, fire, "
    "moon, star, house, castle, church, skyscraper, bridge, tunnel, tower, lighthouse, farm, "
    "garden, street, market, shop, restaurant, kitchen, bedroom, office, classroom, hospital, "
    "library, stadium, airport, man, woman, child, baby, crowd, face, hand, doctor, soldier, "
    "dancer, musician, wedding, concert, football match, skeleton, robot, dinosaur, microscope, "
    "medicine"
)
# how far above what any words get a label has to be, in standard deviations of what these words get
# on the photos: on ten classes of ImageNet with half of them for labels, 96 % of the others' photos
# stay below and 5 % of the labels' own
CLEAR = 2.3
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
    photos: Vectors | None = None,
) -> LinearClassifier:
    """Return the classifier whose weights are the vectors of the labels' prompts.

    A label is written as in `parse_labels`; its vector is the mean of its normalised prompt
    vectors, normalised again (Radford et al. 2021, section 3.1). CLIP-like encoders get a softmax
    over ``logit_scale`` times the cosines, SigLIP-like ones (with a ``logit_bias``) a sigmoid (Zhai
    et al. 2023). ``templates`` is "plain", "simple" (7), "imagenet" (80), or your own, each with
    ``{}`` where the label goes. ``background`` adds the class "none of these": the mean of prompts
    of 200 things, which a label has to beat. With ``multi`` each label has a probability of its
    own: for a CLIP-like encoder that of the label against the background. By how much it has to be
    beaten is measured on ``photos``, ``(n, dim)`` unit rows of what is labelled; without them every
    label that beats it fits. Raises QueryError for no label, a single one whose probability could
    only be 1, an empty or repeated one, a template without ``{}``, or ``multi`` with
    ``background``.
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
        common, clear = background_of(encoder, photos)
        if multi:
            weight = weight - common
            bias = bias - np.float32(encoder.logit_scale * clear)
        else:
            names = (*names, NOTHING)
            weight = np.concatenate([weight, common[None]])
            bias = np.append(bias, bias[0] + np.float32(encoder.logit_scale * clear))
    return LinearClassifier(
        names,
        weight * np.float32(encoder.logit_scale),
        bias,
        "softmax" if softmax and not multi else "sigmoid",
        encoder.fingerprint,
        encoder,
    )


def background_of(encoder: Encoder, photos: Vectors | None) -> tuple[Vectors, float]:
    """Return what the prompts of any words have in common ``(dim,)``, and by how much the cosine of
    a label that fits is above that: 0 without photos ``(n, dim)``.

    The cosines of one encoder lie elsewhere and wider apart than another's, so the distance is
    measured in their spread over words that by far most of the photos do not show.
    """
    with texts_in("en"):
        rows = encoder.encode_texts([PLAIN[0].format(thing) for thing in THINGS.split(", ")])
    common = rows.mean(axis=0)
    if photos is None or not len(photos):
        return common, 0.0
    return common, CLEAR * float(np.std(photos @ (rows - common).T))


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


__all__ = [
    "NOTHING",
    "PLAIN",
    "Calibration",
    "Decision",
    "Label",
    "LabelClassifier",
    "LabelScore",
    "LinearClassifier",
    "TipClassifier",
    "calibrate",
    "check_templates",
    "parse_labels",
    "predict",
    "prototype_classifier",
    "tip_classifier",
    "zero_shot_classifier",
]
