"""How filters are read, and what is refused."""

import pytest

from helpers.filters import (
    ALL_COLUMNS,
    YEAR,
)
from vitsearch.errors import QueryError
from vitsearch.filters import MAX_LENGTH, Filter, parse_filter
from vitsearch.filters.tree import And, Between, Comparison, In, IsNull, Like, Not, Or
from vitsearch.photos.columns import COLUMNS

SIZE = Comparison("size", ">", 5)
ITALY = Like("path", "italy/%")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        (
            "year >= 2019 and path like 'italy/%' and width > 1000",
            And((Comparison("year", ">=", 2019), ITALY, Comparison("width", ">", 1000))),
        ),
        ("year = 2019", YEAR),
        ("year==2019", YEAR),
        ("\n YEAR\t=\n2019 ", YEAR),
        ("(((year = 2019)))", YEAR),
        ("year = '2019'", YEAR),
        ("year = +02019", YEAR),
        ("year <> 2019", Comparison("year", "!=", 2019)),
        ("year != 2019", Comparison("year", "!=", 2019)),
        ("latitude < -.5", Comparison("latitude", "<", -0.5)),
        ("size <= 1e6", Comparison("size", "<=", 1e6)),
        ("size < 99999999999999999999", Comparison("size", "<", 1e20)),
        ("size < 9223372036854775807", Comparison("size", "<", 2**63 - 1)),
        ("size < 9223372036854775808", Comparison("size", "<", 2.0**63)),
        ("size < 9223372036854774784", Comparison("size", "<", 9223372036854774784)),
        ("size < " + "0" * 5000 + "7", Comparison("size", "<", 7.0)),
        ("path = 'it''s \"so\"'", Comparison("path", "=", 'it\'s "so"')),
        ('path = "it\'s ""so"""', Comparison("path", "=", 'it\'s "so"')),
        ("path = ''", Comparison("path", "=", "")),
        ("path = '\\'", Comparison("path", "=", "\\")),
        ("camera = '5'", Comparison("camera", "=", "5")),
        ("taken_at >= '2019-07'", Comparison("taken_at", ">=", "2019-07")),
        ("mtime < '2019-07-14 18:30'", Comparison("mtime", "<", "2019-07-14T18:30")),
        ("path LIKE 'italy/%'", ITALY),
        ("path not like 'italy/%'", Not(ITALY)),
        ("not path like 'italy/%'", Not(ITALY)),
        ("taken_at like '%-12-24%'", Like("taken_at", "%-12-24%")),
        ("keywords contains 'wedding'", Like("keywords", "%wedding%")),
        (r"path not contains '50%_\a'", Not(Like("path", r"%50\%\_\\a%"))),
        ("month in (6,7 , '8')", In("month", (6, 7, 8))),
        ("label not in ('dog')", Not(In("label", ("dog",)))),
        ("year between 2018 and 2019 and size > 5", And((Between("year", 2018, 2019), SIZE))),
        ("size not between 1 and 2.5", Not(Between("size", 1, 2.5))),
        ("camera is null", IsNull("camera")),
        ("camera Is Not Null", Not(IsNull("camera"))),
        ("year = 2019 or size > 5 and path like 'italy/%'", Or((YEAR, And((SIZE, ITALY))))),
        ("(year = 2019 or size > 5) and path like 'italy/%'", And((Or((YEAR, SIZE)), ITALY))),
        ("not year = 2019 and size > 5", And((Not(YEAR), SIZE))),
        ("not (year = 2019 and size > 5)", Not(And((YEAR, SIZE)))),
        ("not not year = 2019", Not(Not(YEAR))),
        ("year = 2019 and (size > 5 and path like 'italy/%')", And((YEAR, And((SIZE, ITALY))))),
    ],
)
def test_parse_where(text: str, tree: Filter) -> None:
    assert parse_filter(text) == tree
    assert parse_filter(str(tree)) == tree


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" \n", "the filter is empty: write it as year >= 2019 and path like 'italy/%'"),
        (
            "yaer = 2019",
            (
                "character 1: there is no column 'yaer' (did you mean year or camera?); the "
                "columns "
                f"are {ALL_COLUMNS}"
            ),
        ),
        (
            "year = 2019 and qqq is null",
            f"character 17: there is no column 'qqq'; the columns are {ALL_COLUMNS}",
        ),
        ("2019 = year", f"character 1: expected a column ({ALL_COLUMNS}), not '2019'"),
        ("and", f"character 1: expected a column ({ALL_COLUMNS}), not 'and'"),
        ("year = 2019 or", f"character 15: expected a column ({ALL_COLUMNS}), not the end"),
        (
            "year",
            (
                "character 5: expected a comparison after year, such as =, <, like, contains, in, "
                "between or is, not the end"
            ),
        ),
        ("year not 5", "character 10: expected like, contains, in or between, not '5'"),
        ("2018 < year < 2020", f"character 1: expected a column ({ALL_COLUMNS}), not '2018'"),
        ("year < 2020 < 3", "character 13: expected and, or, or the end, not '<'"),
        ("year = ", "character 8: expected a number for year, not the end"),
        ("width > height", "character 9: expected a number for width, not 'height'"),
        ("camera = canon", "character 10: expected a text in quotes for camera, not 'canon'"),
        ("year = 'last'", "character 8: year is a number, not 'last'"),
        ("year = '٣'", "character 8: year is a number, not '٣'"),
        ("size in (1, 'x')", "character 13: size is a number, not 'x'"),
        ("size > 1e999", "character 8: the number '1e999' is too large"),
        (
            "size > 12kb",
            "character 8: '1' means nothing here: a text goes in quotes, as in path like 'italy/%'",
        ),
        ("camera = 5", "character 10: camera is a text, not a number: write '5' in quotes"),
        (
            "label between 'a' and 7",
            "character 23: label is a text, not a number: write '7' in quotes",
        ),
        (
            "taken_at > 2019",
            "character 12: taken_at is a date, not a number: write '2019' in quotes",
        ),
        (
            "mtime > 'May'",
            (
                "character 9: mtime is a date, such as '2019', '2019-07' or '2019-07-14T18:30', "
                "not "
                "'May'"
            ),
        ),
        (
            "taken_at = '2019-02-30'",
            (
                "character 12: taken_at is a date, such as '2019', '2019-07' or "
                "'2019-07-14T18:30', "
                "not '2019-02-30'"
            ),
        ),
        (
            "size like '1%'",
            (
                "character 11: size is a number, and like is for texts: write such as size "
                "between 1 "
                "and 9"
            ),
        ),
        ("path like 5", "character 11: expected a pattern in quotes, such as 'italy/%', not '5'"),
        (
            "path like 'a\\'",
            (
                r"character 11: the pattern ends with a lone \: write \\ for a backslash, \% for a "
                r"percent sign"
            ),
        ),
        ("camera = null", "character 10: nothing compares with null: write camera is null"),
        ("camera is not 5", "character 15: expected null, not '5'"),
        ("camera is canon", "character 11: expected null or not null, not 'canon'"),
        ("year in 5", "character 9: expected ( and the values, not '5'"),
        ("year in ()", "character 10: expected a number for year, not ')'"),
        ("year in (5", "character 11: expected , or ), not the end"),
        ("year between 1 or 2", "character 16: expected and with the upper end, not 'or'"),
        ("(year = 5", "character 10: expected and, or, or ), not the end"),
        ("year = 5)", "character 9: expected and, or, or the end, not ')'"),
        (
            "path = 'a",
            (
                "character 8: the text that begins here has no ' at its end (a ' inside is written "
                "twice)"
            ),
        ),
        (
            "path = 'a''b",
            (
                "character 8: the text that begins here has no ' at its end (a ' inside is written "
                "twice)"
            ),
        ),
        ("path = “a”", "character 8: “ is not a quote here: write a text as '...' or \"...\""),
        ("path = '\ud800'", "character 8: path is a text, and '\\ud800' holds half a character"),
        (
            "path = '" + "x" * MAX_LENGTH + "'",
            "the filter has 10,009 characters, more than 10,000: make it shorter",
        ),
        (
            "x" * MAX_LENGTH,
            f"character 1: there is no column '{'x' * 40}...'; the columns are {ALL_COLUMNS}",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, words: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_filter(text)
    assert str(caught.value) == (
        f"cannot read the filter at {words}" if words.startswith("character") else words
    )


def test_every_column_is_named() -> None:
    assert ", ".join(COLUMNS) == ALL_COLUMNS
