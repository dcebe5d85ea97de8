"""The pages of the collection as a whole: duplicates, files not indexed, and the map."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.responses import Response

from vitsearch.collection.absence import UNREADABLE, count_left_out, left_out_line
from vitsearch.collection.map import PhotoMap, current_map
from vitsearch.errors import QueryError
from vitsearch.photos.walk import BROKEN_LINK
from vitsearch.types import Photo, SkippedPhoto
from vitsearch.web.pages.context import Page, PageContext
from vitsearch.web.pages.tiles import counted, size_text
from vitsearch.web.pages.url import (
    ALONE,
    PageQuery,
    PickedPhoto,
    neighbours,
    page_number,
)

router = APIRouter(include_in_schema=False)

GROUPS_PER_PAGE = 20
MAX_GROUP_TILES = 40
ROWS_PER_PAGE = 200
MAX_COMPARED = 30_000  # photos of which all pairs are compared while a person waits
REGIONS = 4  # of the map's list along each side
REGION_TILES = 8


# -- duplicates and failures -----------------------------------------------------------------------


@router.get("/duplicates")
def duplicates(here: Page) -> Response:
    """The groups of photos that are the same file, or show the same view."""
    kind = "alike" if here.request.query_params.get("kind") == "alike" else "same"
    shown: dict[str, Any] = {
        "kind": kind,
        "fault": "",
        "groups": [],
        "summary": "",
        "previous": "",
        "next": "",
        "page": 1,
    }
    try:
        number = page_number(here.request.query_params.get("page", ""))
        groups = _groups(here, kind)
    except QueryError as error:
        return here.page(
            "duplicates.html", status=400, view="/duplicates", **shown | {"fault": str(error)}
        )
    start = (number - 1) * GROUPS_PER_PAGE
    page_groups = groups[start : start + GROUPS_PER_PAGE]
    pairs = [("kind", kind)] if kind == "alike" else []
    shown |= {
        "summary": _duplicates_summary(groups, kind),
        "groups": [
            _group(here, index, group, kind)
            for index, group in enumerate(page_groups, start=start + 1)
        ],
        "page": number,
        **neighbours("/duplicates", pairs, number, more=len(groups) > start + GROUPS_PER_PAGE),
    }
    return here.page("duplicates.html", view="/duplicates", **shown)


def _duplicates_summary(groups: list[list[tuple[Photo, float]]], kind: str) -> str:
    if not groups:
        return "No file is there twice." if kind == "same" else "No photo looks like another."
    extra = sum(len(group) - 1 for group in groups)
    if kind == "same":
        what = "is a copy of another" if extra == 1 else "are copies of others"
    else:
        what = "looks like another" if extra == 1 else "look like others"
    photos, of = counted(extra, "photo", "photos"), counted(len(groups), "group", "groups")
    return f"{photos} {what}, in {of}"


def _groups(here: PageContext, kind: str) -> list[list[tuple[Photo, float]]]:
    """Return the groups, each photo with its cosine with the first of its group."""

    def compute() -> list[list[tuple[Photo, float]]]:
        if kind == "same":
            return [[(photo, 1.0) for photo in group] for group in here.service.duplicates()]
        return [[(group.photo, 1.0), *group.others] for group in here.service.lookalikes()]

    if kind == "alike" and (count := here.service.count()) > MAX_COMPARED:
        raise QueryError(
            f"comparing all pairs of {count:,} photos takes too long for a "
            "page: run `vitsearch dupes`"
        )
    return here.memory.groups.get((kind, here.state()), compute)


def _group(
    here: PageContext, number: int, group: Sequence[tuple[Photo, float]], kind: str
) -> dict[str, Any]:
    first = group[0][0]
    tiles = [here.tile(first, detail="first")]
    for photo, score in group[1:MAX_GROUP_TILES]:
        tiles.append(here.tile(photo, detail="copy" if kind == "same" else f"{score:.3f}"))
    same, alike = f"{len(group)} times {size_text(first.size)}", f"{len(group)} of one view"
    return {"number": number, "title": same if kind == "same" else alike, "tiles": tiles}


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
        summary = (
            f"{counted(failed, 'file', 'files')} could not be read, "
            f"{counted(len(rows) - failed, 'was', 'were')} passed over"
        )
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
    return here.page("map.html", view="/map", total=here.service.count())


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
    return here.page("map_list.html", view="/map", regions=listed, summary=summary, fault="")


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
