"""The phrases of a query that are filters: periods, months, places, cameras, folders, labels and
kinds of files. Which of them are plain decides `vitsearch.filters.contexts`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cache

from vitsearch.filters import filter_all, parse_filter
from vitsearch.filters.calendar import Period
from vitsearch.filters.contexts import PlainPhrases
from vitsearch.filters.date_forms import WORD_END, WORD_START, behind, periods
from vitsearch.filters.reading import JOINS, SIGNS, Candidate, has_digit
from vitsearch.filters.tree import And, Between, Comparison, Filter, In, Like, Not, Or
from vitsearch.filters.word_lists import LISTS, date_words, either
from vitsearch.filters.words import FILE_KINDS, Phrase, Vocabulary, plain, plain_name, words_of
from vitsearch.photos.formats import FORMATS, VIDEO

MAX_NAME_WORDS = 6
MAX_NAMES = 400  # of cameras, folders or labels that a phrase may stand for
MONTH_RANGES = {
    ("from", "to"), ("from", "until"), ("from", "through"), ("between", "and"),
    ("de", "a"), ("desde", "hasta"), ("entre", "y"),
}  # fmt: skip
EVERY = {"every", "each", "cada", "todos", "todas"}
_PATH = re.compile(
    r"(?:(?<!\S)(?:in|from|under|inside|below|en|de|bajo|dentro de) )?"
    r"(?<!\S)(?P<path>[^\s/][^\s]*/[^\s]*)(?=\s|$)"
)


def read_words(text: str, vocabulary: Vocabulary, today: date) -> list[Phrase]:
    """Return the phrases of a text that say something besides the picture, in order; words inside
    quotes are left alone.
    """
    return _Reading(text, vocabulary, today).phrases()


class _Reading(PlainPhrases):
    """One text read by the rules."""

    def phrases(self) -> list[Phrase]:
        """Return the phrases, in order, none within another."""
        self._candidates = self._apart([*self._all()])
        while True:  # what is a phrase beside another is none without it
            plainly = [each for each in self._candidates if self._is_plain(each)]
            if len(plainly) == len(self._candidates):
                together = self._files_not_wanted(self._alternatives(plainly))
                return [self._with_lead(each) for each in together]
            self._candidates = plainly

    def _with_lead(self, each: Candidate) -> Phrase:
        """Return a phrase with the words before it that belong to it."""
        begin = self._begin(each)
        phrase = replace(each.phrase, start=min(each.phrase.start, self._tokens[begin][0]))
        negation = self._negation(each)
        if negation is None:
            return phrase
        return replace(
            phrase,
            start=self._tokens[negation][0],
            where=Not(phrase.where),
            kind=f"not {begin}",
            title=f"not {phrase.title}",
        )

    def _all(self) -> Iterator[Candidate]:
        yield from self._named_things()
        if "taken_at" in self._vocabulary.columns:
            yield from self._periods()
            yield from self._months()
            yield from self._each_year()
        yield from self._places()
        yield from self._cameras()

    def _apart(self, candidates: list[Candidate]) -> list[Candidate]:
        """Return candidates without those within a longer or an earlier one."""
        ordered = sorted(candidates, key=lambda each: (each.first - each.last, each.first))
        chosen: list[Candidate] = []
        for each in ordered:
            if all(each.last <= other.first or other.last <= each.first for other in chosen):
                chosen.append(each)
        return sorted(chosen, key=lambda each: each.first)

    # -- candidates ----------------------------------------------------------------------------

    def _candidate(
        self, first: int, last: int, where: Filter, kind: str, *, title: str = "", weak: str = "",
        ambiguous: str = "",
    ) -> Candidate:  # fmt: skip
        begin, lead = self._lead(first)
        start, end = self._tokens[first][0], self._tokens[last - 1][1]
        phrase = Phrase(start, end, title or self._text[start:end], where, kind)
        return Candidate(first, last, begin, lead, kind, phrase, weak, ambiguous)

    def _periods(self) -> Iterator[Candidate]:
        for match in periods(self._plain, self._today):
            first = self._starts.get(match.start, self._starts.get(match.start + 1))  # '98
            last = self._ends.get(match.end)
            if first is None or last is None:
                continue
            _, lead = self._lead(first)
            title = self._text[match.start : match.end].removesuffix("'s").removesuffix("’s")
            if match.relative or match.period.first != match.period.last:
                first_of_all = (*match.others, match.period)[0].first
                title += f" ({_dates(Period(first_of_all, match.period.last))})"
            period = match.period
            if lead == "around" and match.form == "year":
                period = Period(*(str(int(period.first) + years) for years in (-1, 1)))
                title = f"around {title}"
            sign = match.sign or SIGNS.get(lead, "=")
            if lead in SIGNS:
                title = f"{self._text[self._tokens[self._lead(first)[0]][0] : match.start]}{title}"
            where = period_filter(period, sign)
            if match.others and sign == "=":
                earlier = (period_filter(each, sign) for each in match.others)
                where = Or((*earlier, where))
            kind = "when" if sign == "=" else f"when {sign}"
            yield self._candidate(first, last, where, kind, title=title, weak=match.form)

    def _months(self) -> Iterator[Candidate]:
        """Yield the months and days without a year: those of every year."""
        months = date_words()["month"]
        for index, word in enumerate(self._words):
            if word not in months:
                continue
            number = months[word]
            where: Filter = Comparison("month", "=", number)
            doubtful = word in LISTS["months"]["two_meanings"]
            ambiguous = "word" if doubtful else ""
            yield self._candidate(index, index + 1, where, "month", weak="month",
                                  ambiguous=ambiguous)  # fmt: skip
            if self._word(index + 2) in months and not has_digit(self._word(index + 3)):
                yield from self._months_between(index, number, months[self._word(index + 2)])
            day = self._day_beside(index)
            if day is not None:
                first, last, written = day
                where = Like("taken_at", f"____-{number:02}-{written:02}%")
                yield self._candidate(first, last, where, "month", weak="day", ambiguous=ambiguous)

    def _each_year(self) -> Iterator[Candidate]:
        """Yield ``every summer``, ``todas las navidades``: those of every year."""
        matches = _every_form().finditer(self._plain) if EVERY & {*self._words} else ()
        for match in matches:
            first, last = self._starts.get(match.start()), self._ends.get(match.end())
            where = _every_year(match["what"])
            if first is not None and last is not None and where is not None:
                yield self._candidate(first, last, where, "month", weak="every")

    def _months_between(self, index: int, first: int, last: int) -> Iterator[Candidate]:
        """Yield ``from June to August``, ``entre marzo y mayo``: months of every year."""
        if (self._word(index - 1), self._word(index + 1)) in MONTH_RANGES:
            since, until = Comparison("month", ">=", first), Comparison("month", "<=", last)
            where = And((since, until)) if first < last else Or((since, until))
            yield self._candidate(index - 1, index + 3, where, "month")

    def _day_beside(self, month: int) -> tuple[int, int, int] | None:
        """Return the tokens and the number of a day before or after a month."""
        before = month - 1
        if before > 0 and self._words[before] in ("of", "de"):
            before -= 1
        for index, first, last in ((before, before, month + 1), (month + 1, month, month + 2)):
            if 0 <= index < len(self._words):
                match = re.fullmatch(r"(\d\d?)(?:st|nd|rd|th)?", self._words[index])
                if match and 1 <= int(match[1]) <= 31:
                    return first, last, int(match[1])
        return None

    def _places(self) -> Iterator[Candidate]:
        names = self._vocabulary.places
        for first, last, name in self._names(names) if names else ():
            meanings = names[name][:MAX_NAMES]
            tests = [Comparison(column, "=", value) for column, value in meanings]
            where = Or(tuple(tests)) if len(tests) > 1 else tests[0]
            ambiguous = ""
            if name in LISTS["places"]["countries"]:
                ambiguous = "country"
            elif name in LISTS["places"]["words"] or self._is_common(name):
                ambiguous = "word"
            elif (
                len(name) < 3 and name != "uk" and not self._text[self._tokens[first][0]].isupper()
            ):
                ambiguous = "country" if self._word(first - 1) == "the" else "word"  # us
            title = self._text[self._tokens[first][0] : self._tokens[last - 1][1]]
            if plain(title) == title:
                title = meanings[0][1]
            columns = {column for column, _ in meanings}
            kind = columns.pop() if len(columns) == 1 else "where"
            yield self._candidate(
                first, last, where, kind, title=title, weak="place", ambiguous=ambiguous
            )

    def _is_common(self, name: str) -> bool:
        lists = ("photos", "scenes", "things", "function", "connectors", "goods")
        dated = date_words()
        return (
            any(name in words_of(each) for each in lists)
            or any(name in dated[kind] for kind in ("month", "season", "weekday", "holiday"))
            or name.isdecimal()
        )

    def _names(self, names: Mapping[str, object]) -> Iterator[tuple[int, int, str]]:
        """Yield the tokens that are one of the names, the longest at each position."""
        for first in range(len(self._words)):
            for last in range(min(len(self._words), first + MAX_NAME_WORDS), first, -1):
                name = " ".join(self._words[first:last])
                if name in names and self._stands_apart(first, last):
                    yield first, last, name
                    break

    def _stands_apart(self, first: int, last: int) -> bool:
        """Return whether tokens are not part of a path, an address or a longer word."""
        start, end = self._tokens[first][0], self._tokens[last - 1][1]
        beside = self._plain[start - 1 : start] + self._plain[end : end + 1]
        return not any(sign in "/\\@#_'-" for sign in beside)

    def _cameras(self) -> Iterator[Candidate]:
        known = self._vocabulary.camera_words
        index = 0
        while known and index < len(self._words):
            last = index
            while last < min(len(self._words), index + MAX_NAME_WORDS) and (
                self._words[last] in known
            ):
                last += 1
            candidate = self._camera(index, last)
            if candidate is None:
                index += 1
            else:
                yield candidate
                index = candidate.last

    def _camera(self, first: int, last: int) -> Candidate | None:
        """Return the longest name of cameras that begins at a token."""
        fillers, doubtful = LISTS["cameras"]["fillers"], LISTS["cameras"]["words"]
        while last > first:
            parts = self._words[first:last]
            telling = [part for part in parts if part not in fillers and not part.isdecimal()]
            cameras = [
                name
                for name, of_name in self._vocabulary.cameras.items()
                if _in_order(parts, of_name)
            ]
            written = self._plain[self._tokens[first][0] : self._tokens[last - 1][1]]
            is_code = "-" in written and any(written in plain(name) for name in cameras)  # X-T3
            if telling and cameras and (is_code or self._words[first] == telling[0]):
                where: Filter = Comparison("camera", "=", cameras[0])
                if len(cameras) > 1:
                    where = In("camera", tuple(cameras[:MAX_NAMES]))
                is_model = len(parts) > 1 and any(map(has_digit, parts))
                is_word = not is_model and all(
                    part in doubtful or has_digit(part) or len(part) < 3 or self._is_common(part)
                    for part in telling
                )
                weak = "model" if is_model else "camera"
                return self._candidate(first, last, where, "camera", weak=weak,
                                       ambiguous="word" if is_word else "")  # fmt: skip
            last -= 1
        return None

    def _named_things(self) -> Iterator[Candidate]:
        """Yield folders, labels and kinds of files, which their forms make plain."""
        for kind, stems, form in (
            ("folder", "fold dire carp", _folder_form),
            ("folder", " fold dire", _folder_before_form),
            ("label", "label tag etiq #", _label_form),
        ):
            if any(stem in self._plain for stem in stems.split()):
                known = self._vocabulary
                names = known.folder_names if kind == "folder" else known.labels
                for match in form().finditer(self._plain) if names else ():
                    yield from self._named(kind, match, names)
        for match in _PATH.finditer(self._plain):
            folder = self._text[slice(*match.span("path"))].rstrip("/")
            known_as = self._vocabulary.folder_names.get(plain_name(folder), ())
            folder = next((each for each in known_as if plain(each) == plain(folder)), "")
            under = filter_all(None, under=folder) if folder else None
            if under is not None:
                yield from self._spanning(match.span(), under, "folder", f"folder {folder}")
        for number, entry in enumerate(FILE_KINDS):
            if any(stem in self._plain for stem in entry["stems"]):
                yield from self._files(number)

    def _files(self, number: int) -> Iterator[Candidate]:
        """Yield where one of the kinds of files is named."""
        form, where = _file_kind(number)
        entry = FILE_KINDS[number]
        for match in form.finditer(self._plain):
            if where.columns() <= self._vocabulary.columns:
                for each in self._spanning(match.span(), where, entry["kind"], entry["title"]):
                    if self._vocabulary.has_files(where) or self._is_negated(each):
                        yield each

    def _named(
        self, kind: str, match: re.Match[str], names: dict[str, list[str]]
    ) -> Iterator[Candidate]:
        """Yield the folder or label whose name follows its form."""
        has_name_first = "name" in match.re.groupindex  # the work folder
        begin = match.start("name") if has_name_first else match.end()
        first = next((n for n, (start, _) in enumerate(self._tokens) if start >= begin), None)
        if first is None or self._plain[begin : self._tokens[first][0]].strip(" :#\"'"):
            return
        for last in range(min(len(self._words), first + MAX_NAME_WORDS), first, -1):
            values = names.get(" ".join(self._words[first:last]))
            if not values:
                continue
            while not has_name_first and (more := self._alternative(last, names)):
                last, values = more[0], [*values, *more[1]]
            tests: list[Filter] = []
            for value in values[:MAX_NAMES]:
                under = filter_all(None, under=value) if kind == "folder" else None
                tests.append(under or Comparison("label", "=", value))
            where = Or(tuple(tests)) if len(tests) > 1 else tests[0]
            span = match.start(), max(match.end(), self._tokens[last - 1][1])
            if has_name_first and self._tokens[last - 1][1] != match.end("name"):
                continue
            yield from self._spanning(span, where, kind, f"{kind} {' or '.join(values)}")
            return

    def _alternative(self, last: int, names: dict[str, list[str]]) -> tuple[int, list[str]] | None:
        """Return the name after an "or", or an "and" at the end, and where it ends."""
        if self._word(last) not in JOINS:
            return None
        for end in range(min(len(self._words), last + 1 + MAX_NAME_WORDS), last + 1, -1):
            values = names.get(" ".join(self._words[last + 1 : end]))
            if values and (self._word(last) in ("or", "o") or end == len(self._words)):
                return end, values
        return None

    def _spanning(
        self, span: tuple[int, int], where: Filter, kind: str, title: str
    ) -> Iterator[Candidate]:
        inside = [n for n, (start, end) in enumerate(self._tokens)
                  if span[0] <= start and end <= span[1]]  # fmt: skip
        if inside:
            phrase = Phrase(*span, title, where, kind)
            yield Candidate(inside[0], inside[-1] + 1, inside[0], "", kind, phrase)


# -- What phrases become ---------------------------------------------------------------------------


def period_filter(period: Period, sign: str) -> Filter:
    """Return the photos that were taken in a period, or since, after, before or until it."""
    if sign == "=":
        if period.first == period.last:
            return Comparison("taken_at", "=", period.first)
        return Between("taken_at", period.first, period.last)
    return Comparison("taken_at", sign, period.first if sign in ("<", ">=") else period.last)


def _every_year(name: str) -> Filter | None:
    """Return the months of a season or the days of a holiday, None where those change."""
    known = date_words()
    if name in known["season"]:
        first = known["season"][name]
        return In("month", tuple((first + n - 1) % 12 + 1 for n in range(3)))
    start, _, end = known["holiday"][name].partition(" ")
    if not start[0].isdecimal():
        return None
    month, first, last = start[:3], int(start[3:]), int(end[3:])
    each = tuple(Like("taken_at", f"____-{month}{day:02}%") for day in range(first, last + 1))
    return Or(each) if len(each) > 1 else each[0]


def _dates(period: Period) -> str:
    first, last = period
    return first if first == last else f"{first} to {last}"


def _in_order(parts: Sequence[str], words_of_name: Sequence[str]) -> bool:
    """Return whether the parts are among the words of a name, in its order."""
    rest = iter(words_of_name)
    return all(part in rest for part in parts)


@cache
def _every_form() -> re.Pattern[str]:
    names = either([*date_words()["season"], *date_words()["holiday"]])
    return re.compile(
        rf"{WORD_START}{either(EVERY)}(?: l[oa]s)? (?P<what>{names})(?:e?s)?{WORD_END}"
    )


@cache
def _folder_form() -> re.Pattern[str]:
    return re.compile(
        rf"{WORD_START}(?:(?:in|from|en|de) )?(?:(?:the|my|la|mi) )?"
        r"(?:folder|directory|carpeta|directorio)(?: named| called| of| de| llamada)?(?= |:)"
    )


@cache
def _folder_before_form() -> re.Pattern[str]:
    return re.compile(
        rf"(?:^|{WORD_START}(?:in|inside|from|under) )(?:the |my )?"
        r"(?P<name>(?:(?!in |from |under )\S+ ){0,3}\S+) (?:folder|directory)" + WORD_END
    )


@cache
def _label_form() -> re.Pattern[str]:
    labelled = r"(?:labell?ed|tagged|etiquetad[oa]s?)(?: as| with| como| con)?(?= )"
    named = r"(?:with|con) (?:the |la )?(?:label|tag|etiqueta)(?= )"
    return re.compile(
        rf"{WORD_START}(?:{labelled}|{named}|(?:label|tag|etiqueta)s?(?=:))|(?<!\S)(?=#)"
    )


@cache
def _file_kind(number: int) -> tuple[re.Pattern[str], Filter]:
    """Return the form and the filter of one of the kinds of files."""
    entry = FILE_KINDS[number]
    photos = words_of("photos")
    form = "|".join(f"(?:{form})" for form in entry["forms"]).replace("PHOTOS", either(photos))
    form = form.replace("AFTER", behind(f"{word} " for word in photos))
    form = form.replace("START", r"(?<!.)").replace("END", r"\s*$")
    suffixes = (each.suffixes for each in (*FORMATS, VIDEO) if each.name == entry.get("format"))
    names = [f"path like '%.{suffix}'" for suffix in next(suffixes, ())]
    where = parse_filter(entry.get("where") or " or ".join(names))
    return re.compile(f"{WORD_START}(?:{form}){WORD_END}"), where
