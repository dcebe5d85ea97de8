"""The results of the search in an address: a page of them, and their order."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vitsearch.collection.query import Term
from vitsearch.collection.understanding import Understood
from vitsearch.filters.tree import Filter
from vitsearch.types import Photo, SearchResult
from vitsearch.web.pages import timeline
from vitsearch.web.pages.tiles import Tile, counted
from vitsearch.web.pages.url import PER_PAGE, PageQuery

if TYPE_CHECKING:
    from vitsearch.web.pages.context import PageContext

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
    sections: list[timeline.Section] = field(default_factory=list)
    months: tuple[timeline.Month, ...] = ()
    is_ranked: bool = True
    is_cut: bool = False
    fits: bool = True


def results_of(here: "PageContext", query: PageQuery, understood: Understood) -> Results:
    where = understood.narrowed(query.filters.tree())
    terms = terms_of(here, query, understood)
    if not query.is_query or (where and not terms):
        return _listed(here, query, where)
    by_date = query.sort == timeline.TAKEN and here.shows_exif
    offset, k = (query.page - 1) * PER_PAGE, PER_PAGE + 1
    limits = {"min_relevance": 0} if query.nearest else {}
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
    order = timeline.order_of(here, query)
    listing = timeline.listing_of(here, where, order)
    photos, total = here.service.photos_of(timeline.page_of(listing, query.page)), listing.total
    fit = (" fits" if total == 1 else " fit") if where else ""
    summary = f"{counted(total, 'photo', 'photos')}{fit}, {timeline.WORDS[order]}"
    more = total > query.page * PER_PAGE
    if order != timeline.TAKEN:
        tiles = [here.tile(photo) for photo in photos]
        return Results(tiles, more, summary, is_ranked=False)
    sections = timeline.sections(here, photos, listing.months)
    months = listing.months
    return Results([], more, summary, sections=sections, months=months, is_ranked=False)


def _dated(here: "PageContext", query: PageQuery, hits: list[SearchResult]) -> Results:
    """Return a page of results in order of date."""
    photos = _by_date(here, hits)
    months = timeline.months_of(photos)
    start = (query.page - 1) * PER_PAGE
    sections = timeline.sections(here, photos[start : start + PER_PAGE], months)
    best = "The best match" if len(photos) == 1 else f"The best {len(photos):,} matches"
    summary = f"{best}, newest first"
    more = len(photos) > start + PER_PAGE
    return Results([], more, summary, sections=sections, months=months)


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
        order = timeline.order_of(here, query)
        listing = timeline.listing_of(here, where, order)
        return listing.part(0, MAX_BY_DATE if listing.is_large else listing.total)

    def ranked() -> list[int]:
        limits = {"min_relevance": 0} if query.nearest else {}
        answer = here.service.ask(terms, k=MAX_BY_DATE, where=where, **limits).result()
        hits = list(answer.results or answer.nearest)
        if query.sort == timeline.TAKEN and here.shows_exif:
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
