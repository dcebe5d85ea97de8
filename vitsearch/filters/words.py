"""What the words of a query say besides the picture: when, where, with what, which files.

``beach in Portugal last summer`` is a picture of a beach, a country and three months. A small
grammar, English and Spanish, finds such phrases; what they leave is the text of the picture. A word
of two meanings (``may``, ``turkey``, ``canon``) is one of the picture unless its form makes the
other one plain, and names of places, cameras, folders and labels count only where the collection
has them. The words are in `vitsearch.filters.word_lists`, the rules in `vitsearch.filters.phrases`;
docs/search.md explains them.

What has to stand beside a name or a date for it to be a filter is here: a preposition (``in
2019``), the end of the query or the beginning of another phrase (``beach 2019 Portugal``), and word
lists of what makes it part of something else (``1984 poster``, ``map of Italy``).
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache, cached_property

from vitsearch.filters.tree import And, Filter, Or
from vitsearch.filters.word_lists import LISTS

PLACES = ("city", "region", "country")  # columns, where there are such
NAMED = (*PLACES, "camera", "label")  # columns whose values are words of a query

TOKEN = re.compile(r"[^\W_]+")
QUOTED = re.compile(r"\"[^\"]*\"|“[^“”]*”|„[^„“”]*[“”]|«[^«»]*»|(?<!\w)['‘][^'’]*['’](?!\w)")
MIN_YEAR = 1995  # an earlier year by itself counts only where the collection has photos of it

ARTICLES = frozenset({"the", "el", "la", "los", "las", "este", "esta"})
LEADS = {  # kinds of words before a phrase
    "in": "in", "during": "in", "en": "in", "durante": "in", "at": "at", "on": "on",
    "from": "from", "of": "of", "de": "of", "del": "of", "to": "to", "a": "to",
    "since": "since", "desde": "since", "after": "after", "before": "before", "until": "until",
    "till": "until", "hasta": "until", "year": "year", "año": "year",
}  # fmt: skip
SIGNS = {"since": ">=", "after": ">", "before": "<", "until": "<="}


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words of a query that are a filter: their ``(start, end)`` in the text, what they are called
    (``July 2019``), and the filter. Phrases of one ``kind`` are alternatives.
    """

    start: int
    end: int
    title: str
    where: Filter
    kind: str


@dataclass(frozen=True)
class Vocabulary:
    """What a collection has words for: its columns that may be used, and the values of those of
    `NAMED`, the folders, the years of ``taken_at``, and whether it has files that pass a filter.
    """

    columns: frozenset[str]
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folders: Sequence[str] = ()
    years: frozenset[int] = frozenset()
    has_files: Callable[[Filter], bool] = lambda _: True

    @cached_property
    def places(self) -> dict[str, list[tuple[str, str]]]:
        """The (column, value) of each place by its plain names, in other languages too."""
        names: dict[str, list[tuple[str, str]]] = {}
        for column in PLACES:
            for value in self.values.get(column, ()) if column in self.columns else ():
                names.setdefault(plain_name(value), []).append((column, value))
        names.pop("", None)
        for name, others in LISTS["aliases"].items():
            for other in others if name in names else ():
                meanings = names.setdefault(other, [])
                meanings += [each for each in names[name] if each not in meanings]
        return names

    @cached_property
    def cameras(self) -> dict[str, tuple[str, ...]]:
        """The words of each camera by its name."""
        cameras = self.values.get("camera", ()) if "camera" in self.columns else ()
        return {name: tuple(plain_name(name).split()) for name in cameras}

    @cached_property
    def camera_words(self) -> frozenset[str]:
        """All words of the names of cameras."""
        return frozenset(word for name in self.cameras.values() for word in name)

    @cached_property
    def labels(self) -> dict[str, list[str]]:
        """The stored labels by their plain names."""
        names: dict[str, list[str]] = {}
        for value in self.values.get("label", ()):
            names.setdefault(plain_name(value), []).append(value)
        return names

    @cached_property
    def folder_names(self) -> dict[str, list[str]]:
        """The folders by their plain names, of the last part and of all."""
        names: dict[str, list[str]] = {}
        for folder in self.folders:
            for name in {plain_name(folder), plain_name(folder.rpartition("/")[2])}:
                names.setdefault(name, []).append(folder)
        return names


def picture_words(text: str, phrases: Sequence[Phrase]) -> str:
    """Return what phrases leave of a text, "" where nothing of it says what a picture shows."""
    if not phrases:
        return text
    starts = [0, *(phrase.end for phrase in phrases)]
    ends = [*(phrase.start for phrase in phrases), len(text)]
    pieces = [
        _trimmed(text[start:end], left=start > 0, right=end < len(text))
        for start, end in zip(starts, ends, strict=True)
    ]
    rest = " ".join(" ".join(pieces).split())
    left, asking = {*plain_name(rest).split()}, words_of("photos") | words_of("requests")
    return "" if left <= asking | words_of("fillers") and (left & asking or not left) else rest


def all_of(phrases: Sequence[Phrase]) -> Filter | None:
    """Return the filter of all phrases together: those of one kind are alternatives."""
    kinds: dict[str, list[Filter]] = {}
    for phrase in phrases:
        kinds.setdefault(phrase.kind, []).append(phrase.where)
    parts = [Or(tuple(each)) if len(each) > 1 else each[0] for each in kinds.values()]
    return And(tuple(parts)) if len(parts) > 1 else next(iter(parts), None)


def plain_name(text: str) -> str:
    """Return the words of a name in lower case, without accents (but ñ) and signs."""
    return " ".join(TOKEN.findall(plain(text)))


def plain(text: str) -> str:
    """Return a text of the same length in lower case without accents, ñ apart."""
    return "".join(_plain_character(character) for character in text)


@cache
def _plain_character(character: str) -> str:
    lower = character.lower()
    if lower != "ñ":
        lower = unicodedata.normalize("NFD", lower)[:1]
    return {"’": "'", "‘": "'", "`": "'"}.get(lower, lower) or character


@cache
def words_of(name: str) -> frozenset[str]:
    """Return one of the lists of `vitsearch.filters.word_lists`."""
    return frozenset(LISTS["lists"][name])


def _trimmed(text: str, *, left: bool, right: bool) -> str:
    """Return a text without the signs and function words that phrases beside it have left."""
    text = text.strip()
    while left or right:
        before = text
        if left:
            text = text.lstrip(" ,;|&–—.:)")
            first, _, rest = text.partition(" ")
            text = rest if plain(first) in ("and", "or", "of", "y", "o", "e", "de", "del") else text
        if right:
            text = text.rstrip(" ,;|&–—:(")
            rest, _, last = text.rpartition(" ")
            text = rest if plain(last) in words_of("edges") else text
        if text == before:
            break
    return text.strip()


# -- Contexts --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A phrase that the words beside it have still to make plain: its tokens ``[first, last)``, and
    from which token on it begins with its preposition, of a kind of `LEADS`.
    """

    first: int
    last: int
    begin: int
    lead: str
    kind: str
    phrase: Phrase
    weak: str = ""  # which rule its context has to pass, "" for none
    ambiguous: str = ""


class TextReading:
    """A text and the candidates in it, each with what stands beside it."""

    def __init__(self, text: str, vocabulary: Vocabulary, today: date) -> None:
        self._text, self._vocabulary, self._today = text, vocabulary, today
        blanked = QUOTED.sub(lambda match: "\0" * len(match[0]), text)
        self._plain = plain(blanked)
        self._tokens = [match.span() for match in TOKEN.finditer(self._plain)]
        self._words = [self._plain[start:end] for start, end in self._tokens]
        self._starts = {start: index for index, (start, _) in enumerate(self._tokens)}
        self._candidates: list[Candidate] = []

    def _lead(self, first: int) -> tuple[int, str]:
        """Return the token where the words before a phrase begin that belong to it, and their
        kind.
        """
        at = first - 1 if first and self._words[first - 1] in ARTICLES else first
        lead = LEADS.get(self._words[at - 1], "") if at else ""
        if lead == "year":
            begin, before = self._lead(at - 1)
            return (begin, before) if before else (at - 1, "year")
        if lead == "of" and at > 1 and self._words[at - 2] in ("antes", "despues"):
            return at - 2, "before" if self._words[at - 2] == "antes" else "after"
        if not lead:
            return first, ""
        begin = at - 1
        if begin and self._words[begin - 1] in words_of("made"):
            begin -= 1
        return begin, lead

    # -- what the words beside a candidate say --------------------------------------------------

    def _is_plain(self, each: Candidate) -> bool:
        rules = {
            "year": self._plain_year, "month": self._plain_month, "day": self._plain_day,
            "place": self._plain_place, "camera": self._plain_camera, "model": self._plain_camera,
            "period": self._plain_period, "season": self._plain_season,
            "decade": self._plain_decade,
        }  # fmt: skip
        return not each.weak or rules[each.weak](each)

    def _word(self, index: int) -> str:
        return self._words[index] if 0 <= index < len(self._words) else ""

    def _opens(self, begin: int) -> bool:
        """Return whether a phrase that begins here has nothing before it but other phrases."""
        return (
            begin == 0
            or any(each.last == begin for each in self._candidates)
            or (self._word(begin - 1) in ("and", "or", "y", "o", "e") and self._opens(begin - 1))
        )

    def _closes(self, last: int) -> bool:
        """Return whether here is the end, a comma, another phrase, or a word that begins another
        part of the query.
        """
        if last == len(self._words):
            rest = self._plain[self._tokens[-1][1] :]
            return not rest.strip(" .,;:!?)")
        between = self._plain[self._tokens[last - 1][1] : self._tokens[last][0]]
        if "\0" in between or "'" in between:
            return False
        return (
            any(sign in between for sign in ",;|()/–—")
            or self._word(last) in words_of("connectors")
            or self._begins(last)
            or (self._word(last) in ("and", "or", "y", "o", "e") and self._begins(last + 1))
        )

    def _begins(self, index: int) -> bool:
        return any(index in (each.begin, each.first) for each in self._candidates)

    def _before(self, begin: int) -> str:
        """Return the word before a phrase, "" where another phrase or the beginning is there."""
        return "" if self._opens(begin) else self._word(begin - 1)

    def _lists_photos(self, begin: int) -> bool:
        return any(word in words_of("photos") for word in self._words[:begin])

    def _is_scene(self, index: int) -> bool:
        return self._word(index) in words_of("scenes") | words_of("photos")

    def _of_photos(self, begin: int) -> bool:
        """Return whether what is before a phrase happens at a time and a place, or is photos."""
        return self._opens(begin) or self._is_scene(begin - 1) or self._lists_photos(begin)

    def _stands_alone(self, each: Candidate) -> bool:
        """Return whether the word before does not make this part of something else."""
        before = self._before(each.begin)
        part_of_other = (words_of("function") | words_of("things") | words_of("parts_of_names")) - {
            "",
            "con",
            "with",
        }
        after_quote = "\0" in self._plain[: self._tokens[each.begin][0]].rstrip()[-1:]
        return (
            before not in part_of_other
            and before not in LEADS
            and not has_digit(before)
            and not after_quote
        )

    def _plain_period(self, each: Candidate) -> bool:
        after = self._word(each.last)
        text = self._plain[each.phrase.start : each.phrase.end]
        if after in words_of("goods"):
            return False
        if re.match(r"last |past |this |previous ", text) and not re.search(r"\d", text):
            return after not in ("of", "tonight", "standing", "minute")
        if text in ("today", "yesterday", "hoy", "ayer"):
            titles = ("show", "album", "movie", "song", "cover", "poster", "once")
            before = self._word(each.first - 1)
            if each.lead == "of" and self._of_photos(each.begin):
                return after not in titles
            return after not in titles and before not in words_of("things") | {"usa", "of", "the"}
        return self._before(each.begin) not in ("happy", "merry", "feliz", "prospero")

    def _plain_season(self, each: Candidate) -> bool:
        return self._closes(each.last) and self._stands_alone(each)

    def _plain_decade(self, each: Candidate) -> bool:
        """A car from the 1950s is a kind of car, photos from the 1950s are of that time."""
        of_photos = self._opens(each.begin) or self._lists_photos(each.begin)
        return each.lead in ("in", "from", "of") and of_photos and self._closes(each.last)

    def _plain_year(self, each: Candidate) -> bool:
        year = int(self._words[each.first])
        likely = year >= MIN_YEAR or year in self._vocabulary.years
        before = self._before(each.begin)
        closed = self._closes(each.last)
        if each.lead in ("in", "year", *SIGNS):
            return closed and before not in words_of("parts_of_names") | {"fashion", "set"}
        if each.lead == "from":
            return (
                closed
                and before not in words_of("things")
                and (likely or self._of_photos(each.begin))
            )
        if each.lead == "of":
            spanish = likely and self._word(each.begin) in ("de", "del")
            is_thing = before in words_of("things")
            return closed and (self._of_photos(each.begin) or (spanish and not is_thing))
        if each.lead:
            return False
        return likely and (closed or self._is_scene(each.last)) and self._stands_alone(each)

    def _plain_month(self, each: Candidate) -> bool:
        closed = self._closes(each.last)
        if each.lead == "in":
            return closed
        if each.lead in ("from", "of"):
            return closed and self._of_photos(each.begin)
        return not each.lead and not each.ambiguous and closed and self._stands_alone(each)

    def _plain_day(self, each: Candidate) -> bool:
        article = self._word(each.first - 1) == "el"
        if each.lead in ("on", "from", "of") or article:
            return self._closes(each.last)
        return not each.ambiguous and self._closes(each.last) and self._stands_alone(each)

    def _plain_place(self, each: Candidate) -> bool:
        closed, before = self._closes(each.last), self._before(each.begin)
        initials = [self._text[start] for start, _ in self._tokens]
        capital = initials[each.first].isupper() and any(map(str.islower, initials))
        beside = any(
            other.weak == "place" and other.last == each.begin for other in self._candidates
        )
        doubt = bool(each.ambiguous)
        if each.ambiguous == "word" and not (capital and (each.lead or beside)):
            return False
        if doubt and not closed:
            return False
        if each.lead in ("in", "at"):
            after = self._word(each.last)
            return before not in words_of("parts_of_names") and after not in words_of("things")
        if each.lead == "from":
            return closed and self._of_photos(each.begin)
        if each.lead == "to":
            return closed and before in words_of("trips")
        if each.lead == "of":
            return closed and self._of_photos(each.begin) and (capital or not doubt)
        if each.lead:
            return False
        if doubt:
            return beside
        return (closed or self._is_scene(each.last)) and self._stands_alone(each)

    def _plain_camera(self, each: Candidate) -> bool:
        begin = each.first
        if self._word(begin - 1) in words_of("possessives"):
            begin -= 1
        if self._word(begin - 1) in ("camera", "camara"):
            return True
        if self._word(each.last) in words_of("photos"):  # my iPhone photos
            return not each.ambiguous and self._opens(begin)
        if self._word(begin) in ("my", "mi") and self._lists_photos(begin):
            return self._closes(each.last)
        if self._word(begin - 1) in words_of("camera_leads"):
            begin -= 1
            if self._word(begin - 1) in words_of("made"):
                return True
            return (
                not each.ambiguous
                and self._closes(each.last)
                and (self._opens(begin) or self._is_scene(begin - 1) or self._lists_photos(begin))
            )
        ends = self._closes(each.last) and (
            self._begins(each.last) or self._word(each.last) not in words_of("connectors")
        )
        if each.ambiguous or begin != each.first or not ends:
            return False
        if each.weak == "model":
            return self._stands_alone(each)
        return self._opens(begin) or self._is_scene(begin - 1)


def has_digit(word: str) -> bool:
    return any(character.isdecimal() for character in word)
