"""What the pages remember between requests: what takes long to find out, and photos that people
brought.
"""

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
from vitsearch.collection import Collection
from vitsearch.errors import QueryError
from vitsearch.photos import thumbnail
from vitsearch.web.pages.tiles import is_clean
from vitsearch.web.pages.url import CHOICES

Found = TypeVar("Found")

MAX_UPLOADS = 200
BROUGHT_SIDE = 160
MAX_CHOICES = 300  # of a filter
FRESH_SECONDS = 20.0  # labels may be stored without a new state of the collection
FRESH_TIMES = 50  # and what took long is not found out again all the time


class Cache(Generic[Found]):
    """The last few answers of one kind, by what was asked; two threads never work on one kind at
    the same time.
    """

    def __init__(self, most: int = 4) -> None:
        self._most, self._lock = most, threading.Lock()
        self._found: OrderedDict[Hashable, tuple[Found, float]] = OrderedDict()

    def get(self, key: Hashable, find: Callable[[], Found], *, ages: bool = False) -> Found:
        """Return what was found for a key, or find it; what ``ages`` is found again
        after a while.
        """
        with self._lock:
            kept = self._found.get(key)
            if kept is not None and (not ages or time.monotonic() < kept[1]):
                self._found.move_to_end(key)
                return kept[0]
            start = time.monotonic()
            found = find()
            now = time.monotonic()
            self._found[key] = (found, now + max(FRESH_SECONDS, FRESH_TIMES * (now - start)))
            self._found.move_to_end(key)
            while len(self._found) > self._most:
                self._found.popitem(last=False)
            return found


@dataclass(frozen=True, slots=True)
class Facets:
    """What the filters offer, with how many photos have it, in order of name: folders, stored
    labels, and the values of each metadata column of `CHOICES`; and all photos.
    """

    folders: list[tuple[str, int]]
    labels: list[tuple[str, int]]
    choices: Mapping[str, list[tuple[str, int]]]
    total: int


def facets_of(collection: Collection) -> Facets:
    """Return what the filters offer; of very many, those with the most photos."""
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
    most = sorted(
        (item for item in counts.items() if is_clean(item[0])), key=lambda item: (-item[1], item[0])
    )[:MAX_CHOICES]
    return sorted(most, key=lambda item: item[0].casefold())


@dataclass(frozen=True, slots=True, eq=False)
class UploadedPhoto:
    """A photo that a person dropped on the page: its vector ``(dim,)`` and a small WebP picture;
    the photo itself is not kept.
    """

    vector: Vectors
    picture: bytes


class BroughtPhotos:
    """The last photos that people brought, by the hash of their bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, UploadedPhoto] = OrderedDict()

    def keep(self, data: bytes, image: Image.Image, vector: Vectors) -> str:
        """Remember a photo and return its key."""
        key = hashlib.blake2b(data, digest_size=16).hexdigest()
        out = io.BytesIO()
        thumbnail(image, BROUGHT_SIDE).save(out, "WEBP", quality=80)
        with self._lock:
            self._kept[key] = UploadedPhoto(vector, out.getvalue())
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_UPLOADS:
                self._kept.popitem(last=False)
        return key

    def get(self, key: str) -> UploadedPhoto:
        """Return a photo by its key; raises QueryError for one that is forgotten."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                raise QueryError("the photo that was dropped here is forgotten: drop it again")
            self._kept.move_to_end(key)
            return found
