"""Answers many searches at once, on one state of the collection."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitsearch.collection import Collection
from vitsearch.collection.searcher import Searcher
from vitsearch.collection.wish import Wish
from vitsearch.encoders.protocol import Encoder, ImageEncoder
from vitsearch.errors import CollectionError, IndexDamaged, QueryError, VitsearchError
from vitsearch.language import readable, unread_notes
from vitsearch.query import check_vector
from vitsearch.types import SearchResult
from vitsearch.vectors import Vectors, unit_rows
from vitsearch.web.asking import Search, SearchTerm, combined
from vitsearch.web.errors import ServiceBusy, UnknownPhoto
from vitsearch.web.source import BUSY, Source, Stamp


@dataclass(frozen=True, slots=True)
class Found:
    """The results of a search, best first, and what the client should know about its words."""

    results: list[SearchResult]
    notes: list[str]


Answer = Found | Exception


class Engine:
    """The index of a collection, kept open from search to search; for one thread at a time."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._open: tuple[Stamp, Collection, Searcher] | None = None

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
        if self._open is not None:
            _, collection, searcher = self._open
            self._open = None
            searcher.close()
            collection.close()

    def _opened(self) -> tuple[Collection, Searcher]:
        now = self._source.stamp()
        if self._open is None or self._open[0] != now:
            self.close()
            collection = self._source.open()
            searcher = Searcher(collection.folder, collection.settings, collection.store, [], device=self._source.device)
            self._open = (now, collection, searcher)
        return self._open[1:]

    def _answer(self, searches: Sequence[Search]) -> list[Answer]:
        collection, searcher = self._opened()
        vectors = iter(self._vectors(collection, [term for search in searches for term in search.terms]))
        answers: dict[int, Answer] = {}
        groups: dict[Wish, dict[int, tuple[Vectors, frozenset[int]]]] = {}
        for place, search in enumerate(searches):
            own = [next(vectors) for _ in search.terms]
            try:
                groups.setdefault(search.wish, {})[place] = _asked(search, own)
            except VitsearchError as error:
                answers[place] = error
        for wish, asked in groups.items():
            for place, results in zip(asked, searcher.find(list(asked.values()), wish), strict=True):
                answers[place] = Found(results, _notes(searches[place], collection.encoder))
        return [answers[place] for place in range(len(searches))]

    def _vectors(self, collection: Collection, terms: Sequence[SearchTerm]) -> list[Vectors | VitsearchError]:
        """Return the unit vector ``(dim,)`` of each term, or why it has none; texts, and pictures, are encoded together."""
        encoder = collection.encoder
        texts = list(dict.fromkeys(term.what for term in terms if isinstance(term.what, str) and term.what.strip()))
        pictures = {id(term.what): term.what for term in terms if isinstance(term.what, Image.Image)}
        with self._source.encoding:
            words = encoder.encode_texts([readable(text) for text in texts]) if texts and isinstance(encoder, Encoder) else []
            seen = encoder.encode_images(list(pictures.values())) if pictures else []
        by_text, by_picture = dict(zip(texts, words, strict=False)), dict(zip(pictures, seen, strict=True))
        return [
            by_picture[id(term.what)]
            if isinstance(term.what, Image.Image)
            else _text(by_text, term.what, encoder.name)
            if isinstance(term.what, str)
            else _stored(collection, term.what)
            for term in terms
        ]


def _notes(search: Search, encoder: ImageEncoder) -> list[str]:
    return list(unread_notes(search.texts, encoder).values()) if search.texts else []


def _text(known: dict[str, Vectors], text: str, encoder: str) -> Vectors | VitsearchError:
    if not text.strip():
        return QueryError("a term of the query is empty: give words, a photo or leave it out")
    return known[text] if text in known else QueryError(f"the model of these photos, {encoder}, reads no text: search with a photo")


def _stored(collection: Collection, what: int | Vectors) -> Vectors | VitsearchError:
    """Return the stored vector of a photo, or a client's own vector."""
    try:
        if not isinstance(what, int):
            return check_vector(what, collection.dim)
        rows = collection.store.rows([what]) if what < 2**63 else []
    except QueryError as error:
        return error
    if not rows:
        return UnknownPhoto(f"there is no photo {what} in the collection")
    return unit_rows(np.asarray(collection.store.halves([rows[0][2]])))[0]


def _asked(search: Search, vectors: Sequence[Vectors | VitsearchError]) -> tuple[Vectors, frozenset[int]]:
    """Return a search's vector and the photos that it names, which are left out of its results; raises its error."""
    for vector in vectors:
        if isinstance(vector, VitsearchError):
            raise vector
    named = frozenset(term.what for term in search.terms if isinstance(term.what, int))
    return combined(search.terms, [vector for vector in vectors if not isinstance(vector, VitsearchError)]), named
