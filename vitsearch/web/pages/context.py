"""What every page needs: the service, what may be shown, what is remembered, and templates."""

import hashlib
import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from starlette.responses import HTMLResponse, Response

from vitsearch.collection.map import PhotoMap
from vitsearch.collection.understanding import LABELLED, Understood
from vitsearch.errors import NotShown, QueryError
from vitsearch.photos.formats import SUFFIXES
from vitsearch.storage.metadata import Positions, Towns
from vitsearch.storage.store import PhotoStore
from vitsearch.storage.user_data import album_names
from vitsearch.types import Photo, Prediction, SearchResult
from vitsearch.web import ServeSettings
from vitsearch.web.indexing import may_index
from vitsearch.web.pages import (
    ALONE,
    LIKE,
    Filters,
    PageQuery,
    PhotoLinks,
    Tile,
    UploadedRef,
    clean,
    read_filters,
    read_page_query,
    thumbnail,
    tile,
)
from vitsearch.web.pages.cache import Cache, Facets, Insights, Recent, UploadedPhotos, facets_of
from vitsearch.web.privacy import check_filter, exif_shown, is_local, may_write
from vitsearch.web.search import Words
from vitsearch.web.service import PhotoService
from vitsearch.web.source import MilvusSource
from vitsearch.web.world_map import Land

HERE = Path(__file__).parents[1]
STATIC = HERE / "static"
VIEWS = (
    ("/", "Photos"),
    ("/albums", "Albums"),
    ("/labels", "Labels"),
    ("/places", "Places"),
    ("/map", "Similarity"),
    ("/duplicates", "Duplicates"),
    ("/failures", "Not indexed"),
)
PRIVATE_VIEWS = ("/places",)  # for those who may see private columns


async def form_of(request: Request, max_fields: int) -> tuple[dict[str, str], list[str]]:
    """Return the fields of a form without files by name, and the values of all its fields ``id``,
    the ticked photos.
    """
    form = await request.form(max_files=0, max_fields=max_fields)
    values = {name: value for name, value in form.items() if isinstance(value, str)}
    return values, [value for value in form.getlist("id") if isinstance(value, str)]


@cache
def templates() -> Environment:
    """Return the templates, which escape whatever they show: it may come from file names."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates", encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        asset_version=asset_version(),
        views=views_for(shows_exif=False),
        view="",
        may_index=False,
        collections=(),
        thumbnail=thumbnail,
        photo_links=lru_cache(64)(PhotoLinks),
    )
    return environment


def load_templates() -> None:
    """Have every template ready, so that no request waits for one to be compiled."""
    for name in templates().list_templates():
        templates().get_template(name)


def views_for(*, shows_exif: bool) -> list[tuple[str, str]]:
    """Return the addresses and titles of the views that a client may see."""
    return [view for view in VIEWS if shows_exif or view[0] not in PRIVATE_VIEWS]


@cache
def asset_version() -> str:
    """Return a short hash of the static files: it is part of their addresses, so that caches never
    mix two versions.
    """
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(STATIC.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def page(
    name: str,
    facts: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
) -> HTMLResponse:
    """Return a drawn page; browsers may cache it but must ask whether it is still valid."""
    text = templates().get_template(name).render(facts)
    sent = {"Cache-Control": "private, no-cache", **dict(headers)}
    return HTMLResponse(text, status, headers=sent)


def webp_response(picture: bytes, *, max_age: int) -> Response:
    """Return a WebP picture that a browser may cache for so many seconds."""
    headers = {"Cache-Control": f"private, max-age={max_age}"}
    return Response(picture, media_type="image/webp", headers=headers)


class PageMemory:
    """What the pages of one server remember."""

    def __init__(self, service: PhotoService) -> None:
        self.insights = Insights(service)
        self.uploads = UploadedPhotos()
        self.facets: Recent[Facets] = Recent()
        self.groups: Cache[tuple[list[list[tuple[Photo, float]]], int]] = Cache(4)
        self.photo_map: Cache[PhotoMap] = Cache(2)
        self.listings: Cache[Any] = Cache(8)
        self.sequences: Cache[list[int]] = Cache(50)
        self.positions: Cache[Positions] = Cache(4)
        self.towns: Cache[Towns] = Cache(4)
        self.land = Land()


class PageContext:
    """The request of a page, and what answers it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.service: PhotoService = request.app.state.service
        self.settings: ServeSettings = request.app.state.settings
        self.memory = _memory(request)

    @cached_property
    def shows_exif(self) -> bool:
        """Whether private columns, such as date, camera and position, may be shown."""
        return exif_shown(self.request)

    @property
    def is_local(self) -> bool:
        """Whether the person at this machine looks at the page."""
        return is_local(self.request)

    @property
    def may_write(self) -> bool:
        """Whether this client may change albums, which a collection in Milvus has none of."""
        return may_write(self.request) and not isinstance(self.service.source, MilvusSource)

    def albums(self) -> list[str] | None:
        """Return the names of the albums, None for a client that may not change them."""
        if not self.may_write:
            return None
        with self.service.source.facts() as store:
            assert isinstance(store, PhotoStore)
            return album_names(store)

    def query(self) -> PageQuery:
        """Return the search of the address; raises QueryError or NotShown."""
        query = read_page_query(self.request.query_params.multi_items())
        self.check(query.filters)
        return query

    def previous_query(self) -> PageQuery:
        """Return the search that led to this page, an empty one where the address makes no
        sense.
        """
        try:
            return self.query()
        except (QueryError, NotShown):
            return PageQuery()

    def as_written(self) -> PageQuery:
        """Return words, photos and filters as they were written, for the person to correct."""
        parameters = dict(self.request.query_params)
        written = PageQuery(parameters.get("q", ""), filters=read_filters(parameters))
        try:
            read = read_page_query(self.request.query_params.multi_items())
        except QueryError:
            return written
        return replace(written, picks=read.picks, uploads=read.uploads)

    def check(self, filters: Filters) -> None:
        """Raise NotShown for filters whose results would reveal what may not be shown."""
        where = filters.tree()
        if where is not None:
            check_filter(self.request, where)

    def understand(self, query: PageQuery) -> Understood:
        """Return the terms of the words of a search, and what else they say; raises QueryError."""
        if not query.words:
            return Understood((), (), None)
        return self.service.understand(Words(query.words, self.shows_exif, query.literal))

    def like_picture(self, picture: Image.Image, query: PageQuery) -> str:
        """Return the address of a search that also looks for photos like a picture."""
        with self.service.source.encoding:
            vector = self.service.encoder.encode_images([picture])[0]
        key = self.memory.uploads.add(picture, vector)
        uploads = (UploadedRef(key, LIKE if query.words else ALONE),)
        return replace(query, uploads=uploads, page=1).address()

    def state(self) -> Hashable:
        """Return a value that changes when other photos, or labels, are in the collection."""
        with self.service.source.facts() as store:
            labels = store.get_meta(LABELLED)
            return self.service.source.version(), store.generation(), labels

    def facets(self) -> Facets:
        """Return the values that the filters offer."""

        def compute() -> Facets:
            # not `facts`, for which every other request would wait
            with self.service.source.reading() as collection:
                return facets_of(collection.store)

        return self.memory.facets.get(self.state(), compute)

    def tiles(self, hits: Sequence[SearchResult | Prediction]) -> list[Tile]:
        """Return the tiles of search results; photos that are gone meanwhile are left out."""
        by_id = {hit.photo_id: hit for hit in hits}
        photos = self.service.photos_of(list(by_id))
        return [
            self.tile(photo, by_id[photo.photo_id].score, detail=_fit(by_id[photo.photo_id]))
            for photo in photos
        ]

    def tile(self, photo: Photo, score: float | None = None, **options: Any) -> Tile:
        """Return the tile of a photo."""
        return tile(photo, score, shows_exif=self.shows_exif, **options)

    def page(self, name: str, *, status: int = 200, view: str = "", **facts: Any) -> Response:
        """Return a drawn page."""
        shared = {
            "view": view,
            "may_index": may_index(self.request),
            "views": views_for(shows_exif=self.shows_exif),
            "collections": self.request.app.state.collections,
            "albums": self.albums(),
            "shows_exif": self.shows_exif,
            "upload_bytes": self.settings.upload_bytes,
            "picture_types": PICTURE_TYPES,
        }
        return page(name, shared | facts, status=status)


def _fit(hit: SearchResult | Prediction) -> str:
    """Return the score and the relevance of a result for words."""
    relevance = hit.relevance if isinstance(hit, SearchResult) else None
    return "" if relevance is None else f"{hit.score:.3f}, {100 * relevance:.0f} %"


# systems do not know every suffix as that of a picture
PICTURE_TYPES = ",".join(["image/*", *(f".{suffix}" for suffix in SUFFIXES)])
_making = threading.Lock()


def _memory(request: Request) -> PageMemory:
    state = request.app.state
    with _making:
        if getattr(state, "page_memory", None) is None:
            state.page_memory = PageMemory(state.service)
        memory: PageMemory = state.page_memory
        return memory


async def _context(request: Request) -> PageContext:
    # a class would be called in another thread, which takes longer than the call
    return PageContext(request)


Page = Annotated[PageContext, Depends(_context)]
