"""One fixed picture and one fixed sentence: if their vectors change, every other vector did."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from vitsearch.encoders.base import Encoder, ImageEncoder, Vectors
from vitsearch.errors import EncoderMismatch

TEXT = "a photo of a cat on a red chair"
CLOSE = 0.999  # half precision on another chip stays above, another resize or padding falls below


def golden_picture() -> Image.Image:
    """Return a 320 x 240 picture of ramps and fine texture, the same on every machine."""
    y, x = np.mgrid[0:240, 0:320]
    planes = [x * 255 // 319, y * 255 // 239, (7 * x + 13 * y) % 256]
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def golden_vectors(encoder: ImageEncoder) -> Vectors:
    """Return the encoder's vectors of the picture and, where it reads text, of the sentence: ``(1
    or 2, dim)``.
    """
    if not isinstance(encoder, Encoder):
        return encoder.encode_images([golden_picture()])
    with (
        ThreadPoolExecutor(1) as pool
    ):  # both towers are opened here for the first time: side by side that takes half as long
        sentence = pool.submit(encoder.encode_texts, [TEXT])
        picture = encoder.encode_images([golden_picture()])
        return np.concatenate([picture, sentence.result()])


def check_golden(encoder: ImageEncoder, stored: Vectors) -> None:
    """Raise EncoderMismatch unless the encoder gives the stored vectors again (cosine of at least
    0.999).
    """
    now = golden_vectors(encoder)
    if now.shape != stored.shape:
        raise EncoderMismatch(
            f"encoder {encoder.name} gives {now.shape[1]} numbers, the collection holds "
            f"{stored.shape[1]}: index into a new --collection"
        )
    worst = float((now * stored).sum(axis=1).min())
    if not worst >= CLOSE:
        raise EncoderMismatch(
            f"encoder {encoder.name} gives other vectors than when the collection was made "
            f"(cosine {worst:.4f} on the golden picture and "
            "sentence): install the versions it was made with, or index into a new --collection"
        )
