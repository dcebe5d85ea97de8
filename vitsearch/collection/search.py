"""The order of results: whatever proposes candidates, the stored vectors decide; and which of them
are relevant enough.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from vitsearch.arrays import Vectors, cosine_scores, unit_rows
from vitsearch.collection.duplicates import WINDOW, collapse, marginal_order
from vitsearch.collection.relevance import Lines, Scale
from vitsearch.errors import QueryError
from vitsearch.filters.tree import And, Filter, Says
from vitsearch.index.candidates import Proposal
from vitsearch.options import SearchOptions
from vitsearch.photos.formats import is_video
from vitsearch.storage import StoredRows
from vitsearch.types import SearchResult, StoredRow, split_moment

# candidates asked for beyond the results wanted: some may have been removed since the index was
# built
SPARE = 3
# where the last candidate is this near to the last result, one not proposed may belong before it,
# by score or by path
TIE = 1e-6
FIRST = 100  # results asked for at first where all that reach a score are wanted
TOGETHER = 256  # queries that an index is asked for at once

IN_OTHER_WORDS = "{} in a photo"
NEAREST = 12  # photos that are shown where none fits

# a photo is lowered by its cosine with what a minus names beyond this one: chance gives as much
UNLIKE = 0.03


class Candidates(Protocol):
    """What proposes, in one state of the collection."""

    @property
    def limit(self) -> float:
        """How many candidates can be asked for."""

    @property
    def supports_batch(self) -> bool:
        """Whether many queries are answered faster together than one by one."""

    def candidates_for(self, queries: Vectors, limit: int) -> list[list[Proposal]]:
        """Return for each of the ``(m, dim)`` queries what each source proposes for ``limit``
        results.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Negative:
    """What the results should not show: a unit vector ``(dim,)`` at right angles to the query's,
    and how much the cosine with it lowers a score.
    """

    vector: Vectors
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class QueryMeaning:
    """A query's unit vector ``(dim,)``, the ids of the photos that it names, its words, and what it
    leaves out by a minus; photos in which its words in quotes stand come first.

    ``texts`` are looked for, none where anything else is; a score below ``least`` is too low.
    """

    vector: Vectors
    photo_ids: frozenset[int] = frozenset()
    words: tuple[str, ...] = ()
    negatives: tuple[Negative, ...] = ()
    texts: tuple[str, ...] = ()
    least: float = -math.inf
    verbatim: tuple[str, ...] = ()

    @property
    def says(self) -> Filter | None:
        """The filter of photos in which all words in quotes stand as text, None without such."""
        tests = tuple(Says("text", words, exact=True) for words in self.verbatim)
        return And(tests) if len(tests) > 1 else tests[0] if tests else None


class Hit(NamedTuple):
    """A stored row with its score; ``cosine`` is that before a minus."""

    score: float
    path: str
    photo_id: int
    cosine: float
    raw: bytes
    fingerprint: bytes


class Rescored(NamedTuple):
    """What is proposed for a query, and the hits of it, best first."""

    proposed: list[Proposal]
    hits: list[Hit]


class Reranker:
    """Puts what is proposed in order by the stored vectors, of ``dim`` numbers each."""

    def __init__(self, stored: StoredRows, dim: int) -> None:
        self._stored, self._dim = stored, dim

    def find(
        self, queries: Sequence[QueryMeaning], options: SearchOptions, sources: Candidates
    ) -> list[list[SearchResult]]:
        """Return the results for each query; raises QueryError where ``sources`` cannot propose
        enough.
        """
        results: list[list[SearchResult]] = []
        for start in range(0, len(queries), TOGETHER):
            batch = queries[start : start + TOGETHER]
            firsts = self._firsts(batch, options, sources)
            results += [
                self._results(query, options, sources, first)
                for query, first in zip(batch, firsts, strict=True)
            ]
        return results

    def _firsts(
        self, queries: Sequence[QueryMeaning], options: SearchOptions, sources: Candidates
    ) -> Sequence[Rescored | None]:
        """Return what is proposed first for each query, None where they are asked one by one; an
        index is asked for many at once, which takes a fraction of the time.
        """
        if not sources.supports_batch:
            return [None] * len(queries)
        proposals: list[list[Proposal]] = [[]] * len(queries)
        counts = [_first_wanted(_needed(options), query.photo_ids, sources) for query in queries]
        for count in sorted(set(counts)):
            indices = [index for index, number in enumerate(counts) if number == count]
            vectors = np.stack([queries[index].vector for index in indices])
            proposed = sources.candidates_for(vectors, count)
            for index, of_query in zip(indices, proposed, strict=True):
                proposals[index] = of_query
        return self._rescored(proposals, queries)

    def _results(
        self,
        query: QueryMeaning,
        options: SearchOptions,
        sources: Candidates,
        first: Rescored | None,
    ) -> list[SearchResult]:
        pool = needed = _needed(options)
        least = max(-math.inf if options.min_score is None else options.min_score, query.least)
        while True:
            hits = self._nearest(query, pool, sources=sources, least=least, first=first)
            rows = (
                self._rows_of(hits)
                if options.collapse or options.diverse
                else np.empty((0, self._dim), dtype=np.float32)
            )
            positions = (
                collapse(rows, [hit.fingerprint for hit in hits], options.collapse)
                if options.collapse
                else list(range(len(hits)))
            )
            if len(positions) >= needed or len(hits) < pool:  # enough, or there are no more
                break
            pool, first = 4 * pool, None
        positions = positions[: int(min(needed, len(positions)))]
        if options.diverse:
            scores = np.array([hits[position].score for position in positions])
            order = marginal_order(rows[positions], scores, options.diverse)
            positions = [positions[index] for index in order]
        end = int(min(options.end, len(positions)))
        shown = [hits[position] for position in positions[options.offset : end]]
        return [result_of(hit.path, hit.score, hit.photo_id) for hit in shown]

    def _nearest(
        self,
        query: QueryMeaning,
        count: float,
        *,
        sources: Candidates,
        least: float,
        first: Rescored | None,
    ) -> list[Hit]:
        """Return the ``count`` best hits of at least a score, best first, equal scores in order of
        path.
        """
        limit = _first_wanted(count, query.photo_ids, sources)
        while True:
            if first is None:
                (first,) = self._rescored(
                    sources.candidates_for(query.vector[None], limit), [query]
                )
            (proposed, rescored), first = first, None
            hits = _best_moments(rescored)
            above = hits
            if least > -math.inf:
                above = [hit for hit in hits if reaches(hit.score, least)]
            if _is_settled(
                _reach(proposed, rescored), hits, count, least=least, enough=len(above) <= limit
            ):
                return above[: int(min(count, len(above)))]
            if limit >= sources.limit:
                raise QueryError(
                    f"these results take more than the {sources.limit:,} candidates that can be "
                    "asked for here: ask for fewer, for a higher "
                    "min_score, or for less with where"
                )
            limit = int(min(4 * limit, sources.limit))

    def _rows_of(self, hits: Sequence[Hit]) -> Vectors:
        return (
            unit_rows(self._stored.halves([hit.raw for hit in hits]))
            if hits
            else np.empty((0, self._dim), dtype=np.float32)
        )

    def _rescored(
        self, proposals: Sequence[list[Proposal]], queries: Sequence[QueryMeaning]
    ) -> list[Rescored]:
        """Return with what is proposed for each query the hits of the candidates that are (still)
        in the collection, exactly scored, best first.
        """
        rows_of = list(map(self._rows_left, proposals, queries))
        rows = [row for of_query in rows_of for row in of_query]
        if not rows:
            return [Rescored(proposed, []) for proposed in proposals]
        halves = self._stored.halves([row[2] for row in rows])
        counts = [len(of_query) for of_query in rows_of]
        vectors = np.repeat([query.vector for query in queries], counts, axis=0)
        cosines, rescored = cosine_scores(halves, vectors), []
        ends = np.cumsum(counts)
        for proposed, query, end, of_query in zip(proposals, queries, ends, rows_of, strict=True):
            part = slice(end - len(of_query), end)
            scores = cosines[part] - sum(
                each.weight * np.maximum(0, cosine_scores(halves[part], each.vector) - UNLIKE)
                for each in query.negatives
            )
            hits = [
                Hit(score, path, photo_id, cosine, raw, fingerprint)
                for (photo_id, path, raw, fingerprint), score, cosine in zip(
                    of_query, scores.tolist(), cosines[part].tolist(), strict=True
                )
            ]
            hits.sort(key=lambda hit: (-hit.score, hit.path))
            rescored.append(Rescored(proposed, hits))
        return rescored

    def _rows_left(self, proposed: Sequence[Proposal], query: QueryMeaning) -> list[StoredRow]:
        """Return the stored rows of the candidates but those of the photos that a query names."""
        left_out = query.photo_ids
        ids = [photo_id for each in proposed for photo_id in each.ids.tolist()]
        if not left_out:
            return self._stored.rows(ids)
        stored = self._stored.rows([*{*ids, *left_out}])
        files = {split_moment(row[1])[0] for row in stored if row[0] in left_out}
        return [row for row in stored if split_moment(row[1])[0] not in files]


def _best_moments(hits: list[Hit]) -> list[Hit]:
    """Return the hits, best first, of each file the first."""
    if not any("#t=" in hit.path for hit in hits):
        return hits
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(split_moment(hit.path)[0], hit)
    return [*best.values()]


def result_of(path: str, score: float, photo_id: int) -> SearchResult:
    """Return the result of a stored row: the path of its file and, of a video, the time."""
    file, time = split_moment(path)
    if time is None and is_video(file):
        time = 0.0
    return SearchResult(file, score, photo_id, time=time)


def reaches(score: float, least: float) -> bool:
    """Return whether a score is as high, in the numbers that scores are computed in."""
    return bool(np.float32(score) >= np.float32(least))


def _needed(options: SearchOptions) -> float:
    """Return how many of the most alike photos decide the results: whole windows where they are put
    in another order.
    """
    if options.diverse and options.end < math.inf:
        return math.ceil(options.end / WINDOW) * WINDOW
    return options.end


def _first_wanted(count: float, left_out: frozenset[int], sources: Candidates) -> int:
    return int(
        min((FIRST if count == math.inf else int(count)) + len(left_out) + SPARE, sources.limit)
    )


def _reach(proposed: Sequence[Proposal], hits: Sequence[Hit]) -> float:
    """Return the highest cosine that a row which no source has proposed is expected to have, and so
    its highest score, for a minus only lowers it; -inf where all were proposed.

    That is the lowest of what a source has proposed: of each by itself, for one may have given all
    its far rows and another few near ones.
    """
    cosines = {hit.photo_id: hit.cosine for hit in hits}
    lowest = (
        min((cosines[each] for each in source.ids.tolist() if each in cosines), default=np.inf)
        for source in proposed
        if source.more
    )
    return max(lowest, default=-np.inf)


def _is_settled(
    reach: float, hits: Sequence[Hit], count: float, *, least: float, enough: bool
) -> bool:
    """Return whether no row that was not proposed can belong among the ``count`` best hits of at
    least a score.

    ``enough`` says that the index was asked for as many results as there are, or for more: its own
    order is rough.
    """
    if reach == -np.inf or (reach < least - TIE and enough):
        return True
    return len(hits) >= count and reach < hits[int(count) - 1].score - TIE


# -- Results with their relevance ------------------------------------------------------------------

Find = Callable[[Sequence[QueryMeaning], SearchOptions], list[list[SearchResult]]]


class Relevant(NamedTuple):
    """The results of a query and, where no photo fits its words, the first photos nearest to them;
    None where these were not looked for.
    """

    hits: list[SearchResult]
    nearest: list[SearchResult] | None = None


def find_relevant(
    queries: Sequence[QueryMeaning],
    options: SearchOptions,
    known: tuple[Lines, Scale],
    find: Find,
    encode: Callable[[Sequence[str]], Sequence[Vectors] | Vectors],
) -> list[Relevant]:
    """Return what ``find`` finds for each query; for words the results have their relevance, and
    those below ``min_relevance`` are left out.

    Where nothing is left, one text is read in other words too, and the better of both counts.
    """
    lines, scale = known
    evens = [scale.even(lines.likeness(query.vector)) if query.texts else None for query in queries]
    # few in order of score are found whatever they show, and cut: where none is left, the nearest
    # are known
    first = replace(options, top_k=max(options.top_k or FIRST, NEAREST))
    in_order = SearchOptions(
        first.top_k,
        where=first.where,
        min_relevance=first.min_relevance,
        literal=first.literal,
    )
    few = options.top_k is not None and options.top_k <= FIRST
    ranked = find(queries, first) if few and first == in_order else None

    def relevant(index: int) -> QueryMeaning:
        even = evens[index]
        if even is None:
            return queries[index]
        return replace(queries[index], least=scale.least_score(options.min_relevance, even))

    def fitting(indices: Sequence[int]) -> list[list[SearchResult]]:
        limited = [relevant(index) for index in indices]
        if ranked is None:
            return find(limited, options) if limited else []
        return [
            [hit for hit in ranked[index] if hit.quotes or reaches(hit.score, query.least)][
                : options.top_k
            ]
            for index, query in zip(indices, limited, strict=True)
        ]

    results = dict(enumerate(fitting(range(len(queries)))))
    empty = [
        index
        for index, query in enumerate(queries)
        if len(query.texts) == 1 and not results[index] and options.min_relevance
    ]
    if empty:
        best = replace(first, top_k=1, offset=0, min_score=None, diverse=0, collapse=None)
        unfit = [queries[index] for index in empty]
        plain = [ranked[index] for index in empty] if ranked else find(unfit, best)
        other = find(_in_other_words(unfit, encode), best)
        nearer = []
        for index, hits, others in zip(empty, plain, other, strict=True):
            gain = others[0].score - hits[0].score if hits and others else 0.0
            if gain > 0:
                evens[index] = (evens[index] or 0.0) - gain / scale.spread
                nearer.append(index)
        results |= dict(zip(nearer, fitting(nearer), strict=True))

    def with_relevance(index: int, hits: Sequence[SearchResult]) -> list[SearchResult]:
        even = evens[index]
        if even is None:
            return [*hits]
        return [replace(hit, relevance=scale.relevance(hit.score, even)) for hit in hits]

    return [
        Relevant(
            with_relevance(index, hits),
            with_relevance(index, ranked[index][:NEAREST]) if ranked and not hits else None,
        )
        for index, hits in results.items()
    ]


def _in_other_words(
    queries: Sequence[QueryMeaning], encode: Callable[[Sequence[str]], Sequence[Vectors] | Vectors]
) -> list[QueryMeaning]:
    texts = [IN_OTHER_WORDS.format(query.texts[0]) for query in queries]
    return [
        replace(query, vector=vector, negatives=())
        for query, vector in zip(queries, encode(texts), strict=True)
    ]
