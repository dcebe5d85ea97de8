"""Which of the known encoders suits a person's photos and machine, by their published figures."""

import time
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.catalogue import EncoderListing, list_encoders
from vitsearch.encoders.language import NAMES
from vitsearch.encoders.mini import LANGUAGES

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
    if language in LANGUAGES or not answers:
        mini = next(each for each in list_encoders("mini") if each.name == "mini")
        reason = (
            "nothing to download, English and Spanish"
            if answers
            else f"nothing larger is done in {MAX_HOURS:g} hours"
        )
        if language not in LANGUAGES:
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
