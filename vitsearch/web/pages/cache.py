"""What the pages remember between requests: results that take long, and uploaded photos."""

import hashlib
import io
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from PIL import Image

from vitsearch.arrays import Vectors
from vitsearch.collection.collection import Collection
from vitsearch.errors import QueryError
from vitsearch.photos import thumbnail
from vitsearch.web.pages.tiles import is_clean
from vitsearch.web.pages.url import CHOICES

Result = TypeVar("Result")

MAX_UPLOADS = 200
UPLOAD_SIDE = 160  # pixels, of the picture of an uploaded photo
MAX_CHOICES = 300  # of a filter
FRESH_SECONDS = 20.0  # labels may be stored without a new state of the collection
FRESH_FACTOR = 50  # a result stays fresh for so many times as long as it took


class Cache(Generic[Result]):
    """The last few results of one kind, by key; two threads never compute one kind at the same
    time.
    """

    def __init__(self, size: int = 4) -> None:
        self._size, self._lock = size, threading.Lock()
        self._entries: OrderedDict[Hashable, tuple[Result, float]] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Result], *, ages: bool = False) -> Result:
        """Return the result of a key, computed where it is not known; one that ``ages`` is computed
        again after a while.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and (not ages or time.monotonic() < entry[1]):
                self._entries.move_to_end(key)
                return entry[0]
            start = time.monotonic()
            result = compute()
            now = time.monotonic()
            fresh_until = now + max(FRESH_SECONDS, FRESH_FACTOR * (now - start))
            self._entries[key] = (result, fresh_until)
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
            return result


@dataclass(frozen=True, slots=True)
class Facets:
    """The values that the filters offer with their numbers of photos, in order of name: folders,
    stored labels, and each metadata column of `CHOICES`; and the number of all photos.
    """

    folders: list[tuple[str, int]]
    labels: list[tuple[str, int]]
    choices: Mapping[str, list[tuple[str, int]]]
    total: int


def facets_of(collection: Collection) -> Facets:
    """Return the values that the filters offer; of very many, those with the most photos."""
    folders: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    choices: dict[str, Counter[str]] = {name: Counter() for name in CHOICES}
    total = 0
    for photo in collection.photos():
        total += 1
        parts = photo.path.split("/")[:-1]
        folders.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))
        for name, counts in choices.items():
            value = photo.info[name]
            counts.update([str(value)] if value else [])
        labels.update([photo.label] if photo.label else [])
    offered = {name: _offered(counts) for name, counts in choices.items()}
    return Facets(_offered(folders), _offered(labels), offered, total)


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
    """The last uploaded photos, by the hash of their bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._photos: OrderedDict[str, UploadedPhoto] = OrderedDict()

    def add(self, data: bytes, image: Image.Image, vector: Vectors) -> str:
        """Remember a photo and return its key."""
        key = hashlib.blake2b(data, digest_size=16).hexdigest()
        out = io.BytesIO()
        thumbnail(image, UPLOAD_SIDE).save(out, "WEBP", quality=80)
        with self._lock:
            self._photos[key] = UploadedPhoto(vector, out.getvalue())
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
