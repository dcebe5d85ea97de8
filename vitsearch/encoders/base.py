"""The base classes of encoders, the fingerprint that tells one encoder from another, and whether
the encoder that made vectors is the same as another one (`EncoderIdentity`).

An encoder of pictures subclasses `ImageEncoder` and writes two methods, one that reads text as well
subclasses `Encoder` and writes a third; everything else has a default that is right for most.

Beside the fingerprint an identity keeps the golden vectors, of one fixed picture and one fixed
sentence: if they change, every other vector did.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.encoders.batching import OnBroken, Picture, embed_pictures
from vitsearch.encoders.preprocess import Preprocess
from vitsearch.errors import EncoderError, EncoderMismatch
from vitsearch.photos.decode import upright_rgb
from vitsearch.types import OnProgress, no_progress

Vectors = NDArray[np.float32]
WORTH_TUNING = 20_000  # photos; compiling a tower takes a minute or more


class ImageEncoder(ABC):
    """Turns pictures into unit vectors: enough for image-to-image search.

    ``prepare`` does the work on one picture (resize, crop) and may run in any thread;
    ``encode_prepared`` runs the model on what it returned. ``name`` is what `load_encoder` knows
    the encoder by, ``dim`` the length of a vector; ``fingerprint`` changes with everything that
    moves a vector (`fingerprint_of`).
    """

    name: str
    dim: int
    fingerprint: str

    dtype: str = "float32"
    """The number format that the model computes in."""
    device: str = "cpu"
    """Where the model runs: "cpu", "cuda", "cuda:1", "mps", or several: "cuda:0,cuda:1"."""
    decode_at_least: int | None = None
    """The pixels that each side of a JPEG keeps when it is decoded at a reduced size; None: it is
    decoded whole. Twice the side that ``prepare`` resizes to, so that the last, filtered shrink is
    the encoder's (measured: cosine to the whole picture's vector 0.997 or more; once the side gives
    0.985)."""
    parallel_calls: int = 1
    """How many threads may usefully call ``encode_prepared`` at once."""
    pictures_per_call: int | None = None
    """With how many pictures each of these calls is fastest; None: with any number."""
    only_resizes: bool = False
    """Whether ``prepare`` does nothing but resize and crop, to RGB ``(height, width, 3)`` uint8: a
    colour profile is then applied to that, which is a tenth of the work."""
    preprocess: Preprocess | None = None
    """What ``prepare`` does in standard terms, recorded beside vectors; None where it has none."""

    holds_sessions: bool = False
    """Whether it holds what cannot be pickled, such as an open graph or locks."""
    load_again: "Callable[[], ImageEncoder] | None" = None
    """What loads it again in another process: `load_encoder` with its name, device and number
    format."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle an encoder that was loaded by name as that name; any other object as it is, or
        raise EncoderError where that cannot be.
        """
        if self.load_again is not None:
            return _loaded_again, (self.load_again, self.fingerprint)
        if self.holds_sessions:
            raise EncoderError(
                f"this {type(self).__name__} was not loaded by a name, so another process cannot "
                f"load it again: use vitsearch.load_encoder({self.name!r})"
            )
        return super().__reduce_ex__(protocol)

    @abstractmethod
    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Return the model's input for one RGB picture, an array of fixed shape (most often uint8,
        height x width x 3).
        """

    @abstractmethod
    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for ``n`` prepared pictures; ``(0, dim)`` for
        none.
        """

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for ``n`` pictures, turned upright, in their order;
        ``(0, dim)`` for none.
        """
        return self.encode_prepared([self.prepare(upright_rgb(image)) for image in images])

    def embed(
        self,
        pictures: Iterable[Picture],
        *,
        batch_size: int = 32,
        broken: OnBroken = "raise",
        progress: OnProgress = no_progress,
    ) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for photo files and PIL pictures, in their order.

        Files are decoded as for indexing, upright and in their colours, ahead of the model and in
        threads; memory stays at a few batches and the rows. ``pictures`` may be a generator; one
        path or picture gives one row. ``progress`` is called after each batch. Raises PhotoError,
        which names the file (a picture by its number, from 1), for the first that cannot be read,
        or with ``broken="nan"`` gives a row of NaN for each such.
        """
        return embed_pictures(
            self, pictures, batch_size=batch_size, broken=broken, progress=progress
        )

    def free_image_tower(self) -> None:  # noqa: B027  a default, not a duty
        """Give back the memory of the image tower until the next picture, where there is a way."""

    def autotune(self, batch_size: int, *, photos: int) -> None:
        """Let `tune` measure what is fastest, on a GPU, where ``photos`` are enough to win back the
        time that it takes.
        """
        if photos >= WORTH_TUNING and self.device.startswith("cuda"):
            self.tune(batch_size)

    def tune(self, batch_size: int) -> object:
        """Choose the fastest way to encode batches of ``batch_size`` pictures; there is only one by
        default.
        """
        return None


class Encoder(ImageEncoder):
    """An image encoder with a text encoder in the same space.

    ``logit_scale`` multiplies cosines (already exponentiated: about 100 for CLIP); ``logit_bias``
    is None for softmax-trained (CLIP-like) models and a number for sigmoid-trained (SigLIP-like)
    ones.
    """

    logit_scale: float = 100.0
    logit_bias: float | None = None
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of the languages that are understood, of texts in others users are told; none
    where there are many."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for ``n`` texts, in their order; ``(0, dim)`` for
        none; raises EncoderError for a text that is in no list.
        """

    def is_cut(self, text: str) -> bool:
        """Return whether a text is longer than the encoder reads; where that is unknown, False."""
        return False


def _loaded_again(load: Callable[[], ImageEncoder], fingerprint: str) -> ImageEncoder:
    encoder = load()
    if encoder.fingerprint != fingerprint:
        raise EncoderError(
            f"the encoder {encoder.name} is another one here (fingerprint "
            f"{encoder.fingerprint[:8]}) than where it was pickled ({fingerprint[:8]}): have the "
            "same model on both"
        )
    return encoder


def fingerprint_of(facts: Mapping[str, Any]) -> str:
    """Return 32 hex digits that change when any fact changes.

    The facts name everything that moves a vector: weights hash, preprocessing, tokenizer and
    context length, activation, dtype, normalisation.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


# -- Identity --------------------------------------------------------------------------------------


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
