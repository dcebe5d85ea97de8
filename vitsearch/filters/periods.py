"""Periods of time in the words of a query, English and Spanish: ``summer 2020``, ``hace dos años``.

A period is a pair of dates of any precision, both included, as ``taken_at between`` takes them.
``last`` is the latest one that is over, ``this`` the one that today is in, or else the latest.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from functools import cache

from vitsearch.filters.calendar import Period, day, length_of, month_of, nth_of
from vitsearch.filters.date_forms import (
    OF,
    YEAR,
    PeriodMatch,
    read_periods,
    rule_names,
    rule_of,
    year_of,
)
from vitsearch.filters.word_lists import UNITS, date_words, either

_TO = re.compile(r" ?(?:to|until|till|through|[-–—]|hasta|a|al) ?(?:the |el |la )?")
_TO_AND = re.compile(r" (?:to|until|and|hasta|a|al|y) (?:the |el |la )?")
_OPEN_ENDS = {
    ">=": re.compile(
        r" (?:onwards?|(?:or|and) (?:later|newer|after|onwards?)|en adelante"
        r"|(?:until|till|to) (?:now|the present)|hasta ahora)(?!\w)"
    ),
    "<=": re.compile(r" (?:(?:or|and) (?:earlier|before|older)|[oy] antes)(?!\w)"),
}
_FROM = re.compile(r"(?<!\w)(?:from|de|desde) (?:the |el )?$")
_ON = re.compile(r" on(?=\s*(?:$|,))")
_BETWEEN = re.compile(r"(?<!\w)(?:between|entre|from|desde|de) (?:the |el |la )?$")


def periods(text: str, today: date) -> list[PeriodMatch]:
    """Return the periods in a text in lower case without accents, in order, none within another."""
    alone = list(_with_their_year(read_periods(text, today), text, today))
    joined = _joined([_narrowed(each, text) for each in alone], text)
    return [_opened(each, text) for each in joined]


def _opened(match: PeriodMatch, text: str) -> PeriodMatch:
    """Return a period with the words after it that leave one end of it open."""
    for sign, form in _OPEN_ENDS.items():
        if end := form.match(text, match.end):
            return replace(match, end=end.end(), sign=sign, form="period", relative=False)
    if _FROM.search(text[: match.start]) and (end := _ON.match(text, match.end)):
        return replace(match, end=end.end(), sign=">=", form="period", relative=False)
    return match


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
    return re.compile(rf"(?P<what>{rule_names()}){OF}(?P<y>{YEAR}|'\d\d)")


@cache
def _named_before_form() -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?P<what>{rule_names()})(?: (?:and|or|y|o|e) |, )$")


def _joined(matches: list[PeriodMatch], text: str) -> Iterator[PeriodMatch]:
    """Yield the periods, two with ``to`` between them, or in ``between ... and``, as one."""
    position = 0
    while position < len(matches):
        first = matches[position]
        position += 1
        second = matches[position] if position < len(matches) else None
        between = "" if second is None else text[first.end : second.start]
        opening = _BETWEEN.search(text[: first.start])
        to = _TO_AND if opening else _TO
        if second and to.fullmatch(between) and first.period.first < second.period.first:
            start = opening.start() if opening else first.start
            period = Period(first.period.first, second.period.last)
            relative = first.relative or second.relative
            yield PeriodMatch(start, second.end, period, relative=relative)
            position += 1
        else:
            yield first


def _narrowed(match: PeriodMatch, text: str) -> PeriodMatch:
    """Return a period with the words before it that make it a part of it."""
    part = part_before(match.start, text, match.period)
    if part is None:
        return match
    form = match.form if match.form == "decade" else "period"  # late 90s fashion
    return PeriodMatch(part[0], match.end, part[1], form, relative=True)


# -- Parts of a period -----------------------------------------------------------------------------


_PART = re.compile(
    r"(?<!\w)(?:the |a |al )?"
    r"(?:(?P<early>early|(?:beginning|start) of|(?:principios?|comienzos?) de)"
    r"|(?P<mid>mid|middle of|mediados de)|(?P<late>late|end of|fina?les? de|fines de))"
    r"[ -](?:the |el |l )?$"
)
SHARES = {
    **UNITS, "quarter": "quarter", "trimestre": "quarter", "half": "half", "mitad": "half",
    "semestre": "half", "quincena": "half",
}  # fmt: skip


@cache
def _share() -> re.Pattern[str]:
    """What makes a part of the period after it: ``first week of``, ``la semana del``."""
    return re.compile(
        rf"(?<!\w)(?:the |la |el )?(?:(?P<nth>{either(date_words()['ordinal'])}) )?"
        rf"(?P<unit>{either([*SHARES, *date_words()['weekday']])}) (?:(?:of|del?) (?:the |la |el )?"
        r"|(?<=quarter )|(?<=half )|(?<=trimestre )|(?<=semestre ))$"
    )


@cache
def _weekday() -> re.Pattern[str]:
    """What says no more than the date after it: ``Saturday 4 May 2019``."""
    return re.compile(
        rf"(?<!\w)(?:on |el )?(?P<what>{either(date_words()['weekday'])}),? (?:the |el )?$"
    )


def part_before(start: int, text: str, period: Period) -> tuple[int, Period] | None:
    """Return the part of the period at ``start`` that the words before it say, and where they
    begin; None where they say none.
    """
    before = text[:start]
    if len(period.first) == 10 and (named := _weekday().search(before)) is not None:
        first, last = map(date.fromisoformat, (period.first[:10], period.last[:10]))
        if last - first == timedelta(days=6):  # Friday last week
            period = day(first + timedelta(days=date_words()["weekday"][named["what"]]))
        return (named.start(), period) if last - first in (timedelta(), timedelta(days=6)) else None
    if (share := _share().search(before)) is not None:
        nth = date_words()["ordinal"].get(share["nth"] or "", 0)
        unit = share["unit"]
        weekday = date_words()["weekday"].get(unit)
        part = nth_of(nth, SHARES.get(unit, unit), period, weekday=weekday)
        return (share.start(), part) if part else None
    if (third := _PART.search(before)) is not None:
        number = next(n for n, name in enumerate(("early", "mid", "late")) if third[name])
        part = _third_of(period, number)
        return (third.start(), part) if part else None
    return None


def _third_of(period: Period, third: int) -> Period | None:
    first, last = period
    if first == last and len(first) == 4:
        return Period(f"{first}-{1 + 4 * third:02}", f"{first}-{4 + 4 * third:02}")
    if first == last and len(first) == 7:
        last_day = length_of(first) if third == 2 else 10 + 10 * third
        return Period(f"{first}-{1 + 10 * third:02}", f"{first}-{last_day:02}")
    if len(first) == 4:  # a decade
        years = (0, 3), (4, 6), (7, 9)
        return Period(*(str(int(first) + year) for year in years[third]))
    if len(first) == 7:  # a season
        year, month = map(int, first.split("-"))
        return month_of(year, month + third)
    return None
