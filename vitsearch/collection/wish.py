"""What is wanted of a search, apart from the query itself."""

import math
from dataclasses import dataclass

import numpy as np

from vitsearch.errors import QueryError
from vitsearch.query import check_top_k
from vitsearch.where import Where, parse_where

WINDOW = 200  # the most alike photos that are put in order of marginal relevance at a time, so that pages fit together


@dataclass(frozen=True, slots=True)
class Wish:
    """How many results, from which place on, of which photos, how alike, how different from each other.

    ``top_k`` None asks for all that reach ``min_score``. ``diverse`` from 0 to 1 trades likeness to the query for difference from the
    results before (maximal marginal relevance, Carbonell and Goldstein 1998), among the 200 most alike, then among the next 200, and so
    on. ``collapse`` is the cosine from which two photos count as one, or None. Raises QueryError for a number outside its range.
    """

    top_k: int | None = 10
    offset: int = 0
    where: Where | None = None
    min_score: float | None = None
    diverse: float = 0.0
    collapse: float | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None:
            check_top_k(self.top_k)
        elif self.min_score is None:
            raise QueryError("say how many results are wanted (top_k, at least 1), or from which score on (min_score)")
        if isinstance(self.offset, bool) or not isinstance(self.offset, int | np.integer) or self.offset < 0:
            raise QueryError(f"the offset is the number of results to pass over, 0 or more, not {self.offset!r}")
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise QueryError(f"a score is a cosine from -1 to 1, not {self.min_score}")
        if not 0 <= self.diverse <= 1:
            raise QueryError(f"diverse is from 0 (most alike) to 1 (most different), not {self.diverse}")
        if self.collapse is not None and not 0 < self.collapse <= 1:
            raise QueryError(f"photos collapse from a cosine above 0 up to 1, not {self.collapse}")

    @property
    def end(self) -> float:
        """The place after the last result wanted."""
        return math.inf if self.top_k is None else self.offset + self.top_k

    @property
    def needed(self) -> float:
        """How many of the most alike photos decide the results: whole windows where they are put in another order."""
        return math.ceil(self.end / WINDOW) * WINDOW if self.diverse and self.end < math.inf else self.end


def as_where(where: str | Where | None) -> Where | None:
    """Return a filter that may be written as text; raises QueryError."""
    return parse_where(where) if isinstance(where, str) else where
