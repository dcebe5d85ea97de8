"""What a query string says besides the picture, in one collection: its phrases, its filter, and the
terms that are left. The grammar is `vitsearch.filters.words`.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from vitsearch.collection.query import QueryPart, Term, query_parts, term_of
from vitsearch.errors import CollectionError, QueryError
from vitsearch.filters.phrases import read_words
from vitsearch.filters.tree import And, Filter
from vitsearch.filters.words import NAMED, Phrase, Vocabulary, all_of, picture_words
from vitsearch.photos.columns import COLUMNS, PRIVATE
from vitsearch.records import atomic_write, read_record, to_json
from vitsearch.storage import PhotoReader

FILE = "words.json"  # of a collection's folder, derived from its photos
SLOW_SECONDS = 0.05  # values that take longer to read are written there
MAX_BYTES = 20_000_000
LABELLED = "labelled"  # the fact that changes when labels are stored


@dataclass(frozen=True, slots=True)
class Understood:
    """A query string with what it says besides the picture.

    ``terms`` are those of the picture, none where the query only filters; ``phrases`` and their
    filter ``where``, None where there are none.
    """

    terms: tuple[Term, ...]
    phrases: tuple[Phrase, ...]
    where: Filter | None
    without: tuple[str, ...] = ()

    @property
    def titles(self) -> list[str]:
        """What the phrases are called, such as ``Portugal``."""
        return [phrase.title for phrase in self.phrases]

    @property
    def picture(self) -> str:
        """The words of the picture."""
        return ", ".join(str(term.what) for term in self.terms if isinstance(term.what, str))

    @property
    def without_text(self) -> "Understood":
        """The same for who may not see the text in photos."""
        return replace(self, terms=tuple(replace(term, verbatim=()) for term in self.terms))

    def narrowed(self, where: Filter | None) -> Filter | None:
        """Return both filters together: another one, and that of the phrases."""
        if where is None or self.where is None:
            return where or self.where
        return And((where, self.where))


def understand(query: str, vocabulary: Vocabulary | None, today: date | None = None) -> Understood:
    """Return what a query string says besides the picture, by the words that a collection knows;
    with None nothing. Terms with a minus and what is in quotes are left alone.

    ``without`` is for each phrase the query without it. Raises QueryError as `parse_query`.
    """
    parts = query_parts(query)
    terms = [term_of(part, query) for part in parts]
    if vocabulary is None:
        return Understood(tuple(terms), (), None)
    read: list[list[Phrase]] = []
    for part, term in zip(parts, terms, strict=True):
        is_words = isinstance(term.what, str) and part.sign > 0 and not part.in_quotes
        text = part.text(query)
        read.append(read_words(text, vocabulary, today or date.today()) if is_words else [])
    phrases = [phrase for each in read for phrase in each]
    if not phrases:
        return Understood(tuple(terms), (), None)
    left = [
        Term(words, term.weight, term.verbatim)
        for part, term, each in zip(parts, terms, read, strict=True)
        if (words := picture_words(part.text(query), each) if each else term.what) != ""
    ]
    without = tuple(
        _written(query, parts, [[p for p in each if p is phrase] for each in read])
        for phrase in phrases
    )
    return Understood(tuple(left), tuple(phrases), all_of(phrases), without)


def _written(query: str, parts: Sequence[QueryPart], removed: Sequence[Sequence[Phrase]]) -> str:
    """Return a query without phrases, which may be empty."""
    pieces: list[str] = []
    for part, phrases in zip(parts, removed, strict=True):
        text = picture_words(part.text(query), phrases)
        if text:
            sign = "- " if part.sign < 0 else "+ " if pieces else ""
            weight = "" if part.weight == 1 else f"{part.weight:g}:"
            pieces.append(f"{sign}{weight}{text}")
    return " ".join(pieces)


# -- The words that a collection knows -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredWords:
    """The contents of ``words.json``: the values of columns in one state of the collection."""

    state: str
    values: dict[str, list[str]]
    years: list[int] = field(default_factory=list)


class KnownWords:
    """The vocabularies of a collection in its present state, for everybody and for the person who
    may see private columns. ``folder`` is where they are written if they take long to read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: tuple[str, dict[bool, Vocabulary]] | None = None
        self._store: PhotoReader | None = None

    def of(self, store: PhotoReader, *, private: bool = True) -> Vocabulary:
        """Return the vocabulary; without ``private`` that of the columns that all may see."""
        self._store = store
        state = f"{store.generation()} {store.state()} {store.get_meta(LABELLED)!r}"
        known = self._known
        if known is None or known[0] != state:
            stored = self._read(state) or self._compute(store, state)
            known = state, {each: self._vocabulary(stored, each) for each in (True, False)}
            self._known = known
        return known[1][private]

    def _read(self, state: str) -> StoredWords | None:
        with suppress(CollectionError, OSError):
            stored = read_record(
                StoredWords,
                self._folder / FILE,
                error=CollectionError,
                repair="delete it",
                max_bytes=MAX_BYTES,
            )
            return stored if stored.state == state else None
        return None

    def _compute(self, store: PhotoReader, state: str) -> StoredWords:
        start = time.monotonic()
        values = store.distinct([*(name for name in NAMED if name in COLUMNS), "path"])
        years = store.distinct(["year"]).get("year", [])
        stored = StoredWords(state, values, [int(year) for year in years if year.isdecimal()])
        if time.monotonic() - start > SLOW_SECONDS and self._folder.is_dir():
            with suppress(OSError):  # a folder that cannot be written has none
                atomic_write(self._folder / FILE, to_json(stored), sync=False)
        return stored

    def _vocabulary(self, stored: StoredWords, private: bool) -> Vocabulary:
        columns = frozenset(COLUMNS) if private else frozenset(COLUMNS) - PRIVATE
        answers: dict[Filter, bool] = {}

        def has_files(where: Filter) -> bool:
            if where not in answers:
                answers[where] = self._has_photos(where)
            return answers[where]

        return Vocabulary(
            columns=columns,
            values={name: texts for name, texts in stored.values.items() if name in columns},
            folders=stored.values.get("path", ()),
            years=frozenset(stored.years),
            has_files=has_files,
        )

    def _has_photos(self, where: Filter) -> bool:
        assert self._store is not None
        try:
            return self._store.count_where(where) > 0
        except QueryError:  # a collection in Milvus from before there was the column
            return False
