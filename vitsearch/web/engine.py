"""Answers many searches at once, on one state of the collection."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitsearch.collection import SearchableCollection
from vitsearch.collection.wish import Wish
from vitsearch.encoders.protocol import Encoder, ImageEncoder
from vitsearch.errors import CollectionError, IndexDamaged, QueryError, VitsearchError
from vitsearch.language import readable, unread_notes
from vitsearch.query import check_vector
from vitsearch.types import SearchResult
from vitsearch.vectors import Vectors, unit_rows
from vitsearch.web.asking import Search, combined
from vitsearch.web.errors import ServiceBusy, UnknownPhoto
from vitsearch.web.source import BUSY, Source, Stamp


@dataclass(frozen=True, slots=True)
class Found:
    """The results of a search, best first, and what the client should know about its words."""

    results: list[SearchResult]
    notes: list[str]


Answer = Found | Exception
Known = dict[str | int, Vectors]


class Engine:
    """The index of a collection, kept open from search to search.

    Several threads may encode at a time where the model allows that, and search in turns.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.RLock()
        self._open: tuple[Stamp, SearchableCollection] | None = None

    def answer(self, searches: Sequence[Search]) -> list[Answer]:
        """Return the results of each search, best first, or its error; texts are encoded together.

        A collection that cannot be read is opened again once; raises ServiceBusy when that does not help.
        """
        try:
            return self._answer(searches)
        except (CollectionError, IndexDamaged, FileNotFoundError):
            self.close()
        try:
            return self._answer(searches)
        except (CollectionError, IndexDamaged, FileNotFoundError) as error:
            self.close()
            raise ServiceBusy(BUSY) from error

    def close(self) -> None:
        """Let the database and the index go; the next search opens them again."""
        with self._lock:
            if self._open is not None:
                _, collection = self._open
                self._open = None
                collection.close()

    def _opened(self) -> SearchableCollection:
        now = self._source.stamp()
        if self._open is None or self._open[0] != now:
            self.close()
            self._open = (now, self._source.open())
        return self._open[1]

    def _answer(self, searches: Sequence[Search]) -> list[Answer]:
        with self._lock:
            encoder = self._opened().encoder
        known = self._encoded(encoder, [term.what for search in searches for term in search.terms])
        answers: dict[int, Answer] = {}
        groups: dict[Wish, dict[int, tuple[Vectors, frozenset[int]]]] = {}
        with self._lock:
            collection = self._opened()
            if collection.encoder is not encoder:
                raise CollectionError("another collection has taken the place of this one")
            for place, search in enumerate(searches):
                try:
                    groups.setdefault(search.wish, {})[place] = _asked(search, known, collection)
                except VitsearchError as error:
                    answers[place] = error
            for wish, asked in groups.items():
                for place, results in zip(asked, collection.find(list(asked.values()), wish), strict=True):
                    answers[place] = Found(results, _notes(searches[place], encoder))
        return [answers[place] for place in range(len(searches))]

    def _encoded(self, encoder: ImageEncoder, whats: Sequence[object]) -> Known:
        """Return the unit vectors ``(dim,)`` of texts, and of pictures by their ids in memory; each kind is encoded together."""
        texts = list(dict.fromkeys(what for what in whats if isinstance(what, str) and what.strip()))
        pictures = {id(what): what for what in whats if isinstance(what, Image.Image)}
        with self._source.computing(encoder):
            known: Known = {}
            if texts and isinstance(encoder, Encoder):
                known |= zip(texts, encoder.encode_texts([readable(text) for text in texts]), strict=True)
            if pictures:
                known |= zip(pictures, encoder.encode_images(list(pictures.values())), strict=True)
        return known


def _notes(search: Search, encoder: ImageEncoder) -> list[str]:
    return list(unread_notes(search.texts, encoder).values()) if search.texts else []


def _asked(search: Search, known: Known, collection: SearchableCollection) -> tuple[Vectors, frozenset[int]]:
    """Return a search's vector and the photos that it names, which are left out of its results."""
    named = frozenset(term.what for term in search.terms if isinstance(term.what, int))
    return combined(search.terms, [_vector(term.what, known, collection) for term in search.terms]), named


def _vector(what: str | int | Image.Image | Vectors, known: Known, collection: SearchableCollection) -> Vectors:
    """Return the unit vector of a term; raises QueryError, or UnknownPhoto for an id that is not there."""
    if isinstance(what, Image.Image):
        return known[id(what)]
    if isinstance(what, str):
        if what in known:
            return known[what]
        empty = "a term of the query is empty: give words, a photo or leave it out"
        mute = f"the model of these photos, {collection.encoder.name}, reads no text: search with a photo"
        raise QueryError(mute if what.strip() else empty)
    if not isinstance(what, int):
        return check_vector(what, collection.dim)
    return stored_vector(collection, what)


def stored_vector(collection: SearchableCollection, photo_id: int) -> Vectors:
    """Return the unit vector ``(dim,)`` of a photo of the collection; raises UnknownPhoto."""
    rows = collection.store.rows([photo_id]) if -(2**63) <= photo_id < 2**63 else []
    if not rows:
        raise UnknownPhoto(f"there is no photo {photo_id} in the collection")
    return unit_rows(np.asarray(collection.store.halves([rows[0][2]])))[0]
