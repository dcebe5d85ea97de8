"""The base classes of encoders, and the fingerprint that tells one encoder from another.

An encoder of pictures subclasses `ImageEncoder` and writes two methods, one that reads text as well
subclasses `Encoder` and writes a third; everything else has a default that is right for most.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.encoders.batching import OnBroken, Picture, embed_pictures
from vitsearch.encoders.preprocess import Preprocess
from vitsearch.errors import EncoderError
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
        none.
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
