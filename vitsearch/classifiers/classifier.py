"""`ImageClassifier`, the call that all sources share: pictures in, labels out, in batches."""

import os
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.arrays import to_probabilities
from vitsearch.arrays import top_k as best_positions
from vitsearch.encoders.batching import Picture, files_below
from vitsearch.errors import PhotoError, QueryError
from vitsearch.photos import prefetch_map, read_bytes_and_fingerprint, upright_rgb
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.types import Activation, Prediction

if TYPE_CHECKING:
    from vitsearch.encoders.mini import MiniEncoder

Logits = NDArray[np.float32]
URL_BYTES = 64 * 1024 * 1024
URL_SECONDS = 20.0


class Head(Protocol):
    """A model with classes: the part that differs from source to source."""

    classes: tuple[str, ...]
    activation: Activation

    def prepare(self, image: Image.Image) -> Any:
        """Return the model's input for one RGB picture; runs in any thread."""
        ...

    def logits(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Return ``(n, classes)`` float32 logits of ``n`` prepared pictures."""
        ...


@dataclass(frozen=True, slots=True)
class _Failed:
    reason: str


class ImageClassifier:
    """A model that names what it was trained on.

    >>> classifier = load_classifier("mini")
    >>> [[best, *_]] = classifier("dog.jpg")
    """

    def __init__(self, name: str, head: Head) -> None:
        self.name = name
        self.head = head

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits; two may have the same name."""
        return self.head.classes

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        top_k: int = 5,
        *,
        batch_size: int = 32,
        allow_urls: bool = False,
    ) -> list[list[Prediction]]:
        """Return the ``top_k`` labels of every picture, best first, equal ones in order of class.

        ``images`` is a single item or a list: paths, PIL pictures, folders (all photos below, in
        order of path) or, with ``allow_urls``, http(s) addresses; classifiers of vectors
        (`LabelClassifier`) are called in the same way. Scores are probabilities. Raises
        PhotoError for the first picture that cannot be read, QueryError for an address that is not
        allowed; `stream` continues past what cannot be read.
        """
        results = []
        for path, result in self.stream(
            images, top_k, batch_size=batch_size, allow_urls=allow_urls
        ):
            if isinstance(result, PhotoError):
                raise PhotoError(f"{path}: {result}")
            results.append(result)
        return results

    def stream(
        self,
        images: Picture | Sequence[Picture],
        top_k: int = 5,
        *,
        batch_size: int = 32,
        allow_urls: bool = False,
    ) -> Iterator[tuple[str, list[Prediction] | PhotoError]]:
        """Yield (path, labels) of every picture in order, or (path, PhotoError).

        A picture without a path has the path "". Files are read, decoded and prepared in threads
        while the model computes; memory stays at a few batches.
        """
        if top_k < 1 or batch_size < 1:
            raise QueryError(
                f"top_k and batch_size must be at least 1, not {top_k} and {batch_size}"
            )
        if isinstance(images, np.ndarray):
            raise QueryError(f"{self.name} reads pictures, not vectors: give paths or pictures")
        pictures = files_below(images)
        for batch in self.logits_of(pictures, batch_size=batch_size, allow_urls=allow_urls):
            for path, row in batch:
                if isinstance(row, PhotoError):
                    yield path, row
                else:
                    yield path, self._predictions(path, row, top_k)

    def logits_of(
        self, pictures: Iterable[Picture], *, batch_size: int = 32, allow_urls: bool = False
    ) -> Iterator[list[tuple[str, Logits | PhotoError]]]:
        """Yield batches, in order, of (path, float32 logits ``(classes,)``) or (path, PhotoError).

        Files are read ahead as in `stream`; a folder counts as a file that cannot be read. Raises
        QueryError for a batch below 1.
        """
        if batch_size < 1:
            raise QueryError(f"batch_size must be at least 1, not {batch_size}")
        workers = os.cpu_count() or 1
        with PhotoDecoder() as decoder:
            loaded = prefetch_map(
                partial(self._load, allow_urls=allow_urls, decoder=decoder),
                pictures,
                workers=workers,
                buffer=batch_size + workers,
                on_stop=decoder.close,
            )
            while batch := list(islice(loaded, batch_size)):
                prepared = [item for _, item in batch if not isinstance(item, _Failed)]
                rows = iter(self.head.logits(prepared) if prepared else ())
                yield [
                    (path, PhotoError(item.reason) if isinstance(item, _Failed) else next(rows))
                    for path, item in batch
                ]

    def logits(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return ``(n, classes)`` float32 logits of ``n`` PIL pictures."""
        return self.head.logits([self.head.prepare(upright_rgb(image)) for image in images])

    def _load(
        self, picture: Picture, *, allow_urls: bool, decoder: PhotoDecoder
    ) -> tuple[str, Any]:
        if isinstance(picture, Image.Image):
            return "", self.head.prepare(upright_rgb(picture))
        path = os.fspath(picture)
        try:
            if _is_url(path):
                data = _fetched(path, allow_urls)
            else:
                data, _ = read_bytes_and_fingerprint(path)
            return path, self.head.prepare(decoder.decode(data, name=path)[0])
        except PhotoError as error:
            return path, _Failed(str(error))

    def _predictions(self, path: str, row: Logits, top_k: int) -> list[Prediction]:
        probabilities = to_probabilities(row[None], self.head.activation)[0]
        return [
            Prediction(path, self.classes[i], float(probabilities[i]))
            for i in best_positions(row, top_k)
        ]


def _is_url(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def _fetched(url: str, allowed: bool) -> bytes:
    if not allowed:
        raise QueryError(f"{url} is an address on the network: say allow_urls=True to fetch it")
    try:
        with urllib.request.urlopen(url, timeout=URL_SECONDS) as response:
            data: bytes = response.read(URL_BYTES + 1)
    except (OSError, ValueError) as error:
        raise PhotoError(f"cannot be fetched ({error})") from error
    if len(data) > URL_BYTES:
        raise PhotoError(f"is longer than {URL_BYTES // 1024 // 1024} MB")
    return data


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
    from vitsearch.encoders.mini import load_mini

    return ImageClassifier("mini", MiniHead(load_mini(device=device, dtype=dtype)))
