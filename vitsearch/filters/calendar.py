"""Periods of the calendar: days, weeks, months, seasons and holidays as first and last dates, what
words name them, their parts, and those beside each other.

A period is a pair of dates of any precision, both included, as ``taken_at between`` takes them.
Seasons are the northern ones, from the first of March, June, September and December; a winter has
the year of its December. Weeks begin on Monday.
"""

import re
from calendar import monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from typing import NamedTuple

from vitsearch.filters.word_lists import UNITS, date_words, either

NIGHT = "23"  # the last hour of the part of a day that goes on after midnight


class Period(NamedTuple):
    """The first and the last date of a period, each as far as it is known (``2019``, ``2019-07``,
    ``2019-07-14``).
    """

    first: str
    last: str


def day(moment: date) -> Period:
    """Return the period of one day."""
    return Period(moment.isoformat(), moment.isoformat())


def days(first: date, last: date) -> Period:
    return Period(first.isoformat(), last.isoformat())


def month_of(year: int, month: int) -> Period:
    """Return a month, also of a number below 1 or above 12: 0 is December of the year before."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    return Period(f"{year:04}-{month:02}", f"{year:04}-{month:02}")


def season_of(year: int, month: int) -> Period:
    return Period(month_of(year, month).first, month_of(year, month + 2).last)


def week_of(moment: date) -> Period:
    monday = moment - timedelta(days=moment.weekday())
    return days(monday, monday + timedelta(days=6))


def weekend_of(moment: date) -> Period:
    saturday = moment + timedelta(days=5 - moment.weekday())
    return days(saturday, saturday + timedelta(days=1))


def part_of(moment: date, part: str) -> Period:
    """Return the hours of a part of a day, of a night until six."""
    first, last = date_words()["day_part"][part].split()
    end = f"{moment + timedelta(days=1)}T05" if last == NIGHT else f"{moment}T{last}"
    return Period(f"{moment}T{first}:00", f"{end}:59")


def _easter(year: int) -> date:
    """Return Easter Sunday of the Gregorian calendar (Meeus, Jones and Butcher)."""
    a, (b, c) = year % 19, divmod(year, 100)
    h = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    weekday = (32 + 2 * (b % 4) + 2 * (c // 4) - h - c % 4) % 7
    month, day_of_month = divmod(h + weekday - 7 * ((a + 11 * h + 22 * weekday) // 451) + 114, 31)
    return date(year, month, day_of_month + 1)


def _thanksgiving(year: int) -> date:
    """Return the fourth Thursday of November."""
    first = date(year, 11, 1)
    return first + timedelta(days=(3 - first.weekday()) % 7 + 21)


def holiday_of(rule: str, year: int) -> Period:
    kind, *numbers = rule.split()
    if kind in ("easter", "thanksgiving"):
        moment = _easter(year) if kind == "easter" else _thanksgiving(year)
        first, last = (moment + timedelta(days=int(number)) for number in numbers)
        return days(first, last)
    return Period(f"{year:04}-{kind}", f"{year:04}-{numbers[0]}")


def valid_day(year: int, month: int, number: int) -> Period | None:
    try:
        return day(date(year, month, number))
    except ValueError:
        return None


def length_of(month: str) -> int:
    return monthrange(*map(int, month.split("-")))[1]


def _bounds(period: Period) -> tuple[date, date]:
    """Return the first and the last day of a period."""
    first, last = period.first + "-01-01"[len(period.first) - 4 :], period.last
    last += "-12"[len(last) - 4 :]
    last += f"-{length_of(last)}" if len(last) == 7 else ""
    return date.fromisoformat(first[:10]), date.fromisoformat(last[:10])


def nth_of(n: int, unit: str, period: Period, *, weekday: int | None = None) -> Period | None:
    """Return the nth day, week, weekend, quarter or half of a period, or ``weekday`` of it (0 for
    Monday), the last one for -1; the week or weekend of its first day for 0. None where there is
    none.
    """
    first, last = _bounds(period)
    if weekday is not None and n:
        nearest = first + timedelta(days=(weekday - first.weekday()) % 7)
        if n < 0:
            nearest = last - timedelta(days=(last.weekday() - weekday) % 7)
        moment = nearest + timedelta(weeks=max(n - 1, 0))
        return day(moment) if moment <= last else None
    if n == 0:
        of_day = {"week": week_of, "weekend": weekend_of}.get(unit)
        return of_day(first) if of_day and len(period.first) == 10 else None
    of_year, of_month = (period.first == period.last and len(period.first) == k for k in (4, 7))
    match unit:
        case "quarter" | "half" if of_year:
            months = 3 if unit == "quarter" else 6
            parts = [(month_of(first.year, 1 + k), month_of(first.year, k + months))
                     for k in range(0, 12, months)]  # fmt: skip
            spans = [Period(start.first, end.last) for start, end in parts]
        case "half" if of_month:
            spans = [days(first, first.replace(day=15)), days(first.replace(day=16), last)]
        case "day" | "week" | "weekend" if len(period.first) in (4, 7):
            if unit == "week" and n < 0:
                return days(last - timedelta(days=6), last)
            step = 1 if unit == "day" else 7
            start = weekend_of(first).first if unit == "weekend" else first.isoformat()
            length = {"day": 0, "week": 6, "weekend": 1}[unit]
            spans = []
            moment = date.fromisoformat(start)
            while moment <= last:
                spans.append(days(moment, min(moment + timedelta(days=length), last)))
                moment += timedelta(days=step)
        case _:
            return None
    return spans[n - 1 if n > 0 else n] if n <= len(spans) else None


# -- What words name -------------------------------------------------------------------------------


@cache
def rule_names() -> str:
    known = date_words()
    return either([*known["short"], *known["season"], *known["holiday"]])


def number_of(text: str) -> int:
    """Return the number of digits or a word."""
    return int(text) if text.isdecimal() else int(date_words()["number"][text])


def year_of(text: str, today: date) -> int:
    """Return the year of ``2019``, ``'19`` or ``19``, which lies at most a century back."""
    if len(text) == 4:
        return int(text)
    year = today.year - today.year % 100 + int(text[-2:])
    return year if year <= today.year else year - 100


def rule_of(word: str) -> Callable[[int], Period] | None:
    """Return the periods of the years that a season, month or holiday names."""
    known = date_words()
    if word in known["season"]:
        return lambda year: season_of(year, known["season"][word])
    if word in known["short"]:
        return lambda year: month_of(year, known["short"][word])
    if word in known["holiday"]:
        return lambda year: holiday_of(known["holiday"][word], year)
    return None


# -- Periods in a text -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeriodMatch:
    """A period between two positions of a text, which may depend on the day (``relative``).

    ``form`` is ``period`` where it leaves no doubt; of a ``year``, ``decade`` or ``season`` the
    context decides. ``sign`` is that of an open end which words after it name (``2012 onwards``),
    ``others`` are periods before it that are meant too (``last two summers``).
    """

    start: int
    end: int
    period: Period
    form: str = "period"
    relative: bool = False
    sign: str = ""
    others: tuple[Period, ...] = ()


_THROUGH = r"(?:to|until|till|through|hasta|al?)"
TO = rf" ?(?:{_THROUGH}|[-–—]) ?(?:the |el |la )?"  # between the ends of a range
_AND = re.compile(r" (?:and|y) (?:the |el |la )?")
_OPEN_ENDS = {
    ">=": re.compile(
        r" (?:onwards?|(?:or|and) (?:later|newer|after|onwards?)|en adelante"
        r"|(?:until|till|to|-|–) (?:now|(?:the )?present)|hasta (?:ahora|la fecha))(?!\w)"
    ),
    "<=": re.compile(r" (?:(?:or|and) (?:earlier|before|older)|[oy] antes)(?!\w)"),
}
_ARTICLES = ("", "the", "el", "la")
_MORE = re.compile(r"(?<!\w)(?:more than|over) $")
_FROM = re.compile(r"(?<!\w)(?:from|de|desde) (?:the |el )?$")
_ON = re.compile(r" on(?=\s*(?:$|,))")
_BETWEEN = re.compile(r"(?<!\w)(?:(?P<both>between|entre)|from|since|desde|de) (?:the |el |la )?$")


def opened(match: PeriodMatch, text: str, following: int) -> PeriodMatch:
    """Return a period with the words beside it that leave one end of it open, and are not those of
    the ``following`` one: ``after 2015 and before 2018``.
    """
    if text.startswith("hace mas de ", match.start):
        return replace(match, sign="<")
    if text.endswith(" ago", match.start, match.end) and (
        more := _MORE.search(text[: match.start])
    ):
        return replace(match, start=more.start(), sign="<")
    for sign, form in _OPEN_ENDS.items():
        end = form.match(text, match.end)
        if end and (following == len(text) or text[end.end() : following].strip() not in _ARTICLES):
            return replace(match, end=end.end(), sign=sign, form="period", relative=False)
    if _FROM.search(text[: match.start]) and (end := _ON.match(text, match.end)):
        return replace(match, end=end.end(), sign=">=", form="period", relative=False)
    return match


def joined(matches: list[PeriodMatch], text: str) -> Iterator[PeriodMatch]:
    """Yield the periods, two with ``to`` between them, or in ``between ... and``, as one, and none
    that is half of a range.
    """
    position = 0
    while position < len(matches):
        first = matches[position]
        position += 1
        second = matches[position] if position < len(matches) else None
        between = "" if second is None else text[first.end : second.start]
        opening = _BETWEEN.search(text[: first.start])
        is_range = re.fullmatch(TO, between) or (
            opening and opening["both"] and _AND.fullmatch(between)
        )
        if second and is_range and first.period.first < second.period.first:
            start = opening.start() if opening else first.start
            period = Period(first.period.first, second.period.last)
            relative = first.relative or second.relative
            yield PeriodMatch(start, second.end, period, relative=relative)
            position += 1
        elif is_range:  # the later one first
            position += 1
        elif not (
            _range_end().match(text, first.end)
            or _range_begin().search(text, max(first.start - 40, 0), first.start)
        ):
            yield first


@cache
def _range_end() -> re.Pattern[str]:
    """What goes on with a range after a period and is no period by itself: ``to Friday``."""
    return re.compile(
        rf" {_THROUGH} (?:the |el |la )?(?:\d[\d/.-]*|{_yearless()})(?!\w)| ?[-–—] ?\d\d?[/.-]\d"
    )


@cache
def _range_begin() -> re.Pattern[str]:
    return re.compile(
        rf"(?<!\w)(?:{_yearless()}|\d\d?(?:st|nd|rd|th|[/.-]\d[\d/.-]*))"
        rf"(?: {_THROUGH} | ?[-–—] ?)(?:the |el |la )?$"
    )


def _yearless() -> str:
    return f"{rule_names()}|{either(date_words()['weekday'])}"


def narrowed(matches: list[PeriodMatch], text: str) -> Iterator[PeriodMatch]:
    """Yield the periods, with the words before one that make it a part of it; not one that has no
    such part.
    """
    for match in matches:
        start, period = part_before(match.start, text, match.period) or (match.start, match.period)
        if start == match.start:
            yield match
        elif period is not None:
            form = match.form if match.form == "decade" else "period"  # late 90s fashion
            yield PeriodMatch(start, match.end, period, form, relative=True)


# -- Parts of a period -----------------------------------------------------------------------------


_PART = re.compile(
    r"(?<!\w)(?:the |a |al )?"
    r"(?:(?P<early>early|(?:beginning|start) of|(?:principios?|comienzos?) del?)"
    r"|(?P<mid>mid|middle of|mediados del?)|(?P<late>late|end of|fina?les? del?|fines del?))"
    r"[ -](?:the |el )?$"
)
_BESIDE = re.compile(  # the day after Christmas 2019
    r"(?<!\w)(?:the |el |la )?(?P<unit>day|week|dia|semana)"
    r" (?:(?P<after>after|despues de)|before|antes de) (?:the |el |la )?$"
)
SHARES = {
    **UNITS, "quarter": "quarter", "trimestre": "quarter", "half": "half", "mitad": "half",
    "semestre": "half", "quincena": "half",
}  # fmt: skip


@cache
def _share() -> re.Pattern[str]:
    """What makes a part of the period after it: ``first week of``, ``la semana del``."""
    ordinal = either(date_words()["ordinal"])
    number = rf"(?:\d\d?|{either(date_words()['number'])})"
    return re.compile(
        r"(?<!\w)(?:the |la |el |las |los )?"
        rf"(?:(?:(?P<n>{number}) )?(?P<nth>{ordinal}) (?:(?P<count>{number}) )?)?"
        rf"(?P<unit>{either([*SHARES, *date_words()['weekday']])}) (?:(?:of|del?) (?:the |la |el )?"
        r"|(?<=quarter )|(?<=half )|(?<=trimestre )|(?<=semestre ))$"
    )


@cache
def _weekday() -> re.Pattern[str]:
    """What says no more than the date after it: ``Saturday 4 May 2019``."""
    return re.compile(
        rf"(?<!\w)(?:on |el )?(?P<what>{either(date_words()['weekday'])})"
        rf"(?: (?:por la )?(?P<part>{either(date_words()['day_part'])}))?,? (?:the |el )?$"
    )


@cache
def _part_of_day() -> re.Pattern[str]:
    parts = either(date_words()["day_part"])
    return re.compile(rf"(?<!\w)(?:the |la )?(?P<part>{parts}) (?:of|del?) (?:the |el )?$")


def part_before(start: int, text: str, period: Period) -> tuple[int, Period | None] | None:
    """Return the part of the period at ``start`` that the words before it say, None for one that
    there is not, and where they begin; None where they say none.
    """
    before = text[:start]
    part = _of_days_before(before, period) if len(period.first) == 10 else None
    if part is not None:
        return part
    if (share := _share().search(before)) is not None:
        of_other = len(period.first) == 4 and share[0].endswith(("the ", "el ", "la "))
        return None if of_other else _share_of(share, period)  # first day of the 2019 trip
    if (third := _PART.search(before)) is not None:
        number = next(n for n, name in enumerate(("early", "mid", "late")) if third[name])
        part_of_it = _third_of(period, number)
        return (third.start(), part_of_it) if part_of_it else None
    return None


def _of_days_before(before: str, period: Period) -> tuple[int, Period] | None:
    """Return what words before a day or a week make of it: ``the day after``, ``the night of``."""
    first, last = map(date.fromisoformat, (period.first[:10], period.last[:10]))
    if (named := _weekday().search(before)) is not None:
        if last - first == timedelta(days=6):  # Friday last week
            first += timedelta(days=date_words()["weekday"][named["what"]])
        elif first != last:
            return None
        return named.start(), part_of(first, named["part"]) if named["part"] else day(first)
    if (hours := _part_of_day().search(before)) is not None and period.first == period.last:
        return hours.start(), part_of(first, hours["part"])
    if (beside := _BESIDE.search(before)) is not None:
        length = timedelta(days=1 if beside["unit"] in ("day", "dia") else 7)
        if beside["after"]:
            return beside.start(), days(last + timedelta(days=1), last + length)
        return beside.start(), days(first - length, first - timedelta(days=1))
    return None


def _share_of(share: re.Match[str], period: Period) -> tuple[int, Period | None] | None:
    """Return the part of a period that ``first two weeks of`` says, and where that begins."""
    nth = date_words()["ordinal"].get(share["nth"] or "", 0)
    unit, count = SHARES.get(share["unit"], share["unit"]), share["n"] or share["count"]
    if count:
        part = _run_of(number_of(count), unit, period, at_end=nth < 0) if nth in (1, -1) else None
    else:
        part = nth_of(nth, unit, period, weekday=date_words()["weekday"].get(unit))
    return (share.start(), part) if part or nth else None


def _run_of(count: int, unit: str, period: Period, *, at_end: bool) -> Period | None:
    """Return the first or last days, weeks or months of a period, None where it has not so many."""
    first, last = _bounds(period)
    if count == 0 or (unit == "month" and count > 12):
        return None
    if unit == "month" and len(period.first) == len(period.last) == 4:
        start, end = (13 - count, 12) if at_end else (1, count)
        return Period(month_of(first.year, start).first, month_of(first.year, end).first)
    if unit not in ("day", "week") or len(period.first) == 10:
        return None
    length = timedelta(days=count * (7 if unit == "week" else 1) - 1)
    part = days(last - length, last) if at_end else days(first, first + length)
    return part if length <= last - first else None


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
