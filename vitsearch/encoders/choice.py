"""Which of the known encoders suits a person's photos and machine, by their published figures."""

from dataclasses import dataclass

from vitsearch.encoders import EncoderListing, list_encoders
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


def recommend(photos: int, *, language: str, cores: int, gpu: bool) -> list[Recommendation]:
    """Return what suits that many photos, the best first: the encoder that finds most by the
    published figures within `MAX_HOURS` of embedding on so many cores (on a GPU without that
    limit), and `mini`, which is here already, where it reads the ``language``.

    For another language it goes by the figure for Spanish, as the only one that is published for
    many. Encoders whose cost is not published are left out on a CPU.
    """
    is_english = language == "en"
    rated = [
        (score, _hours(each, photos, cores, gpu), each)
        for each in list_encoders()
        if (score := each.coco_r1 if is_english else each.spanish_r1) is not None
    ]
    fits = [row for row in rated if gpu or (row[1] is not None and row[1] <= MAX_HOURS)]
    what = "COCO" if is_english else "Spanish captions"
    best = sorted(fits, key=lambda row: (-row[0], row[1] or 0, row[2].name))[:1]
    answers = [
        Recommendation(each, hours, f"{score:g} % text to photo R@1 on {what}")
        for score, hours, each in best
    ]
    if language in LANGUAGES or not answers:
        mini = next(each for each in list_encoders("mini") if each.name == "mini")
        reason = (
            "nothing to download, English and Spanish"
            if answers
            else f"nothing larger is done in {MAX_HOURS:g} hours"
        )
        answers.append(Recommendation(mini, None, reason))
    return answers


def _hours(each: EncoderListing, photos: int, cores: int, gpu: bool) -> float | None:
    if gpu or each.gflops is None:
        return None
    return photos * each.gflops / (CORE_RATE * cores) / 3600
