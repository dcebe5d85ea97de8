"""The view of duplicates: copies side by side, the best of them proposed, and what becomes of the
others: a list of paths, an album, or the system's trash.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from vitsearch.collection.copies import (
    MEASURES,
    LooksByContent,
    best_copy,
    find_copies,
    find_looks,
    known_looks,
)
from vitsearch.errors import (
    NotShown,
    PhotoError,
    QueryError,
)
from vitsearch.photos.columns import clock
from vitsearch.photos.decode import open_photo
from vitsearch.storage import user_data
from vitsearch.storage.user_data import Album, writing
from vitsearch.types import Photo
from vitsearch.untrusted import reason
from vitsearch.web.pages import counted, neighbours, page_number, size_text, spoken_date
from vitsearch.web.pages.albums import album_address
from vitsearch.web.pages.context import Page, PageContext, form_of
from vitsearch.web.pages.photo import as_paths
from vitsearch.web.source import MilvusSource, busy_when_locked

router = APIRouter(include_in_schema=False)

PATH = "/duplicates"
GROUPS_PER_PAGE = 20
MAX_GROUP_TILES = 40
MAX_COMPARED = 30_000  # photos of which all pairs are compared while a person waits
MAX_UNKNOWN = 3000  # pictures that are looked at for the first time meanwhile
MAX_FIELDS = 300
CHANGED = "these groups have changed meanwhile: look at them again"
Group = list[tuple[Photo, float]]


@router.get(PATH)
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
        "may_write": here.may_write,
        "may_delete": here.may_write and here.settings.allow_delete,
    }
    try:
        number = page_number(here.request.query_params.get("page", ""))
        groups, blank = _groups(here, kind)
    except QueryError as error:
        return here.page("duplicates.html", status=400, view=PATH, **shown | {"fault": str(error)})
    start = (number - 1) * GROUPS_PER_PAGE
    page_groups = groups[start : start + GROUPS_PER_PAGE]
    pairs = [("kind", kind)] if kind == "alike" else []
    looks = _looks(here, [photo for group in page_groups for photo, _ in group])
    left_out = f"; {counted(blank, 'blank picture', 'blank pictures')} left out" if blank else ""
    shown |= {
        "summary": _summary(groups, kind) + left_out,
        "groups": [
            _shown_group(here, index, group, kind, looks)
            for index, group in enumerate(page_groups, start=start + 1)
        ],
        "page": number,
        **neighbours(PATH, pairs, number, more=len(groups) > start + GROUPS_PER_PAGE),
    }
    return here.page("duplicates.html", view=PATH, **shown)


def _summary(groups: Sequence[Group], kind: str) -> str:
    if not groups:
        return "No file is there twice." if kind == "same" else "No photo looks like another."
    extra = sum(len(group) - 1 for group in groups)
    if kind == "same":
        what = "is a copy of another" if extra == 1 else "are copies of others"
    else:
        what = "looks like another" if extra == 1 else "look like others"
    photos, of = counted(extra, "photo", "photos"), counted(len(groups), "group", "groups")
    return f"{photos} {what}, in {of}"


def _groups(here: PageContext, kind: str) -> tuple[list[Group], int]:
    """Return the groups, each photo with its cosine with the first of its group, and how many blank
    pictures were left out.
    """

    def compute() -> tuple[list[Group], int]:
        if kind == "same":
            return [[(photo, 1.0) for photo in group] for group in here.service.duplicates()], 0
        with here.service.source.reading() as collection:
            copies = find_copies(collection, max_unknown=MAX_UNKNOWN)
        return [[(group.photo, 1.0), *group.others] for group in copies.groups], copies.blank

    if kind == "alike" and (count := here.service.count()) > MAX_COMPARED:
        raise QueryError(
            f"comparing all pairs of {count:,} photos takes too long for a "
            "page: run `vitsearch dupes`"
        )
    return here.memory.groups.get((kind, here.state()), compute)


def _looks(here: PageContext, photos: Sequence[Photo]) -> LooksByContent:
    source = here.service.source
    if isinstance(source, MilvusSource):
        return known_looks(source.folder)
    return find_looks(source.root, source.folder, photos)


def _shown_group(
    here: PageContext, number: int, group: Group, kind: str, looks: LooksByContent
) -> dict[str, Any]:
    photos = [photo for photo, _ in group]
    best = best_copy(photos, looks)
    tiles = group[:MAX_GROUP_TILES]
    if all(photo != best.photo for photo, _ in tiles):
        tiles[-1] = next(each for each in group if each[0] == best.photo)
    same, alike = f"{len(group)} times {size_text(photos[0].size)}", f"{len(group)} of one view"
    return {
        "number": number,
        "title": same if kind == "same" else alike,
        "size": len(group),
        "more": f"{len(group) - len(tiles):,}" if len(group) > len(tiles) else "",
        "copies": [
            {
                "tile": here.tile(photo),
                "folder": photo.file.rpartition("/")[0],
                "facts": _facts(here, photo, photos, looks),
                "proposed": best.reason if photo == best.photo else "",
                "likeness": "" if kind == "same" or photo == photos[0] else f"{score:.3f}",
            }
            for photo, score in tiles
        ],
    }


def _facts(
    here: PageContext, photo: Photo, photos: Sequence[Photo], looks: LooksByContent
) -> list[tuple[str, str, bool]]:
    """Return the name and text of each fact about a copy, and whether it is among the best."""
    measures = {name: (measure, factor) for name, measure, factor in MEASURES}
    picture = looks.get(photo.fingerprint)

    def is_best(name: str) -> bool:
        measure, factor = measures[name]
        values = [measure(each, looks.get(each.fingerprint)) for each in photos]
        best = max(values)
        return min(values) * factor < best and values[photos.index(photo)] * factor >= best

    facts = [
        (
            "Pixels",
            f"{photo.info.width:,} × {photo.info.height:,}",
            is_best("more pixels"),
        ),
        ("Size", size_text(photo.size), is_best("the larger file")),
    ]
    if photo.info["duration"] is not None:
        facts.append(("Length", clock(float(photo.info["duration"])), False))
    if picture is not None:
        facts.append(("Sharpness", f"{picture.sharpness:,.0f}", is_best("sharper")))
        if not all(
            looks[each.fingerprint].has_colour for each in photos if each.fingerprint in looks
        ):
            facts.append(
                ("Colour", "colour" if picture.has_colour else "grey", is_best("in colour"))
            )
    if here.shows_exif:
        taken_at = photo.info["taken_at"]
        moment = datetime.fromtimestamp(photo.mtime_ns / 1e9, UTC).isoformat(timespec="minutes")
        facts.append(
            ("Taken" if taken_at else "Saved", spoken_date(str(taken_at or moment)), False)
        )
    return facts


# -- what becomes of the others --------------------------------------------------------------------


@router.post(PATH)
async def change(request: Request) -> Response:
    """List the photos of groups beside those that are kept, put them into an album, or move them to
    the trash after a question.
    """
    values, _ = await form_of(request, MAX_FIELDS)
    return await run_in_threadpool(_change, PageContext(request), values)


def _change(here: PageContext, values: Mapping[str, str]) -> Response:
    kind = "alike" if values.get("kind") == "alike" else "same"
    pairs = _decided(_groups(here, kind)[0], values)
    others = [photo for _, photo in pairs]
    action = values.get("do", "")
    if action == "paths":
        headers = {"Content-Disposition": 'attachment; filename="others.txt"'}
        return Response(as_paths(others), media_type="text/plain; charset=utf-8", headers=headers)
    if action not in ("album", "trash"):
        raise QueryError("the others become paths, an album, or go to the trash")
    if not here.may_write or (action == "trash" and not here.settings.allow_delete):
        raise NotShown(
            "albums are changed by the person at this machine alone, and photos moved to the trash "
            "where `vitsearch serve` has --allow-delete"
        )
    if action == "album":
        return _into_album(here, values.get("album", "").strip(), others)
    # what is confirmed is what was listed, whatever the groups are by now
    listed = " ".join(f"{best.photo_id}-{photo.photo_id}" for best, photo in pairs)
    shown: dict[str, Any] = {
        "kind": kind,
        "pairs": pairs,
        "values": [*_keeping(values), ("listed", listed)],
    }
    if values.get("confirmed") == "yes" and values.get("listed") != listed:
        raise QueryError(CHANGED)
    if values.get("confirmed") != "yes":
        return here.page("trash.html", view=PATH, moved=None, problems=[], **shown)
    moved, problems = _to_trash(here, pairs)
    return here.page("trash.html", view=PATH, moved=moved, problems=problems, **shown)


def _keeping(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the fields of a form that say which photos are kept."""
    return [(name, value) for name, value in values.items() if name.startswith("keep") and value]


def _decided(groups: Sequence[Group], values: Mapping[str, str]) -> list[tuple[Photo, Photo]]:
    """Return each photo that is not kept, after the one of its group that is; raises QueryError
    where a photo is in no group.
    """
    members = {photo.photo_id: group for group in groups for photo, _ in group}
    pairs: list[tuple[Photo, Photo]] = []
    seen: set[int] = set()
    for _, value in _keeping(values):
        group = members.get(int(value)) if value.isdecimal() else None
        if group is None or id(group) in seen:
            raise QueryError(CHANGED)
        seen.add(id(group))
        [best] = [photo for photo, _ in group if photo.photo_id == int(value)]
        pairs += [(best, photo) for photo, _ in group if photo != best]
    if not pairs:
        raise QueryError("say first which photo of a group is kept")
    return pairs


def _into_album(here: PageContext, name: str, photos: Sequence[Photo]) -> Response:
    name = user_data.checked_name(name)
    with busy_when_locked(), writing(here.service.source.folder) as store:
        album = user_data.album_named(store, name) or Album(name)
        user_data.put_album(store, album.with_photos(photo.photo_id for photo in photos))
    return RedirectResponse(album_address(name), 303)


def _to_trash(
    here: PageContext, pairs: Sequence[tuple[Photo, Photo]]
) -> tuple[list[str], list[str]]:
    """Move the second photo of each pair to the trash while the first is there and both are as they
    were indexed; return the paths of those that were moved, and the problems.
    """
    root, moved, problems = here.service.source.root, [], []
    with busy_when_locked(), writing(here.service.source.folder) as store:
        for best, photo in pairs:
            try:
                with open_photo(root, best.file, best) as stays:
                    with open_photo(root, photo.file, photo) as goes:
                        if os.path.samestat(os.fstat(stays.fileno()), os.fstat(goes.fileno())):
                            raise PhotoError(f"is the same file as {best.file}")
                    _move_to_trash(root / photo.file)
                moved.append(photo.file)
            except PhotoError as error:
                problems.append(f"{photo.file}: {error}")
        store.aside.put(moved)
        store.raise_generation(bool(moved))
    return moved, problems


def _move_to_trash(file: Path) -> None:
    """Move a file to the system's trash, from which a person can bring it back; raises PhotoError
    where that cannot be done, and the file stays.
    """
    from send2trash import send2trash

    try:
        send2trash(file)
    except Exception as error:  # each system's has exceptions of its own
        raise PhotoError(f"cannot be moved to the trash: {reason(error)}") from error
