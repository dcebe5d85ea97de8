"""What has to stand beside a name or a date in a query for it to be a filter: a preposition (``in
2019``), the end of the query or the beginning of another phrase (``beach 2019 Portugal``), and no
word that makes it part of something else (``1984 poster``, ``map of Italy``); and what phrases
beside each other say together.
"""

import re
from dataclasses import replace

from vitsearch.filters.reading import ARTICLES, JOINS, SIGNS, Candidate, TextReading, has_digit
from vitsearch.filters.tree import Between
from vitsearch.filters.words import all_of, plain, words_of

_LAST_FEW = re.compile(r"(?:last|past|ultim[oa]s) \S+ \S+|\S+ ultim[oa]s ")
_BRIEF = re.compile(r"[\d./]+\D\d\d")  # a date with two digits of its year
MIN_YEAR = 1995  # an earlier year by itself counts only where the collection has photos of it


class PlainPhrases(TextReading):
    """The candidates of a text, and which of them are plain."""

    def _is_plain(self, each: Candidate) -> bool:
        rules = {
            "year": self._plain_year, "month": self._plain_month, "day": self._plain_day,
            "place": self._plain_place, "camera": self._plain_camera, "model": self._plain_camera,
            "period": self._plain_period, "season": self._plain_season,
            "decade": self._plain_decade, "every": self._plain_each_year,
        }  # fmt: skip
        if self._is_negated(each):
            if not self._closes(each.last):
                return False
            if each.weak == "place" and not each.ambiguous:
                return True
        elif self._is_not_wanted(each):
            return False
        return not each.weak or rules[each.weak](each)

    def _plain_period(self, each: Candidate) -> bool:
        after = self._word(each.last)
        text = self._plain[each.phrase.start : each.phrase.end]
        if after in words_of("goods") or each.lead == "between":
            return False
        if _LAST_FEW.match(text) and after in ("of", "de", "del"):
            return self._word(each.last + 1) in words_of("photos")  # last 3 days of school
        if re.match(r"last |past |this |previous ", text):
            if after == "of" and self._is_of_photos_before(each.last):
                return self._is_subject_of(each.last)
            return after not in ("of", "tonight", "standing", "minute")
        if text in ("today", "tonight", "yesterday", "hoy", "ayer"):
            titles = words_of("titles")
            before = self._word(each.first - 1)
            if each.lead == "of" and self._of_photos(each.begin):
                return after not in titles
            return not self._goes_on(each.last) and before not in words_of("things") | words_of(
                "names_with_days"
            )
        before = self._before(each.begin)
        if _BRIEF.fullmatch(text) and before in words_of("things"):
            return False  # version 10.14.18
        return before not in ("happy", "merry", "feliz", "prospero")

    def _is_subject_of(self, of: int) -> bool:
        """Return whether what follows "of" is seen, and no time: of the baby, not of school."""
        owned = self._word(of + 1) in ARTICLES | words_of("ours")
        return owned and not self._is_scene(of + 2) and not self._begins(of + 1)

    def _plain_season(self, each: Candidate) -> bool:
        words, after = self._words[each.first : each.last], self._word(each.last)
        if words[0] == "tonight" and each.first and not each.lead:
            return False
        closed = self._closes(each.last) or words[-1] == "s"  # last night's dinner
        if any(map(has_digit, words)):  # Q3 2021 trip
            is_car = self._is_make(each.first) or after in words_of("makes")
            named = not words[0].isdecimal() and self._opens_before(each)  # Q1 2021 whiteboard
            closed = (closed or self._is_scene(each.last) or named) and not is_car
        elif words[0] != "tonight" and self._opens(each.begin):  # this morning coffee
            other = words_of("titles") | words_of("things") | words_of("goods")
            other |= words_of("function") | {"tonight", "standing", "glory"}
            closed = closed or (after not in other and not self._goes_on(each.last))
        return closed and self._stands_alone(each)

    def _goes_on(self, last: int) -> bool:
        """Return whether a day is that of a sentence: "today I learned", "ayer llovió"."""
        if last == len(self._tokens) or self._between(last) != " ":
            return False
        word = self._text[slice(*self._tokens[last])]
        is_verb = word.endswith(("ó", "é")) and plain(word) not in {"cafe", "bebe", "comite"}
        return is_verb or self._word(last) in words_of("titles")

    def _is_make(self, index: int) -> bool:
        """Return whether a token is the model of what one of the two before it makes."""
        return bool(words_of("makes") & {self._word(index - 1), self._word(index - 2)})

    def _opens_before(self, each: Candidate) -> bool:
        """Return whether this opens a query, with its preposition, and a thing follows that does
        not make it part of a name or a count: "before 2010 kids playing".
        """
        after = self._word(each.last)
        other = words_of("things") | words_of("goods") | {"fashion", "style"}
        is_word = (len(after) > 2 and after.isalpha()) or after in words_of("ours")
        beside = is_word and not self._between(each.last).strip()
        return beside and after not in other and self._opens(each.begin)

    def _ends_a_part(self, each: Candidate) -> bool:
        """Return whether another part with its time follows: "dogs in 2019 and cats in 2020"."""
        return self._word(each.last) in JOINS and any(
            other.lead == each.lead and other.begin > each.last and other.kind == each.kind
            for other in self._candidates
        )

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
            if each.lead == "in" and self._opens_before(each):
                return True  # in '09 lake
            of_photos = each.lead == "from" and self._of_photos(each.begin)
            beside = each.lead in ("in", *SIGNS) or of_photos or self._follows(each, "place")
            return self._closes(each.last) and beside
        likely = year >= MIN_YEAR or year in self._vocabulary.years
        before = "" if self._is_negated(each) else self._before(each.begin)
        closed = self._closes(each.last)
        if each.lead in ("in", "unit", "all", *SIGNS):
            if each.lead in ("in", *SIGNS) and likely and year % 1000:
                closed = closed or self._opens_before(each) or self._ends_a_part(each)
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
        if before in ("with", "con"):
            return False  # a shirt with 2019 on it
        is_subject = year % 1000 and (self._opens_subject(each) or self._follows_photos(each))
        beside = is_subject or self._beside_picture(each) or self._follows(each, "place")
        return likely and not self._is_make(each.first) and beside

    def _opens_subject(self, each: Candidate) -> bool:
        is_subject = self._word(each.last) in words_of("subjects") and self._closes(each.last + 1)
        return is_subject and self._opens(each.begin)

    def _follows_photos(self, each: Candidate) -> bool:
        """Return whether a query begins with photos or files and this: "screenshots 2019 maps"."""
        files = any(other.kind == "file" and other.last == each.first and other.first == 0
                    for other in self._candidates)  # fmt: skip
        photos = each.first == 1 and self._word(0) in words_of("photos")
        other = words_of("things") - {"map", "maps", "mapa"} | words_of("goods")
        return (files or photos) and self._word(each.last) not in other

    def _beside_picture(self, each: Candidate) -> bool:
        """Return whether this stands by itself at the end or before a scene: "our 2019 trip"."""
        is_trip = self._word(each.last + 1) in words_of("trips")  # USA road trip
        before_scene = self._is_scene(each.last) or is_trip
        ours = before_scene and self._word(each.begin - 1) in words_of("ours")
        if self._is_negated(each):  # Italy but not Rome; `_is_plain` sees to the end
            return True
        return (self._closes(each.last) or before_scene) and (ours or self._stands_alone(each))

    def _follows(self, each: Candidate, rule: str) -> bool:
        """Return whether a query begins with a phrase and this: "Paris 2018 museum"."""
        return any(
            other.weak == rule and other.last == each.first and self._opens(other.begin)
            for other in self._candidates
        )

    def _plain_month(self, each: Candidate) -> bool:
        closed = self._closes(each.last) or self._is_of_photos_after(each)
        if each.lead in ("in", "unit", "all"):
            opens = each.lead == "in" and not each.ambiguous and self._opens_before(each)
            return closed or opens
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

    def _plain_each_year(self, each: Candidate) -> bool:
        return self._closes(each.last) and self._stands_alone(each)

    def _plain_day(self, each: Candidate) -> bool:
        if each.lead in ("to", "between", *SIGNS) or has_digit(self._word(each.last)):
            return False
        article = self._word(each.first - 1) == "el"
        if each.lead in ("on", "from", "of", "unit") or article:
            return self._closes(each.last)
        is_date = (
            not each.ambiguous or not self._words[each.first].isalpha()
        )  # 12th June, not May 1
        closed = self._closes(each.last) or self._is_of_photos_after(each)
        return is_date and closed and self._stands_alone(each)

    def _is_of_photos_after(self, each: Candidate) -> bool:
        """Return whether a query begins with this and "photos"."""
        return self._opens(each.begin) and self._word(each.last) in words_of("photos")

    def _plain_place(self, each: Candidate) -> bool:
        closed, before = self._closes(each.last), self._before(each.begin)
        capital = self._is_capital(each)
        beside = any(
            other.weak == "place" and other.last == each.begin for other in self._candidates
        )
        doubt = bool(each.ambiguous)
        if each.ambiguous == "word" and not (capital and (each.lead or beside)):
            return self._is_before_its_country(each)
        if doubt and not closed:
            return False
        if each.lead in ("in", "at", "around"):
            after = self._word(each.last)
            return before not in words_of("origins") and after not in words_of("things")
        if each.lead == "from":
            is_trip = closed or self._word(each.last) in words_of("trips")
            return is_trip and self._of_photos(each.begin)
        if each.lead == "all":
            return closed and not doubt
        if each.lead == "to":
            return closed and before in words_of("trips")
        if each.lead == "of":
            return closed and self._of_photos(each.begin) and (capital or not doubt)
        if each.lead:
            return False
        if doubt:
            return beside
        opens_trip = self._follows(each, "year") and self._word(each.last) not in words_of("things")
        is_near = self._word(each.begin - 1) == "outside"  # outside Lisbon
        return not is_near and (opens_trip or self._beside_picture(each))  # 2018 Portugal trams

    def _is_before_its_country(self, each: Candidate) -> bool:
        """Return whether this is named with the place around it: Nice, France."""
        after = any(
            other.weak == "place" and other.begin == each.last for other in self._candidates
        )
        is_named = self._text[self._tokens[each.first][0]].isupper()
        return after and is_named and "," in self._between(each.last) and self._stands_alone(each)

    def _is_capital(self, each: Candidate) -> bool:
        """Return whether this begins with a capital letter, and not every word does."""
        initials = [self._text[start] for start, _ in self._tokens]
        return initials[each.first].isupper() and any(map(str.islower, initials))

    def _plain_camera(self, each: Candidate) -> bool:
        if self._is_left_out(each):
            return not each.ambiguous
        begin = each.first
        if self._word(begin - 1) in words_of("possessives"):
            begin -= 1
        before = self._word(begin - 1)
        one_of = self._is_one_of_cameras(each)
        if before in ("camera", "camara") or (
            one_of and before in JOINS and self._closes(each.last)
        ):
            return True
        doubt = bool(each.ambiguous) and not one_of and not self._is_certain(each)
        if self._word(each.last) in words_of("photos"):  # my iPhone photos
            return not doubt and self._opens(begin)
        if self._word(begin) in ("my", "mi") and self._lists_photos(begin):
            return self._closes(each.last) or self._word(each.last) == "of"
        if self._word(begin - 1) in words_of("camera_leads"):
            return self._plain_after_with(each, begin - 1)
        ends = self._is_scene(each.last) or (
            self._closes(each.last)
            and (self._begins(each.last) or self._word(each.last) not in words_of("connectors"))
        )
        if each.weak == "model" and begin == each.first and self._opens_subject(each):
            return True  # Canon R5 birds
        if doubt or begin != each.first or not ends:
            return False
        if each.weak == "model":
            return self._stands_alone(each)
        return self._opens(begin) or self._is_scene(begin - 1)

    def _is_certain(self, each: Candidate) -> bool:
        """Return whether a name that is also a word means a camera here: D70, Canon photos."""
        word, photos = self._words[each.first], self._word(each.last) in words_of("photos")
        alone = each.first == 0 and (photos or each.last == len(self._words))
        return alone and (has_digit(word) or (photos and word in words_of("makers")))

    def _is_one_of_cameras(self, each: Candidate) -> bool:
        """Return whether there is another camera beside a camera: "iPhone or Pixel"."""
        return any(
            other.kind == "camera" and (self._joined(other, each) or self._joined(each, other))
            for other in self._candidates
        )

    def _is_left_out(self, each: Candidate) -> bool:
        """Return whether a camera is one that did not take the photos, "without" may show none."""
        negation = self._negation(each)
        is_any = self._word(each.first - 1) in ("a", "an", "un", "una")
        return (
            negation is not None
            and not is_any
            and (self._words[negation] not in ("without", "sin", "no"))
        )

    def _plain_after_with(self, each: Candidate, begin: int) -> bool:
        """Return whether a camera after "with" or the like, at a token, took the photos."""
        if self._word(begin - 1) in words_of("made"):
            return True
        owner = self._word(each.first - 1)
        closed = self._closes(each.last) or (
            self._word(each.last) == "of" and self._word(begin - 1) in words_of("photos")
        )
        if owner in ("a", "an", "un", "una") or not closed:
            return False  # someone with an iPhone
        if each.weak == "model" and owner in words_of("possessives"):
            return True  # birds with the Canon EOS R5
        if owner in words_of("possessives") and self._is_capital(each):
            if self._word(begin - 1) in words_of("photos"):
                return True  # fotos con la Canon
            if self._word(0) in words_of("made"):
                return True  # taken in Berlin with my Pixel
        return not each.ambiguous and self._of_photos(begin)

    # -- phrases beside each other ---------------------------------------------------------------

    def _alternatives(self, candidates: list[Candidate]) -> list[Candidate]:
        """Return candidates, places with a word between them of one kind: "Lisbon or Tuscany" is
        either, "London, England" both; so is "before 2015 or after 2020" either.
        """
        for at in range(len(candidates) - 1):
            first, second = candidates[at : at + 2]
            either_side = self._word(first.last) in ("or", "o") and (
                first.kind.startswith("when") and second.kind.startswith("when")
            )
            if self._joined(first, second) and (
                either_side or first.weak == second.weak == "place"
            ):
                phrase = replace(second.phrase, kind=first.phrase.kind)
                candidates[at + 1] = replace(second, phrase=phrase)
        return candidates

    def _joined(self, first: Candidate, second: Candidate) -> bool:
        begin = second.begin - (self._word(second.begin - 1) in ARTICLES)  # or the Canon
        return begin == first.last + 1 and self._word(first.last) in JOINS

    def _files_not_wanted(self, candidates: list[Candidate]) -> list[Candidate]:
        """Return candidates, files that are turned round and where or when they are from as one:
        "no videos from 2020" leaves those of 2021.
        """
        groups: list[list[Candidate]] = []
        for each in candidates:
            if groups and self._is_of_files_not_wanted(each):
                groups[-1].append(each)
            else:
                groups.append([each])
        return [group[0] if len(group) == 1 else _as_one(group) for group in groups]


def _as_one(group: list[Candidate]) -> Candidate:
    """Return a candidate of all that a group of them says."""
    first, last = group[0], group[-1]
    phrases = [each.phrase for each in group]
    where, title = all_of(phrases), " ".join(phrase.title for phrase in phrases)
    assert where is not None
    phrase = replace(first.phrase, end=last.phrase.end, where=where, title=title)
    return replace(first, last=last.last, phrase=phrase)
