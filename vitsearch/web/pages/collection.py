"""The pages of the collection as a whole: files not indexed, and the map."""

from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.responses import Response

from vitsearch.collection.absence import UNREADABLE, count_left_out, left_out_line
from vitsearch.collection.map import PhotoMap, current_map
from vitsearch.errors import QueryError
from vitsearch.photos.walk import BROKEN_LINK
from vitsearch.types import SkippedPhoto
from vitsearch.web.pages.context import Page, PageContext
from vitsearch.web.pages.tiles import counted
from vitsearch.web.pages.url import (
    ALONE,
    PageQuery,
    PickedPhoto,
    neighbours,
    page_number,
)

router = APIRouter(include_in_schema=False)

ROWS_PER_PAGE = 200
REGIONS = 4  # of the map's list along each side
REGION_TILES = 8


# -- failures --------------------------------------------------------------------------------------


@router.get("/failures")
def failures(here: Page) -> Response:
    """The files that are not in the collection, and why."""
    number = page_number(here.request.query_params.get("page", ""))
    try:
        rows, unknown = here.service.failures(), ""
        others = here.service.left_out()
    except QueryError as error:  # of a collection that holds photos only
        rows, others, unknown = [], [], str(error)
    unread = [entry for entry in others if entry.reason in UNREADABLE]
    rows = [*rows, *(SkippedPhoto(entry.path, "failed", entry.detail) for entry in unread)]
    counts = count_left_out(entry for entry in others if entry not in unread)
    start = (number - 1) * ROWS_PER_PAGE
    failed = sum(row.state == "failed" for row in rows)
    summary = "Every photo of the folder is in the collection."
    if rows:
        passed = len(rows) - failed
        parts = [f"{counted(failed, 'file', 'files')} could not be read"] if failed else []
        parts += [f"{counted(passed, 'file was', 'files were')} passed over"] if passed else []
        summary = ", ".join(parts)
    shown: dict[str, Any] = {
        "rows": [_shown_failure(row, here.is_local) for row in rows[start : start + ROWS_PER_PAGE]],
        "summary": unknown or summary,
        "left_out": left_out_line(counts) if counts["left_out"] else "",
        "page": number,
        **neighbours("/failures", [], number, more=len(rows) > start + ROWS_PER_PAGE),
    }
    return here.page("failures.html", view="/failures", **shown)


def _shown_failure(row: SkippedPhoto, is_local: bool) -> SkippedPhoto:
    """Return a file that is not in the collection without the place that its link leads to, which
    is a path of this machine.
    """
    leads = row.reason.startswith(BROKEN_LINK) and not is_local
    return replace(row, reason=BROKEN_LINK) if leads else row


# -- the map ---------------------------------------------------------------------------------------


@router.get("/map")
def photo_map(here: Page) -> Response:
    """The map, drawn by the browser."""
    total, sample = here.service.count(), here.service.sample_size()
    return here.page("map.html", view="/map", total=sample or total, sample=sample)


@router.get("/map/places")
def places(here: Page) -> Response:
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


@router.get("/map/list")
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
