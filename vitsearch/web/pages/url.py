"""What the address of a page asks for, and the address of a page that asks for something."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import urlencode

from vitsearch.errors import QueryError
from vitsearch.filters import Filter, filter_all
from vitsearch.photos.columns import METADATA

Pairs = list[tuple[str, str]]

MAX_PICKS, MAX_LABELS, MAX_SELECTED = 50, 500, 1000
MAX_QUERY_LENGTH = 2000
LIKE, UNLIKE = (
    0.5,
    -0.5,
)  # of a photo beside words: two photos are more alike than a photo and words ever are
ALONE = 1.0  # of a photo by itself
MAX_WEIGHT = 10.0
MAX_ID = 2**63 - 1
CHOICES = tuple(name for name, column in METADATA.items() if column.kind == "text")
FIELDS = ("after", "before", "under", *CHOICES, "label", "where")
NO_LABEL = "(none)"  # of the filter: photos without a stored label

_PICK = re.compile(r"w(\d{1,19})", re.ASCII)
_DROPPED = re.compile(r"u([0-9a-f]{32})", re.ASCII)


class PickedPhoto(NamedTuple):
    """A photo of the collection in a query, and its weight, negative for "not like this"."""

    photo_id: int
    weight: float


class UploadedRef(NamedTuple):
    """A photo that a person brought, by the hash of its bytes, and its weight."""

    key: str
    weight: float


@dataclass(frozen=True, slots=True)
class Filters:
    """What the filters of the page hold, as written; "" where one is not set. ``choices`` are the
    metadata columns of `CHOICES` that are set, with what they should be.
    """

    after: str = ""
    before: str = ""
    under: str = ""
    label: str = ""
    where: str = ""
    choices: tuple[tuple[str, str], ...] = ()

    def tree(self) -> Filter | None:
        """Return the condition that all of them make; raises QueryError."""
        parts = [f"({self.where})"] if self.where else []
        parts += [f"{name} = {sql_quote(value)}" for name, value in self.choices]
        if self.label:
            parts.append(
                "label is null" if self.label == NO_LABEL else f"label = {sql_quote(self.label)}"
            )
        if self.where:
            filter_all(
                self.where
            )  # by itself first: its error names places, and no bracket may reach outside
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
    """A search as the page's address has it: words, picked and dropped photos with weights,
    filters, and the page of the results.
    """

    words: str = ""
    picks: tuple[PickedPhoto, ...] = ()
    dropped: tuple[UploadedRef, ...] = ()
    filters: Filters = Filters()
    page: int = 1

    @property
    def is_query(self) -> bool:
        """Whether there is something to be like; without, the photos come in order of path."""
        return bool(self.words or self.picks or self.dropped)

    def pairs(self, *, page: bool = False) -> Pairs:
        """Return the parameters of its address; with ``page`` that of the page too."""
        found: Pairs = [("q", self.words)] if self.words else []
        found += [(f"w{pick.photo_id}", number(pick.weight)) for pick in self.picks]
        found += [(f"u{one.key}", number(one.weight)) for one in self.dropped]
        found += self.filters.pairs()
        return [*found, ("page", str(self.page))] if page and self.page > 1 else found

    def address(self, path: str = "/", *, page: int | None = None) -> str:
        """Return the address of this search, on a page of its results."""
        return address(path, replace(self, page=page or 1).pairs(page=True))

    def like(self, photo_id: int) -> "PageQuery":
        """Return the search that also looks for photos like this one."""
        return self.with_picks([photo_id], LIKE if self.is_query else ALONE)

    def unlike(self, photo_id: int) -> "PageQuery":
        """Return the search that also looks for photos not like this one."""
        return self.with_picks([photo_id], UNLIKE)

    def with_picks(self, photo_ids: Iterable[int], weight: float) -> "PageQuery":
        """Return the search in which these photos have this weight."""
        chosen = dict.fromkeys(photo_ids)
        kept = tuple(pick for pick in self.picks if pick.photo_id not in chosen)
        return replace(
            self, picks=(*kept, *(PickedPhoto(photo_id, weight) for photo_id in chosen)), page=1
        )

    def without(self, name: str) -> "PageQuery":
        """Return the search without the term or filter whose parameter has this name."""
        return asked([(given, value) for given, value in self.pairs() if given != name])


def read_filters(parameters: Mapping[str, str]) -> Filters:
    """Return the filters of an address's parameters by name."""
    return Filters(
        **{name: parameters.get(name, "") for name in FIELDS if name not in CHOICES},
        choices=tuple((name, parameters[name]) for name in CHOICES if parameters.get(name)),
    )


def asked(parameters: Iterable[tuple[str, str]]) -> PageQuery:
    """Return the search of an address's parameters, the last of each name; raises QueryError.

    A weight of 0 or of nothing leaves its photo out, so that a form can be emptied.
    """
    given = {name: value.strip() for name, value in parameters}
    picks: dict[int, float] = {}
    dropped: dict[str, float] = {}
    for name, value in given.items():
        if match := _PICK.fullmatch(name):
            picks[_photo_id(match[1])] = _weight(value)
        elif match := _DROPPED.fullmatch(name):
            dropped[match[1]] = _weight(value)
    if len(picks) + len(dropped) > MAX_PICKS:
        raise QueryError(f"a search takes up to {MAX_PICKS} photos: leave some out")
    words = given.get("q", "")
    if len(words) > MAX_QUERY_LENGTH:
        raise QueryError(
            f"the search has {len(words):,} characters, more than "
            f"{MAX_QUERY_LENGTH:,}: make it shorter"
        )
    filters = read_filters(given)
    return PageQuery(
        words,
        tuple(PickedPhoto(photo_id, weight) for photo_id, weight in picks.items() if weight),
        tuple(UploadedRef(key, weight) for key, weight in dropped.items() if weight),
        filters,
        page_number(given.get("page", "")),
    )


def page_number(text: str) -> int:
    """Return the number of a page, 1 where none is given; raises QueryError."""
    if not text:
        return 1
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise QueryError("a page is a number from 1 on")
    return int(text)


def selection(values: Sequence[str]) -> list[int]:
    """Return the ids of a selection, each once; raises QueryError."""
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


def address(path: str, pairs: Pairs) -> str:
    """Return a path with parameters; what is no UTF-8 keeps its bytes."""
    return f"{path}?{urlencode(pairs, errors='surrogateescape')}" if pairs else path


def number(value: float) -> str:
    """Return a weight as short as it can be written."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def sql_quote(text: str) -> str:
    """Return a text as a filter writes it."""
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
