"""What a client asks for: terms that are words, photos by their ids, pictures or vectors; never a
path.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitsearch.arrays import Vectors
from vitsearch.collection.query import Term, combine, parse_query
from vitsearch.collection.search import SearchOptions, as_where
from vitsearch.errors import QueryError
from vitsearch.filters import Filter

MAX_RESULTS = 1000
MAX_OFFSET = 100_000
MAX_TERMS = 64
MAX_TEXT_LENGTH = 2000
NO_PATHS = (
    "a query here names no file: drop the photo on the page, upload it, or give the id of "
    "a photo of the collection"
)


@dataclass(frozen=True, slots=True, eq=False)
class SearchTerm:
    """One part of a query: words, the id of a photo, a picture, or a vector ``(dim,)``; the weight
    is negative for "not".
    """

    what: str | int | Image.Image | Vectors
    weight: float = 1.0


SearchInput = str | Image.Image | Vectors | Sequence[SearchTerm]


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Terms, and what is wanted of their results."""

    terms: tuple[SearchTerm, ...]
    options: SearchOptions

    @property
    def texts(self) -> tuple[str, ...]:
        """The words of the query, a text for each term of words."""
        return tuple(term.what for term in self.terms if isinstance(term.what, str))


def read_query(text: str) -> tuple[SearchTerm, ...]:
    """Return the terms of a query string (see `parse_query`); raises QueryError, also for a term
    that names a file.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise QueryError(
            f"the query has {len(text)} characters, more than {MAX_TEXT_LENGTH}: shorten it"
        )
    try:
        parsed = parse_query(text)
    except QueryError as error:
        if error.__cause__ is not None:  # ~name: whether there is such a user is nobody's business
            raise QueryError(NO_PATHS) from None
        raise
    words = [SearchTerm(term.what, term.weight) for term in parsed if isinstance(term.what, str)]
    if len(words) < len(parsed):
        raise QueryError(NO_PATHS)
    return tuple(words)


def terms_of(asked: SearchInput) -> tuple[SearchTerm, ...]:
    """Return the terms of whatever may be asked; raises QueryError for none or too many."""
    if isinstance(asked, str):
        terms = read_query(asked)
    elif isinstance(asked, Image.Image | np.ndarray):
        terms = (SearchTerm(asked),)
    else:
        terms = tuple(asked)
    if not terms:
        raise QueryError("the query is empty: give words, a photo or a vector")
    if len(terms) > MAX_TERMS:
        raise QueryError(f"the query has {len(terms)} terms, more than {MAX_TERMS}: leave some out")
    return terms


def search_options(
    k: int,
    offset: int = 0,
    *,
    where: str | Filter | None = None,
    min_score: float | None = None,
    diverse: float = 0.0,
    collapse: float | None = None,
) -> SearchOptions:
    """Return what is wanted of a search; raises QueryError for what is outside its range, with the
    reason.
    """
    if not 1 <= k <= MAX_RESULTS:
        raise QueryError(f"k, the number of results, is from 1 to {MAX_RESULTS}, not {k}")
    if not 0 <= offset <= MAX_OFFSET:
        raise QueryError(f"the offset is from 0 to {MAX_OFFSET}, not {offset}")
    text = where.strip() if isinstance(where, str) else where
    return SearchOptions(k, offset, as_where(text or None), min_score, diverse, collapse)


def combine_terms(terms: Sequence[SearchTerm], vectors: Sequence[Vectors]) -> Vectors:
    """Return the unit vector ``(dim,)`` of the weighted sum of the terms' unit vectors; raises
    QueryError where they cancel out.
    """
    rows = iter(vectors)
    stand_ins = [
        Term(term.what if isinstance(term.what, str) else "a photo", term.weight) for term in terms
    ]
    return combine(stand_ins, lambda _: next(rows))
