"""What a client may search for: words, photos by their ids, pictures or vectors; never a path."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitsearch.arrays import Vectors
from vitsearch.collection.query import Term
from vitsearch.collection.search import as_where
from vitsearch.collection.understanding import Understood, understand
from vitsearch.errors import QueryError
from vitsearch.filters.tree import Filter
from vitsearch.filters.words import Vocabulary
from vitsearch.options import SearchOptions, check_names, options_of

MAX_RESULTS = 1000
MAX_OFFSET = 100_000
MAX_TERMS = 64
MAX_TEXT_LENGTH = 2000
MAX_FILTER_LENGTH = 4000
# what a server allows beyond the ranges of `SearchOptions`
MAXIMA = {"top_k": MAX_RESULTS, "offset": MAX_OFFSET}
MAX_LENGTHS = {"where": MAX_FILTER_LENGTH}
NO_PATHS = (
    "a query here names no file: drop the photo on the page, upload it, or give the id of "
    "a photo of the collection"
)


SearchInput = str | Image.Image | Vectors | Sequence[Term]


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Terms, and what is wanted of their results."""

    terms: tuple[Term, ...]
    options: SearchOptions

    @property
    def texts(self) -> tuple[str, ...]:
        """The words of the query, a text for each term of words."""
        return tuple(term.what for term in self.terms if isinstance(term.what, str))


def read_query(text: str) -> tuple[Term, ...]:
    """Return the terms of a query string (see `parse_query`); raises QueryError, also for a term
    that names a file.
    """
    return understand_query(text, None).terms


def understand_query(text: str, vocabulary: Vocabulary | None) -> Understood:
    """Return what a query string says besides the picture (see `understand`); raises QueryError,
    also for a term that names a file.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise QueryError(
            f"the query has {len(text)} characters, more than {MAX_TEXT_LENGTH}: shorten it"
        )
    try:
        understood = understand(text, vocabulary)
    except QueryError as error:
        if error.__cause__ is not None:  # ~name: whether there is such a user is nobody's business
            raise QueryError(NO_PATHS) from None
        raise
    _without_paths(understood.terms)
    return understood


def _without_paths(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Return the terms; raises QueryError for a file, which no client may make a server read."""
    if any(isinstance(term.what, Path) for term in terms):
        raise QueryError(NO_PATHS)
    return tuple(terms)


def terms_of(query: SearchInput) -> tuple[Term, ...]:
    """Return the terms of a query; raises QueryError for none, too many, or a file."""
    if isinstance(query, str):
        terms = read_query(query)
    elif isinstance(query, Image.Image | np.ndarray):
        terms = (Term(query),)
    else:
        terms = _without_paths(query)
    if not terms:
        raise QueryError("the query is empty: give words, a photo or a vector")
    if len(terms) > MAX_TERMS:
        raise QueryError(f"the query has {len(terms)} terms, more than {MAX_TERMS}: leave some out")
    return terms


def constraints(name: str) -> dict[str, Any]:
    """Return the range and the help of a field of `SearchOptions`, as FastAPI and pydantic take
    them.
    """
    _, option = options_of(SearchOptions)[name]
    limits = {"ge": option.minimum, "le": MAXIMA.get(name, option.maximum)}
    limits["max_length"] = MAX_LENGTHS.get(name)
    return {
        "description": option.help,
        **{limit: value for limit, value in limits.items() if value is not None},
    }


def search_options(
    k: int, offset: int = 0, *, where: str | Filter | None = None, **keywords: Any
) -> SearchOptions:
    """Return the options of a search; raises QueryError for what is outside its range, with the
    reason.
    """
    if not 1 <= k <= MAX_RESULTS:
        raise QueryError(f"k, the number of results, is from 1 to {MAX_RESULTS}, not {k}")
    if not 0 <= offset <= MAX_OFFSET:
        raise QueryError(f"the offset is from 0 to {MAX_OFFSET}, not {offset}")
    check_names(SearchOptions, keywords, "a search")
    text = where.strip() if isinstance(where, str) else where
    return SearchOptions(k, offset, as_where(text or None), **keywords)
