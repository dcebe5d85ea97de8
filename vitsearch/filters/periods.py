"""Periods of time in the words of a query, English and Spanish: ``summer 2020``, ``hace dos años``.

A period is a pair of dates of any precision, both included, as ``taken_at between`` takes them.
``last`` is the latest one that is over, ``this`` the one that today is in, or else the latest.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from functools import cache

from vitsearch.filters.calendar import Period
from vitsearch.filters.date_forms import (
    OF,
    YEAR,
    PeriodMatch,
    read_periods,
    rule_names,
    rule_of,
    year_of,
)
from vitsearch.filters.parts import part_before

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
