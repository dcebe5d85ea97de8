"""The supervised head of `mini`: ImageNet-1k's classes, offline, without torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.classifiers.classifier import ImageClassifier
from vitsearch.types import Activation

if TYPE_CHECKING:
    from vitsearch.encoders.mini.encoder import MiniEncoder


class MiniHead:
    """`mini` as a model with classes."""

    activation: Activation = "softmax"

    def __init__(self, encoder: "MiniEncoder") -> None:
        self._encoder = encoder
        self.classes = encoder.class_names

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the middle square of a picture as `mini` reads it."""
        return self._encoder.prepare(image)

    def logits(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Return ``(n, 1000)`` float32 logits."""
        return self._encoder.class_logits_prepared(batch)


def load_mini_classifier(*, device: str, dtype: str) -> ImageClassifier:
    """Return the classifier inside the package; raises EncoderError as `load_mini` does."""
    from vitsearch.encoders.mini.encoder import load_mini

    return ImageClassifier("mini", MiniHead(load_mini(device=device, dtype=dtype)))
