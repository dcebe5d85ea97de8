"""Periods of the calendar: days, weeks, months, seasons and holidays as first and last dates.

Seasons are the northern ones, from the first of March, June, September and December; a winter has
the year of its December. Weeks begin on Monday.
"""

from calendar import monthrange
from datetime import date, timedelta
from typing import NamedTuple


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


def _easter(year: int) -> date:
    """Return Easter Sunday of the Gregorian calendar (Meeus, Jones and Butcher)."""
    a, (b, c) = year % 19, divmod(year, 100)
    h = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    weekday = (32 + 2 * (b % 4) + 2 * (c // 4) - h - c % 4) % 7
    month, day_of_month = divmod(h + weekday - 7 * ((a + 11 * h + 22 * weekday) // 451) + 114, 31)
    return date(year, month, day_of_month + 1)


def holiday_of(rule: str, year: int) -> Period:
    if rule == "thanksgiving":  # the fourth Thursday of November
        first = date(year, 11, 1)
        return day(first + timedelta(days=(3 - first.weekday()) % 7 + 21))
    kind, *numbers = rule.split()
    if kind == "easter":
        sunday = _easter(year)
        first, last = (sunday + timedelta(days=int(number)) for number in numbers)
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
