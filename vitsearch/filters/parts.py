"""Parts of a period that words before it name: ``early 2020``, ``first week of May 2021``."""

import re
from datetime import date, timedelta
from functools import cache

from vitsearch.filters.calendar import Period, day, length_of, month_of, nth_of
from vitsearch.filters.word_lists import UNITS, date_words, either

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
        rf"(?P<unit>{either(SHARES)}) (?:(?:of|del?) (?:the |la |el )?"
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
    if len(period.first) == 10 and (weekday := _weekday().search(before)) is not None:
        first, last = map(date.fromisoformat, (period.first[:10], period.last[:10]))
        if last - first == timedelta(days=6):  # Friday last week
            period = day(first + timedelta(days=date_words()["weekday"][weekday["what"]]))
        return (
            (weekday.start(), period) if last - first in (timedelta(), timedelta(days=6)) else None
        )
    if (share := _share().search(before)) is not None:
        nth = date_words()["ordinal"].get(share["nth"] or "", 0)
        part = nth_of(nth, SHARES[share["unit"]], period)
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
