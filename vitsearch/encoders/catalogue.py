"""The known encoders, with what their authors and testers published of them (``catalogue.toml``),
and which of them suits a person's photos and machine by those figures.
"""

import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.checkpoints import (
    TRANSFORMERS_FILES,
    cached_snapshot,
    is_cached,
    open_clip_files,
    sentence_transformers_files,
)
from vitsearch.encoders.language import NAMES


@dataclass(frozen=True, slots=True)
class EncoderListing:
    """One known encoder; figures are as published, None where none was found.

    ``mparams`` counts millions of parameters (pictures and text), ``gflops`` are for one picture
    and one text, ``dim`` is the length of a vector. Accuracies in percent: ``imagenet_top1``
    zero-shot on ImageNet-1k, ``coco_r1`` text to photo on COCO, ``spanish_r1`` and
    ``r1_by_language`` the same on Crossmodal-3600. ``licence`` is that of the weights, and
    ``commercial`` whether it allows commercial use; None where it was not found. ``languages`` are
    those that texts may be in, none for many, and ``reads_text`` whether there are texts at all.
    ``on_this_machine``: its weights are part of the package or in the Hugging Face cache.
    """

    name: str
    dim: int | None
    mparams: float | None
    gflops: float | None
    imagenet_top1: float | None
    coco_r1: float | None
    spanish_r1: float | None
    r1_by_language: Mapping[str, float]
    licence: str | None
    commercial: bool | None
    languages: tuple[str, ...]
    reads_text: bool
    on_this_machine: bool

    @property
    def gigabytes(self) -> float | None:
        """The size of its weights in float32, as most are published, in GB; None where unknown."""
        return None if self.mparams is None else self.mparams * 4 / 1000

    def recall_in(self, language: str) -> float | None:
        """Return the published R@1 of texts in a language, by its ISO 639 code; None: not known."""
        if language == "en":  # figures of two sets do not compare
            return self.coco_r1
        return self.r1_by_language.get(language, self.spanish_r1 if language == "es" else None)


def list_encoders(pattern: str | None = None) -> list[EncoderListing]:
    """Return the known encoders in the order of the catalogue, all or those whose name matches.

    A pattern with ``*``, ``?`` or ``[`` must match the whole name, another one a part of it; case
    does not matter. Neither torch nor a hub library is imported, and nothing is downloaded.
    """
    catalogue = tomllib.loads(
        resources.files("vitsearch.encoders").joinpath("catalogue.toml").read_text(encoding="utf-8")
    )
    return [
        _listing(row, _first(catalogue["licences"], row), _first(catalogue["languages"], row))
        for row in catalogue["encoders"]
        if pattern is None or _matches(row["name"], pattern)
    ]


def _matches(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    return fnmatch(name, pattern) if set(pattern) & set("*?[") else pattern in name


def _first(rules: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first rule that has the encoder's name or repository; an empty one for none."""
    names = [row["name"].lower(), row.get("repo", "").lower()]
    return next(
        (
            rule
            for rule in rules
            if any(fnmatch(name, each.lower()) for name in names for each in rule["names"])
        ),
        {},
    )


def _listing(
    row: Mapping[str, Any], licence: Mapping[str, Any], languages: Mapping[str, Any]
) -> EncoderListing:
    by_language = row.get("r1_by_language", {})
    return EncoderListing(
        name=row["name"],
        dim=row.get("dim"),
        mparams=row.get("mparams"),
        gflops=row.get("gflops"),
        imagenet_top1=row.get("imagenet_top1"),
        coco_r1=row.get("coco_r1"),
        spanish_r1=row.get("spanish_r1", by_language.get("es")),
        r1_by_language=by_language,
        licence=licence.get("licence"),
        commercial=licence.get("commercial"),
        languages=tuple(languages["codes"]) if row.get("text", True) else (),
        reads_text=row.get("text", True),
        on_this_machine=_is_here(row),
    )


def _is_here(row: Mapping[str, Any]) -> bool:
    repo = row.get("repo")
    if not repo:
        return True  # part of the package
    source = row["name"].partition(":")[0]
    if source == "st":
        return is_cached(repo, sentence_transformers_files(cached_snapshot(repo)))
    if source == "hf":
        return is_cached(repo, TRANSFORMERS_FILES[: None if row.get("text", True) else 3])
    weights = "model.safetensors" if source == "timm" else row.get("file")
    return is_cached(repo, open_clip_files(weights))


# -- Which suits -----------------------------------------------------------------------------------


# GFLOP a second of one core, by the catalogue's count of a model: ViT-B-32-256 in float32 embeds
# 4.5 photos a second of 640 x 480 on one core of a server of 2.0 GHz with AVX2
CORE_RATE = 80.0
MAX_HOURS = 4.0  # that a person waits for a first index


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An encoder, the hours that a first index with it takes (None: not known), and the reason."""

    encoder: EncoderListing
    hours: float | None
    reason: str


def recommend(
    photos: int, *, language: str, cores: int, gpu: bool, commercial: bool = False
) -> list[Recommendation]:
    """Return what suits that many photos, the best first: the encoder that finds most by the
    published figures within `MAX_HOURS` of embedding on so many cores (on a GPU without that
    limit), and `mini`, which is here already, where it reads the ``language``.

    It goes by texts in the ``language`` (ISO 639), and where no figure is published for that, by
    Spanish among those that read many languages. Encoders whose cost is not published are left out
    on a CPU, and with ``commercial`` those whose licence forbids commercial use or was not found.
    """
    listed = [each for each in list_encoders() if each.commercial or not commercial]
    measured = language
    if all(each.recall_in(language) is None for each in listed):
        measured = "es"
        listed = [
            each
            for each in listed
            if each.reads_text and (not each.languages or language in each.languages)
        ]
    rated = [
        (score, _hours(each, photos, cores, gpu), each)
        for each in listed
        if (score := each.recall_in(measured)) is not None
    ]
    fits = [row for row in rated if gpu or (row[1] is not None and row[1] <= MAX_HOURS)]
    what = "COCO" if measured == "en" else f"Crossmodal-3600 in {NAMES.get(measured, measured)}"
    best = sorted(fits, key=lambda row: (-row[0], row[1] or 0, row[2].name))[:1]
    answers = [
        Recommendation(each, hours, f"{score:g} % text to photo R@1 on {what}; {terms(each)}")
        for score, hours, each in best
    ]
    mini = next(each for each in list_encoders("mini") if each.name == "mini")
    if language in mini.languages or not answers:
        reason = (
            "nothing to download, English and Spanish"
            if answers
            else f"nothing larger is done in {MAX_HOURS:g} hours"
        )
        if language not in mini.languages:
            reason += "; it reads English and Spanish only"
        answers.append(Recommendation(mini, None, reason))
    return answers


def terms(each: EncoderListing) -> str:
    """Return the licence of an encoder's weights in words, "non-commercial" where it is."""
    if each.licence is None:
        return "licence not known"
    return each.licence if each.commercial else f"{each.licence}, non-commercial"


def pictures_per_second(encoder: ImageEncoder) -> float:
    """Return how many pictures of 640 x 480 an encoder prepares and embeds in a second here, the
    better of two batches of 32.
    """
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    pictures = [Image.fromarray(noise)] * 32
    encoder.encode_images(pictures)  # what is loaded and compiled at the first call
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        encoder.encode_images(pictures)
        seconds.append(time.perf_counter() - began)
    return len(pictures) / min(seconds)


def _hours(each: EncoderListing, photos: int, cores: int, gpu: bool) -> float | None:
    if gpu or each.gflops is None:
        return None
    return photos * each.gflops / (CORE_RATE * cores) / 3600
