"""Why a photo fits a text: the parts that the encoder attends to, and those that match the text;
and a drawing of that, the photo, the photo under its heat map, and a caption.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from vitsearch.encoders import Encoder, ImageEncoder
from vitsearch.errors import EncoderError, QueryError, VitsearchError, needing
from vitsearch.outputs import INK, MAT, PAGE, QUIET, draw_line, picture_bytes, write_page
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


# -- Drawing ---------------------------------------------------------------------------------------


# the layout, in pixels
_SIDE, _GAP, _MARGIN = 640, 20, 36
_TITLE, _CAPTION, _LINE = 26, 18, 30
_LEGEND_WIDTH, _LEGEND_HEIGHT = 140, 12
# dark violet to light yellow, of rising lightness: it also reads in grey and to the colour-blind
_VIOLETS = [(14, 8, 48), (72, 16, 104), (142, 36, 98)]
_YELLOWS = [(206, 70, 64), (244, 132, 30), (252, 198, 60), (254, 252, 180)]
_HEAT = np.array(_VIOLETS + _YELLOWS, dtype=np.float64)
# opacity of the colour over the photo: at relevance 0, at relevance 1, outside the model's view
_COLD, _HOT, _UNSEEN = 0.5, 0.75, 0.65
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def write_explanation(
    path: Path, image: Image.Image, explanation: Explanation, *, name: str = ""
) -> None:
    """Write the page of `draw_explanation` to a ``.png`` or ``.jpg`` file.

    It appears complete or not at all. Raises VitsearchError for another suffix and when it cannot
    be written.
    """
    check_suffix(path)
    page = draw_explanation(image, explanation, name=name)
    write_page(path, picture_bytes(page, _FORMATS[path.suffix.lower()]), "picture")


def check_suffix(path: Path) -> None:
    """Raise VitsearchError unless a picture can be written under this name."""
    if path.suffix.lower() not in _FORMATS:
        raise VitsearchError(
            f"an explanation is a .png or .jpg file, not {path.name!r}; name it so"
        )


def draw_explanation(
    image: Image.Image, explanation: Explanation, *, name: str = ""
) -> Image.Image:
    """Return a page: the upright photo, the photo under the heat map beside it, and a caption.

    The caption has text, score, method, encoder and ``name``. What the encoder did not see is
    greyed out.
    """
    upright = upright_rgb(image)
    scale = _SIDE / max(upright.size)
    size = (max(1, round(upright.width * scale)), max(1, round(upright.height * scale)))
    photo = upright.resize(size, Image.Resampling.LANCZOS)
    left, top, right, bottom = (round(edge * scale) for edge in explanation.box)
    heated = overlay(photo, explanation.relevance, (left, top, right, bottom))
    width = max(2 * photo.width + _GAP, _SIDE)
    height = photo.height + _GAP + 2 * _LINE
    page = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), PAGE)
    page.paste(photo, (_MARGIN, _MARGIN))
    page.paste(heated, (_MARGIN + photo.width + _GAP, _MARGIN))
    _draw_caption(page, explanation, name, _MARGIN + photo.height + _GAP)
    return page


def overlay(
    photo: Image.Image, relevance: NDArray[np.float32], box: tuple[int, int, int, int]
) -> Image.Image:
    """Return the photo under the heat map of a relevance ``(rows, columns)`` in 0..1.

    The relevance covers ``box``, in pixels; the rest of the photo is grey.
    """
    level = _spread(relevance, box, photo.size)[..., None]
    seen = level >= 0
    share = np.where(seen, _COLD + (_HOT - _COLD) * level, _UNSEEN)
    colour = np.where(seen, heat_colours(level[..., 0]), ImageColor.getrgb(MAT))
    below = np.where(seen, np.asarray(photo), np.asarray(photo.convert("L"))[..., None])
    return Image.fromarray(np.rint(below * (1 - share) + colour * share).astype(np.uint8))


def _spread(
    relevance: NDArray[np.float32], box: tuple[int, int, int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the relevance of every pixel, ``(height, width)``; -1 outside the box.

    It is smooth between the patches.
    """
    field = Image.new("F", size, -1)
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], size[0]), min(box[3], size[1])
    if left < right and top < bottom:
        x_scale = relevance.shape[1] / (box[2] - box[0])
        y_scale = relevance.shape[0] / (box[3] - box[1])
        inside = (
            (left - box[0]) * x_scale,
            (top - box[1]) * y_scale,
            (right - box[0]) * x_scale,
            (bottom - box[1]) * y_scale,
        )
        # only the part on the photo is computed, since a box may be far larger
        smooth = Image.fromarray(relevance).resize(
            (right - left, bottom - top), Image.Resampling.BICUBIC, box=inside
        )
        field.paste(Image.fromarray(np.asarray(smooth).clip(0, 1)), (left, top))
    return np.asarray(field)


def heat_colours(levels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the colours ``(..., 3)``, 0 to 255, of levels in 0..1."""
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(levels, stops, channel) for channel in _HEAT.T], axis=-1)


def _draw_caption(page: Image.Image, explanation: Explanation, name: str, top: int) -> None:
    draw = ImageDraw.Draw(page)
    _draw_legend(page, draw, top)
    room = page.width - 2 * _MARGIN
    title = f'"{explanation.text}"' if explanation.text is not None else "Where the model looks"
    width = room - _LEGEND_WIDTH - 120
    draw_line(draw, (_MARGIN, top + _LINE - 4), title, size=_TITLE, width=width, fill=INK)
    facts = [] if explanation.score is None else [f"score {explanation.score:.3f}"]
    facts += [explanation.method, explanation.encoder, *([name] if name else [])]
    caption = ", ".join(facts)
    draw_line(draw, (_MARGIN, top + 2 * _LINE), caption, size=_CAPTION, width=room, fill=QUIET)


def _draw_legend(page: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> None:
    colours = heat_colours(np.linspace(0, 1, _LEGEND_WIDTH, dtype=np.float32))
    strip = colours[None].repeat(_LEGEND_HEIGHT, axis=0)
    right = page.width - _MARGIN
    draw_line(draw, (right - 40, top + 18), "more", size=_CAPTION - 2, width=40, fill=QUIET)
    left = right - 50 - _LEGEND_WIDTH
    page.paste(Image.fromarray(np.rint(strip).astype(np.uint8)), (left, top + 7))
    draw_line(draw, (left - 36, top + 18), "less", size=_CAPTION - 2, width=40, fill=QUIET)
