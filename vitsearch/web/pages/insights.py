"""What the models say about one photo: zero-shot labels, supervised labels, and a heat map."""

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
from vitsearch.web.thumbnails import picture_key

LABELS = (
    "person",
    "animal",
    "landscape",
    "building",
    "food",
    "plant",
    "vehicle",
    "document or screenshot",
)  # of a photo without labels of its collection
TOP = 5
Shares = list[tuple[str, float]]


class Insights:
    """The models applied to single photos; the supervised one is loaded at first use. Safe to use
    from several threads.
    """

    def __init__(self, service: PhotoService) -> None:
        self._service = service
        self._supervised: ImageClassifier | None = None
        self._lock = threading.Lock()
        self._classifiers: Cache[LabelClassifier] = Cache(8)
        self._shares: Cache[Shares] = Cache(500)
        self._pictures: Cache[bytes] = Cache(50)

    @property
    def can_explain(self) -> bool:
        """Whether PyTorch, which heat maps need, is installed."""
        return find_spec("torch") is not None

    def zero_shot(self, photo_id: int, labels: Sequence[str]) -> Shares:
        """Return the most probable of these labels for a photo, by its stored vector; raises
        QueryError.
        """
        service = self._service
        with service.source.reading() as collection, service.source.encoding:
            key = (tuple(labels), collection.config.encoder_fingerprint)
            classifier = self._classifiers.get(key, lambda: collection.zero_shot(labels))
            vector = collection.queries.stored_vector(photo_id)
        return predict(classifier, vector[None], Decision(TOP))[0]

    def supervised(self, photo_id: int) -> Shares:
        """Return the most probable classes of ImageNet for a photo, by the supervised head of
        `mini`; raises PhotoError, EncoderError.
        """
        key = picture_key(self._service.photo(photo_id))
        return self._shares.get(key, lambda: self._classify(photo_id))

    def _classify(self, photo_id: int) -> Shares:
        image = self._service.picture(photo_id, LARGE)
        with self._lock:
            if self._supervised is None:
                self._supervised = load_classifier("mini", device=self._service.source.device)
            [predictions] = self._supervised(image, TOP)
        return [(prediction.label, prediction.score) for prediction in predictions]

    def heatmap(self, photo_id: int, text: str) -> bytes:
        """Return a WebP picture of a photo under a heat map: of what speaks for a text, or of what
        the model looks at where the text is empty.

        Raises EncoderError for a model without attention and where PyTorch is missing, QueryError
        for one that reads no text.
        """
        key = (picture_key(self._service.photo(photo_id)), text)
        return self._pictures.get(key, lambda: self._draw(photo_id, text))

    def _draw(self, photo_id: int, text: str) -> bytes:
        from vitsearch.explain.draw import overlay

        image = self._service.picture(photo_id, LARGE)
        with self._service.source.encoding:
            explanation = explain(self._service.encoder, image, readable(text) if text else None)
        shown = thumbnail(image, LARGE)
        across, down = shown.width / image.width, shown.height / image.height
        left, top, right, bottom = explanation.box
        box = (round(left * across), round(top * down), round(right * across), round(bottom * down))
        out = io.BytesIO()
        overlay(shown, explanation.relevance, box).save(out, "WEBP", quality=85)
        return out.getvalue()
