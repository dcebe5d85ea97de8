"""The results of the search in an address: a page of them, their order, and for photos in order of
date the months in which they were taken, and where each begins.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from vitsearch.arrays import Ids
from vitsearch.collection.backend import is_large
from vitsearch.collection.duplicates import first_indices
from vitsearch.collection.query import Term
from vitsearch.collection.understanding import Understood
from vitsearch.errors import NotShown, QueryError
from vitsearch.filters import EVERY
from vitsearch.filters.tree import Filter
from vitsearch.milvus.store import MilvusStore
from vitsearch.types import Photo, SearchResult
from vitsearch.web.pages import PER_PAGE, PageQuery, Tile, counted
from vitsearch.web.search import MAX_OFFSET

if TYPE_CHECKING:
    from vitsearch.web.pages.context import PageContext

TAKEN, ADDED, NAME = "taken", "added", "name"
ORDERS = {TAKEN: "newest", ADDED: "id", NAME: "path"}  # of `PhotoReader.ids_where`
PARTS = 16  # pages of a large collection whose ids are remembered
TITLES = {TAKEN: "Date taken", ADDED: "Date added", NAME: "Name"}
WORDS = {TAKEN: "newest first", ADDED: "last added first", NAME: "by name"}


@dataclass(frozen=True, slots=True)
class Month:
    """A month as `PhotoReader.months_where` names it, the index of its first photo in a listing,
    and how many there are.
    """

    name: str
    start: int
    count: int

    @property
    def short(self) -> str:
        """The month in its year: Jul."""
        title = self.title
        return title[:3] if "-" in self.name else title if not self.name else "Year"

    @property
    def title(self) -> str:
        """The month as people write it: July 2019."""
        return month_title(self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """All photos that a filter leaves, in an order, of a video the first moment: their number, the
    ids from one index to another, and their months where the order is that of dates. Of a large
    collection (``is_large``) the ids are read when they are asked for.
    """

    total: int
    part: Callable[[int, int], list[int]]
    months: tuple[Month, ...] = ()
    is_large: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Photos of a month on one page; ``count`` are those of the whole month."""

    name: str
    title: str
    count: int
    tiles: list[Tile]


def month_title(name: str) -> str:
    """Return a month of ISO 8601 as people write it."""
    if not name:
        return "Undated"
    year, _, month = name.partition("-")
    if not month.isdigit() or not 1 <= int(month) <= 12:
        return f"{year}, without a month"
    return f"{date(2000, int(month), 1):%B} {year}"


def order_of(here: "PageContext", query: PageQuery) -> str:
    """Return the order of a listing without words; raises NotShown for dates that are private."""
    if query.sort == TAKEN and not here.shows_exif:
        raise NotShown("this server does not show you when photos were taken: sort by name")
    return query.sort or (TAKEN if here.shows_exif else ADDED)


def listing_of(here: "PageContext", where: Filter | None, order: str) -> Listing:
    """Return the photos that a filter leaves in an order, as of now."""

    def compute() -> Listing:
        with here.service.source.facts() as store, store.reading():
            if order != NAME and is_large(store):
                return _large_listing(here, store, store.first_moments(where), order)
            ids = store.ids_where(where or EVERY, order=ORDERS[order])
            moments = store.moments()
            counts = store.months_where(where or EVERY) if order == TAKEN else []
        ids = ids[::-1] if order == ADDED else ids
        first = np.arange(len(ids))
        if moments:
            first = np.array(first_indices([moments.get(each, each) for each in ids.tolist()]), int)
        ids = ids[first]
        return Listing(len(ids), lambda *span: ids[slice(*span)].tolist(), _months(counts, first))

    return here.memory.listings.get((where, order, here.state()), compute)


def _large_listing(
    here: "PageContext", store: MilvusStore, where: Filter | None, order: str
) -> Listing:
    """Return the photos of a large collection in Milvus, of which a page alone is read."""
    counts = store.months_where(where or EVERY) if order == TAKEN else []
    ends = [*accumulate((count for _, count in counts), initial=0)]
    months = tuple(
        Month(name, start, count) for (name, count), start in zip(counts, ends, strict=False)
    )

    @lru_cache(PARTS)
    def part(start: int, stop: int) -> list[int]:
        with here.service.source.facts() as store:
            assert isinstance(store, MilvusStore)
            if order == TAKEN:
                return store.newest(where, counts, start, stop)
            return store.last_ids(where, stop)[start:]

    total = ends[-1] if counts else store.count_where(where or EVERY)
    return Listing(total, part, months, is_large=True)


def _months(counts: Iterable[tuple[str, int]], first: Ids) -> tuple[Month, ...]:
    """Return the months of the rows with these indices, from the numbers of all rows."""
    counts = list(counts)
    ends = np.searchsorted(first, np.cumsum([0, *(count for _, count in counts)])).tolist()
    spans = zip(counts, ends, ends[1:], strict=False)
    return tuple(Month(name, start, end - start) for (name, _), start, end in spans if end > start)


def months_of(photos: Sequence[Photo]) -> tuple[Month, ...]:
    """Return the months of photos in the order of their dates."""
    names = [month_of(photo) for photo in photos]
    counts = [(name, len(list(members))) for name, members in groupby(names)]
    return _months(counts, np.arange(len(photos)))


def month_of(photo: Photo) -> str:
    """Return the month in which a photo was taken, as `PhotoReader.months_where` names it."""
    return str(photo.info["taken_at"] or "")[:7]


def page_of(listing: Listing, number: int) -> list[int]:
    """Return the ids of a page of a listing; raises QueryError for one far beyond any."""
    start = (number - 1) * PER_PAGE
    if start > MAX_OFFSET:
        raise QueryError(f"the offset is from 0 to {MAX_OFFSET}, not {start}")
    return listing.part(start, start + PER_PAGE)


def sections(
    here: "PageContext", photos: Iterable[Photo], months: Iterable[Month]
) -> list[Section]:
    """Return the tiles of photos in the order of their dates under their months."""
    counts = {month.name: month.count for month in months}
    grouped = groupby(photos, key=month_of)
    return [
        Section(name, month_title(name), counts.get(name, 0), [here.tile(each) for each in members])
        for name, members in grouped
    ]


Years = list[tuple[str, list[tuple[str, Month]]]]


def scrubber(query: PageQuery, months: Iterable[Month]) -> Years:
    """Return the years, "" last, with the addresses of their months: the pages where they begin."""
    links = [
        (f"{query.address(page=month.start // PER_PAGE + 1)}#m{month.name}", month)
        for month in months
    ]
    years = groupby(links, key=lambda link: link[1].name[:4])
    return [(year, list(members)) for year, members in years]


def orders(
    here: "PageContext", query: PageQuery, *, is_ranked: bool
) -> list[tuple[str, str, bool]]:
    """Return the orders that a page offers: title, address, and whether it is the present one."""
    names = {"": "Best match", TAKEN: TITLES[TAKEN]} if is_ranked else dict(TITLES)
    if not here.shows_exif:
        del names[TAKEN]
    default = "" if is_ranked else TAKEN if here.shows_exif else ADDED
    present = query.sort if query.sort in names else default
    return [
        (
            title,
            replace(query, sort="" if name == default else name, page=1).address(),
            name == present,
        )
        for name, title in names.items()
        if len(names) > 1
    ]


# -- Results ---------------------------------------------------------------------------------------


MAX_BY_DATE = 500  # photos that fit best, where they are put in order of date


@dataclass(frozen=True, slots=True)
class Results:
    """A page of results, under their months where they are in order of date, whether there are
    more, and a line about them; ``is_cut`` where photos that hardly fit are left out, and without
    ``fits`` they are the nearest to words that none fits.
    """

    tiles: list[Tile]
    more: bool
    summary: str
    sections: list[Section] = field(default_factory=list)
    months: tuple[Month, ...] = ()
    is_ranked: bool = True
    is_cut: bool = False
    fits: bool = True


def results_of(here: "PageContext", query: PageQuery, understood: Understood) -> Results:
    where = understood.narrowed(query.filters.tree())
    terms = terms_of(here, query, understood)
    if not query.is_query or (where and not terms):
        return _listed(here, query, where)
    by_date = query.sort == TAKEN and here.shows_exif
    offset, k = (query.page - 1) * PER_PAGE, PER_PAGE + 1
    limits: dict[str, Any] = {"min_relevance": 0} if query.nearest else {}
    if by_date:
        future = here.service.ask(terms, k=MAX_BY_DATE, where=where, **limits)
    else:
        future = here.service.ask(terms, k=k, offset=offset, where=where, **limits)
    listing = future.result()
    of = counted(here.service.count(), "photo", "photos")
    if where:
        with here.service.source.facts() as store:
            left = store.count_where(where)
        of = f"{counted(left, 'photo', 'photos')} that the filters leave"
    if listing.nearest:
        tiles = here.tiles(listing.nearest)
        summary = f"Nothing here fits. Of {of}, the nearest"
        return Results(tiles, False, summary, is_cut=True, fits=False)
    if by_date:
        return _dated(here, query, listing.results)
    if not listing.results and query.page == 1:
        return Results([], False, "No photo fits")
    hits, more = listing.results[:PER_PAGE], len(listing.results) > PER_PAGE
    is_cut = not more and not query.nearest and any(hit.relevance is not None for hit in hits)
    return Results(here.tiles(hits), more, f"Best match first, of {of}", is_cut=is_cut)


def _listed(here: "PageContext", query: PageQuery, where: Filter | None) -> Results:
    """Return a page of all photos that a filter leaves."""
    order = order_of(here, query)
    listing = listing_of(here, where, order)
    photos, total = here.service.photos_of(page_of(listing, query.page)), listing.total
    fit = (" fits" if total == 1 else " fit") if where else ""
    summary = f"{counted(total, 'photo', 'photos')}{fit}, {WORDS[order]}"
    more = total > query.page * PER_PAGE
    if order != TAKEN:
        tiles = [here.tile(photo) for photo in photos]
        return Results(tiles, more, summary, is_ranked=False)
    dated = sections(here, photos, listing.months)
    months = listing.months
    return Results([], more, summary, sections=dated, months=months, is_ranked=False)


def _dated(here: "PageContext", query: PageQuery, hits: list[SearchResult]) -> Results:
    """Return a page of results in order of date."""
    photos = _by_date(here, hits)
    months = months_of(photos)
    start = (query.page - 1) * PER_PAGE
    dated = sections(here, photos[start : start + PER_PAGE], months)
    best = "The best match" if len(photos) == 1 else f"The best {len(photos):,} matches"
    summary = f"{best}, newest first"
    more = len(photos) > start + PER_PAGE
    return Results([], more, summary, sections=dated, months=months)


def _by_date(here: "PageContext", hits: list[SearchResult]) -> list[Photo]:
    photos = here.service.photos_of([hit.photo_id for hit in hits])
    photos.sort(key=lambda photo: str(photo.info["taken_at"] or ""), reverse=True)
    return photos


def sequence(here: "PageContext", query: PageQuery) -> list[int]:
    """Return the ids of the photos of a search in their order, of the results of words and photos
    and of a large collection in Milvus the first `MAX_BY_DATE`; raises what `results_of` does. The
    last ones of ranked photos are remembered, since each step from photo to photo asks again; a
    listing, which may have very many photos, is remembered as such.
    """
    understood = here.understand(query)
    where, terms = understood.narrowed(query.filters.tree()), terms_of(here, query, understood)
    if not query.is_query or (where and not terms):
        order = order_of(here, query)
        listing = listing_of(here, where, order)
        return listing.part(0, MAX_BY_DATE if listing.is_large else listing.total)

    def ranked() -> list[int]:
        limits: dict[str, Any] = {"min_relevance": 0} if query.nearest else {}
        answer = here.service.ask(terms, k=MAX_BY_DATE, where=where, **limits).result()
        hits = list(answer.results or answer.nearest)
        if query.sort == TAKEN and here.shows_exif:
            return [photo.photo_id for photo in _by_date(here, hits)]
        return [hit.photo_id for hit in hits]

    key = (replace(query, page=1), where, here.shows_exif, here.state())
    return here.memory.sequences.get(key, ranked)


def terms_of(
    here: "PageContext", query: PageQuery, understood: Understood | None = None
) -> list[Term]:
    """Return the terms of a search: its words, the picked photos, and the uploaded ones; raises
    QueryError.
    """
    terms = list((understood or here.understand(query)).terms)
    terms += [Term(pick.photo_id, pick.weight) for pick in query.picks]
    for upload in query.uploads:
        terms.append(Term(here.memory.uploads.get(upload.key).vector, upload.weight))
    return terms
