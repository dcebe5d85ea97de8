"""Answers many searches at once, on one state of the collection."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from vitsearch.collection.collection import Collection
from vitsearch.collection.query import encode_terms
from vitsearch.collection.search import QueryMeaning
from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.language import unread_notes
from vitsearch.errors import CollectionError, IndexDamaged, ServiceBusy, VitsearchError
from vitsearch.options import SearchOptions
from vitsearch.types import SearchResult
from vitsearch.web.query import Search
from vitsearch.web.source import BUSY, CollectionSource, Version


@dataclass(frozen=True, slots=True)
class Found:
    """The results of a search, best first, and what the client should know about its words;
    ``nearest`` where no photo fits them.
    """

    results: list[SearchResult]
    notes: list[str]
    nearest: Sequence[SearchResult] = ()


Answer = Found | Exception


class Engine:
    """The index of a collection, kept open from search to search.

    Several threads may encode at a time where the model allows that, and search in turns.
    """

    def __init__(self, source: CollectionSource) -> None:
        self._source = source
        self._lock = threading.RLock()
        self._open: tuple[Version, Collection] | None = None

    def answer(self, searches: Sequence[Search]) -> list[Answer]:
        """Return the results of each search, best first, or its error; texts are encoded together.

        A collection that cannot be read is opened again once; raises ServiceBusy when that does not
        help.
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

    def _opened(self) -> Collection:
        now = self._source.version()
        if self._open is None or self._open[0] != now:
            self.close()
            self._open = (now, self._source.open())
        return self._open[1]

    def _answer(self, searches: Sequence[Search]) -> list[Answer]:
        with self._lock:
            encoder = self._opened().encoder
        with self._source.computing(encoder):
            encoded = encode_terms(
                (term for search in searches for term in search.terms), lambda: encoder
            )
        answers: dict[int, Answer] = {}
        groups: dict[SearchOptions, dict[int, QueryMeaning]] = {}
        with self._lock:
            collection = self._opened()
            if collection.encoder is not encoder:
                raise CollectionError("another collection has taken the place of this one")
            for index, search in enumerate(searches):
                try:
                    meaning = collection.queries.read(search.terms, encoded)
                except VitsearchError as error:
                    answers[index] = error
                else:
                    queries = groups.setdefault(search.options, {})
                    queries[index] = meaning
            for options, queries in groups.items():
                results = collection.find(list(queries.values()), options)
                for index, hits in zip(queries, results, strict=True):
                    nearest = () if hits else collection.nearest(queries[index], options)
                    answers[index] = Found(hits, _notes(searches[index], encoder), nearest)
        return [answers[index] for index in range(len(searches))]


def _notes(search: Search, encoder: ImageEncoder) -> list[str]:
    return list(unread_notes(search.texts, encoder).values()) if search.texts else []
