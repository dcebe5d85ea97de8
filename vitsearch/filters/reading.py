"""A query and the candidates of phrases in it: the words before each that belong to it or turn it
round, and whether it opens or closes a part of the query.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from vitsearch.filters.word_lists import date_words
from vitsearch.filters.words import QUOTED, TOKEN, Phrase, Vocabulary, plain, words_of

ARTICLES = frozenset({"the", "el", "la", "los", "las", "este", "esta"})
LEADS = {  # kinds of words before a phrase
    "in": "in", "during": "in", "en": "in", "durante": "in", "throughout": "in", "dated": "in",
    "at": "at", "on": "on",
    "from": "from", "of": "of", "de": "of", "del": "of", "to": "to", "a": "to", "por": "to",
    "since": "since", "desde": "since", "after": "after", "before": "before", "until": "until",
    "till": "until", "hasta": "until", "year": "unit", "año": "unit",
    "al": "to", "between": "between", "entre": "between",
    "around": "around", "circa": "around",
    "pre": "before", "post": "after",
    "entire": "all", "whole": "all", "todo": "all", "toda": "all",
}  # fmt: skip
TIMES_OF_DAY = {  # after a place these go on with the picture
    ("de", "noche"), ("de", "dia"), ("por", "la"), ("al", "atardecer"), ("al", "amanecer"),
    ("by", "night"), ("by", "day"),
}  # fmt: skip
LEAD_PHRASES = {  # one that ends with another stands before it
    ("antes", "de"): "before", ("antes", "del"): "before", ("despues", "de"): "after",
    ("despues", "del"): "after", ("a", "partir", "de"): "since", ("a", "partir", "del"): "since",
    ("up", "to"): "until", ("no", "later", "than"): "until", ("not", "before"): "since",
    ("older", "than"): "before", ("earlier", "than"): "before", ("newer", "than"): "after",
    ("later", "than"): "after", ("anteriores", "a"): "before", ("posteriores", "a"): "after",
    ("alrededor", "de"): "around", ("in", "the", "city", "of"): "in", ("the", "city", "of"): "in",
    ("city", "of"): "in", ("en", "la", "ciudad", "de"): "in", ("la", "ciudad", "de"): "in",
    ("ciudad", "de"): "in", ("all", "of"): "in", ("the", "whole", "of"): "in",
    ("all", "through"): "in", ("a", "lo", "largo", "de"): "in", ("a", "lo", "largo", "del"): "in",
}  # fmt: skip
PLACE_KEYS = {"place", "city", "region", "country", "lugar", "ciudad", "pais"}
UNITS_OF = {("month", "of"), ("mes", "de")}
NEGATION_PHRASES = {  # with the preposition of what follows, if they end with one
    ("outside", "of"), ("fuera", "de"), ("fuera", "del"), ("except", "for"), ("apart", "from"),
    ("aside", "from"), ("other", "than"), ("aparte", "de"), ("aparte", "del"), ("no", "sea"),
    ("que", "no", "sea"), ("no", "sean"), ("no", "son"), ("no", "es"), ("no", "esta"),
    ("no", "esten"), ("no", "estan"),
    ("all", "but"), ("everything", "but"), ("anything", "but"),
    ("everywhere", "but"), ("anywhere", "but"), ("everywhere", "except"), ("anywhere", "except"),
}  # fmt: skip
PHRASE_ENDS = {words[-1] for words in (*LEAD_PHRASES, *NEGATION_PHRASES)}
NEGATED_VERBS = {"isn", "aren", "wasn", "weren"}  # before 't
RELATIVES = {"that", "which", "who", "is", "are", "was", "were", "que"}  # before a negation
_NOT_WANTED = re.compile(  # I don't want to see
    r"(?<!\w)(?:(?:i|we|yo) )?(?:don'?t|do not|never|no) (?:me |nos )?"
    r"(?:want|need|show|give|include|quiero|queremos|muestres|enseñes|incluyas|pongas)"
    r"(?: me| us)?(?: to see| to include| ver)? (?P<other>.*)"
)
JOINS = ("and", "or", "y", "o", "e")
SIGNS = {"since": ">=", "after": ">", "before": "<", "until": "<="}


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
        self._ends = {end: index for index, (_, end) in enumerate(self._tokens, 1)}
        self._candidates: list[Candidate] = []

    def _lead(self, first: int) -> tuple[int, str]:
        """Return the token where the words before a phrase begin that belong to it, and their
        kind.
        """
        at = first - 1 if first and self._words[first - 1] in ARTICLES else first
        if self._word(at - 1) in PLACE_KEYS and self._between(at) == ":":  # country:Spain
            return at - 1, "in"
        lead = self._lead_at(at - 1)
        is_unit_of = (self._word(at - 2), self._word(at - 1)) in UNITS_OF
        is_day = self._word(at - 1) == "dia" and len(self._words[at]) < 3  # el día 3 de mayo
        if lead == "unit" or is_unit_of or is_day:
            unit = at - 1 - is_unit_of
            begin, before = self._lead(unit)
            return (begin, before) if before else (unit, "unit")
        if (start := self._words_before(at, LEAD_PHRASES)) is not None:
            return start, LEAD_PHRASES[tuple(self._words[start:at])]
        if not lead:
            return first, ""
        begin = at - 1
        if begin and self._words[begin - 1] in words_of("made") | {"back", "sometime"}:
            begin -= 1
        return begin, lead

    def _lead_at(self, index: int) -> str:
        """Return the kind of the word at a token, "" for one that leads to no phrase."""
        before = self._word(index - 1), self._word(index)
        if before == ("new", "year") or (
            before == ("de", "año") and self._word(index - 2) == "fin"
        ):
            return ""  # lunar new year 2020, fin de año 2020
        return LEADS.get(self._word(index), "")

    def _is_negated(self, each: Candidate) -> bool:
        return self._negation(each) is not None

    def _negation(self, each: Candidate) -> int | None:
        """Return the token where the words begin that turn a phrase round ("except for the", "no
        photos from", an "or" after another one that is turned round), None if none do.
        """
        begin = self._begin(each)
        is_bare = begin == each.first
        if is_bare and self._word(begin - 1) in ARTICLES:
            begin -= 1
        listed = begin  # where what is listed begins: "any photos from"
        photos = words_of("photos") if each.lead in ("from", "of", "in") else frozenset()
        while self._word(listed - 1) in words_of("listed") | photos:
            listed -= 1
        ends = (begin, begin + (begin < each.first), listed)  # the second for "apart from"
        starts = (self._words_before(end, NEGATION_PHRASES) for end in ends)
        start = next((each for each in starts if each is not None), None)
        if start is None:
            start = self._not_wanted(listed)
        if start is None:
            if self._word(listed - 1) == "t" and self._word(listed - 2) in NEGATED_VERBS:
                start = listed - 2
            elif self._negates(listed - 1, each, is_bare=is_bare and listed == begin):
                start = listed - 1
        if start is None:
            return None
        while self._word(start) not in JOINS and self._word(start - 1) in RELATIVES:
            start -= 1
        between = self._plain[self._tokens[start][1] : self._tokens[each.first][0]]
        return None if re.search(r"[^\w\s']", between) else start

    def _not_wanted(self, end: int) -> int | None:
        """Return the token where a sentence begins that asks for no such photos."""
        if not 0 < end < len(self._tokens):
            return None
        match = _NOT_WANTED.search(self._plain, 0, self._tokens[end][0])
        return self._starts[match.start()] if match and not match["other"] else None

    def _is_not_wanted(self, each: Candidate) -> bool:
        """Return whether a sentence before a phrase asks for no photos of something."""
        match = _NOT_WANTED.search(self._plain, 0, self._tokens[each.first][0])
        other = match is not None and not re.search(r"[,;.]", match["other"])
        return other and not self._is_of_files_not_wanted(each)

    def _is_of_files_not_wanted(self, each: Candidate) -> bool:
        """Return whether a phrase says from where or when files are that are turned round."""
        for other in self._candidates:
            if other.kind == "file" and other.last == each.begin and self._is_negated(other):
                start = self._tokens[other.first][0]
                if each.lead == "in" and not _NOT_WANTED.search(self._plain, 0, start):
                    return False  # cats without screenshots in 2019
                return each.lead in ("from", "of", "in") and self._between(each.begin) == " "
            if other.last == each.begin - 1 and self._word(other.last) in JOINS:
                return self._is_of_files_not_wanted(other)
        return False

    def _negates(self, index: int, each: Candidate, *, is_bare: bool) -> bool:
        """Return whether the word at a token turns the phrase after it round."""
        word = self._word(index)
        if word == "no" and each.weak and is_bare:  # no 2019 is a number
            return self._word(index - 1) in ("but", "pero")
        if word in words_of("hiding"):
            return index == 0
        if word in ("nothing", "nada"):
            return each.lead in ("from", "of")
        if word == "outside":  # not outside Lisbon, which is near it
            return is_bare and each.kind == "country"
        if word in JOINS:
            others = [other for other in self._candidates if other.last == index]
            return any(
                (other.kind == each.kind or other.weak == each.weak == "place")
                and self._is_negated(other)
                for other in others
            )
        return word in words_of("negations")

    def _words_before(self, end: int, phrases: Collection[tuple[str, ...]]) -> int | None:
        """Return the token where the longest of the phrases begins that end before a token."""
        if self._word(end - 1) not in PHRASE_ENDS:
            return None
        starts = (max(end - len(words), 0) for words in phrases
                  if tuple(self._words[max(end - len(words), 0) : end]) == words)  # fmt: skip
        return min(starts, default=None)

    def _begin(self, each: Candidate) -> int:
        """Return the token where a phrase begins with the words before it that belong to it."""
        begin = each.begin
        if each.kind == "camera":
            begin = each.first
            for before in (words_of("possessives"), words_of("camera_leads"), words_of("made")):
                begin -= self._word(begin - 1) in before
        return begin

    def _word(self, index: int) -> str:
        return self._words[index] if 0 <= index < len(self._words) else ""

    def _between(self, index: int) -> str:
        """Return what stands between a token and the one before it, "" before the first."""
        return self._plain[self._tokens[index - 1][1] : self._tokens[index][0]] if index else ""

    def _opens(self, begin: int) -> bool:
        """Return whether a phrase that begins here has nothing before it but other phrases."""
        return (
            begin == 0
            or any(each.last == begin for each in self._candidates)
            or (self._word(begin - 1) in JOINS and self._opens(begin - 1))
        )

    def _closes(self, last: int) -> bool:
        """Return whether here is the end, a comma, another phrase, or a word that begins another
        part of the query.
        """
        if last == len(self._words) - 1 and self._word(last) in ("only", "solo", "please"):
            last += 1
        if last == len(self._words):
            rest = self._plain[self._tokens[-1][1] :]
            return not rest.strip(" .,;:!?)")
        between = self._between(last)
        if "\0" in between or between.startswith("'"):
            return False
        return (
            any(sign in between for sign in ",;|()/–—")
            or (self._word(last), self._word(last + 1)) in TIMES_OF_DAY
            or self._word(last) in words_of("connectors")
            or self._begins(last)
            or self._begins(last + (self._word(last) in ARTICLES))  # Málaga el verano pasado
            or self._begins(after := self._after_joins(last))
            or self._begins(after + (self._word(after) in ARTICLES))  # or the Pixel
            or self._is_of_photos_before(last)
        )

    def _is_of_photos_before(self, last: int) -> bool:
        """Return whether what follows says of what the photos before a phrase are: "pictures from
        2011 of the garden".
        """
        return self._word(last) in ("of", "de", "del") and any(
            each.last == last and each.lead and self._word(each.begin - 1) in words_of("photos")
            for each in self._candidates
        )

    def _after_joins(self, index: int) -> int:
        """Return the token after "and", "but not", "apart from" and the like."""
        joins = words_of("negations") | {*JOINS, "but", "pero"}
        while True:
            phrase = next((n for n in (3, 2) if self._words_before(index + n, NEGATION_PHRASES)
                           == index), 0)  # fmt: skip
            length = phrase or int(self._word(index) in joins)
            if not length:
                return index
            index += length

    def _begins(self, index: int) -> bool:
        return any(index in (each.begin, each.first) for each in self._candidates)

    def _before(self, begin: int) -> str:
        """Return the word before a phrase, "" where another phrase or the beginning is there."""
        return "" if self._opens(begin) else self._word(begin - 1)

    def _lists_photos(self, begin: int) -> bool:
        listed = words_of("photos") | words_of("anything")
        return any(word in listed for word in self._words[:begin])

    def _is_scene(self, index: int) -> bool:
        return self._word(index) in words_of("scenes") | words_of("photos")

    def _of_photos(self, begin: int) -> bool:
        """Return whether what is before a phrase happens at a time and a place, or is photos."""
        return self._opens(begin) or self._is_scene(begin - 1) or self._lists_photos(begin)

    def _stands_alone(self, each: Candidate) -> bool:
        """Return whether the word before does not make this part of something else."""
        before = "" if "," in self._between(each.begin) else self._before(each.begin)
        part_of_other = (words_of("function") | words_of("things") | words_of("parts_of_names")) - {
            "",
            "con",
            "with",
        }
        after_quote = "\0" in self._plain[: self._tokens[each.begin][0]].rstrip()[-1:]
        feast = f"{self._word(each.begin - 2)} {before}" in date_words()["holiday"]  # Semana Santa
        return (
            (before not in part_of_other or feast)
            and not (before and self._lead_at(each.begin - 1))
            and not has_digit(before)
            and not after_quote
        )


def has_digit(word: str) -> bool:
    return any(character.isdecimal() for character in word)
