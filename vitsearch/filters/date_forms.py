"""The forms of periods in the words of a query, English and Spanish, ``summer 2020``, ``hace dos
años``, and where they stand; `vitsearch.filters.date_readers` reads each.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from functools import cache

from vitsearch.filters.calendar import (
    PeriodMatch,
    joined,
    narrowed,
    opened,
    rule_names,
    rule_of,
    year_of,
)
from vitsearch.filters.date_readers import (
    FORMS,
    RELATIVE,
    Reader,
    read_ago,
    read_before_last,
    read_begun,
    read_day,
    read_day_part,
    read_days,
    read_decade,
    read_half,
    read_last_n,
    read_month,
    read_month_number,
    read_months,
    read_named_day,
    read_numbers,
    read_of_past_year,
    read_of_year,
    read_quarter,
    read_recent,
    read_same_time,
    read_season,
    read_seasons_ago,
    read_week,
    read_weekday_part,
    read_year,
    read_years,
)
from vitsearch.filters.word_lists import LISTS, UNITS, date_words, either

YEAR = r"(?:19|20)\d\d"
WORD_START = r"(?:(?<![\w.:/#$€£-])|(?<=mid-)|(?<=early-)|(?<=late-)|(?<=pre-)|(?<=post-))"
WORD_END = r"(?![\w/:%€£$]|[-.,']\w)"
NO_NOUN = (  # árbol de Navidad is a tree
    r"(?:(?<!\w de )|(?<=fotos de )|(?<=videos de )|(?<=antes de )|(?<=despues de ))"
)
OF = r"(?:,? |,? of |,? in |,? de |,? del |,? en )"


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
        rf"|older|{either(date_words()['decade'])})\b"
    )


# -- The forms -------------------------------------------------------------------------------------


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
    clear = either(known["month"].keys() - {*LISTS["months"]["two_meanings"]})
    # after last, this
    recent = f"{either(known['month'])}|{season}|{holiday}|{weekday}|{unit}"
    part, decade = either(known["day_part"]), either(known["decade"])
    number = rf"(?:\d{{1,4}}|{either(known['number'])})"
    ago = (
        rf"(?:last year|(?:el )?año pasado|(?P<n>{number}) (?P<unit>{unit}) ago"
        rf"|hace (?P<numero>{number}) (?P<unidad>{unit}))"
    )
    same_stems = ("today", "yesterday", "hoy", "ayer", "day", "week", "month", "dia", "sem", "mes")
    same = (
        r"(?:on )?(?P<same>today|yesterday|(?:this|(?:the )?same) (?:day|week|weekend|month)"
        r"|(?:tal dia como )?hoy|ayer|(?:est[ea]|(?:el |la )?mism[oa]) (?:dia|semana|mes))"
    )
    year, written = rf"(?P<y>{YEAR})", rf"(?P<y>{YEAR}|'\d\d)"  # '19 only beside a word
    of, weeks = OF, ("w", "semana")
    week = r"(?:(?:calendar )?(?:week|wk|semana) (?:number |no\.? |numero )?|w)(?P<n>\d\d?)"
    ordinal, digits = r"(?:st|nd|rd|th|º)?", ("19", "20")
    named_day = (
        "the day before yesterday|day before yesterday|antes de ayer|anteayer|today|yesterday"
        "|hoy|ayer"
    )
    numeric: list[tuple[tuple[str, ...], str, Reader]] = [
        (digits, rf"{year}(?P<s>[-/.])(?P<month>0?[1-9]|1[0-2])(?P=s)(?P<d>\d\d?)", read_day),
        (digits, r"(?P<a>\d\d?)(?P<sep>[./-])(?P<b>\d\d?)(?P=sep)" + year, read_numbers),
        (digits, rf"{year}-(?P<month>0[1-9]|1[0-2])", read_month),
        (digits, rf"{year}(?P<month>0[1-9]|1[0-2])(?P<d>[0-2]\d|3[01])", read_day),
        (digits, rf"{year} ?[-–] ?(?P<z>{YEAR})", read_years),
        (digits, rf"(?P<month>0?[1-9]|1[0-2])[/.]{year}", read_month_number),
        (digits, rf"{year}[/.](?P<month>0[1-9]|1[0-2])", read_month_number),
        (("q",), rf"q(?P<n>[1-4])[ /-]?{written}", read_quarter),
        (("q",), rf"{year}[ /-]?q(?P<n>[1-4])", read_quarter),
        (("h1", "h2"), rf"h(?P<n>[12])[ /-]?{written}", read_half),
        (("h1", "h2"), rf"{year}[ /-]?h(?P<n>[12])", read_half),
        (weeks, rf"(?<!pregnant )(?<!pregnancy )(?<!embarazo ){week}{of}{year}", read_week),
        (weeks, rf"{year}(?:,? |-?(?=w\d\d)){week}", read_week),
    ]
    to = r" ?(?P<to>to|until|and|al?|y|[-–]) ?(?:the |el )?"
    begin = r"(?:(?:from|between|del?|entre) (?:the |el )?)?"
    dated = [
        (
            rf"{begin}(?P<d>\d\d?){ordinal}(?:(?: of| de)? (?P<a>{month}))?{to}"
            rf"(?P<e>\d\d?){ordinal}(?: of| de)? (?P<month>{month}){of}{written}",
            read_days,
        ),
        (
            rf"{begin}(?P<month>{month}) (?P<d>\d\d?){ordinal}{to}"
            rf"(?P<e>\d\d?){ordinal},? {written}",
            read_days,
        ),
        (rf"(?P<d>\d\d?){ordinal}(?: of| de)? (?P<month>{month}){of}{written}", read_day),
        (rf"(?P<month>{month}) (?:the )?(?P<d>\d\d?){ordinal}(?: de|,)? {written}", read_day),
        (
            rf"(?:between|entre) (?P<a>{month}) (?:and|y) (?P<month>{month}){of}{written}",
            read_months,
        ),
        (
            rf"(?:(?:from|de|desde) )?(?P<a>{month}) ?(?:to|until|-|–|/|a|hasta) ?"
            rf"(?P<month>{month}){of}{written}",
            read_months,
        ),
        (rf"(?P<month>{either(known['short'])}){of}{written}", read_month),
        (rf"{year},? (?P<month>{month}) (?P<d>\d\d?){ordinal}", read_day),
        (rf"{year},? (?P<month>{clear})", read_month),
        (rf"{year},? (?P<month>(?!march){either(known['short'])})(?=\s*$)", read_month),
    ]
    return [
        *numeric,
        *((_stems("month"), form, reader) for form, reader in dated),
        (_stems("season"), rf"(?P<what>{season})s?{of}{written}(?:[-/](?:\d\d)+)?", read_of_year),
        (_stems("season"), rf"{year} (?P<what>{season})", read_season),
        (_stems("holiday"), rf"{NO_NOUN}(?P<what>{holiday}){of}{written}", read_of_year),
        *(
            (("year", "año"), rf"{form}{of}(?:{ago}|this year|este año)", read_of_past_year)
            for form in (
                rf"(?P<d>\d\d?){ordinal}(?: of| de)? (?P<what>{month})",
                rf"(?P<what>{month}) (?:the )?(?P<d>\d\d?){ordinal}",
                rf"(?P<what>{either([*known['short'], *known['season']])})s?",
                rf"{NO_NOUN}(?P<what>{holiday})",
            )
        ),
        (
            same_stems,
            rf"{same},? (?:(?:(?:of|del?|in) )?{ago}|(?:in|en|of|del?) {year})",
            read_same_time,
        ),
        (same_stems, rf"{ago},? {same}", read_same_time),
        (
            ("last", "this", "past", "prev"),
            rf"(?P<when>last|this|past|previous) (?P<what>{recent})",
            read_recent,
        ),
        (
            ("este ", "esta ", "pasad", "ultim"),
            rf"(?P<when>est[ea]|pasad[oa]|ultim[oa]) (?P<what>{recent})",
            read_recent,
        ),
        (("pasad",), rf"(?P<what>{recent}) (?P<when>pasad[oa]s?)", read_recent),
        (
            ("since ", "desde "),
            rf"(?:(?<=since )|(?<=desde )|(?<=desde el )|(?<=desde la ))(?P<what>{recent})",
            read_begun,
        ),
        ((" before last",), rf"(?P<what>{recent}) before last", read_before_last),
        (("antepasad",), rf"(?P<what>{recent}) antepasad[oa]", read_before_last),
        (
            ("this ", "last ", "yest", "night", "noche", "ayer ", "esta ", "hoy "),
            rf"(?:(?P<when>this|last|yesterday|esta|(?:ayer|hoy) por la) (?P<part>{part})"
            "|tonight|anoche)",
            read_day_part,
        ),
        (
            ("last ", "this "),
            rf"(?P<when>last|this) (?P<what>{weekday}) (?P<part>{part})",
            read_weekday_part,
        ),
        (("day", "ayer", "hoy"), f"(?P<what>{named_day})", read_named_day),
        ((" ago",), rf"(?P<n>{number}) (?P<what>{season})s? ago", read_seasons_ago),
        (("hace ",), rf"hace (?P<n>{number}) (?P<what>{season})s?", read_seasons_ago),
        ((" ago",), rf"(?<!half )(?P<n>{number}) (?P<unit>{unit}) ago", read_ago),
        (("hace ",), rf"hace (?:mas de )?(?P<n>{number}) (?P<unit>{unit})", read_ago),
        (
            (" older than ",),
            r"(?:(?<=photos older than )|(?<=pictures older than )|(?<=images older than ))"
            rf"(?P<n>{number}) (?P<unit>{unit})",
            read_ago,
        ),
        (("last", "past"), rf"(?:last|past) (?P<n>{number}) (?P<unit>{unit})", read_last_n),
        (("ultim",), rf"ultim[oa]s (?P<n>{number}) (?P<unit>{unit})", read_last_n),
        (("ultim",), rf"(?P<n>{number}) ultim[oa]s (?P<unit>{unit})", read_last_n),
        (("s",), r"(?P<c>19|20)?(?P<d>\d0)'?s", read_decade),
        (
            ("años", "decada", "los "),
            rf"(?:años|decada de|los) (?:los |años )*(?P<c>19|20)?(?P<d>\d0|{decade})",
            read_decade,
        ),
        (("ties", "aughts"), f"(?P<d>{decade})", read_decade),
        (digits, year, read_year),
        (("'",), r"'(?P<y>\d\d)", read_year),
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
