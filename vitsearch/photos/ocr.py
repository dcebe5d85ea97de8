"""Text in pictures by RapidOCR (extra ``[ocr]``), with the models that its package holds:
detection (DB, arXiv:1911.08947) and recognition of PP-OCR. Only a process that decodes imports it.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rapidocr
from PIL import Image

from vitsearch.errors import PhotoError
from vitsearch.photos.decode import thumbnail
from vitsearch.photos.text import SCALE, Box, PhotoText

GLANCE = 640  # pixels of the longer side in which text is looked for first
DETECTED, READ = 1280, 2600  # of the picture whose lines are detected, and read
MIN_SCORE = 0.6  # of a line; a single character is more often none
MAX_LINES = 400


class TextReader:
    """Reads the text of one picture after the other, with so many ``threads``."""

    def __init__(self, threads: int = 1) -> None:
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
        pixels = np.asarray(image)[:, :, ::-1]
        return self._engine(np.ascontiguousarray(pixels), use_det=True, text_score=0.0, **steps)

    @cached_property
    def _engine(self) -> Any:
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
