"""What the models say about one photo: its labels by words and by training, and where it is looked
at.
"""

import io
import threading
from collections.abc import Sequence
from importlib.util import find_spec

from vitsearch.classifiers import ImageClassifier, load_classifier
from vitsearch.encoders.language import readable
from vitsearch.explain import explain
from vitsearch.labels import Decision, LabelClassifier, predict
from vitsearch.photos import thumbnail
from vitsearch.web.pages.cache import Cache
from vitsearch.web.pages.tiles import LARGE
from vitsearch.web.service import PhotoService

LABELS = (
    "person",
    "animal",
    "landscape",
    "building",
    "food",
    "plant",
    "vehicle",
    "document or screenshot",
)  # where none are asked for
TOP = 5
Shares = list[tuple[str, float]]


class Insight:
    """Asks the models about single photos; the supervised one is loaded at first use. Safe to use
    from several threads.
    """

    def __init__(self, service: PhotoService) -> None:
        self._service = service
        self._taught: ImageClassifier | None = None
        self._lock = threading.Lock()
        self._classifiers: Cache[LabelClassifier] = Cache(8)
        self._answers: Cache[Shares] = Cache(500)
        self._pictures: Cache[bytes] = Cache(50)

    @property
    def can_explain(self) -> bool:
        """Whether the library that shows attention is installed."""
        return find_spec("torch") is not None

    def own(self, photo_id: int, labels: Sequence[str]) -> Shares:
        """Return the most probable of these labels for a photo, by its stored vector; raises
        QueryError.
        """
        service = self._service
        with service.source.reading() as collection, service.source.encoding:
            key = (tuple(labels), collection.config.encoder_fingerprint)
            classifier = self._classifiers.get(key, lambda: collection.zero_shot(labels))
            vector = collection.queries.stored_vector(photo_id)
        return predict(classifier, vector[None], Decision(TOP))[0]

    def taught(self, photo_id: int) -> Shares:
        """Return the most probable classes of ImageNet for a photo, by the supervised head of
        `mini`; raises PhotoError, EncoderError.
        """
        fingerprint = self._service.photo(photo_id).fingerprint
        return self._answers.get(fingerprint, lambda: self._classified(photo_id))

    def _classified(self, photo_id: int) -> Shares:
        image = self._service.picture(photo_id, LARGE)
        with self._lock:
            if self._taught is None:
                self._taught = load_classifier("mini", device=self._service.source.device)
            [best] = self._taught(image, TOP)
        return [(one.label, one.score) for one in best]

    def why(self, photo_id: int, text: str) -> bytes:
        """Return a WebP picture of a photo under the heat map of what speaks for a text, or of what
        is looked at where it is empty.

        Raises EncoderError for a model without attention or where torch is missing, QueryError for
        one that reads no text.
        """
        key = (self._service.photo(photo_id).fingerprint, text)
        return self._pictures.get(key, lambda: self._drawn(photo_id, text))

    def _drawn(self, photo_id: int, text: str) -> bytes:
        from vitsearch.explain.draw import overlay

        image = self._service.picture(photo_id, LARGE)
        with self._service.source.encoding:
            found = explain(self._service.encoder, image, readable(text) if text else None)
        shown = thumbnail(image, LARGE)
        scale = shown.width / image.width, shown.height / image.height
        left, top, right, bottom = (
            round(edge * scale[place % 2]) for place, edge in enumerate(found.box)
        )
        out = io.BytesIO()
        overlay(shown, found.relevance, (left, top, right, bottom)).save(out, "WEBP", quality=85)
        return out.getvalue()
