"""The page of several collections: which there are, and a search in all of one encoder."""

from collections import Counter
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from vitsearch.errors import QueryError, VitsearchError
from vitsearch.types import SearchResult
from vitsearch.web.api.collections import group_of, several_of
from vitsearch.web.pages.context import page
from vitsearch.web.pages.tiles import counted, thumbnail, tile
from vitsearch.web.pages.url import PER_PAGE, address, page_number
from vitsearch.web.privacy import exif_shown
from vitsearch.web.query import MAX_TEXT_LENGTH
from vitsearch.web.several import Group, Member

router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/in/")
def overview(request: Request) -> Response:
    """The collections; with words what fits them best in all of one encoder."""
    parameters = request.query_params
    words, key = parameters.get("q", "").strip(), parameters.get("model", "")
    several = several_of(request)
    groups = several.groups()
    shown: dict[str, Any] = {
        "collections": several.links(),
        "views": (),
        "words": words,
        "groups": _named(groups),
        "chosen": key,
        "fault": "",
        "tiles": [],
        "phrases": [],
        "searched": "",
        "left_out": "",
        "previous": "",
        "next": "",
        "page": 1,
        "cards": [] if words else [_card(member) for member in several.members],
    }
    status = 200
    if words:
        try:
            if len(words) > MAX_TEXT_LENGTH:
                raise QueryError(f"a query may have {MAX_TEXT_LENGTH:,} characters")
            number = page_number(parameters.get("page", ""))
            shown |= _results(request, words, group_of(request, key), number)
        except QueryError as error:
            status, shown["fault"] = 400, str(error)
    return page("collections.html", shown, status=status)


def _named(groups: list[Group]) -> list[tuple[str, str]]:
    """Return key and name of each encoder, with its number format where names are the same."""
    counts = Counter(group.encoder.name for group in groups)
    return [
        (
            group.key,
            f"{group.encoder.name} ({group.encoder.dtype})"
            if counts[group.encoder.name] > 1
            else group.encoder.name,
        )
        for group in groups
    ]


def _model(member: Member) -> str:
    """Return the name of a collection's encoder, "" where it has none yet or cannot be read."""
    try:
        return member.service.encoder.name
    except VitsearchError:
        return ""


def _card(member: Member) -> dict[str, Any]:
    """Return what the page shows of a collection."""
    card = {"name": member.name, "address": f"{member.path}/", "cover": "", "model": ""}
    service = member.site.service
    if service is None:
        return card | {"count": "not indexed yet"}
    try:
        photos, total = service.browse(k=1)
        card["count"] = counted(total, "photo", "photos")
        card["model"] = _model(member)
        card["cover"] = f"{member.path}{thumbnail(photos[0].photo_id, 320)}" if photos else ""
    except VitsearchError:
        card["count"] = "cannot be read just now"
    return card


def _results(request: Request, words: str, group: Group, number: int) -> dict[str, Any]:
    """Return a page of the results in the collections of one encoder."""
    start, private = (number - 1) * PER_PAGE, exif_shown(request)
    results, understood = group.search(words, k=PER_PAGE + 1, offset=start, private=private)
    names = [member.name for member in group.members]
    others = [
        f"{each.name} ({_model(each) or 'not indexed yet'})"
        for each in several_of(request).members
        if each not in group.members
    ]
    pairs = [("q", words), ("model", group.key)]
    more = len(results) > PER_PAGE
    return {
        "chosen": group.key,
        "tiles": _tiles(results[:PER_PAGE], words, shows_exif=private),
        "phrases": understood.titles,
        "searched": _listed(names),
        "left_out": _listed(others),
        "page": number,
        "previous": address("/", [*pairs, ("page", str(number - 1))]) if number > 1 else "",
        "next": address("/", [*pairs, ("page", str(number + 1))]) if more else "",
    }


def _tiles(
    results: list[tuple[Member, SearchResult]], words: str, *, shows_exif: bool
) -> list[dict[str, Any]]:
    """Return the tiles of results; photos that are gone meanwhile are left out."""
    by_member: dict[Member, list[int]] = {}
    for member, result in results:
        by_member.setdefault(member, []).append(result.photo_id)
    photos = {
        (member, photo.photo_id): photo
        for member, ids in by_member.items()
        for photo in member.service.photos_of(ids)
    }
    tiles = []
    for member, result in results:
        photo = photos.get((member, result.photo_id))
        if photo is not None:
            shown = tile(photo, result.score, shows_exif=shows_exif)
            to = address(f"{member.path}/photos/{photo.photo_id}", [("q", words)])
            tiles.append({"tile": shown, "to": to, "path": member.path, "name": member.name})
    return tiles


def _listed(names: list[str]) -> str:
    """Return names as a person lists them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
