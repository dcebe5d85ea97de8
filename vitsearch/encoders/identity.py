"""Which encoder made vectors, and whether another one is the same (`EncoderIdentity`).

Beside the fingerprint it keeps the golden vectors, of one fixed picture and one fixed sentence: if
they change, every other vector did.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from vitsearch.encoders.base import Encoder, ImageEncoder, Vectors
from vitsearch.errors import EncoderMismatch

TEXT = "a photo of a cat on a red chair"
MAX_DIM = 65_536  # numbers of a vector
CLOSE = 0.999  # half precision on another chip stays above, another resize or padding falls below
SAMPLE_CLOSE = 0.99  # half precision and another decoder of JPEG stay above, another model does not
# of the compared photos; the others may have been edited since, or lie on their side where EXIF was
# not read
AGREEING = 0.75


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


def golden_from_bytes(stored: object, dim: int) -> Vectors:
    """Return golden vectors as a database keeps them, ``(0, dim)`` where it has none."""
    if not isinstance(stored, bytes):
        return np.empty((0, dim), dtype=np.float32)
    return np.frombuffer(stored, dtype="<f4").reshape(-1, dim).astype(np.float32)


def golden_from_lists(rows: Sequence[Sequence[float]], dim: int) -> Vectors:
    """Return golden vectors as a JSON file keeps them; raises ValueError for rows of another
    length.
    """
    if any(len(row) != dim for row in rows):
        raise ValueError(f"'golden' holds no rows of {dim} numbers")
    with np.errstate(over="ignore"):
        return np.array(rows, dtype=np.float32).reshape(-1, dim)


# -- Which encoder made vectors --------------------------------------------------------------------


class EncoderRecord(Protocol):
    """A record on disk that names the encoder of its vectors."""

    @property
    def encoder(self) -> str: ...
    @property
    def encoder_fingerprint(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def dim(self) -> int: ...


@dataclass(frozen=True, slots=True, eq=False)
class EncoderIdentity:
    """Which encoder made vectors of ``dim`` numbers; ``golden`` are its golden vectors, no rows
    where they are not known.
    """

    name: str
    fingerprint: str
    dtype: str
    dim: int
    golden: Vectors

    @classmethod
    def of(cls, encoder: ImageEncoder) -> "EncoderIdentity":
        """Return the identity of a loaded encoder, which runs for its golden vectors."""
        golden = golden_vectors(encoder)
        return cls(encoder.name, encoder.fingerprint, encoder.dtype, encoder.dim, golden)

    @classmethod
    def from_record(cls, record: EncoderRecord, golden: Vectors | None = None) -> "EncoderIdentity":
        """Return the identity that a record on disk holds."""
        rows = np.empty((0, record.dim), dtype=np.float32) if golden is None else golden
        return cls(record.encoder, record.encoder_fingerprint, record.dtype, record.dim, rows)

    def check(
        self, other: "ImageEncoder | EncoderIdentity", where: object, advice: str, of: object = None
    ) -> None:
        """Raise EncoderMismatch unless ``other`` is the encoder that made the vectors of ``where``;
        ``of`` says what ``other`` made, where that is not loaded. ``advice`` ends the message.
        """
        if (self.fingerprint, self.dim) != (other.fingerprint, other.dim):
            source = f"{other.name} of {of}" if of else other.name
            raise EncoderMismatch(
                f"{where} was made with {self.name} (fingerprint {self.fingerprint[:8]}), not with "
                f"this {source} ({other.fingerprint[:8]}): use that "
                f"encoder and version, or {advice}"
            )

    def check_name(self, name: str, where: object) -> None:
        """Raise EncoderMismatch where an encoder of another name is asked for."""
        if name != self.name:
            raise EncoderMismatch(
                f"{where} was made with {self.name}, not with {name}: "
                "leave out --encoder, or index into another --collection DIR"
            )

    def check_classifier(self, fingerprint: str) -> None:
        """Raise EncoderMismatch for a classifier of another encoder's vectors; one without a
        fingerprint fits all.
        """
        check_classifier(self, fingerprint, "train it again here")

    def check_golden(self, encoder: ImageEncoder) -> None:
        """Raise EncoderMismatch unless the encoder gives the golden vectors again (cosine of at
        least 0.999), where they are known.
        """
        if not len(self.golden):
            return
        now = golden_vectors(encoder)
        if now.shape != self.golden.shape:
            raise EncoderMismatch(
                f"encoder {encoder.name} gives {now.shape[1]} numbers, the collection holds "
                f"{self.golden.shape[1]}: index into a new --collection"
            )
        worst = float((now * self.golden).sum(axis=1).min())
        if not worst >= CLOSE:
            raise EncoderMismatch(
                f"encoder {encoder.name} gives other vectors than when the collection was made "
                f"(cosine {worst:.4f} on the golden picture and sentence): install the versions it "
                "was made with, or index into a new --collection"
            )


# -- Whether vectors of somebody else are those of an encoder --------------------------------------


def check_classifier(
    encoder: ImageEncoder | EncoderIdentity, fingerprint: str, advice: str
) -> None:
    """Raise EncoderMismatch for a classifier of another encoder's vectors; ``advice`` ends it."""
    if fingerprint not in ("", encoder.fingerprint):
        raise EncoderMismatch(
            f"the classifier was made for the vectors of another encoder than {encoder.name}: "
            f"{advice}"
        )


def check_dim(encoder: ImageEncoder, dim: int, where: object) -> None:
    """Raise EncoderMismatch unless an encoder gives vectors of ``dim`` numbers."""
    if encoder.dim != dim:
        raise EncoderMismatch(
            f"the vectors of {where} have {dim} numbers, encoder {encoder.name} gives "
            f"{encoder.dim}: name the one that made them"
        )


def check_samples(encoder: ImageEncoder, cosines: Mapping[str, float], count: int) -> set[str]:
    """Return the paths of photos whose vector is not what the encoder gives (cosine below 0.99).

    ``cosines`` holds those of the photos that could be compared, of ``count``. Raises
    EncoderMismatch where more than a quarter differ, or none could be compared.
    """
    if not cosines:
        raise EncoderMismatch(
            f"none of {count} photos could be compared with its vector: they "
            "changed or cannot be read"
        )
    apart = {path for path, cosine in cosines.items() if not cosine >= SAMPLE_CLOSE}
    if len(cosines) - len(apart) < AGREEING * len(cosines):
        worst = min(cosines, key=lambda path: cosines[path])
        raise EncoderMismatch(
            f"the vectors are not those of encoder {encoder.name}: of {len(cosines)} photos "
            f"embedded to compare, {len(apart)} have a cosine below {SAMPLE_CLOSE} (median "
            f"{float(np.median(list(cosines.values()))):.4f}, worst {cosines[worst]:.4f}, "
            f"{worst}): name the encoder that made them, or check that paths and vectors are in "
            "the same order"
        )
    return apart
