"""What an encoder is, and the fingerprint that tells one from another."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Vectors = NDArray[np.float32]
WORTH_TUNING = 20_000  # photos; compiling a tower takes a minute or more


@runtime_checkable
class ImageEncoder(Protocol):
    """Turns pictures into unit vectors: enough for image-to-image search.

    ``prepare`` does the per-picture work (resize, crop) and may run in any thread;
    ``encode_prepared`` runs the model on what it returned.

    More is used where an encoder has it, see `decode_at_least`, `parallel_calls`,
    `free_image_tower` and `tune`.
    """

    name: str
    dim: int
    fingerprint: str

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Return the model's input for one RGB picture, an array of fixed shape (most often uint8,
        height x width x 3).
        """
        ...

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for ``n`` prepared pictures."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for ``n`` pictures, in their order; ``(0, dim)``
        for none.
        """
        ...


@runtime_checkable
class Encoder(ImageEncoder, Protocol):
    """An image encoder with a text encoder in the same space.

    ``logit_scale`` multiplies cosines (already exponentiated: about 100 for CLIP); ``logit_bias``
    is None for softmax-trained (CLIP-like) models and a number for sigmoid-trained (SigLIP-like)
    ones.

    Two more facts are read where an encoder has them, for notes to the user: ``english_only``
    (True: it knows no other language) and ``is_cut(text)`` (whether a text is longer than it
    reads).
    """

    logit_scale: float
    logit_bias: float | None

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for ``n`` texts, in their order; ``(0, dim)`` for
        none.
        """
        ...


def decode_at_least(encoder: ImageEncoder) -> int | None:
    """Return the pixels that each side of a JPEG keeps when it is decoded at a reduced size, or
    None to decode it whole.

    It is the encoder's attribute ``decode_at_least``: twice the side that it resizes to, so that
    the last, filtered shrink is its own (measured: cosine to the whole picture's vector 0.997 or
    more; once the side gives 0.985).
    """
    side = getattr(encoder, "decode_at_least", None)
    return int(side) if side else None


def parallel_calls(encoder: ImageEncoder) -> tuple[int, int | None]:
    """Return how many threads may usefully call ``encode_prepared`` at once, and with how many
    pictures each (None: as many as one likes).

    They are the encoder's attributes ``callers`` and ``pictures_a_call``; one caller for an encoder
    without them.
    """
    return int(getattr(encoder, "callers", 1)), getattr(encoder, "pictures_a_call", None)


def free_image_tower(encoder: ImageEncoder) -> None:
    """Let an encoder give back the memory of its image tower until the next picture, by its method
    ``release_images`` where it has one.
    """
    give_back = getattr(encoder, "release_images", None)
    if give_back is not None:
        give_back()


def tune(encoder: ImageEncoder, size: int, *, photos: int, tell: Callable[[str], None]) -> None:
    """Let an encoder on a GPU look for its fastest way with batches of ``size``, where ``photos``
    are enough to win back that time.

    It is the encoder's method ``tune(size, tell=...)``; ``tell`` is given a line where a way fails.
    """
    find = getattr(encoder, "tune", None)
    if (
        find is not None
        and photos >= WORTH_TUNING
        and str(getattr(encoder, "device", "cpu")).startswith("cuda")
    ):
        find(size, tell=tell)


def fingerprint_of(facts: Mapping[str, Any]) -> str:
    """Return 32 hex digits that change when any fact changes.

    The facts name everything that moves a vector: weights hash, preprocessing, tokenizer and
    context length, activation, dtype, normalisation.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
