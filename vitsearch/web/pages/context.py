"""What every page needs: the service, what may be shown, and what the pages remember."""

import threading
from collections.abc import Hashable, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.responses import Response

from vitsearch.collection.map import PhotoMap
from vitsearch.errors import QueryError
from vitsearch.photos.columns import PRIVATE
from vitsearch.types import Photo, SearchResult
from vitsearch.web.errors import NotShown
from vitsearch.web.pages.cache import BroughtPhotos, Cache, Facets, facets_of
from vitsearch.web.pages.insights import Insight
from vitsearch.web.pages.templating import page
from vitsearch.web.pages.tiles import Tile, tile
from vitsearch.web.pages.url import Filters, PageQuery, asked, read_filters
from vitsearch.web.security import exif_shown
from vitsearch.web.service import PhotoService
from vitsearch.web.settings import ServeSettings

PER_PAGE = 60


class PageMemory:
    """What the pages of one server remember."""

    def __init__(self, service: PhotoService) -> None:
        self.insight = Insight(service)
        self.brought = BroughtPhotos()
        self.facets: Cache[Facets] = Cache(2)
        self.groups: Cache[Any] = Cache(4)
        self.photo_map: Cache[PhotoMap] = Cache(2)


class PageContext:
    """One request of a page."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.service: PhotoService = request.app.state.service
        self.settings: ServeSettings = request.app.state.settings
        self.memory = _memory(request)

    @property
    def shows_exif(self) -> bool:
        """Whether date, camera and place may be shown."""
        return exif_shown(self.request)

    def asked(self) -> PageQuery:
        """Return the search of the address; raises QueryError, NotShown."""
        found = asked(self.request.query_params.multi_items())
        self.check(found.filters)
        return found

    def context(self) -> PageQuery:
        """Return the search that a page was come to from, an empty one where its address makes no
        sense.
        """
        try:
            return self.asked()
        except (QueryError, NotShown):
            return PageQuery()

    def as_written(self) -> PageQuery:
        """Return words and filters as they were written, to be put right."""
        parameters = dict(self.request.query_params)
        return PageQuery(parameters.get("q", ""), filters=read_filters(parameters))

    def check(self, filters: Filters) -> None:
        """Raise NotShown for filters whose answer would tell what may not be shown."""
        where = filters.tree()
        if where is not None and where.columns() & PRIVATE and not self.shows_exif:
            raise NotShown(
                "date, camera and place are not shown here, so photos cannot be "
                "filtered by them (--show-exif)"
            )

    def state(self) -> Hashable:
        """Return a value that changes when other photos are in the collection."""
        with self.service.source.facts() as store:
            return self.service.source.version(), store.generation()

    def facets(self) -> Facets:
        """Return what the filters offer."""

        def find() -> Facets:
            with self.service.source.reading() as collection:
                return facets_of(collection)

        return self.memory.facets.get(self.state(), find, ages=True)

    def tiles(self, hits: Sequence[SearchResult]) -> list[Tile]:
        """Return search results as they are shown; one that is gone meanwhile is left out."""
        photos = {
            photo.photo_id: photo
            for photo in self.service.photos_of([hit.photo_id for hit in hits])
        }
        return [
            self.tile(photos[hit.photo_id], hit.score) for hit in hits if hit.photo_id in photos
        ]

    def tile(self, photo: Photo, score: float | None = None, **options: Any) -> Tile:
        """Return a photo as it is shown."""
        return tile(photo, score, shows_exif=self.shows_exif, **options)

    def page(self, name: str, *, status: int = 200, view: str = "", **facts: Any) -> Response:
        """Return a drawn page."""
        shared = {
            "view": view,
            "shows_exif": self.shows_exif,
            "upload_bytes": self.settings.upload_bytes,
        }
        return page(name, shared | facts, status=status)


_making = threading.Lock()


def _memory(request: Request) -> PageMemory:
    state = request.app.state
    with _making:
        if getattr(state, "page_memory", None) is None:
            state.page_memory = PageMemory(state.service)
        found: PageMemory = state.page_memory
        return found


Page = Annotated[PageContext, Depends(PageContext)]
