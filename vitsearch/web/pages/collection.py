"""The pages about the collection as a whole: its labels, duplicates, what is not in it, and its
map.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.responses import Response

from vitsearch.collection.map import PhotoMap, current_atlas
from vitsearch.errors import QueryError, VitsearchError
from vitsearch.labels import parse_labels
from vitsearch.types import Photo, Prediction
from vitsearch.web.errors import ServiceBusy
from vitsearch.web.pages.context import PER_PAGE, Page, PageContext
from vitsearch.web.pages.tiles import Tile, counted, size_text
from vitsearch.web.pages.url import ALONE, PageQuery, PickedPhoto, address, label_lines, page_number

router = APIRouter(include_in_schema=False)

GROUPS_PER_PAGE = 20
SHOWN_OF_A_GROUP = 40
ROWS_PER_PAGE = 200
MAX_COMPARED = 30_000  # photos of which all pairs are compared while somebody waits
REGIONS = 4  # of the map's list along each side
SHOWN_OF_A_REGION = 8


# -- labels ----------------------------------------------------------------------------------------


@router.get("/labels")
def labels(here: Page) -> Response:
    """The distribution of labels, those stored or any others, and the photos of one of them."""
    given = here.request.query_params
    text, background, chosen = (
        given.get("labels", "").strip(),
        given.get("background") == "1",
        given.get("class", ""),
    )
    pairs = [("labels", text)] if text else []
    pairs += [("background", "1")] if background else []
    shown: dict[str, Any] = {
        "text": text,
        "background": background,
        "fault": "",
        "classes": [],
        "chosen": "",
        "total": 0,
        "most": 0,
        "asked": PageQuery(),
    }
    try:
        number = page_number(given.get("page", ""))
        found = _zero_shot(here, text, background) if text else _stored(here)
    except ServiceBusy:
        raise
    except VitsearchError as error:
        return here.page("labels.html", status=400, view="/labels", **shown | {"fault": str(error)})
    counts = Counter(one.label for one in found)
    order = list(
        dict.fromkeys(
            [*(_names(text) if text else ()), *(name for name, _ in counts.most_common())]
        )
    )
    shown["classes"] = [
        {
            "name": name,
            "count": counts[name],
            "address": address("/labels", [*pairs, ("class", name)]) + "#members",
        }
        for name in order
    ]
    shown |= {"total": len(found), "most": max(counts.values(), default=0)}
    if chosen in order:
        shown |= _members(
            here, [one for one in found if one.label == chosen], number, [*pairs, ("class", chosen)]
        )
        shown["chosen"] = chosen
    return here.page("labels.html", view="/labels", **shown)


def _names(text: str) -> list[str]:
    return [label.name for label in parse_labels(label_lines(text))]


def _zero_shot(here: PageContext, text: str, background: bool) -> list[Prediction]:
    return here.service.labels(label_lines(text), background=background)


def _stored(here: PageContext) -> list[Prediction]:
    return [
        Prediction(photo.path, photo.label or "", photo.label_score or 0.0, photo.photo_id)
        for photo in here.service.stored_labels()
    ]


def _members(
    here: PageContext, members: list[Prediction], number: int, pairs: list[tuple[str, str]]
) -> dict[str, Any]:
    """Return a page of the photos of a class, the surest first."""
    members.sort(key=lambda one: (-one.score, one.path))
    start = (number - 1) * PER_PAGE
    some = members[start : start + PER_PAGE]
    photos = {
        photo.photo_id: photo for photo in here.service.photos_of([one.photo_id for one in some])
    }
    return {
        "members": len(members),
        "tiles": [
            here.tile(photos[one.photo_id], one.score) for one in some if one.photo_id in photos
        ],
        "page": number,
        **_neighbours("/labels", pairs, number, more=len(members) > start + PER_PAGE),
    }


def _neighbours(
    path: str, pairs: list[tuple[str, str]], number: int, *, more: bool
) -> dict[str, str]:
    """Return the addresses of the pages before and after one."""
    return {
        "previous": address(path, [*pairs, ("page", str(number - 1))]) if number > 1 else "",
        "next": address(path, [*pairs, ("page", str(number + 1))]) if more else "",
    }


# -- duplicates and failures -----------------------------------------------------------------------


@router.get("/duplicates")
def duplicates(here: Page) -> Response:
    """The groups of photos that are there twice: the same file, or the same view."""
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
    some = groups[start : start + GROUPS_PER_PAGE]
    extra = sum(len(group) - 1 for group in groups)
    what = (
        ("copies of others", "is a copy of another")
        if kind == "same"
        else ("look like others", "looks like another")
    )
    shown["summary"] = (
        f"{counted(extra, 'photo', 'photos')} "
        f"{what[1] if extra == 1 else ('are ' + what[0] if kind == 'same' else what[0])}, in "
        f"{counted(len(groups), 'group', 'groups')}"
        if groups
        else "There are none."
    )
    shown["groups"] = [
        _group(here, start + place + 1, group, kind) for place, group in enumerate(some)
    ]
    pairs = [("kind", kind)] if kind == "alike" else []
    shown |= {
        "page": number,
        **_neighbours("/duplicates", pairs, number, more=len(groups) > start + GROUPS_PER_PAGE),
    }
    return here.page("duplicates.html", view="/duplicates", **shown)


def _groups(here: PageContext, kind: str) -> list[list[tuple[Photo, float]]]:
    """Return the groups, each photo with its cosine with the first of its group."""

    def find() -> list[list[tuple[Photo, float]]]:
        if kind == "same":
            return [[(photo, 1.0) for photo in group] for group in here.service.duplicates()]
        return [[(group.photo, 1.0), *group.others] for group in here.service.lookalikes()]

    if kind == "alike" and (count := here.service.count()) > MAX_COMPARED:
        raise QueryError(
            f"comparing all pairs of {count:,} photos takes too long for a "
            "page: run `vitsearch dupes`"
        )
    found: list[list[tuple[Photo, float]]] = here.memory.groups.get((kind, here.state()), find)
    return found


def _group(
    here: PageContext, number: int, group: Sequence[tuple[Photo, float]], kind: str
) -> dict[str, Any]:
    first = group[0][0]
    title = (
        f"{len(group)} times {size_text(first.size)}"
        if kind == "same"
        else f"{len(group)} of one view"
    )
    details = ["first", *(f"{score:.3f}" if kind == "alike" else "copy" for _, score in group[1:])]
    some = list(zip(group, details, strict=True))[:SHOWN_OF_A_GROUP]
    return {
        "number": number,
        "title": title,
        "tiles": [here.tile(photo, detail=detail) for (photo, _), detail in some],
    }


@router.get("/failures")
def failures(here: Page) -> Response:
    """The files that are not in the collection, and why."""
    number = page_number(here.request.query_params.get("page", ""))
    try:
        rows, unknown = here.service.failures(), ""
    except QueryError as error:  # of a collection that holds photos only
        rows, unknown = [], str(error)
    start = (number - 1) * ROWS_PER_PAGE
    failed = sum(row.state == "failed" for row in rows)
    told = (
        f"{counted(failed, 'file', 'files')} could not be read, "
        f"{counted(len(rows) - failed, 'was', 'were')} passed over"
    )
    shown: dict[str, Any] = {
        "rows": rows[start : start + ROWS_PER_PAGE],
        "summary": unknown or (told if rows else "Every photo of the folder is in the collection."),
        "page": number,
        **_neighbours("/failures", [], number, more=len(rows) > start + ROWS_PER_PAGE),
    }
    return here.page("failures.html", view="/failures", **shown)


# -- the map ---------------------------------------------------------------------------------------


@router.get("/map")
def photo_map(here: Page) -> Response:
    """The map, which the browser draws."""
    return here.page("map.html", view="/map", total=here.service.count())


@router.get("/map/places")
def places(here: Page) -> Response:
    """The places: the ids as uint64, then x and y of each photo as float32, little-endian, in order
    of id.
    """
    found = _atlas(here)
    tag = f'"{found.fingerprint[:12]}-{found.generation}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if here.request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    body = found.ids.astype("<u8").tobytes() + found.places.astype("<f4").tobytes()
    return Response(body, media_type="application/octet-stream", headers=headers)


def _atlas(here: PageContext) -> PhotoMap:
    def find() -> PhotoMap:
        with here.service.source.reading() as collection:
            return current_atlas(collection)

    return here.memory.photo_map.get(here.state(), find)


@router.get("/map/list")
def regions(here: Page) -> Response:
    """The map as a list: its regions, each with the photos in its middle."""
    found = _atlas(here)
    side = min(REGIONS, max(1, int(np.sqrt(len(found.ids) / SHOWN_OF_A_REGION))))
    cells = np.minimum((found.places * side).astype(np.int64), side - 1)
    groups = [
        np.flatnonzero((cells[:, 1] == row) & (cells[:, 0] == column))
        for row in range(side)
        for column in range(side)
    ]
    some = [group for group in groups if len(group)]
    listed = [
        region
        for place, group in enumerate(some)
        if (region := _region(here, found, place + 1, group))
    ]
    summary = (
        f"{counted(len(found.ids), 'photo', 'photos')} in "
        f"{counted(len(listed), 'region', 'regions')}"
    )
    return here.page("map_list.html", view="/map", regions=listed, summary=summary, fault="")


def _region(here: PageContext, found: PhotoMap, number: int, group: Any) -> dict[str, Any] | None:
    """Return a region of the map; None where its photos are gone meanwhile."""
    middle = np.median(found.places[group], axis=0)
    away = ((found.places[group] - middle) ** 2).sum(axis=1)
    near = group[np.argsort(away, kind="stable")[:SHOWN_OF_A_REGION]]
    tiles: list[Tile] = [
        here.tile(photo) for photo in here.service.photos_of(found.ids[near].tolist())
    ]
    if not tiles:
        return None
    return {
        "number": number,
        "title": f"Around {tiles[0].name}",
        "count_shown": counted(len(group), "photo", "photos"),
        "tiles": tiles,
        "address": PageQuery(picks=(PickedPhoto(tiles[0].photo_id, ALONE),)).address(),
    }
