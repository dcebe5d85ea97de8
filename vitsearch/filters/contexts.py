"""What has to stand beside a name or a date in a query for it to be a filter: a preposition (``in
2019``), the end of the query or the beginning of another phrase (``beach 2019 Portugal``), and no
word that makes it part of something else (``1984 poster``, ``map of Italy``).
"""

import re
from dataclasses import dataclass
from datetime import date

from vitsearch.filters.tree import Between
from vitsearch.filters.words import QUOTED, TOKEN, Phrase, Vocabulary, plain, words_of

MIN_YEAR = 1995  # an earlier year by itself counts only where the collection has photos of it

ARTICLES = frozenset({"the", "el", "la", "los", "las", "este", "esta"})
LEADS = {  # kinds of words before a phrase
    "in": "in", "during": "in", "en": "in", "durante": "in", "throughout": "in", "dated": "in",
    "at": "at", "on": "on",
    "from": "from", "of": "of", "de": "of", "del": "of", "to": "to", "a": "to",
    "since": "since", "desde": "since", "after": "after", "before": "before", "until": "until",
    "till": "until", "hasta": "until", "year": "year", "año": "year",
    "around": "around", "circa": "around",
    "pre": "before", "post": "after",
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
}  # fmt: skip
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
        for words, kind in LEAD_PHRASES.items():
            if tuple(self._words[max(at - len(words), 0) : at]) == words:
                return at - len(words), kind
        if not lead:
            return first, ""
        begin = at - 1
        if begin and self._words[begin - 1] in words_of("made") | {"back", "sometime"}:
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
        if self._is_negated(each) and not self._closes(each.last):
            return False
        return not each.weak or rules[each.weak](each)

    def _is_negated(self, each: Candidate) -> bool:
        begin = self._begin(each)
        word, is_bare = self._word(begin - 1), bool(each.weak) and begin == each.first
        if word not in words_of("negations"):
            return False
        if word == "no" and is_bare and self._word(begin - 2) not in ("but", "pero"):
            return False  # no 2019 is a number
        return not self._between(begin).strip()

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
        if last == len(self._words) - 1 and self._word(last) in ("only", "solo"):
            last += 1  # 2013 only
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
            or self._begins(self._after_joins(last))
        )

    def _after_joins(self, index: int) -> int:
        """Return the token after "and", "but not" and the like."""
        while self._word(index) in words_of("negations") | {*JOINS, "but", "pero"}:
            index += 1
        return index

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
        before = "" if "," in self._between(each.begin) else self._before(each.begin)
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
        if text in ("today", "tonight", "yesterday", "hoy", "ayer"):
            titles = words_of("titles")
            before = self._word(each.first - 1)
            if each.lead == "of" and self._of_photos(each.begin):
                return after not in titles
            return after not in titles and before not in words_of("things") | words_of(
                "names_with_days"
            )
        return self._before(each.begin) not in ("happy", "merry", "feliz", "prospero")

    def _plain_season(self, each: Candidate) -> bool:
        if self._word(each.first) == "tonight" and each.first and not each.lead:
            return False
        closed = self._closes(each.last) or self._word(each.last - 1) == "s"  # last night's dinner
        return closed and self._stands_alone(each)

    def _plain_decade(self, each: Candidate) -> bool:
        """A car from the 1950s is a kind of car, photos from the 1950s are of that time."""
        where, years = each.phrase.where, self._vocabulary.years
        known = isinstance(where, Between) and any(
            str(where.low) <= str(year) <= str(where.high) for year in years
        )
        before = each.begin - (self._word(each.begin - 1) in ARTICLES)
        if not self._closes(each.last):
            return False
        if each.lead in SIGNS:
            return True
        if not each.lead:
            return known and (self._opens(before) or "," in self._between(before))
        is_thing = self._before(each.begin) in words_of("things")
        return (known and each.lead == "in" and not is_thing) or self._of_photos(each.begin)

    def _plain_year(self, each: Candidate) -> bool:
        year = int(self._words[each.first])
        if year < 100:  # '98
            of_photos = each.lead == "from" and self._of_photos(each.begin)
            beside = each.lead in ("in", *SIGNS) or of_photos or self._follows_place(each)
            return self._closes(each.last) and beside
        likely = year >= MIN_YEAR or year in self._vocabulary.years
        before = self._before(each.begin)
        closed = self._closes(each.last)
        if each.lead in ("in", "year", *SIGNS):
            return closed and before not in words_of("origins") | {"fashion", "set"}
        if each.lead == "around":
            return closed and before not in words_of("things")
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
        is_model = words_of("makes") & {self._word(each.first - 1), self._word(each.first - 2)}
        beside = self._beside_picture(each) or self._follows_place(each)
        return likely and not is_model and beside

    def _beside_picture(self, each: Candidate) -> bool:
        """Return whether this stands by itself at the end or before a scene: "our 2019 trip"."""
        is_trip = self._word(each.last + 1) in words_of("trips")  # USA road trip
        before_scene = self._is_scene(each.last) or is_trip
        ours = before_scene and self._word(each.begin - 1) in words_of("ours")
        if self._is_negated(each):  # Italy but not Rome; `_is_plain` sees to the end
            return True
        return (self._closes(each.last) or before_scene) and (ours or self._stands_alone(each))

    def _follows_place(self, each: Candidate) -> bool:
        """Return whether a query begins with a place and this: "Paris 2018 museum"."""
        return any(
            other.weak == "place" and other.last == each.first and self._opens(other.begin)
            for other in self._candidates
        )

    def _plain_month(self, each: Candidate) -> bool:
        closed = self._closes(each.last)
        if each.lead == "in":
            return closed
        if each.lead in ("from", "of"):
            return closed and self._of_photos(each.begin)
        if each.lead or not closed:
            return False
        joined = self._is_alternative(each) or self._is_negated(each)
        return joined or (not each.ambiguous and self._stands_alone(each))

    def _is_alternative(self, each: Candidate) -> bool:
        """Return whether a month goes on with one before it: "in July or August"."""
        before = each.begin - (self._word(each.begin - 1) in JOINS)
        return any(other.kind == "month" and other.last == before for other in self._candidates)

    def _plain_day(self, each: Candidate) -> bool:
        article = self._word(each.first - 1) == "el"
        if each.lead in ("on", "from", "of") or article:
            return self._closes(each.last)
        is_date = (
            not each.ambiguous or not self._words[each.first].isalpha()
        )  # 12th June, not May 1
        return is_date and self._closes(each.last) and self._stands_alone(each)

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
        if each.lead in ("in", "at", "around"):
            after = self._word(each.last)
            return before not in words_of("origins") and after not in words_of("things")
        if each.lead == "from":
            is_trip = closed or self._word(each.last) in words_of("trips")
            return is_trip and self._of_photos(each.begin)
        if each.lead == "to":
            return closed and before in words_of("trips")
        if each.lead == "of":
            return closed and self._of_photos(each.begin) and (capital or not doubt)
        if each.lead:
            return False
        if doubt:
            return beside
        return self._beside_picture(each)

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
            return self._plain_after_with(each, begin - 1)
        ends = self._is_scene(each.last) or (
            self._closes(each.last)
            and (self._begins(each.last) or self._word(each.last) not in words_of("connectors"))
        )
        if each.ambiguous or begin != each.first or not ends:
            return False
        if each.weak == "model":
            return self._stands_alone(each)
        return self._opens(begin) or self._is_scene(begin - 1)

    def _plain_after_with(self, each: Candidate, begin: int) -> bool:
        """Return whether a camera after "with" or the like, at a token, took the photos."""
        if self._word(begin - 1) in words_of("made"):
            return True
        owner = self._word(each.first - 1)
        if owner in ("a", "an", "un", "una") or not self._closes(each.last):
            return False  # someone with an iPhone
        if each.weak == "model" and owner in words_of("possessives"):
            return True  # birds with the Canon EOS R5
        return not each.ambiguous and self._of_photos(begin)


def has_digit(word: str) -> bool:
    return any(character.isdecimal() for character in word)
