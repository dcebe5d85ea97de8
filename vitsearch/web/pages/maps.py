"""The pages of maps: that of similar photos, that of the places where they were taken, and both as
lists. Places are shown to those alone who may see EXIF.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse, Response

from vitsearch.collection.backend import positions, towns
from vitsearch.collection.map import PhotoMap, current_map
from vitsearch.errors import NotShown, UnknownPhoto
from vitsearch.filters import EVERY
from vitsearch.filters.tree import Filter
from vitsearch.storage.metadata import Positions, Towns
from vitsearch.types import Photo
from vitsearch.web.pages import (
    ALONE,
    PER_PAGE,
    Filters,
    PageQuery,
    PickedPhoto,
    counted,
    results,
)
from vitsearch.web.pages.context import Page, PageContext
from vitsearch.web.world_map import (
    LEVELS,
    MAX_ZOOM,
    TOWNS,
    Box,
    bounds,
    clusters,
    has_outlines,
    read_box,
)

map_router = APIRouter(include_in_schema=False)

REGIONS = 4  # of the map's list along each side
REGION_TILES = 8


@map_router.get("/map")
def photo_map(here: Page) -> Response:
    """The map, drawn by the browser."""
    total, sample = here.service.count(), here.service.sample_size()
    return here.page("map.html", view="/map", total=sample or total, sample=sample)


@map_router.get("/map/places")
def map_places(here: Page) -> Response:
    """The photos' places on the map: all ids as uint64, then x and y of each as float32, both
    little-endian and in order of id.
    """
    layout = _photo_map(here)
    tag = f'"{layout.fingerprint[:12]}-{layout.generation}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if here.request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    body = layout.ids.astype("<u8").tobytes() + layout.positions.astype("<f4").tobytes()
    return Response(body, media_type="application/octet-stream", headers=headers)


def _photo_map(here: PageContext) -> PhotoMap:
    def compute() -> PhotoMap:
        with here.service.source.reading() as collection:
            return current_map(collection)

    return here.memory.photo_map.get(here.state(), compute)


@map_router.get("/map/list")
def map_list(here: Page) -> Response:
    """The map as a list: its regions, each with the photos in its middle."""
    layout = _photo_map(here)
    side = min(REGIONS, max(1, int(np.sqrt(len(layout.ids) / REGION_TILES))))
    cells = np.minimum((layout.positions * side).astype(np.int64), side - 1)
    groups = [
        np.flatnonzero((cells[:, 1] == row) & (cells[:, 0] == column))
        for row in range(side)
        for column in range(side)
    ]
    filled = [group for group in groups if len(group)]
    regions = [_region(here, layout, index, group) for index, group in enumerate(filled, start=1)]
    listed = [region for region in regions if region]
    photos = counted(len(layout.ids), "photo", "photos")
    summary = f"{photos} in {counted(len(listed), 'region', 'regions')}"
    shown: dict[str, Any] = {"regions": listed, "summary": summary}
    sample = here.service.sample_size()
    return here.page("map_list.html", view="/map", sample=sample, fault="", **shown)


def _region(here: PageContext, layout: PhotoMap, number: int, group: Any) -> dict[str, Any] | None:
    """Return a region of the map; None where its photos are gone meanwhile."""
    middle = np.median(layout.positions[group], axis=0)
    away = ((layout.positions[group] - middle) ** 2).sum(axis=1)
    near = group[np.argsort(away, kind="stable")[:REGION_TILES]]
    tiles = [here.tile(photo) for photo in here.service.photos_of(layout.ids[near].tolist())]
    if not tiles:
        return None
    return {
        "number": number,
        "title": f"Around {tiles[0].name}",
        "count_shown": counted(len(group), "photo", "photos"),
        "tiles": tiles,
        "address": PageQuery(picks=(PickedPhoto(tiles[0].photo_id, ALONE),)).address(),
    }


# -- Places ----------------------------------------------------------------------------------------


MAX_TOWNS = 60  # of a country in the list
TILE_SECONDS = 86_400  # for which a browser need not ask again for a tile


async def _check(here: Page) -> None:
    if not here.shows_exif:
        raise NotShown(
            "this server does not show you where photos were taken: open the address that "
            "`vitsearch serve` printed on its own machine, or serve with --show-exif"
        )


places_router = APIRouter(include_in_schema=False, dependencies=[Depends(_check)])


def _view(
    west: Annotated[float, Query()],
    south: Annotated[float, Query()],
    east: Annotated[float, Query()],
    north: Annotated[float, Query()],
) -> Box:
    return read_box(west, south, east, north)


View = Annotated[Box, Depends(_view)]


@places_router.get("/places")
def places(here: Page) -> Response:
    """The map, drawn by the browser."""
    query = here.query()
    located = _positions(here, query.filters.tree())
    return here.page(
        "places.html",
        view="/places",
        query=query,
        pairs=query.pairs(),
        total=located.total or len(located.ids),
        sample=len(located.ids) if located.total else None,
        is_filtered=bool(query.filters.pairs()),
        bounds=bounds(located),
        levels=[level.side for level in LEVELS],
        outlined=has_outlines(),
        listed=query.address("/places/list"),
    )


def _positions(here: PageContext, where: Filter | None) -> Positions:
    def compute() -> Positions:
        with here.service.source.facts() as store:
            return positions(store, where or EVERY)

    return here.memory.positions.get((where, here.state()), compute)


def _towns(here: PageContext, where: Filter | None) -> Towns:
    def compute() -> Towns:
        with here.service.source.facts() as store:
            return towns(store, where or EVERY)

    return here.memory.towns.get((where, here.state()), compute)


@places_router.get("/places/clusters")
def clusters_in_view(
    here: Page, view: View, zoom: Annotated[int, Query(ge=0, le=MAX_ZOOM)]
) -> Response:
    """The clusters of photos in a view, each as the number of photos, one of them, x and y on the
    map, and west, south, east and north; and the number of all photos in the view. Where those are
    counted in a sample, ``sampled`` is of how many photos.
    """
    query = here.query()
    every = _positions(here, query.filters.tree())
    # the sample of a part has more of it than that of the world, or all
    located = _positions(here, within(query, view).filters.tree()) if every.total else every
    inside = located.at(np.flatnonzero(view.holds(located)))
    shown = [
        [cluster.photos, str(cluster.photo_id), cluster.x, cluster.y, *cluster.box]
        for cluster in clusters(inside, zoom)
    ]
    total = every.total or len(every.ids)
    facts = {"photos": len(inside.ids), "total": total, "clusters": shown}
    if located.total:
        facts["sampled"] = located.total
    return JSONResponse(facts, headers={"Cache-Control": "private, no-cache"})


@places_router.get("/places/photos")
def photos_in_view(here: Page, view: View) -> Response:
    """The photos in a part of the map, as a piece of the page, and the way to search among them."""
    query = within(here.query(), view)
    listing = results.listing_of(here, query.filters.tree(), results.TAKEN)
    photos = here.service.photos_of(listing.part(0, PER_PAGE))
    return here.page(
        "places_photos.html",
        query=query,
        count=counted(listing.total, "photo", "photos"),
        more=listing.total > len(photos),
        title=_title(photos),
        address=query.address(),
        tiles=[here.tile(photo) for photo in photos],
    )


def within(query: PageQuery, box: Box) -> PageQuery:
    """Return the search among the photos in a box."""
    where = query.filters.where
    condition = f"({where}) and {box.condition()}" if where else box.condition()
    return replace(query, filters=replace(query.filters, where=condition), page=1)


def _title(photos: Sequence[Photo]) -> str:
    """Return the towns of photos, those of the most photos first."""
    names = Counter(
        ", ".join(str(photo.info[name]) for name in ("city", "country") if photo.info[name])
        for photo in photos
    )
    named = [name for name, _ in names.most_common() if name]
    others = f" and {counted(len(named) - 2, 'other town', 'other towns')}" if named[2:] else ""
    return "; ".join(named[:2]) + others or "Photos in this part"


@places_router.get("/places/land/{level}/{column}/{row}")
def land(here: Page, level: int, column: int, row: int) -> Response:
    """The outlines of a tile of the map (see `Outlines.cut`)."""
    body = here.memory.land.outlines(level, column, row)
    if body is None:
        raise UnknownPhoto("there is no such part of the map")
    headers = {"Cache-Control": f"private, max-age={TILE_SECONDS}"}
    return Response(body, media_type="application/octet-stream", headers=headers)


@places_router.get("/places/names/{level}/{column}/{row}")
def names(here: Page, level: int, column: int, row: int) -> Response:
    """The names of a tile of the map: name, longitude, latitude, and people, 0 for a country."""
    headers = {"Cache-Control": f"private, max-age={TILE_SECONDS}"}
    return JSONResponse(here.memory.land.names(level, column, row), headers=headers)


# -- the list --------------------------------------------------------------------------------------


@places_router.get("/places/list")
def places_list(here: Page) -> Response:
    """The countries and towns of the photos, with the numbers of photos and links to them."""
    query = replace(here.query(), page=1)
    where = query.filters.tree()
    counts, sample = _towns(here, where)
    countries = [
        _country(query, country, [(city, count) for (_, city), count in members])
        for country, members in groupby(counts, key=lambda entry: entry[0][0])
        if country
    ]
    unnamed = sum(count for (country, _), count in counts if not country)
    total = sum(count for _, count in counts)
    return here.page(
        "places_list.html",
        view="/places",
        map=query.address("/places"),
        summary=f"{counted(total, 'photo', 'photos')} with a position",
        sample=sample,
        total=total,
        is_filtered=bool(query.filters.pairs()),
        countries=sorted(countries, key=lambda country: (-country["photos"], country["name"])),
        squares=_squares(here, query) if unnamed else [],
        unnamed=unnamed,
        package=TOWNS,
    )


def _country(query: PageQuery, name: str, members: list[tuple[str, int]]) -> dict[str, Any]:
    photos = sum(count for _, count in members)
    members.sort(key=lambda member: (-member[1], member[0]))
    return {
        "name": name,
        "photos": photos,
        "count": counted(photos, "photo", "photos"),
        "address": _chosen(query, country=name),
        "towns": [
            (city, f"{count:,}", _chosen(query, country=name, city=city))
            for city, count in members[:MAX_TOWNS]
            if city
        ],
    }


def _chosen(query: PageQuery, **values: str) -> str:
    """Return the address of the search among the photos of a country, or of a town in it."""
    choices = dict(query.filters.choices) | values
    filters: Filters = replace(query.filters, choices=tuple(choices.items()))
    return replace(query, filters=filters).address()


def _squares(here: PageContext, query: PageQuery) -> list[tuple[str, str, str]]:
    """Return the squares of ten degrees with photos of which no country is known."""
    located = _positions(here, _unnamed(query).tree())
    corners = np.floor(np.stack([located.latitudes, located.longitudes]) / 10).astype(int) * 10
    counts = Counter(zip(*corners.tolist(), strict=True))
    return [
        (
            f"{_side(south, 'N', 'S')} to {_side(south + 10, 'N', 'S')}, "
            f"{_side(west, 'E', 'W')} to {_side(west + 10, 'E', 'W')}",
            f"{count:,}",
            within(query, Box(west, south, west + 10, south + 10)).address(),
        )
        for (south, west), count in sorted(counts.items(), reverse=True)
    ]


def _unnamed(query: PageQuery) -> Filters:
    """Return the filters of a search with those photos alone of which no country is known."""
    where = query.filters.where
    return replace(query.filters, where=f"({where}) and " * bool(where) + "country is null")


def _side(degrees: int, positive: str, negative: str) -> str:
    return f"{abs(degrees)}° {positive if degrees > 0 else negative}" if degrees else "0°"
