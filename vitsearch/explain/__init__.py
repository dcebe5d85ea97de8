"""Why a photo fits a text: the parts that the encoder attends to, and those that match the text."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.encoders import Encoder, ImageEncoder
from vitsearch.errors import EncoderError, QueryError, needing
from vitsearch.photos import upright_rgb

__all__ = ["Explanation", "explain"]

ROLLOUT = "attention rollout"
RELEVANCE = "relevance for the text"


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The relevance of each patch of a photo, ``(rows, columns)`` float32.

    0 is the least and 1 the most relevant patch of this photo. ``box`` is the part of the upright
    photo that the patches cover, (left, top, right, bottom) in its pixels: most encoders see the
    middle square; where one pads, the box goes beyond the photo. ``method`` is ``"attention
    rollout"``, with ``text`` and ``score`` None, or ``"relevance for the text"``, with the cosine
    similarity of the photo and the text.
    """

    relevance: NDArray[np.float32]
    box: tuple[float, float, float, float]
    method: str
    encoder: str
    text: str | None = None
    score: float | None = None


def explain(encoder: ImageEncoder, image: Image.Image, text: str | None = None) -> Explanation:
    """Return which patches of a photo the encoder attends to, or which ones match a text.

    Without a text: attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928). With one: the
    gradient-weighted attention of Chefer et al. 2021 (arXiv:2103.15679) for the cosine of photo and
    text, the text's vector held fixed; for `mini`, what bypasses its transformer is added by
    integrated gradients (see `vitsearch.explain.attribution`). Needs PyTorch. Raises EncoderError
    for an encoder without attention (a CNN) and without PyTorch, QueryError for an empty text or an
    encoder that reads none.
    """
    words = None if text is None else _text_vector(encoder, text)
    with needing(("torch",), "explain needs the package", "clip", EncoderError):
        from vitsearch.explain.attribution import find_relevance
    result = find_relevance(encoder, upright_rgb(image), words)
    return Explanation(
        relevance=_to_unit_range(result.relevance),
        box=result.box,
        method=ROLLOUT if text is None else RELEVANCE,
        encoder=encoder.name,
        text=text,
        score=None if words is None else float(result.vector @ words),
    )


def _text_vector(encoder: ImageEncoder, text: str) -> NDArray[np.float32]:
    if not text.strip():
        raise QueryError(
            "the text to explain is empty: give some words, or none at all for attention rollout"
        )
    if not isinstance(encoder, Encoder):
        raise QueryError(f"encoder {encoder.name} reads no text: explain the photo without one")
    return encoder.encode_texts([text])[0]


def _to_unit_range(relevance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the relevance scaled to 0..1; zeros where all patches are equally relevant."""
    low, high = relevance.min(), relevance.max()
    if high <= low:
        return np.zeros_like(relevance, dtype=np.float32)
    return np.asarray((relevance - low) / (high - low), dtype=np.float32)
