"""The searches of clients: what they may search for (words, photos by their ids, pictures or
vectors; never a path), and their answers, many at once on one state of the collection.

Requests are computed in batches: those that arrive during one batch make up the next, and an idle
server starts at once.
"""

import asyncio
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from vitsearch.arrays import Vectors
from vitsearch.collection import Collection
from vitsearch.collection.query import Term
from vitsearch.collection.search import QueryMeaning
from vitsearch.collection.understanding import Understood, understand
from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.language import unread_notes
from vitsearch.errors import CollectionError, IndexDamaged, QueryError, ServiceBusy, VitsearchError
from vitsearch.filters import as_filter
from vitsearch.filters.tree import Filter
from vitsearch.filters.words import Vocabulary
from vitsearch.options import SearchOptions, check_names, options_of
from vitsearch.types import SearchResult
from vitsearch.web.source import BUSY, CollectionSource, Version

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


@dataclass(frozen=True, slots=True)
class Words:
    """A query string, to be read by the words that the collection knows, unless ``literal``;
    without ``private`` only by the columns that everybody may see.
    """

    text: str
    private: bool
    literal: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Terms, and what is wanted of their results; ``words`` become terms and filters before them
    when it is answered, and are then ``understood``.
    """

    terms: tuple[Term, ...]
    options: SearchOptions
    words: Words | None = None
    understood: Understood | None = None

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


def read_words(words: Words, vocabulary: Callable[..., Vocabulary]) -> Understood:
    """Return what words say besides the picture; ``vocabulary`` is called with ``private``. Raises
    QueryError.
    """
    known = None if words.literal else vocabulary(private=words.private)
    understood = understand_query(words.text, known)
    return understood if words.private else understood.without_text


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
    return SearchOptions(k, offset, as_filter(text or None), **keywords)


# -- Batches ---------------------------------------------------------------------------------------


Job = TypeVar("Job")
Result = TypeVar("Result")
AnyFuture = Future[Result] | asyncio.Future[Result]

MAX_BATCH = 32  # no model on a CPU gains from more


class Batcher(Generic[Job, Result]):
    """Threads that compute jobs: at once while one is idle, otherwise together with all that have
    arrived meanwhile, up to ``max_batch``.

    ``compute`` returns a result or an exception for each job, in their order; what it raises is
    raised for all of them. ``on_batch`` is called with the size of each batch, and like ``compute``
    from each of the ``workers`` threads.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Job]], Sequence[Result | Exception]],
        *,
        max_batch: int = MAX_BATCH,
        workers: int = 1,
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._compute, self._max_batch, self._on_batch = compute, max_batch, on_batch
        self._waiting: queue.SimpleQueue[tuple[Job, AnyFuture[Result]] | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._threads = [
            threading.Thread(
                target=copy_context().run,  # with what the command has set, as texts_in
                args=(self._work,),
                name="vitsearch-batches",
                daemon=True,
            )
            for _ in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> "Future[Result]":
        """Return the future result of a job; raises ServiceBusy after `close`."""
        future: Future[Result] = Future()
        self._put(job, future)
        return future

    async def result(self, job: Job) -> Result:
        """Return the result of a job, or raise its error; raises ServiceBusy after `close`.

        A loop is woken once for all jobs of a batch: each time, its thread and the one that has
        computed them would wait for each other.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._put(job, future)
        return await future

    def _put(self, job: Job, future: "AnyFuture[Result]") -> None:
        with self._closing:
            if self._closed:
                raise ServiceBusy("the server is stopping: try again in a moment")
            self._waiting.put((job, future))

    def close(self) -> None:
        """Compute the waiting jobs, then end the threads; a second call does nothing."""
        with self._closing:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Compute the next batch, which may hold large pictures and is let go before the thread
        waits again; return whether more may come.
        """
        batch, more = self._next_batch()
        if batch:
            self._on_batch(len(batch))
            self._run(batch)
        return more

    def _next_batch(self) -> tuple[list[tuple[Job, "AnyFuture[Result]"]], bool]:
        """Return the waiting jobs, at least one unless it is the end, and whether more may come."""
        batch: list[tuple[Job, AnyFuture[Result]]] = []
        item = self._waiting.get()
        while item is not None:
            if _is_wanted(item[1]):
                batch.append(item)
            if len(batch) == self._max_batch:
                return batch, True
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _run(self, batch: Sequence[tuple[Job, "AnyFuture[Result]"]]) -> None:
        try:
            results: Sequence[Result | Exception] = self._compute([job for job, _ in batch])
        except Exception as error:
            results = [error] * len(batch)
        of_loops: defaultdict[asyncio.AbstractEventLoop, list[Any]] = defaultdict(list)
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(future, Future):
                _settle(future, result)
            else:
                of_loops[future.get_loop()].append((future, result))
        for loop, settled in of_loops.items():
            with suppress(RuntimeError):  # it was closed, and nobody waits
                loop.call_soon_threadsafe(_settle_all, settled)


def _is_wanted(future: "AnyFuture[Any]") -> bool:
    if isinstance(future, Future):
        return future.set_running_or_notify_cancel()
    return not future.cancelled()


def _settle(future: "AnyFuture[Result]", result: Result | Exception) -> None:
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _settle_all(settled: "Sequence[tuple[AnyFuture[Any], Any]]") -> None:
    for future, result in settled:
        if not future.cancelled():  # its client has gone meanwhile
            _settle(future, result)


# -- Answers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The results of a search, best first, and what the client should know about its words;
    ``nearest`` where no photo fits them. None are looked for where the words only filter.
    """

    results: list[SearchResult]
    notes: list[str]
    nearest: Sequence[SearchResult] = ()
    understood: Understood | None = None


Answer = Found | Exception


UNREADABLE = (CollectionError, IndexDamaged, FileNotFoundError)


@dataclass(slots=True, eq=False)
class _Opened:
    """A collection in one state of its folder, and how many threads search it."""

    version: Version
    collection: Collection
    users: int = 0


class Engine:
    """The index of a collection, kept open from search to search.

    Several threads may search at a time, and encode where the model allows that.
    """

    def __init__(self, source: CollectionSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._opened: _Opened | None = None

    def answer(self, searches: Sequence[Search]) -> list[Answer]:
        """Return the results of each search, best first, or its error; texts are encoded together.

        A collection that cannot be read is opened again once; raises ServiceBusy when that does not
        help.
        """
        with suppress(*UNREADABLE), self.using() as collection:
            return _answers(searches, collection, self._source)
        try:
            with self.using() as collection:
                return _answers(searches, collection, self._source)
        except UNREADABLE as error:
            raise ServiceBusy(BUSY) from error

    def close(self) -> None:
        """Let the database and the index go, once nobody uses them; the next search opens them
        again.
        """
        with self._lock:
            self._close_opened()

    def _close_opened(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and not opened.users:
            opened.collection.close()

    @contextmanager
    def using(self) -> Iterator[Collection]:
        """Have the collection as it is now for a block, opened anew after one that failed."""
        with self._lock:
            now = self._source.version()
            if self._opened is None or self._opened.version != now:
                self._close_opened()
                self._opened = _Opened(now, self._source.open())
            opened = self._opened
            opened.users += 1
        try:
            yield opened.collection
        except UNREADABLE:
            with self._lock:
                if opened is self._opened:
                    self._close_opened()
            raise
        finally:
            with self._lock:
                opened.users -= 1
                if opened is not self._opened and not opened.users:
                    opened.collection.close()


def _answers(
    searches: Sequence[Search], collection: Collection, source: CollectionSource
) -> list[Answer]:
    answers: dict[int, Answer] = {}
    read: dict[int, Search] = {}
    for index, search in enumerate(searches):
        try:
            search = _read(search, collection)
        except VitsearchError as error:
            answers[index] = error
            continue
        if search.terms:
            read[index] = search
        else:
            answers[index] = Found([], [], understood=search.understood)
    encoder, reader = collection.encoder, collection.queries
    groups: dict[SearchOptions, dict[int, QueryMeaning]] = {}
    with source.computing(encoder):  # what nothing fits is encoded in other words too
        encoded = reader.encode(term for search in read.values() for term in search.terms)
        for index, search in read.items():
            try:
                meaning = reader.read(search.terms, encoded)
            except VitsearchError as error:
                answers[index] = error
            else:
                groups.setdefault(search.options, {})[index] = meaning
        for options, queries in groups.items():
            relevant = collection.find_or_nearest(list(queries.values()), options)
            for index, each in zip(queries, relevant, strict=True):
                search = read[index]
                notes = _notes(search, encoder)
                answers[index] = Found(each.hits, notes, each.nearest or (), search.understood)
    return [answers[index] for index in range(len(searches))]


def _read(search: Search, collection: Collection) -> Search:
    """Return a search whose words are terms and filters, without terms where they only filter;
    raises QueryError.
    """
    if search.words is None:
        return search
    understood = read_words(search.words, collection.vocabulary)
    terms = (*understood.terms, *search.terms)
    return replace(
        search,
        terms=terms if understood.phrases and not terms else terms_of(terms),
        options=replace(search.options, where=understood.narrowed(search.options.where)),
        understood=understood,
    )


def _notes(search: Search, encoder: ImageEncoder) -> list[str]:
    return list(unread_notes(search.texts, encoder).values()) if search.texts else []
