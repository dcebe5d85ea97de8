"""Search in several collections of one encoder at once."""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Unpack

from vitsearch.collection import Collection
from vitsearch.collection.query import Query
from vitsearch.collection.results import SearchResults, results_of
from vitsearch.collection.understanding import Understood, understand
from vitsearch.errors import QueryError
from vitsearch.filters import as_filter
from vitsearch.filters.words import Vocabulary
from vitsearch.options import TOP_K, SearchKeywords, SearchOptions
from vitsearch.types import SearchResult


def search_all(
    collections: Iterable[str | os.PathLike[str] | Collection],
    query: Query,
    top_k: int | None = TOP_K,
    **keywords: Unpack[SearchKeywords],
) -> SearchResults:
    """Return the ``top_k`` photos of several collections most like the query, best first.

    Collections are folders, collections in Milvus (``milvus://HOST:PORT/NAME``), or open ones. A
    result has the absolute ``file`` and the ``collection`` that it is of. Query and keywords are
    those of `Collection.search`; ``diverse`` and ``collapse`` look at each collection by itself.
    Words that one collection knows (a place, a label) filter them all. Raises QueryError unless
    all have the same encoder, and the errors of `Collection.open` and `Collection.search`.
    """
    if isinstance(collections, str | os.PathLike | Collection):
        raise QueryError("collections are a list, not one collection: [collection, ...]")
    with ExitStack() as stack:
        opened = [
            each if isinstance(each, Collection) else stack.enter_context(Collection.open(each))
            for each in collections
        ]
        return search_opened(opened, query, top_k, **keywords)


def search_opened(
    collections: Sequence[Collection],
    query: Query | Understood,
    top_k: int | None = TOP_K,
    *,
    by_date: bool = True,
    **keywords: Unpack[SearchKeywords],
) -> SearchResults:
    """Return what `search_all` returns, of open collections; the rest as of
    `search_by_position`.
    """
    hits = search_by_position(collections, query, top_k, by_date=by_date, **keywords)
    return SearchResults(hit for _, hit in hits)


def search_by_position(
    collections: Sequence[Collection],
    query: Query | Understood,
    top_k: int | None = TOP_K,
    *,
    by_date: bool = True,
    **keywords: Unpack[SearchKeywords],
) -> list[tuple[int, SearchResult]]:
    """Return the results of `search_all`, each after the position of its collection; two open
    collections may have one name.

    The query may be understood already (`understand_all`). Photos that words only filter come
    without ``by_date`` in order of path.
    """
    if not collections:
        raise QueryError("name at least one collection to search in")
    check_encoders(collections)
    where = as_filter(keywords.get("where"))
    options = SearchOptions(top_k, keywords.get("offset", 0), where, keywords.get("min_score"))
    understood = query if isinstance(query, Understood) else None
    if isinstance(query, str) and not keywords.get("literal"):
        understood = understand_all([each.vocabulary() for each in collections], query)
    terms: Query = [] if isinstance(query, Understood) else query
    if understood is not None:
        where, terms = understood.narrowed(where), list(understood.terms)
    up_to = None if top_k is None else options.offset + top_k
    narrowed: SearchKeywords = {**keywords, "where": where, "offset": 0, "literal": True}
    only_filters = understood is not None and not understood.terms
    hits: list[tuple[tuple[object, ...], int, SearchResult]] = []
    for position, collection in enumerate(collections):
        if only_filters:
            listing = SearchOptions(up_to, where=where, min_score=-1)
            results: Sequence[SearchResult] = collection.newest(listing, by_date=by_date)
        else:
            results = collection.search(terms, up_to, **narrowed)
        for rank, hit in enumerate(_of_collection(results, collection)):
            if only_filters:
                order = _age(collection, hit) if by_date else ()
            else:
                order = (not hit.quotes, -hit.score)
            hits.append(((*order, hit.file, rank), position, hit))
    hits.sort(key=lambda each: each[0])
    return [(position, hit) for _, position, hit in hits[options.offset : up_to]]


def check_encoders(collections: Sequence[Collection]) -> None:
    """Raise QueryError unless one encoder made the vectors of all, which they then share."""
    first = collections[0]
    for other in collections[1:]:
        if other.config.encoder_fingerprint != first.config.encoder_fingerprint:
            raise QueryError(
                f"{first.backend.name} has vectors of {first.config.encoder}, "
                f"{other.backend.name} of {other.config.encoder}: scores of two encoders do not "
                "compare, so search them one by one"
            )
    for other in collections[1:]:
        other.share_encoder(first)


def understand_all(vocabularies: Sequence[Vocabulary], query: str) -> Understood:
    """Return what a query string says besides the picture by the words of all collections."""
    return understand(query, _merged(vocabularies))


def _merged(vocabularies: Sequence[Vocabulary]) -> Vocabulary:
    if len(vocabularies) == 1:
        return vocabularies[0]
    values: dict[str, list[str]] = {}
    for vocabulary in vocabularies:
        for name, texts in vocabulary.values.items():
            values[name] = list(dict.fromkeys([*values.get(name, ()), *texts]))
    return Vocabulary(
        columns=frozenset.intersection(*(each.columns for each in vocabularies)),
        values=values,
        folders=list(dict.fromkeys(name for each in vocabularies for name in each.folders)),
        years=frozenset().union(*(each.years for each in vocabularies)),
        has_files=lambda where: any(each.has_files(where) for each in vocabularies),
    )


def _of_collection(results: Sequence[SearchResult], collection: Collection) -> SearchResults:
    name = collection.backend.name
    return results_of(collection.backend, [replace(each, collection=name) for each in results])


def _age(collection: Collection, result: SearchResult) -> tuple[object, ...]:
    """Return what sorts the newest photo first."""
    photo = collection.store.photo_at(result.path)
    moment = str(photo.info["taken_at"] or "") if photo else ""
    return (tuple(-ord(character) for character in moment) or (0,),)
