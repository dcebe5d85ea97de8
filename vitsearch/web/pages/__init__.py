"""The pages that a person sees: photos as they show them, with their addresses and the texts about
them, and the search in the address of a page, read from its parameters and written into them.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from vitsearch.errors import QueryError
from vitsearch.filters import filter_all
from vitsearch.filters.tree import Filter
from vitsearch.photos.columns import METADATA, clock
from vitsearch.photos.formats import PLAYED, suffix_of
from vitsearch.types import Photo

# the longest side of a photo in a grid, in CSS pixels, before the grid fits it into its row
BOX = 320
LARGE = 1280  # and of a photo by itself


@dataclass(frozen=True, slots=True)
class Tile:
    """A photo in a grid: ``box`` is the width and height of its picture, ``size`` of the photo,
    ``detail`` a word about it in place of the score, ``moment`` the time of one in a video, and
    ``plays`` the address from which a browser plays it.
    """

    photo_id: int
    name: str
    path: str
    alt: str
    box: tuple[int, int]
    size: tuple[int, int]
    score: float | None = None
    detail: str = ""
    moment: str = ""
    plays: str = ""

    @property
    def shape(self) -> int:
        """Ten times its width over its height, within the limits of a grid: part of the name of a
        class in app.css.
        """
        return min(40, max(4, round(10 * self.box[0] / self.box[1])))


def tile(
    photo: Photo,
    score: float | None = None,
    *,
    detail: str = "",
    side: int = BOX,
    shows_exif: bool = False,
) -> Tile:
    """Return the tile of a photo."""
    name, moment = photo.file.rpartition("/")[2], clock(photo.time)
    taken_at = photo.info["taken_at"]
    day = f", {spoken_date(str(taken_at))}" if shows_exif and taken_at else ""
    label = f", {photo.label}" if photo.label else ""
    return Tile(
        photo.photo_id,
        name,
        photo.file,
        f"{name}{f' at {moment}' if moment else ''}{label}{day}",
        fitted(photo.info.width, photo.info.height, side),
        (photo.info.width, photo.info.height),
        score,
        detail,
        moment,
        video(photo.photo_id, photo.time) if shows_exif and _plays(photo) else "",
    )


def _plays(photo: Photo) -> bool:
    return photo.time is not None and suffix_of(photo.file) in PLAYED


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the width and height, at least 1, of a picture whose longest side is ``side``."""
    longest = max(width, height, 1)
    return max(1, round(width * side / longest)), max(1, round(height * side / longest))


def thumbnail(photo_id: int, side: int) -> str:
    """Return the address of a small picture of a photo."""
    return f"/api/photos/{photo_id}/thumbnail?size={side}"


def image(photo_id: int) -> str:
    """Return the address of a whole photo."""
    return f"/api/photos/{photo_id}/image"


def video(photo_id: int, seconds: float | None) -> str:
    """Return the address of a moment of a whole video (W3C Media Fragments URI 1.0)."""
    return f"{image(photo_id)}#t={seconds:g}" if seconds is not None else image(photo_id)


def spoken_date(taken_at: str) -> str:
    """Return a date of ISO 8601 as people write it: 14 July 2019, 18:30."""
    try:
        when = datetime.fromisoformat(taken_at)
    except ValueError:
        return taken_at
    day = f"{when.day} {when:%B %Y}"
    return f"{day}, {when:%H:%M}" if "T" in taken_at else day


def size_text(count: int) -> str:
    """Return a number of bytes as people write it: 1.2 MB."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:,.0f} {unit}" if amount >= 10 or unit == "bytes" else f"{amount:.1f} {unit}"


def counted(count: int, singular: str, plural: str) -> str:
    """Return a number of things: 1 photo, 1,200 photos."""
    return f"{count:,} {singular if count == 1 else plural}"


def clean(value: Any) -> Any:
    """Return a value as a page may hold it: bytes of a name that are not UTF-8, controls and marks
    that change the direction of text become U+FFFD.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value  # the parts of markup have been cleaned already
    if value.isascii() and value.isprintable():
        return value
    return "".join("\ufffd" if _is_hidden(char) else char for char in value)


def _is_hidden(char: str) -> bool:
    if char in "\n\t\u200d\u200c":
        return False
    return unicodedata.category(char) in ("Cc", "Cs", "Cf")


def is_clean(text: str) -> bool:
    """Return whether a form sends a text back unchanged."""
    return bool(clean(text) == text and text == text.strip() and "\n" not in text)


# -- The search in an address ----------------------------------------------------------------------


Pairs = list[tuple[str, str]]

MAX_PICKS, MAX_LABELS, MAX_SELECTED = 50, 500, 1000
MAX_QUERY_LENGTH = 2000
PER_PAGE = 60  # photos
# weights of a photo beside words: two photos are more alike than a photo and words ever are
LIKE, UNLIKE = 0.5, -0.5
ALONE = 1.0  # weight of a photo by itself
MAX_WEIGHT = 10.0
MAX_ID = 2**63 - 1
CHOICES = tuple(
    name for name, column in METADATA.items() if column.kind == "text" and not column.apart
)
FIELDS = ("after", "before", "under", *CHOICES, "label", "where")
SORTS = ("taken", "added", "name")  # orders of photos besides that of likeness
NO_LABEL = "(none)"  # of the filter: photos without a stored label

_PICK = re.compile(r"w(\d{1,19})", re.ASCII)
_UPLOAD = re.compile(r"u([0-9a-f]{32})", re.ASCII)


class PickedPhoto(NamedTuple):
    """A photo of the collection in a query, and its weight, negative for "not like this"."""

    photo_id: int
    weight: float


class UploadedRef(NamedTuple):
    """An uploaded photo in a query, by the hash of its bytes, and its weight."""

    key: str
    weight: float


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of the page as written, "" where one is not set; ``choices`` are the metadata
    columns of `CHOICES` that are set, with their values.
    """

    after: str = ""
    before: str = ""
    under: str = ""
    label: str = ""
    where: str = ""
    choices: tuple[tuple[str, str], ...] = ()

    def tree(self) -> Filter | None:
        """Return the filter that all of them make together; raises QueryError."""
        parts = [f"({self.where})"] if self.where else []
        parts += [f"{name} = {sql_quote(value)}" for name, value in self.choices]
        if self.label == NO_LABEL:
            parts.append("label is null")
        elif self.label:
            parts.append(f"label = {sql_quote(self.label)}")
        if self.where:
            # first by itself: its error names columns, and its brackets must not reach outside
            filter_all(self.where)
        return filter_all(
            " and ".join(parts) or None,
            after=self.after or None,
            before=self.before or None,
            under=self.under or None,
        )

    def pairs(self) -> Pairs:
        """Return the names and values of those that are set."""
        values = dict(self.choices)
        values |= {name: getattr(self, name) for name in FIELDS if name not in CHOICES}
        return [(name, values[name]) for name in FIELDS if values.get(name)]


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The search in the address of a page: words, picked and uploaded photos with their weights,
    filters, and the page of results; with ``literal`` all words are the picture's, with ``nearest``
    photos are shown however little they fit; ``sort`` is one of `SORTS`, "" the usual one.
    """

    words: str = ""
    picks: tuple[PickedPhoto, ...] = ()
    uploads: tuple[UploadedRef, ...] = ()
    filters: Filters = Filters()
    page: int = 1
    literal: bool = False
    nearest: bool = False
    sort: str = ""

    @property
    def is_query(self) -> bool:
        """Whether photos are ranked by likeness; otherwise all are listed."""
        return bool(self.words or self.picks or self.uploads)

    def pairs(self, *, page: bool = False) -> Pairs:
        """Return the parameters of its address; with ``page`` that of the page too."""
        pairs: Pairs = [("q", self.words)] if self.words else []
        pairs += [(f"w{pick.photo_id}", number(pick.weight)) for pick in self.picks]
        pairs += [(f"u{upload.key}", number(upload.weight)) for upload in self.uploads]
        pairs += self.filters.pairs()
        pairs += [("literal", "1")] if self.literal and self.words else []
        pairs += [("nearest", "1")] if self.nearest and self.words else []
        pairs += [("sort", self.sort)] if self.sort else []
        return [*pairs, ("page", str(self.page))] if page and self.page > 1 else pairs

    def address(self, path: str = "/", *, page: int | None = None) -> str:
        """Return the address of this search, or of a page of its results."""
        return address(path, replace(self, page=page or 1).pairs(page=True))

    def like(self, photo_id: int) -> "PageQuery":
        """Return the search that also looks for photos like this one."""
        return self.with_picks([photo_id], LIKE if self.is_query else ALONE)

    def unlike(self, photo_id: int) -> "PageQuery":
        """Return the search that also looks for photos not like this one."""
        return self.with_picks([photo_id], UNLIKE)

    def with_picks(self, photo_ids: Iterable[int], weight: float) -> "PageQuery":
        """Return the search in which these photos have this weight."""
        chosen = {photo_id: PickedPhoto(photo_id, weight) for photo_id in photo_ids}
        others = (pick for pick in self.picks if pick.photo_id not in chosen)
        return replace(self, picks=(*others, *chosen.values()), page=1)

    def without(self, name: str) -> "PageQuery":
        """Return the search without the term or filter whose parameter has this name."""
        return read_page_query([pair for pair in self.pairs() if pair[0] != name])


def read_filters(parameters: Mapping[str, str]) -> Filters:
    """Return the filters of an address's parameters by name."""
    return Filters(
        **{name: parameters.get(name, "") for name in FIELDS if name not in CHOICES},
        choices=tuple((name, parameters[name]) for name in CHOICES if parameters.get(name)),
    )


def read_page_query(parameters: Iterable[tuple[str, str]]) -> PageQuery:
    """Return the search of an address's parameters, the last of each name; raises QueryError.

    An empty weight, or one of 0, leaves its photo out, so that a form can be emptied.
    """
    values = {name: value.strip() for name, value in parameters}
    picks: dict[int, float] = {}
    uploads: dict[str, float] = {}
    for name, value in values.items():
        if match := _PICK.fullmatch(name):
            picks[_photo_id(match[1])] = _weight(value)
        elif match := _UPLOAD.fullmatch(name):
            uploads[match[1]] = _weight(value)
    if len(picks) + len(uploads) > MAX_PICKS:
        raise QueryError(f"a search takes up to {MAX_PICKS} photos: leave some out")
    words = values.get("q", "")
    if len(words) > MAX_QUERY_LENGTH:
        raise QueryError(
            f"the search has {len(words):,} characters, more than "
            f"{MAX_QUERY_LENGTH:,}: make it shorter"
        )
    return PageQuery(
        words,
        tuple(PickedPhoto(photo_id, weight) for photo_id, weight in picks.items() if weight),
        tuple(UploadedRef(key, weight) for key, weight in uploads.items() if weight),
        read_filters(values),
        page_number(values.get("page", "")),
        values.get("literal") == "1",
        values.get("nearest") == "1",
        _sort(values.get("sort", "")),
    )


def _sort(text: str) -> str:
    if text and text not in SORTS:
        raise QueryError(f"photos are sorted by {', '.join(SORTS)}, not by {text[:40]!r}")
    return text


def page_number(text: str) -> int:
    """Return the number of a page, 1 where none is given; raises QueryError."""
    if not text:
        return 1
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise QueryError("a page is a number from 1 on")
    return int(text)


def selection(values: Sequence[str]) -> list[int]:
    """Return the ids of the ticked photos, each once; raises QueryError."""
    if len(values) > MAX_SELECTED:
        raise QueryError(f"a selection holds up to {MAX_SELECTED:,} photos: take fewer at a time")
    if not values:
        raise QueryError("nothing is selected: tick some photos first")
    return list(dict.fromkeys(_photo_id(value) for value in values))


def label_lines(text: str) -> list[str]:
    """Return the labels of a text, with commas or line breaks between; raises QueryError for too
    many.
    """
    labels = [label.strip() for label in re.split(r"[,\n]", text) if label.strip()]
    if len(labels) > MAX_LABELS:
        raise QueryError(
            f"the page takes up to {MAX_LABELS} labels, not {len(labels):,}: "
            "`vitsearch label` takes more"
        )
    return labels


def neighbours(path: str, pairs: Pairs, number: int, *, more: bool) -> dict[str, str]:
    """Return the addresses of the previous and the next page of a list."""
    return {
        "previous": address(path, [*pairs, ("page", str(number - 1))]) if number > 1 else "",
        "next": address(path, [*pairs, ("page", str(number + 1))]) if more else "",
    }


def address(path: str, pairs: Pairs) -> str:
    """Return a path with parameters; bytes that are not UTF-8 stay as they are."""
    return f"{path}?{urlencode(pairs, errors='surrogateescape')}" if pairs else path


class PhotoLinks:
    """The addresses at the photos of one search, from what is the same for all of them: a page has
    three for each photo.
    """

    def __init__(self, query: PageQuery | None) -> None:
        search = query or PageQuery()
        self._query, self._picked = search, {pick.photo_id for pick in search.picks}
        self._page = address("", search.pairs(page=True)) if query else ""
        before, after = replace(search, uploads=(), filters=Filters()), replace(search, words="")
        self._before = address("/", before.pairs()) + ("&" if before.is_query else "?")
        self._after = address("", replace(after, picks=()).pairs()).replace("?", "&", 1)

    def page(self, photo_id: int) -> str:
        """Return the address of a photo's page, from which the search can go on."""
        return f"/photos/{photo_id}{self._page}"

    def like(self, photo_id: int) -> str:
        """Return the address of the search that also looks for photos like this one."""
        if photo_id in self._picked:
            return self._query.like(photo_id).address()
        weight = LIKE if self._query.is_query else ALONE
        return f"{self._before}w{photo_id}={number(weight)}{self._after}"

    def unlike(self, photo_id: int) -> str:
        """Return the address of the search that also looks for photos not like this one."""
        if photo_id in self._picked:
            return self._query.unlike(photo_id).address()
        return f"{self._before}w{photo_id}={number(UNLIKE)}{self._after}"


def number(value: float) -> str:
    """Return a weight written as briefly as possible."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def sql_quote(text: str) -> str:
    """Return a text as a quoted string of the filter language."""
    return "'" + text.replace("'", "''") + "'"


def _photo_id(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > MAX_ID:
        raise QueryError("a photo is named by its number")
    return int(text)


def _weight(text: str) -> float:
    try:
        weight = float(text or 0)
    except ValueError:
        raise QueryError(f"a weight is a number, not {text[:40]!r}") from None
    if not math.isfinite(weight) or abs(weight) > MAX_WEIGHT:
        raise QueryError(
            f"a weight is a number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, not {text[:40]}"
        )
    return round(weight, 4)
