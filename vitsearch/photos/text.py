"""The text that stands in a photo: its words with their places, how words are looked up, and how
they are read, by RapidOCR (extra ``[ocr]``) with the models that its package holds: detection (DB,
arXiv:1911.08947) and recognition of PP-OCR. Only a process that decodes does that.
"""

import re
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from vitsearch.errors import PhotoError
from vitsearch.photos.decode import thumbnail

MAX_LENGTH = 20_000  # characters of a photo's text
SCALE = 65_535  # of a place: the right or the lower edge of the picture
_BOX = struct.Struct("<4H")
_WORDS = re.compile(r"\w+")

Box = tuple[int, int, int, int]  # left, top, right, bottom of an upright picture, 0 to SCALE


@dataclass(frozen=True, slots=True)
class PhotoText:
    """The text in a photo: lines of words, and for each word (`str.split`) its place.

    Raises ValueError where there are not as many places as words.
    """

    text: str = ""
    places: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        if len(self.text.split()) != len(self.places):
            raise ValueError("a text with another number of places than words")

    def packed(self) -> bytes:
        """Return the places as bytes, 8 for each word."""
        return b"".join(_BOX.pack(*box) for box in self.places)

    @classmethod
    def unpacked(cls, text: str, places: bytes) -> "PhotoText":
        """Return a text with the places that `packed` wrote; raises ValueError."""
        try:
            return cls(text, tuple(_BOX.iter_unpack(places)))
        except struct.error as error:
            raise ValueError(str(error)) from error

    @classmethod
    def of_lines(cls, lines: Sequence[Sequence[tuple[str, Box]]]) -> "PhotoText":
        """Return the text of lines of words; what is beyond `MAX_LENGTH` is left out."""
        texts: list[str] = []
        places: list[Box] = []
        length = 0
        for line in lines:
            words = [(clean, box) for word, box in line if (clean := _clean(word))]
            length += sum(len(word) + 1 for word, _ in words)
            if length > MAX_LENGTH:
                break
            if words:
                texts.append(" ".join(word for word, _ in words))
                places += (box for _, box in words)
        return cls("\n".join(texts), tuple(places))


def _clean(word: str) -> str:
    """Return a word without what is no visible character."""
    composed = unicodedata.normalize("NFC", word)
    return "".join(each for each in composed if unicodedata.category(each)[0] not in "CZ")


def plain_words(text: str) -> list[str]:
    """Return the words of a text as they are compared: letters and digits, without case and
    accents.
    """
    bare = unicodedata.normalize("NFKD", text).casefold()
    return _WORDS.findall("".join(each for each in bare if not unicodedata.combining(each)))


def places_of(text: PhotoText, words: str, *, exact: bool = False) -> list[Box]:
    """Return the places of words that stand one after the other in a text, in its order; the last
    may go on there unless they are ``exact``.
    """
    sought = plain_words(words)
    parts = [(part, n) for n, word in enumerate(text.text.split()) for part in plain_words(word)]
    numbers = {
        n
        for start in _starts([part for part, _ in parts], sought, exact)
        for _, n in parts[start : start + len(sought)]
    }
    return [text.places[n] for n in sorted(numbers)]


def _starts(parts: Sequence[str], sought: Sequence[str], exact: bool) -> Iterator[int]:
    if not sought:
        return
    *first, last = sought
    for start in range(len(parts) - len(first)):
        end = parts[start + len(first)]
        if parts[start : start + len(first)] == first and (
            end == last if exact else end.startswith(last)
        ):
            yield start


# -- Reading it by RapidOCR ------------------------------------------------------------------------


GLANCE = 640  # pixels of the longer side in which text is looked for first
DETECTED, READ = 1280, 2600  # of the picture whose lines are detected, and read
MIN_SCORE = 0.6  # of a line; a single character is more often none
MAX_LINES = 400


class TextReader:
    """Reads the text of one picture after the other, with so many ``threads``."""

    def __init__(self, threads: int = 1) -> None:
        import rapidocr  # noqa: F401  # that it is missing shows before a picture is decoded

        self._threads = threads

    def read(self, image: Image.Image) -> PhotoText:
        """Return the text of an upright RGB picture.

        It is looked for in a small copy first, so that a photo without any costs a fraction.
        Raises PhotoError where the package of RapidOCR has no models.
        """
        if not self._boxes(thumbnail(image, GLANCE)):
            return PhotoText()
        copy = thumbnail(image, READ)
        result = self._run(copy, use_rec=True, return_word_box=True)
        if result.txts is None or result.boxes is None:
            return PhotoText()
        places = [_in_picture(box, copy.size) for box in result.boxes.tolist()]
        lines = zip(result.txts, result.scores, places, self._parts(result, copy.size), strict=True)
        return PhotoText.of_lines(
            [
                _words(text, box, parts)
                for text, score, box, parts in lines
                if score >= MIN_SCORE and len(text.strip()) > 1
            ]
        )

    def _boxes(self, image: Image.Image) -> bool:
        result = self._run(image, use_rec=False)
        return result.boxes is not None and len(result.boxes) > 0

    def _parts(self, result: Any, size: tuple[int, int]) -> list[list[tuple[str, Box]]]:
        """Return the pieces of each line with their places; none of a line that has no such."""
        results = result.word_results if len(result.word_results or ()) == len(result.txts) else ()
        pieces = [[(text, _in_picture(box, size)) for text, _, box in line] for line in results]
        return pieces or [[] for _ in result.txts]

    def _run(self, image: Image.Image, **steps: bool) -> Any:
        import numpy as np  # takes longer to import than all else that decoding needs

        pixels = np.asarray(image)[:, :, ::-1]
        return self._engine(np.ascontiguousarray(pixels), use_det=True, text_score=0.0, **steps)

    @cached_property
    def _engine(self) -> Any:
        import cv2
        import rapidocr

        cv2.setNumThreads(self._threads)
        threads = "EngineConfig.onnxruntime.{}_op_num_threads"
        return rapidocr.RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,  # it turns some upright lines upside down
                "Global.max_side_len": READ,
                "Det.limit_type": "max",
                "Det.limit_side_len": DETECTED,
                "Det.max_candidates": MAX_LINES,
                "Det.model_path": _model("det"),
                "Rec.model_path": _model("rec"),
                threads.format("intra"): self._threads,
                threads.format("inter"): 1,
            }
        )


def _model(task: str) -> str:
    """Return the file of a model in the package: by its path nothing is ever downloaded."""
    import rapidocr

    folder = Path(rapidocr.__file__).parent / "models"
    files = sorted(folder.glob(f"*_{task}_*.onnx"))
    if not files:
        raise PhotoError(f"rapidocr has no model *_{task}_*.onnx: pip install 'vitsearch[ocr]'")
    return str(files[-1])


def _in_picture(box: Sequence[Sequence[float]], size: tuple[int, int]) -> Box:
    """Return the place of a box of four corners in pixels."""
    sides = [
        [min(max(round(SCALE * corner[axis] / size[axis]), 0), SCALE) for corner in box]
        for axis in (0, 1)
    ]
    return min(sides[0]), min(sides[1]), max(sides[0]), max(sides[1])


def _words(text: str, box: Box, parts: Sequence[tuple[str, Box]]) -> list[tuple[str, Box]]:
    """Return the words of a line with their places, of which the line's ``parts`` say those of one
    or more characters; without them a word has its share of the line.
    """
    letters = [box_of for part, box_of in parts for _ in part]
    words, start, position = [], 0, 0
    exact = len(letters) == len("".join(text.split()))
    for word in text.split():
        begin = text.index(word, position)
        position = begin + len(word)
        boxes = (
            letters[start : start + len(word)] if exact else [_share(box, begin, position, text)]
        )
        start += len(word)
        left, top, right, bottom = zip(*boxes, strict=True)
        words.append((word, (min(left), min(top), max(right), max(bottom))))
    return words


def _share(box: Box, start: int, end: int, text: str) -> Box:
    left, top, right, bottom = box
    step = (right - left) / len(text)
    return round(left + start * step), top, round(left + end * step), bottom
