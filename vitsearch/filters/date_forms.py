"""The forms of periods in the words of a query, English and Spanish, ``summer 2020``, ``hace dos
años``, and where they stand; `vitsearch.filters.date_readers` reads each.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from functools import cache

from vitsearch.filters.calendar import (
    TO,
    Period,
    PeriodMatch,
    joined,
    month_of,
    narrowed,
    opened,
    rule_names,
    rule_of,
)
from vitsearch.filters.date_readers import (
    FORMS,
    HOURS,
    RELATIVE,
    Reader,
    read_ago,
    read_before_last,
    read_begun,
    read_begun_day,
    read_day,
    read_day_part,
    read_days,
    read_decade,
    read_half,
    read_last_n,
    read_latest,
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
    read_weekday,
    read_weekday_part,
    read_year,
    read_years,
)
from vitsearch.filters.word_lists import LISTS, UNITS, date_words, either

YEAR = r"(?:19|20)\d\d"
WORD_START = r"(?:(?<![\w.:/#$€£-])|(?<=mid-)|(?<=early-)|(?<=late-)|(?<=pre-)|(?<=post-))"
WORD_END = r"(?![\w/:%€£$]|[-.,']\w)"
NO_NOUN = (  # árbol de Navidad is a tree, lunar new year not the first of January
    r"(?:(?<!\w de )|(?<=fotos de )|(?<=videos de )|(?<=antes de )|(?<=despues de ))"
    r"(?<!lunar )(?<!chinese )(?<!vietnamese )(?<!korean )(?<!jewish )(?<!persian )(?<!thai )"
)
OF = r"(?:,? |,? of |,? in |,? de |,? del |,? en )"


def behind(texts: Iterable[str]) -> str:
    """Return the regular expression of the place behind any of the texts."""
    return "(?:" + "|".join(f"(?<={re.escape(text)})" for text in sorted(texts)) + ")"


def periods(text: str, today: date) -> list[PeriodMatch]:
    """Return the periods in a text in lower case without accents, in order, none within another."""
    alone = list(_with_their_year(_single_periods(text, today), text, today))
    together = list(joined(_apart([*narrowed(alone, text)]), text))
    after = [*(each.start for each in together[1:]), len(text)]
    return [opened(each, text, end) for each, end in zip(together, after, strict=False)]


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
            read = reader(match, today)
            several = read if isinstance(read, list) else [read] if read else []
            if several and several[-1].first[:10] <= today.isoformat():
                form, relative = FORMS.get(reader, "period"), reader in RELATIVE
                latest = PeriodMatch(*match.span(), several[-1], form, relative)
                matches.append(replace(latest, others=tuple(several[:-1])))
    return _apart(matches)


def _apart(matches: list[PeriodMatch]) -> list[PeriodMatch]:
    """Return the matches in order without those that begin within another."""
    apart: list[PeriodMatch] = []
    for match in sorted(matches, key=lambda each: (each.start, -each.end)):
        if not apart or match.start >= apart[-1].end:
            apart.append(match)
    return apart


@cache
def _hint() -> re.Pattern[str]:
    """What a text with a period has: a year, or a word that goes before or after one of `words`."""
    return re.compile(
        rf"{YEAR}|['/.-]\d\d|del \d\d|\d0'?s|años"
        r"|\b(?:last|this|past|previous|ago|today|tonight|yesterday|hoy"
        rf"|ayer|anteayer|anoche|hace|since|desde|los \d0|est[ea]|pasad[oa]s?|antepasad[oa]"
        rf"|ultim[oa]s?"
        rf"|older|{either(date_words()['decade'])}"
        rf"|(?:from|on|del) {either(date_words()['weekday'])}"
        r"|(?:from the|del) (?:weekend|finde|fin))\b"
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
    named = either([*known["number"], *known["ordinal"]])  # el primero de mayo de 2020
    photos = LISTS["lists"]["photos"]
    from_day = behind(
        ["taken on ", *(f"{word} {lead} " for word in photos for lead in ("from", "on", "del"))]
    )
    from_the = behind(f"{word} {lead} " for word in photos for lead in ("from the", "del"))
    clear = either(known["month"].keys() - {*LISTS["months"]["two_meanings"]})
    # after last, this
    recent = f"{either(known['month'])}|{season}|{holiday}|{weekday}|{unit}"
    part, decade = either(known["day_part"]), either(known["decade"])
    number = rf"(?:\d{{1,4}}|{either(known['number'])})"
    repeated = rf"(?P<what>{season}|{holiday}|{weekday}|weekend|finde|fines de semana)(?:e?s)?"
    spans = rf"(?P<unit>{unit}|{either(HOURS)})"
    ago = (
        rf"(?:last year|(?:el )?año pasado|(?P<n>{number}) (?P<unit>{unit}) ago"
        rf"|hace (?P<numero>{number}) (?P<unidad>{unit}))"
    )
    same_stems = ("today", "yesterday", "hoy", "ayer", "day", "week", "month", "dia", "sem", "mes")
    same = (
        r"(?:on )?(?P<same>today|yesterday|(?:this|(?:the )?same) (?:day|week|weekend|month)"
        r"|(?:tal dia como )?hoy|ayer|(?:est[ea]|(?:el |la )?mism[oa]) (?:dia|semana|mes))"
    )
    year = rf"(?P<y>{YEAR})"
    # '19 only beside a word, and what a day of a month cannot be: agosto del 98
    written = rf"(?P<y>{YEAR}|'\d\d|(?<= del )(?:[5-9]\d|[0-2]\d(?! al? ))(?! ?[%°º]))"
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
        (("/", "."), r"(?P<a>\d\d?)(?P<sep>/)(?P<b>\d\d?)/(?P<y>\d\d)", read_numbers),
        (("/", "."), r"(?P<a>\d\d)(?P<sep>\.)(?P<b>\d\d)\.(?P<y>\d\d)", read_numbers),
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
    to = r" ?(?P<to>to|until|till|through|and|hasta|al?|y|[-–]) ?(?:the |el )?"
    begin = r"(?:(?:from|between|del?|entre|desde) (?:the |el )?)?"
    dated = [
        (rf"(?P<d>\d\d?)(?P<s>[-/.])(?P<month>{month})(?P=s)(?P<y>{YEAR}|\d\d)", read_day),
        (rf"(?P<month>{month})(?P<s>[-/.])(?P<d>\d\d?)(?P=s){year}", read_day),
        (rf"{year}(?P<s>[-/.])(?P<month>{month})(?P=s)(?P<d>\d\d?)", read_day),
        (rf"(?P<month>{either(known['short'])})[-/]{year}", read_month),
        (
            rf"{begin}(?P<d>\d\d?){ordinal}(?:(?: of| de)? (?P<a>{month}))?{to}"
            rf"(?P<e>\d\d?){ordinal}(?: of| de)? (?P<month>{month}){of}{written}",
            read_days,
        ),
        (
            rf"{begin}(?P<a>{month}) (?P<d>\d\d?){ordinal}{to}"
            rf"(?:(?P<month>{month}) )?(?P<e>\d\d?){ordinal},? {written}",
            read_days,
        ),
        (rf"(?P<d>\d\d?){ordinal}(?: of| de)? (?P<month>{month}){of}{written}", read_day),
        (rf"(?P<d>{named}) (?:of|de) (?P<month>{month}){of}{written}", read_day),
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
        *(
            (
                ("since ", "desde "),
                rf"(?:(?<=since )|(?<=since the )|(?<=desde el )){form}",
                read_begun_day,
            )
            for form in (
                rf"(?P<d>\d\d?){ordinal}(?: of| de)? (?P<month>{month})",
                rf"(?P<month>{month}) (?:the )?(?P<d>\d\d?){ordinal}",
            )
        ),
        (
            _stems("weekday"),
            rf"{from_day}(?P<what>{weekday})(?: (?P<part>{part}))?"
            "(?! de (?:ramos|pascua|resurreccion|carnaval))",
            read_weekday,
        ),
        (
            ("weekend", "fin"),
            rf"{from_the}(?P<when>)(?P<what>weekend|fin de semana|finde)(?! of | de )",
            read_recent,
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
        (
            ("por la ",),
            rf"(?P<what>{weekday}) (?P<when>pasad[oa]) por la (?P<part>{part})",
            read_weekday_part,
        ),
        (("day", "ayer", "hoy"), f"(?P<what>{named_day})", read_named_day),
        ((" ago",), rf"(?P<n>{number}) (?P<what>{season})s? ago", read_seasons_ago),
        (("hace ",), rf"hace (?P<n>{number}) (?P<what>{season})s?", read_seasons_ago),
        ((" ago",), rf"(?<!half )(?P<n>{number}) (?P<unit>{unit}) ago", read_ago),
        (("hace ",), rf"hace (?:mas de )?(?P<n>{number}) (?P<unit>{unit})", read_ago),
        (
            (" older than ",),
            behind(f"{word} older than " for word in ("photos", "pictures", "images"))
            + rf"(?P<n>{number}) (?P<unit>{unit})",
            read_ago,
        ),
        *(
            (("last", "past", "ultim"), form, reader)
            for what, reader in ((repeated, read_latest), (spans, read_last_n))
            for form in (
                rf"(?:last|past|ultim[oa]s) (?P<n>{number}) {what}",
                rf"(?P<n>{number}) ultim[oa]s {what}",
            )
        ),
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
    ``summer 2018 and 2019``. A range may begin the year before. None of ``Christmas and New Year
    2019``, which may be two winters.
    """
    heading: PeriodMatch | None = None
    word, end = "", 0
    for match in matches:
        named = _named_form().match(text, match.start, match.end)
        shared = [match]
        while named and (before := _named_before_form().search(text, end, shared[0].start)):
            period = _in_year_of(shared[0].period, before)
            if period is None:
                break
            shared.insert(0, PeriodMatch(*before.span("what"), period, relative=True))
        if len(shared) > 1 and match.period.first.endswith("-01-01"):
            end = match.end
            continue
        yield from shared[:-1]
        if (
            heading is not None
            and match.form == "year"
            and re.fullmatch(r",?(?: (?:and|or|y|o))? ", text[heading.end : match.start])
            and (rule := rule_of(word)) is not None
        ):
            period = rule(int(match.period.first))
            heading = match = replace(match, period=period, form="period", relative=True)
        elif named:
            heading, word = match, named["what"]
        yield match
        end = match.end


def _in_year_of(period: Period, before: re.Match[str]) -> Period | None:
    """Return the period that stands before another one in its year; with nothing between, only
    where the other follows at once.
    """
    rule, year = rule_of(before["what"]), int(period.first[:4])
    assert rule is not None
    same, earlier = rule(year), rule(year - 1)
    for each in (same, earlier):
        months = tuple(map(int, each.last[:7].split("-")))
        if month_of(months[0], months[1] + 1).first == period.first[:7]:
            return each
    if not before["join"].strip():
        return None
    return earlier if before["to"] and same.first > period.first else same


@cache
def _named_form() -> re.Pattern[str]:
    """What has a year after its name: a month, a season, a holiday."""
    return re.compile(rf"(?:\d\d?(?:st|nd|rd|th|º)?(?: of| de)? )?(?P<what>{rule_names()})s?{OF}")


@cache
def _named_before_form() -> re.Pattern[str]:
    return re.compile(
        rf"(?<!\w)(?P<what>{rule_names()})(?P<join> (?:and|or|y|o|e) |, |(?P<to>{TO})| )$"
    )
