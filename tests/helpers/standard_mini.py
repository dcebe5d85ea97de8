"""An encoder with the weights of mini whose preprocessing is in standard terms."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import ImageEncoder, Vectors
from vitsearch.encoders.preprocess import Preprocess, prepare


class StandardMini(ImageEncoder):
    """The vectors of mini, for pictures that are prepared in standard terms."""

    name, only_resizes = "standard-mini", True

    def __init__(self, device: str = "cpu") -> None:
        self.mini, self.device = load_encoder("mini", device="cpu"), device
        self.dim, self.fingerprint = self.mini.dim, self.mini.fingerprint
        self.preprocess: Preprocess = Preprocess(size=(260, 260))

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        return prepare(image, self.preprocess)

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        return self.mini.encode_prepared(batch)
