"""How each form of a period is read: ``summer 2020``, ``hace dos años``. A reader takes the
match of its form in `vitsearch.filters.date_forms` and today's date. ``last`` is the latest period
that is over, ``this`` the one that today is in, or else the latest.
"""

import re
from collections.abc import Callable
from datetime import date, timedelta

from vitsearch.filters.calendar import (
    NIGHT,
    Period,
    day,
    days,
    length_of,
    month_of,
    number_of,
    part_of,
    rule_of,
    season_of,
    valid_day,
    week_of,
    weekend_of,
    year_of,
)
from vitsearch.filters.word_lists import UNITS, date_words

Reader = Callable[[re.Match[str], date], Period | list[Period] | None]
HOURS = ("hour", "hours", "hora", "horas")


def read_recent(match: re.Match[str], today: date) -> Period | None:
    """Read ``last August``, ``this week``, ``el lunes pasado``."""
    word, over = match["what"], match["when"].startswith(("last", "past", "prev", "pasad", "ultim"))
    if word in date_words()["weekday"]:
        back = _days_since(word, today)
        return day(today - timedelta(days=back if over else back % 7))
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


def read_begun(match: re.Match[str], today: date) -> Period | None:
    """Read ``since May``, ``desde el lunes``: the latest one that has begun."""
    word = match["what"]
    if word in date_words()["weekday"]:
        return day(today - timedelta(days=_days_since(word, today)))
    rule = rule_of(word)
    return latest_of(rule, today, over=False) if rule else None


def read_weekday(match: re.Match[str], today: date) -> Period:
    """Read ``photos from Tuesday``, ``photos from Friday night``: the latest one before today."""
    moment = today - timedelta(days=_days_since(match["what"], today))
    return part_of(moment, match["part"]) if match["part"] else day(moment)


def read_begun_day(match: re.Match[str], today: date) -> Period | None:
    """Read ``since April 3``: the latest one that has begun."""
    month, number = date_words()["dated"][match["month"]], int(match["d"])
    dates = (valid_day(year, month, number) for year in (today.year, today.year - 1))
    return next((each for each in dates if each and each.first <= today.isoformat()), None)


def read_days(match: re.Match[str], today: date) -> Period | None:
    """Read ``3-5 May 2019``, ``del 28 de mayo al 3 de junio de 2019``; ``3 and 4 May 2019``."""
    months, year = date_words()["dated"], year_of(match["y"], today)
    last_month = months[match["month"] or match["a"]]
    first_month = months[match["a"] or match["month"]]
    is_list = match["to"] in ("and", "y") and not match[0].startswith(("between", "entre"))
    over_new_year = first_month > last_month and not is_list
    first = valid_day(year - over_new_year, first_month, int(match["d"]))
    last = valid_day(year, last_month, int(match["e"]))
    if first is None or last is None or first >= last:
        return None
    if is_list and int(match["e"]) != int(match["d"]) + 1:
        return None
    return Period(first.first, last.last)


def read_before_last(match: re.Match[str], today: date) -> Period | None:
    """Read ``the summer before last``, ``el año antepasado``."""
    word = match["what"]
    if word in date_words()["weekday"]:
        return day(today - timedelta(days=7 + _days_since(word, today)))
    if (rule := rule_of(word)) is not None:
        return latest_of(rule, today, over=True, back=1)
    return None if UNITS[word] == "day" else unit_before(word, today, 2)


def read_day_part(match: re.Match[str], today: date) -> Period | None:
    """Read ``this morning``, ``yesterday afternoon``, ``anoche``: hours of a day. A night that is
    over goes on until six.
    """
    when, part = match["when"] or match[0], match["part"] or "night"
    first, last = date_words()["day_part"][part].split()
    if when == "last" and last != NIGHT:
        return None
    if when in ("this", "esta", "tonight") or when.startswith("hoy"):
        return Period(f"{today}T{first}:00", f"{today}T{last}:59")
    return part_of(today - timedelta(days=1), part)


def read_weekday_part(match: re.Match[str], today: date) -> Period | None:
    """Read ``last Friday night``."""
    recent = read_recent(match, today)
    return recent and part_of(date.fromisoformat(recent.first), match["part"])


def read_named_day(match: re.Match[str], today: date) -> Period | None:
    word = match["what"]
    back = 0 if word in ("today", "hoy") else 1 if word in ("yesterday", "ayer") else 2
    return day(today - timedelta(days=back))


def read_ago(match: re.Match[str], today: date) -> Period | None:
    count = number_of(match["n"])
    return unit_before(match["unit"], today, count) if count <= 1200 else None


def read_seasons_ago(match: re.Match[str], today: date) -> Period | None:
    """Read ``two summers ago``: last summer is one ago."""
    count, rule = number_of(match["n"]), rule_of(match["what"])
    return latest_of(rule, today, over=True, back=count - 1) if rule and 1 <= count <= 100 else None


def read_last_n(match: re.Match[str], today: date) -> Period | None:
    count, unit = number_of(match["n"]), match["unit"]
    if unit in HOURS:
        count, unit = -(-count // 24), "day"
    return time_since(unit, today, count) if 1 <= count <= 1200 else None


def read_latest(match: re.Match[str], today: date) -> list[Period] | None:
    """Read ``last two summers``, ``los últimos 2 fines de semana``, the earliest first."""
    count, word = number_of(match["n"]), match["what"]
    rule = rule_of(word)
    if not 1 <= count <= 20:
        return None
    if word in date_words()["weekday"]:
        back = _days_since(word, today)
        return [day(today - timedelta(days=back + 7 * n)) for n in reversed(range(count))]
    if rule is None:
        return [unit_before("weekend", today, n) for n in range(count, 0, -1)]
    return [latest_of(rule, today, over=True, back=n) for n in reversed(range(count))]


def read_day(match: re.Match[str], today: date) -> Period | None:
    month = date_words()["dated"].get(match["month"]) or int(match["month"])
    number = date_words()["ordinal"].get(match["d"]) or number_of(match["d"])
    return valid_day(year_of(match["y"], today), month, number)


def read_numbers(match: re.Match[str], today: date) -> Period | None:
    """Read ``14.7.2019``, ``12-25-2019``; with slashes, and two digits of a year, only where one
    number cannot be a month.
    """
    first, second = int(match["a"]), int(match["b"])
    is_brief = match["sep"] == "/" or len(match["y"]) == 2
    if is_brief and first <= 12 and second <= 12 and first != second:
        return None
    if second > 12:
        first, second = second, first
    return valid_day(year_of(match["y"], today), second, first)


def read_month(match: re.Match[str], today: date) -> Period | None:
    month = date_words()["short"].get(match["month"]) or int(match["month"])
    return month_of(year_of(match["y"], today), month)


def read_month_number(match: re.Match[str], today: date) -> Period | None:
    """Read ``07/2019`` and ``2019/07``, but not ``2011/12``, which may be two years."""
    year, month = int(match["y"]), int(match["month"])
    return (
        None
        if match[0].startswith(match["y"]) and month == year % 100 + 1
        else month_of(year, month)
    )


def read_quarter(match: re.Match[str], today: date) -> Period | None:
    return season_of(year_of(match["y"], today), 3 * int(match["n"]) - 2)


def read_half(match: re.Match[str], today: date) -> Period | None:
    year, first = year_of(match["y"], today), 6 * int(match["n"]) - 5
    return Period(month_of(year, first).first, month_of(year, first + 5).last)


def read_week(match: re.Match[str], today: date) -> Period | None:
    """Read ``week 23 2019``, as ISO 8601 counts them."""
    try:
        return week_of(date.fromisocalendar(int(match["y"]), int(match["n"]), 1))
    except ValueError:
        return None


def read_months(match: re.Match[str], today: date) -> Period | None:
    """Read ``June to August 2020``."""
    first, last = date_words()["dated"][match["a"]], date_words()["dated"][match["month"]]
    year = year_of(match["y"], today)
    if first == last:
        return None
    return Period(month_of(year - (first > last), first).first, month_of(year, last).last)


def read_of_year(match: re.Match[str], today: date) -> Period | None:
    rule = rule_of(match["what"])
    return rule(year_of(match["y"], today)) if rule else None


def read_of_past_year(match: re.Match[str], today: date) -> Period | None:
    """Read ``June last year``, ``Christmas two years ago``, ``14 July last year``."""
    rule, back = rule_of(match["what"]), _count_back(match)
    if UNITS[match["unit"] or match["unidad"] or "year"] != "year" or back > 100:
        return None
    if number := match.groupdict().get("d"):
        return valid_day(today.year - back, date_words()["dated"][match["what"]], int(number))
    return rule(today.year - back) if rule else None


def read_same_time(match: re.Match[str], today: date) -> Period | None:
    """Read ``2 years ago today``, ``this week last year``, ``on this day in 2019``."""
    groups = match.groupdict()
    back = today.year - int(groups["y"]) if groups.get("y") else _count_back(match)
    if not 0 <= back <= 100:
        return None
    moment = day_before(groups["unit"] or groups["unidad"] or "year", today, back)
    if groups["same"] in ("yesterday", "ayer"):
        moment -= timedelta(days=1)
    what = groups["same"].rpartition(" ")[2]
    return unit_before(what if what in UNITS else "day", moment, 0)


def _count_back(match: re.Match[str]) -> int:
    """Return how many units a form goes back: one for ``last year``."""
    count = match["n"] or match["numero"]
    return number_of(count) if count else int(not match[0].endswith(("this year", "este año")))


def read_years(match: re.Match[str], today: date) -> Period | None:
    first, last = int(match["y"]), int(match["z"])
    return Period(match["y"], match["z"]) if first < last <= today.year else None


def read_year(match: re.Match[str], today: date) -> Period | None:
    year = year_of(match[0], today)
    return Period(f"{year}", f"{year}") if year <= today.year else None


def read_season(match: re.Match[str], today: date) -> Period | None:
    """Read ``2020 summer``."""
    return read_of_year(match, today)


def read_decade(match: re.Match[str], today: date) -> Period | None:
    century = match.groupdict().get("c") or ""
    named = date_words()["decade"].get(match["d"])
    decade = int(match["d"] if named is None else named)
    if not century and match["d"] == "00":
        decade = 100
    if not century and decade < 30:
        return None
    first = int(century or 19) * 100 + decade
    return Period(f"{first}", f"{first + 9}")


# -- Periods that go back from today ---------------------------------------------------------------


def latest_of(of: Callable[[int], Period], today: date, *, over: bool, back: int = 0) -> Period:
    """Return the latest period of a year-by-year rule that has begun, or that is ``over``, or the
    one so many years before it.
    """
    now = today.isoformat()
    for year in (today.year, today.year - 1):
        period = of(year)
        if _after(now, period.last) if over else period.first <= now:
            return of(year - back)
    return of(today.year - 2 - back)


def _after(now: str, last: str) -> bool:
    return now[: len(last)] > last


def _days_since(weekday: str, today: date) -> int:
    """Return the days since the latest such weekday before today."""
    return (today.weekday() - int(date_words()["weekday"][weekday])) % 7 or 7


def unit_before(unit: str, today: date, back: int) -> Period:
    """Return the day, week, month or year that is so many before today's."""
    match UNITS[unit]:
        case "day":
            return day(today - timedelta(days=back))
        case "week":
            return week_of(today - timedelta(weeks=back))
        case "weekend":
            return weekend_of(today - timedelta(weeks=back))
        case "month":
            return month_of(today.year, today.month - back)
    return Period(f"{today.year - back:04}", f"{today.year - back:04}")


def time_since(unit: str, today: date, count: int) -> Period:
    """Return the time from so many units before today until today."""
    return days(day_before(unit, today, count), today)


def day_before(unit: str, today: date, count: int) -> date:
    """Return the day so many units before today, the last of its month where that is shorter."""
    if UNITS[unit] in ("day", "week", "weekend"):
        return today - timedelta(days=count * (1 if UNITS[unit] == "day" else 7))
    month = month_of(today.year, today.month - count * (12 if UNITS[unit] == "year" else 1)).first
    return date.fromisoformat(f"{month}-{min(today.day, length_of(month)):02}")


# -- The kinds of readers --------------------------------------------------------------------------


RELATIVE: set[Reader] = {
    read_recent, read_begun, read_begun_day, read_latest, read_before_last, read_day_part,
    read_weekday, read_weekday_part, read_named_day, read_ago, read_seasons_ago, read_last_n,
    read_of_past_year, read_same_time,
}  # fmt: skip
FORMS: dict[Reader, str] = {
    read_year: "year", read_season: "season", read_quarter: "season",
    read_month_number: "season", read_half: "season", read_week: "season",
    read_day_part: "season", read_decade: "decade", read_weekday: "season",
}  # fmt: skip
