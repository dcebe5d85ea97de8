"""What the pages compute once and remember between requests: results that take long, uploaded
photos, and what the models say about one photo (zero-shot labels, supervised labels, a heat map).
"""

import hashlib
import io
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Generic, TypeVar

from PIL import Image

from vitsearch.arrays import Vectors
from vitsearch.classifiers import ImageClassifier, load_classifier
from vitsearch.collection.backend import is_large, sampled_values
from vitsearch.encoders.language import readable
from vitsearch.errors import QueryError
from vitsearch.explain import explain
from vitsearch.labels import Decision, LabelClassifier, predict
from vitsearch.photos import thumbnail
from vitsearch.photos.decode import webp
from vitsearch.storage import PhotoReader
from vitsearch.web.pages import CHOICES, LARGE, is_clean
from vitsearch.web.service import PhotoService
from vitsearch.web.thumbnails import picture_key

Result = TypeVar("Result")

MAX_UPLOADS = 200
UPLOAD_SIDE = 160  # pixels, of the picture of an uploaded photo
MAX_CHOICES = 300  # of a filter
# a result of another state serves for so many times as long as it took: beside a run of indexing
# there is a new state after each batch
FRESH_FACTOR = 20


class Cache(Generic[Result]):
    """The last few results of one kind, by key; two threads never compute one kind at the same
    time.
    """

    def __init__(self, size: int = 4) -> None:
        self._size, self._lock = size, threading.Lock()
        self._entries: OrderedDict[Hashable, Result] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return the result of a key, computed where it is not known."""
        with self._lock:
            if key not in self._entries:
                self._entries[key] = compute()
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
            return self._entries[key]


class Recent(Generic[Result]):
    """One result that may be a little old: one thread at a time computes it, and the others get the
    last one meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[Result, Hashable, float] | None = None

    def get(self, state: Hashable, compute: Callable[[], Result]) -> Result:
        """Return the result, computed anew where it is too old, of this state or of another."""
        last = self._last
        if last is not None and (self._is_fresh(state) or not self._lock.acquire(blocking=False)):
            return last[0]
        if last is None:
            self._lock.acquire()
        try:
            if self._last is None or not self._is_fresh(state):
                start = time.monotonic()
                result = compute()
                now = time.monotonic()
                self._last = (result, state, now + FRESH_FACTOR * (now - start))
            return self._last[0]
        finally:
            self._lock.release()

    def _is_fresh(self, state: Hashable) -> bool:
        assert self._last is not None
        _, known, soon = self._last
        return known == state or time.monotonic() < soon


@dataclass(frozen=True, slots=True)
class Facets:
    """The values that the filters offer with their numbers of photos, in order of name: folders,
    stored labels, and each metadata column of `CHOICES`; and the number of all photos. ``sample``
    is how many of them the values are of, where not of all.
    """

    folders: list[tuple[str, int]]
    labels: list[tuple[str, int]]
    choices: Mapping[str, list[tuple[str, int]]]
    total: int
    sample: int | None = None


def facets_of(store: PhotoReader) -> Facets:
    """Return the values that the filters offer; of very many, those with the most photos."""
    rows = sampled_values(store, ("path", "label", *CHOICES))
    paths, labels, *columns = zip(*rows, strict=True) if rows else ((),) * (2 + len(CHOICES))
    folders: Counter[str] = Counter()
    for folder, count in Counter(path.rpartition("/")[0] for path in paths).items():
        parts = folder.split("/") if folder else []
        for depth in range(len(parts)):
            folders["/".join(parts[: depth + 1])] += count
    offered = {
        name: _offered(Counter(str(value) for value in values if value))
        for name, values in zip(CHOICES, columns, strict=True)
    }
    labelled = Counter(label for label in labels if label)
    total, sample = (store.count_files(), len(rows)) if is_large(store) else (len(rows), None)
    return Facets(_offered(folders), _offered(labelled), offered, total, sample)


def _offered(counts: "Counter[str]") -> list[tuple[str, int]]:
    clean = [item for item in counts.items() if is_clean(item[0])]
    frequent = sorted(clean, key=lambda item: (-item[1], item[0]))[:MAX_CHOICES]
    return sorted(frequent, key=lambda item: item[0].casefold())


@dataclass(frozen=True, slots=True, eq=False)
class UploadedPhoto:
    """An uploaded photo: its vector ``(dim,)`` and a small WebP picture; the photo itself is not
    stored.
    """

    vector: Vectors
    picture: bytes


class UploadedPhotos:
    """The last uploaded photos, by the hash of their pixels."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._photos: OrderedDict[str, UploadedPhoto] = OrderedDict()

    def add(self, image: Image.Image, vector: Vectors) -> str:
        """Remember a photo and return its key."""
        key = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
        with self._lock:
            self._photos[key] = UploadedPhoto(vector, webp(image, UPLOAD_SIDE))
            self._photos.move_to_end(key)
            while len(self._photos) > MAX_UPLOADS:
                self._photos.popitem(last=False)
        return key

    def get(self, key: str) -> UploadedPhoto:
        """Return a photo by its key; raises QueryError for one that is forgotten."""
        with self._lock:
            photo = self._photos.get(key)
            if photo is None:
                raise QueryError("the photo that was dropped here is forgotten: drop it again")
            self._photos.move_to_end(key)
            return photo


# -- What the models say ---------------------------------------------------------------------------


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
        from vitsearch.explain import overlay

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
