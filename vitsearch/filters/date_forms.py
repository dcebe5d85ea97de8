"""The forms of periods in the words of a query, English and Spanish, and how each is read: ``summer
2020``, ``hace dos años``.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from functools import cache

from vitsearch.filters.calendar import (
    Period,
    PeriodMatch,
    day,
    joined,
    latest_of,
    month_of,
    narrowed,
    opened,
    rule_names,
    rule_of,
    season_of,
    time_since,
    unit_before,
    valid_day,
    year_of,
)
from vitsearch.filters.word_lists import UNITS, date_words, either

YEAR = r"(?:19|20)\d\d"
WORD_START = r"(?:(?<![\w.:/#$€£-])|(?<=mid-)|(?<=early-)|(?<=late-)|(?<=pre-)|(?<=post-))"
WORD_END = r"(?![\w/:%€£$]|[-.,']\w)"
OF = r"(?:,? |,? of |,? in |,? de |,? del |,? en )"
NIGHT = "23"  # the last hour of the part of a day that goes on after midnight
Reader = Callable[[re.Match[str], date], Period | None]


def periods(text: str, today: date) -> list[PeriodMatch]:
    """Return the periods in a text in lower case without accents, in order, none within another."""
    alone = list(_with_their_year(_single_periods(text, today), text, today))
    together = joined([narrowed(each, text) for each in alone], text)
    return [opened(each, text) for each in together]


def _single_periods(text: str, today: date) -> list[PeriodMatch]:
    """Return the single periods in a text in lower case without accents, in order, none within
    another.
    """
    matches: list[PeriodMatch] = []
    if not _hint().search(text):
        return matches
    for number, (stems, _, reader) in enumerate(_forms()):
        pattern = _pattern(number) if not stems or any(stem in text for stem in stems) else None
        for match in pattern.finditer(text) if pattern else ():
            period = reader(match, today)
            if period is not None and period.first[:10] <= today.isoformat():
                form, relative = FORMS.get(reader, "period"), reader in RELATIVE
                matches.append(PeriodMatch(match.start(), match.end(), period, form, relative))
    matches.sort(key=lambda each: (each.start, -each.end))
    return list(_apart(matches))


def _apart(matches: list[PeriodMatch]) -> Iterator[PeriodMatch]:
    end = 0
    for match in matches:
        if match.start >= end:
            yield match
            end = match.end


@cache
def _hint() -> re.Pattern[str]:
    """What a text with a period has: a year, or a word that goes before or after one of `words`."""
    return re.compile(
        rf"{YEAR}|'\d\d|\d0'?s|años|\b(?:last|this|past|previous|ago|today|tonight|yesterday|hoy"
        rf"|ayer|anteayer|anoche|hace|since|desde|los \d0|est[ea]|pasad[oa]s?|antepasad[oa]"
        rf"|ultim[oa]s?"
        rf"|{either(date_words()['decade'])})\b"
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else int(date_words()["number"][text])


# -- How each form is read -------------------------------------------------------------------------


def _read_recent(match: re.Match[str], today: date) -> Period | None:
    """Read ``last August``, ``this week``, ``el lunes pasado``."""
    word, over = match["what"], match["when"].startswith(("last", "past", "prev", "pasad", "ultim"))
    if word in date_words()["weekday"]:
        back = (today.weekday() - date_words()["weekday"][word]) % 7
        return day(today - timedelta(days=back or (7 if over else 0)))
    if (rule := rule_of(word)) is not None:
        return latest_of(rule, today, over=over)
    if word not in UNITS or UNITS[word] == "day":
        return None
    if match["when"] == "past" and UNITS[word] != "weekend":
        return time_since(word, today, 1)
    back = int(over)
    if UNITS[word] == "weekend" and today.weekday() < 5 and not over:
        back = 1  # the latest one
    return unit_before(word, today, back)


def _read_begun(match: re.Match[str], today: date) -> Period | None:
    """Read ``since May``, ``desde el lunes``: the latest one that has begun."""
    word = match["what"]
    if word in date_words()["weekday"]:
        back = (today.weekday() - date_words()["weekday"][word]) % 7
        return day(today - timedelta(days=back or 7))
    rule = rule_of(word)
    return latest_of(rule, today, over=False) if rule else None


def _read_days(match: re.Match[str], today: date) -> Period | None:
    """Read ``3-5 May 2019``, ``del 28 de mayo al 3 de junio de 2019``; ``3 and 4 May 2019``."""
    months, year = date_words()["dated"], year_of(match["y"], today)
    last_month = months[match["month"]]
    first_month = months[match.groupdict().get("a") or match["month"]]
    first = valid_day(year, first_month, int(match["d"]))
    last = valid_day(year, last_month, int(match["e"]))
    if first is None or last is None or first >= last:
        return None
    is_list = match["to"] in ("and", "y") and not match[0].startswith(("between", "entre"))
    if is_list and int(match["e"]) != int(match["d"]) + 1:
        return None
    return Period(first.first, last.last)


def _read_before_last(match: re.Match[str], today: date) -> Period | None:
    """Read ``the summer before last``, ``el año antepasado``."""
    word = match["what"]
    if word in date_words()["weekday"]:
        return day(
            today - timedelta(days=7 + ((today.weekday() - date_words()["weekday"][word]) % 7 or 7))
        )
    if (rule := rule_of(word)) is not None:
        return latest_of(rule, today, over=True, back=1)
    return None if UNITS[word] == "day" else unit_before(word, today, 2)


def _read_day_part(match: re.Match[str], today: date) -> Period | None:
    """Read ``this morning``, ``yesterday afternoon``, ``anoche``: hours of a day. A night that is
    over goes on until six.
    """
    when, part = match["when"] or match[0], match["part"] or "night"
    first, last = date_words()["day_part"][part].split()
    if when == "last" and last != NIGHT:
        return None
    if when in ("this", "esta", "tonight") or when.startswith("hoy"):
        return Period(f"{today}T{first}:00", f"{today}T{last}:59")
    return _part_of(today - timedelta(days=1), part)


def _part_of(moment: date, part: str) -> Period:
    first, last = date_words()["day_part"][part].split()
    end = f"{moment + timedelta(days=1)}T05" if last == NIGHT else f"{moment}T{last}"
    return Period(f"{moment}T{first}:00", f"{end}:59")


def _read_weekday_part(match: re.Match[str], today: date) -> Period | None:
    """Read ``last Friday night``."""
    recent = _read_recent(match, today)
    return recent and _part_of(date.fromisoformat(recent.first), match["part"])


def _read_named_day(match: re.Match[str], today: date) -> Period | None:
    word = match["what"]
    back = 0 if word in ("today", "hoy") else 1 if word in ("yesterday", "ayer") else 2
    return day(today - timedelta(days=back))


def _read_ago(match: re.Match[str], today: date) -> Period | None:
    count = _number(match["n"])
    return unit_before(match["unit"], today, count) if count <= 1200 else None


def _read_seasons_ago(match: re.Match[str], today: date) -> Period | None:
    """Read ``two summers ago``: last summer is one ago."""
    count, rule = _number(match["n"]), rule_of(match["what"])
    return latest_of(rule, today, over=True, back=count - 1) if rule and 1 <= count <= 100 else None


def _read_last_n(match: re.Match[str], today: date) -> Period | None:
    count = _number(match["n"])
    return time_since(match["unit"], today, count) if 1 <= count <= 1200 else None


def _read_day(match: re.Match[str], today: date) -> Period | None:
    month = date_words()["dated"].get(match["month"]) or int(match["month"])
    return valid_day(year_of(match["y"], today), month, int(match["d"]))


def _read_numbers(match: re.Match[str], today: date) -> Period | None:
    """Read ``14.7.2019``; with slashes only where one number cannot be a month."""
    first, second = int(match["a"]), int(match["b"])
    if match["sep"] == "/" and first <= 12 and second <= 12 and first != second:
        return None
    if match["sep"] == "/" and second > 12:
        first, second = second, first
    return valid_day(year_of(match["y"], today), second, first)


def _read_month(match: re.Match[str], today: date) -> Period | None:
    month = date_words()["short"].get(match["month"]) or int(match["month"])
    return month_of(year_of(match["y"], today), month)


def _read_month_number(match: re.Match[str], today: date) -> Period | None:
    """Read ``07/2019`` and ``2019/07``, but not ``2011/12``, which may be two years."""
    year, month = int(match["y"]), int(match["month"])
    return (
        None
        if match[0].startswith(match["y"]) and month == year % 100 + 1
        else month_of(year, month)
    )


def _read_quarter(match: re.Match[str], today: date) -> Period | None:
    return season_of(year_of(match["y"], today), 3 * int(match["n"]) - 2)


def _read_months(match: re.Match[str], today: date) -> Period | None:
    """Read ``June to August 2020``."""
    first, last = date_words()["dated"][match["a"]], date_words()["dated"][match["month"]]
    year = year_of(match["y"], today)
    return Period(month_of(year, first).first, month_of(year, last).last) if first < last else None


def _read_of_year(match: re.Match[str], today: date) -> Period | None:
    rule = rule_of(match["what"])
    return rule(year_of(match["y"], today)) if rule else None


def _read_years(match: re.Match[str], today: date) -> Period | None:
    first, last = int(match["y"]), int(match["z"])
    return Period(match["y"], match["z"]) if first < last <= today.year else None


def _read_year(match: re.Match[str], today: date) -> Period | None:
    year = year_of(match[0], today)
    return Period(f"{year}", f"{year}") if year <= today.year else None


def _read_season(match: re.Match[str], today: date) -> Period | None:
    """Read ``2020 summer``."""
    return _read_of_year(match, today)


def _read_decade(match: re.Match[str], today: date) -> Period | None:
    century = match.groupdict().get("c") or ""
    named = date_words()["decade"].get(match["d"])
    decade = int(match["d"] if named is None else named)
    if not century and decade < 30:
        return None
    first = int(century or 19) * 100 + decade
    return Period(f"{first}", f"{first + 9}")


RELATIVE: set[Reader] = {
    _read_recent, _read_begun, _read_before_last, _read_day_part, _read_weekday_part,
    _read_named_day, _read_ago, _read_seasons_ago, _read_last_n,
}  # fmt: skip
FORMS: dict[Reader, str] = {
    _read_year: "year", _read_season: "season", _read_quarter: "season",
    _read_month_number: "season",
    _read_day_part: "season", _read_decade: "decade",
}  # fmt: skip


@cache
def _pattern(number: int) -> re.Pattern[str]:
    """Return one of the forms, compiled at first use: most queries need none."""
    _, form, reader = _forms()[number]
    return re.compile(f"{WORD_START}(?:{form}){'(?:.s)?' * (reader in RELATIVE)}{WORD_END}")


def _stems(kind: str) -> tuple[str, ...]:
    return tuple({word[:3] for word in date_words()[kind]})


@cache
def _forms() -> list[tuple[tuple[str, ...], str, Reader]]:
    """Return the forms of periods, each with the stems of which a text must have one, if any, and
    its reader.
    """
    known = date_words()
    month, season = either(known["dated"]), either(known["season"])
    holiday, unit = either(known["holiday"]), either(UNITS)
    weekday = either(known["weekday"])
    # after last, this
    recent = f"{either(known['month'])}|{season}|{holiday}|{weekday}|{unit}"
    part, decade = either(known["day_part"]), either(known["decade"])
    number = rf"(?:\d{{1,4}}|{either(known['number'])})"
    year, written = rf"(?P<y>{YEAR})", rf"(?P<y>{YEAR}|'\d\d)"  # '19 only beside a word
    of = OF
    ordinal, digits = r"(?:st|nd|rd|th|º)?", ("19", "20")
    named_day = (
        "the day before yesterday|day before yesterday|antes de ayer|anteayer|today|yesterday"
        "|hoy|ayer"
    )
    numeric: list[tuple[tuple[str, ...], str, Reader]] = [
        (digits, rf"{year}(?P<s>[-/.])(?P<month>0?[1-9]|1[0-2])(?P=s)(?P<d>\d\d?)", _read_day),
        (digits, r"(?P<a>\d\d?)(?P<sep>[./-])(?P<b>\d\d?)(?P=sep)" + year, _read_numbers),
        (digits, rf"{year}-(?P<month>0[1-9]|1[0-2])", _read_month),
        (digits, rf"{year}(?P<month>0[1-9]|1[0-2])(?P<d>[0-2]\d|3[01])", _read_day),
        (digits, rf"{year} ?[-–] ?(?P<z>{YEAR})", _read_years),
        (digits, rf"(?P<month>0?[1-9]|1[0-2])/{year}", _read_month_number),
        (digits, rf"{year}/(?P<month>0[1-9]|1[0-2])", _read_month_number),
        (("q",), rf"q(?P<n>[1-4])[ /-]?{written}", _read_quarter),
        (("q",), rf"{year}[ /-]?q(?P<n>[1-4])", _read_quarter),
    ]
    to = r" ?(?P<to>to|until|and|al?|y|[-–]) ?(?:the |el )?"
    begin = r"(?:(?:from|between|del?|entre) (?:the |el )?)?"
    dated = [
        (
            rf"{begin}(?P<d>\d\d?){ordinal}(?:(?: of| de)? (?P<a>{month}))?{to}"
            rf"(?P<e>\d\d?){ordinal}(?: of| de)? (?P<month>{month}){of}{written}",
            _read_days,
        ),
        (
            rf"{begin}(?P<month>{month}) (?P<d>\d\d?){ordinal}{to}"
            rf"(?P<e>\d\d?){ordinal},? {written}",
            _read_days,
        ),
        (rf"(?P<d>\d\d?){ordinal}(?: of| de)? (?P<month>{month}){of}{written}", _read_day),
        (rf"(?P<month>{month}) (?:the )?(?P<d>\d\d?){ordinal}(?: de|,)? {written}", _read_day),
        (
            rf"(?:between|entre) (?P<a>{month}) (?:and|y) (?P<month>{month}){of}{written}",
            _read_months,
        ),
        (
            rf"(?:(?:from|de|desde) )?(?P<a>{month}) ?(?:to|until|-|–|/|a|hasta) ?"
            rf"(?P<month>{month}){of}{written}",
            _read_months,
        ),
        (rf"(?P<month>{either(known['short'])}){of}{written}", _read_month),
    ]
    return [
        *numeric,
        *((_stems("month"), form, reader) for form, reader in dated),
        (_stems("season"), rf"(?P<what>{season})s?{of}{written}(?:[-/](?:\d\d)+)?", _read_of_year),
        (_stems("season"), rf"{year} (?P<what>{season})", _read_season),
        (_stems("holiday"), rf"(?P<what>{holiday}){of}{written}", _read_of_year),
        (
            ("last", "this", "past", "prev"),
            rf"(?P<when>last|this|past|previous) (?P<what>{recent})",
            _read_recent,
        ),
        (
            ("este ", "esta ", "pasad", "ultim"),
            rf"(?P<when>est[ea]|pasad[oa]|ultim[oa]) (?P<what>{recent})",
            _read_recent,
        ),
        (("pasad",), rf"(?P<what>{recent}) (?P<when>pasad[oa]s?)", _read_recent),
        (
            ("since ", "desde "),
            rf"(?:(?<=since )|(?<=desde )|(?<=desde el )|(?<=desde la ))(?P<what>{recent})",
            _read_begun,
        ),
        ((" before last",), rf"(?P<what>{recent}) before last", _read_before_last),
        (("antepasad",), rf"(?P<what>{recent}) antepasad[oa]", _read_before_last),
        (
            ("this ", "last ", "yest", "night", "noche", "ayer ", "esta ", "hoy "),
            rf"(?:(?P<when>this|last|yesterday|esta|(?:ayer|hoy) por la) (?P<part>{part})"
            "|tonight|anoche)",
            _read_day_part,
        ),
        (
            ("last ", "this "),
            rf"(?P<when>last|this) (?P<what>{weekday}) (?P<part>{part})",
            _read_weekday_part,
        ),
        (("day", "ayer", "hoy"), f"(?P<what>{named_day})", _read_named_day),
        ((" ago",), rf"(?P<n>{number}) (?P<what>{season})s? ago", _read_seasons_ago),
        (("hace ",), rf"hace (?P<n>{number}) (?P<what>{season})s?", _read_seasons_ago),
        ((" ago",), rf"(?<!half )(?P<n>{number}) (?P<unit>{unit}) ago", _read_ago),
        (("hace ",), rf"hace (?P<n>{number}) (?P<unit>{unit})", _read_ago),
        (("last", "past"), rf"(?:last|past) (?P<n>{number}) (?P<unit>{unit})", _read_last_n),
        (("ultim",), rf"ultim[oa]s (?P<n>{number}) (?P<unit>{unit})", _read_last_n),
        (("ultim",), rf"(?P<n>{number}) ultim[oa]s (?P<unit>{unit})", _read_last_n),
        (("s",), r"(?P<c>19|20)?(?P<d>\d0)'?s", _read_decade),
        (
            ("s",),
            rf"(?:años|decada de|los) (?:los |años )*(?P<c>19)?(?P<d>\d0|{decade})",
            _read_decade,
        ),
        (("ties",), f"(?P<d>{decade})", _read_decade),
        (digits, year, _read_year),
        (("'",), r"'(?P<y>\d\d)", _read_year),
    ]


# -- Periods beside each other ---------------------------------------------------------------------


def _with_their_year(matches: list[PeriodMatch], text: str, today: date) -> Iterator[PeriodMatch]:
    """Yield the periods, and those that share a year or a name with one: ``June and July 2019``,
    ``summer 2018 and 2019``.
    """
    heading: PeriodMatch | None = None
    word, end = "", 0
    for match in matches:
        named = _named_form().fullmatch(text, match.start, match.end)
        start, shared = match.start, []
        while named and (before := _named_before_form().search(text[end:start])):
            start = end + before.start()
            rule = rule_of(before["what"])
            assert rule is not None
            period = rule(year_of(named["y"], today))
            after = start + len(before["what"])
            shared.append(PeriodMatch(start, after, period, relative=True))
        yield from reversed(shared)
        if (
            heading is not None
            and match.form == "year"
            and re.fullmatch(r" (?:and|or|y|o) ", text[heading.end : match.start])
            and (rule := rule_of(word)) is not None
        ):
            period = rule(int(match.period.first))
            match = replace(match, period=period, form="period", relative=True)
        elif named:
            heading, word = match, named["what"]
        yield match
        end = match.end


@cache
def _named_form() -> re.Pattern[str]:
    """What has a year after its name: a month, a season, a holiday."""
    return re.compile(rf"(?P<what>{rule_names()})s?{OF}(?P<y>{YEAR}|'\d\d)")


@cache
def _named_before_form() -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?P<what>{rule_names()})(?: (?:and|or|y|o|e) |, )$")
