"""The filter: what is written is read, SQLite and the plain test say the same, and no text does
harm.
"""

import operator
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers.filter_oracle import matches, row_of, truth_of
from helpers.filters import (
    ANY_TEXT,
    DATE,
    DATES,
    JULY_COMPARED,
    NEAR_MOMENT,
    ODD,
    PHOTOS,
    TEXT,
    TREE,
    agreed,
    filter_database,
    photo,
)
from vitsearch.errors import QueryError
from vitsearch.filters import Filter, filter_all, parse_filter, prepare
from vitsearch.filters.parse import MAX_DEPTH, MAX_LENGTH, MAX_VALUES
from vitsearch.filters.tree import And, Between, Comparison, In, IsNull, Like, Not, Or
from vitsearch.photos.columns import COLUMNS
from vitsearch.storage.schema import connect
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, Photo, PhotoInfo

ALL_COLUMNS = ", ".join(COLUMNS)
METADATA_SAMPLE = {
    "taken_at": "2024-05-06T07:08:09",
    "camera": "Acme X1",
    "latitude": 52.5,
    "longitude": -13.25,
}


# -- reading ---------------------------------------------------------------------------------------

YEAR = Comparison("year", "=", 2019)
SIZE = Comparison("size", ">", 5)
ITALY = Like("path", "italy/%")


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with filter_database(tmp_path_factory.mktemp("where")) as db:
        yield db


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
                "character 5: expected a comparison after year, such as =, <, like, in, between or "
                "is, not the end"
            ),
        ),
        ("year not 5", "character 10: expected like, in or between, not '5'"),
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
        ("path = “a”", "character 8: “ is no quote here: write a text as '...' or \"...\""),
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


# -- meaning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", JULY_COMPARED)
def test_a_date_is_the_whole_period(db: sqlite3.Connection, sign: str) -> None:
    photos = [photo(f"{number}.jpg", date) for number, date in enumerate(DATES)]
    expected = [None, *(mark == "x" for mark in JULY_COMPARED[sign][1:])]
    assert agreed(db, photos, f"taken_at {sign} '2019-07'") == expected


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("taken_at < '2020'", ".xxxx."),
        ("taken_at > '2019'", ".....x"),
        ("taken_at between '2019-07' and '2019'", "..xxx."),
        ("taken_at in ('2018', '2019-07-14 18:30', '2020-01-01T00:00:00')", ".x.x.x"),
        ("taken_at not in ('2018', '2019-07-14T18')", "..x.xx"),
        ("taken_at like '2019-%-01t%'", "..x.x."),
        ("year = 2019", "..xxx."),
        ("not year = 2019", ".x...x"),
        ("not (year != 2019)", "..xxx."),
        ("month in (7, 12)", ".xxx.."),
        ("month is null", "x....."),
        ("taken_at is not null", ".xxxxx"),
        ("year = 2019 or taken_at is null", "x.xxx."),
        ("mtime = '1970'", "xxxxxx"),
        ("mtime < '1970-01-01'", "......"),
    ],
)
def test_what_a_filter_finds(db: sqlite3.Connection, text: str, marks: str) -> None:
    photos = [photo(f"{number}.jpg", date) for number, date in enumerate(DATES)]
    assert [found is True for found in agreed(db, photos, text)] == [mark == "x" for mark in marks]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("italy/%", ["italy/É.jpg", "Italy/straße_1.jpg"]),
        ("%é%", ["italy/É.jpg"]),
        ("%STRA_E%", ["Italy/straße_1.jpg"]),
        ("%e\\_1%", ["Italy/straße_1.jpg"]),
        ("%\\%%", ["100%.jpg"]),
        ("100\\%.jpg", ["100%.jpg"]),
        ("100\\%", []),
        ("%\\\\%", ["a\\b.jpg"]),
        ("two%lines", ["two\nlines"]),
        ("two_lines", ["two\nlines"]),
        ("%\udcff%", [os.fsdecode(b"caf\xe9\xff.jpg")]),
        ("caf__.jpg", [os.fsdecode(b"caf\xe9\xff.jpg")]),
        ("____", ["\U0001f415.jp"]),
        ("", []),
        ("%", None),
    ],
)
def test_like(db: sqlite3.Connection, pattern: str, found: list[str] | None) -> None:
    paths = [
        "italy/É.jpg",
        "Italy/straße_1.jpg",
        "italy2/x",
        "100%.jpg",
        "a\\b.jpg",
        "two\nlines",
        os.fsdecode(b"caf\xe9\xff.jpg"),
    ]
    paths.append("\U0001f415.jp")
    truths = agreed(db, [photo(path) for path in paths], Like("path", pattern))
    assert [path for path, truth in zip(paths, truths, strict=True) if truth] == (
        paths if found is None else found
    )


def test_the_order_of_texts_is_that_of_their_bytes(db: sqlite3.Connection) -> None:
    paths = ["A", "a", "é", "\uffff", "\U0001f415", os.fsdecode(b"\xff")]
    photos = [photo(path) for path in paths]
    for place, path in enumerate(paths):
        assert agreed(db, photos, Comparison("path", "<", path)) == [True] * place + [False] * (
            len(paths) - place
        )


def test_the_row_of_a_photo_is_that_of_the_view(tmp_path: Path) -> None:
    infos = [PhotoInfo(4, 3), PhotoInfo(640, 480, METADATA_SAMPLE)]
    times = [-1, 0, 10**9 - 1, 1_700_000_000_123_456_789, -(2**63), 2**63 - 1]
    paths = [f"{time}/{number}.jpg" for time in times for number in range(2)] + [
        os.fsdecode(b"\xff'.jpg")
    ]
    with closing(PhotoStore(tmp_path / "photos.db")) as store, store.writing():
        for place, path in enumerate(paths):
            found = Found(path, place, times[place // 2 % len(times)])
            store.put_photo(
                found, b"f", infos[place % 2], vector=np.ones(4, dtype=np.float16), generation=1
            )
        store.put_labels([(2, "dog \udcff", 0.75)])
    with closing(PhotoStore(tmp_path / "photos.db", read_only=True)) as store:
        expected = [row_of(one) for one in store.photos()]
    before = (tmp_path / "photos.db").read_bytes()
    with closing(connect(tmp_path / "photos.db", True)) as db:
        prepare(db)
        prepare(db)
        rows = db.execute(f"SELECT {ALL_COLUMNS} FROM photo_facts ORDER BY path").fetchall()
    assert [dict(zip(COLUMNS, row, strict=True)) for row in rows] == expected
    assert len(expected) == 13
    assert (tmp_path / "photos.db").read_bytes() == before
    assert {row["mtime"] for row in expected} >= {
        "1969-12-31T23:59:59",
        "1970-01-01T00:00:00",
        "2023-11-14T22:13:20",
    }


# -- shorthands ------------------------------------------------------------------------------------


def test_the_shorthands_are_joined(db: sqlite3.Connection) -> None:
    assert filter_all(None) is None
    assert filter_all("year = 2019") == YEAR
    assert filter_all(None, after="2019") == Comparison("taken_at", ">=", "2019")
    assert filter_all(None, under=".") is None
    whole = filter_all("year = 2019 or size > 5", after="2019", before="2020-01", under="a")
    assert str(whole) == (
        "(year = 2019 or size > 5) and taken_at >= '2019' and taken_at < '2020-01' and (path "
        ">= 'a/' and path < 'a0')"
    )
    photos = [photo(f"{number}.jpg", date) for number, date in enumerate(DATES)]
    dates = filter_all(None, after="2019-07-14", before="2020-01-01")
    assert dates is not None
    assert agreed(db, photos, dates) == [None, False, False, True, True, False]


PATHS = [
    "italy",
    "italy/a.jpg",
    "italy/rome/b.jpg",
    "italy0",
    "italy2/x.jpg",
    "Italy/c.jpg",
    "50%_/a",
    "50xx/a",
    "'/a",
    "new/italy/d.jpg",
]


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("italy", ["italy/a.jpg", "italy/rome/b.jpg"]),
        ("./italy//", ["italy/a.jpg", "italy/rome/b.jpg"]),
        ("italy/rome", ["italy/rome/b.jpg"]),
        ("50%_", ["50%_/a"]),
        ("'", ["'/a"]),
        ("ital", []),
    ],
)
def test_under_a_folder(db: sqlite3.Connection, folder: str, found: list[str]) -> None:
    where = filter_all(None, under=folder)
    assert where is not None
    truths = agreed(db, [photo(path) for path in PATHS], where)
    assert [path for path, truth in zip(PATHS, truths, strict=True) if truth] == found


def test_under_a_folder_whose_name_is_not_utf_8(db: sqlite3.Connection) -> None:
    folder = os.fsdecode(b"caf\xe9")
    where = filter_all(None, under=folder)
    assert where is not None
    assert agreed(
        db, [photo(f"{folder}/a.jpg"), photo("café/a.jpg"), photo(f"{folder}2/a.jpg")], where
    ) == [True, False, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"after": "May"},
            "after is a date, such as '2019', '2019-07' or '2019-07-14T18:30', not 'May'",
        ),
        (
            {"before": "2019-13"},
            "before is a date, such as '2019', '2019-07' or '2019-07-14T18:30', not '2019-13'",
        ),
        ({"under": ""}, "under is a folder in the photo folder, such as italy/rome, not ''"),
        (
            {"under": "/italy"},
            "under is a folder in the photo folder, such as italy/rome, not '/italy'",
        ),
        (
            {"under": "italy/../.."},
            "under is a folder in the photo folder, such as italy/rome, not 'italy/../..'",
        ),
        ({"under": "\ud800"}, "under is a text, and '\\ud800' holds half a character"),
    ],
)
def test_a_wrong_shorthand_is_told(options: dict[str, str], words: str) -> None:
    with pytest.raises(QueryError) as caught:
        filter_all("year = 2019", **options)
    assert str(caught.value) == words


# -- limits and speed ------------------------------------------------------------------------------


def nested(depth: int, shape: str) -> str:
    text = "year = 2019"
    for level in range(depth):
        text = shape.format(text, "and" if level % 2 else "or")
    return text


SHAPES = [
    "({0})",
    "not {0}",
    "year = 2 {1} ({0})",
    "({0}) {1} year = 2",
    "size > 1 {1} ({0}) {1} year = 2",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_fifty_levels_are_read_and_asked_and_no_more(db: sqlite3.Connection, shape: str) -> None:
    tree = parse_filter(nested(MAX_DEPTH, shape))
    assert parse_filter(str(tree)) == tree
    assert agreed(db, [photo(taken_at="2019-01-01T00:00:00"), photo("b.jpg")], tree) != []
    with pytest.raises(
        QueryError,
        match=(
            r"^cannot read the filter at character \d+: parentheses and not are nested more "
            r"than 50 deep"
        ),
    ):
        parse_filter(nested(MAX_DEPTH + 1, shape))


def test_a_tree_that_is_deep_on_both_sides_is_asked(db: sqlite3.Connection) -> None:
    half = nested(MAX_DEPTH - 3, "not {0}")
    text = (
        f"(({half} or {half}) and ({half} or {half})) or (({half} or {half}) and ({half} or "
        f"{half}))"
    )
    assert agreed(db, [photo(taken_at="2019-01-01T00:00:00"), photo("b.jpg")], text) == [
        False,
        None,
    ]


def test_five_hundred_values_are_read_and_asked_and_no_more(db: sqlite3.Connection) -> None:
    def listed(count: int) -> str:
        return f"month in ({', '.join(map(str, range(count)))})"

    dates = " or ".join(f"mtime='{year}'" for year in range(1600, 1600 + MAX_VALUES))
    photos = [photo(taken_at="2019-07-01T00:00:00"), photo("b.jpg", mtime_ns=2**62)]
    assert agreed(db, photos, listed(MAX_VALUES)) == [True, None]
    assert agreed(db, photos, dates) == [True, False]
    assert agreed(
        db, photos, f"mtime in ({', '.join(re.findall(chr(39) + r'....' + chr(39), dates))})"
    ) == [True, False]
    assert agreed(db, photos, " or ".join(["month is null"] * MAX_VALUES)) == [False, True]
    for text in (
        listed(MAX_VALUES + 1),
        dates + " or year=1",
        " or ".join(["month is null"] * (MAX_VALUES + 1)),
    ):
        with pytest.raises(
            QueryError,
            match=r"^cannot read the filter at character \d+: the filter has more than 500 values",
        ):
            parse_filter(text)


def test_a_pattern_does_not_try_every_way(db: sqlite3.Connection) -> None:
    photos = [photo("a" * 4000), photo("a" * 3999 + "b")]
    assert agreed(db, photos, f"path like '{'%a' * 1500}%b'") == [False, True]
    assert agreed(db, photos, f"path like '{'%_a' * 1500}%'") == [True, True]


def test_a_folder_is_found_by_the_index_of_paths(db: sqlite3.Connection) -> None:
    where = filter_all("width > 100", under="italy")
    assert where is not None
    condition, values = where.sql()
    plan = db.execute(
        f"EXPLAIN QUERY PLAN SELECT id FROM photo_facts WHERE {condition}", values
    ).fetchall()
    assert [row[-1] for row in plan] == [
        "SEARCH photos USING INDEX sqlite_autoindex_photos_1 (path>? AND path<?)"
    ]


# -- properties ------------------------------------------------------------------------------------

MANY = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.slow
@MANY
@given(TREE)
def test_what_is_written_is_read(tree: Filter) -> None:
    assert parse_filter(str(tree)) == tree


@pytest.mark.slow
@MANY
@given(TREE, PHOTOS)
def test_sqlite_and_the_plain_test_say_the_same(
    db: sqlite3.Connection, tree: Filter, photos: list[Photo]
) -> None:
    agreed(db, photos, tree)


@pytest.mark.slow
@MANY
@given(st.data(), PHOTOS)
def test_a_test_of_a_value_of_a_photo(
    db: sqlite3.Connection, data: st.DataObject, photos: list[Photo]
) -> None:
    """With a photo's own values, so that equal and nearly equal are met often."""
    facts = row_of(data.draw(st.sampled_from(photos)))
    column = data.draw(st.sampled_from([name for name in COLUMNS if facts[name] is not None]))
    tree = Comparison(column, data.draw(st.sampled_from(list(JULY_COMPARED))), facts[column])  # type: ignore[arg-type]
    truths = agreed(db, photos, tree)
    for one, truth in zip(photos, truths, strict=True):
        value = row_of(one)[column]
        if value == facts[column]:
            assert truth == (tree.operator in ("=", "<=", ">="))
        assert (truth is None) == (value is None)


@MANY
@given(NEAR_MOMENT, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), DATE)
def test_a_date_is_compared_at_the_precision_it_is_given_in(
    moment: str, sign: str, date: str
) -> None:
    compare = {
        "==": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
    }[sign]
    tree = parse_filter(f"taken_at {sign} '{date}'")
    assert matches(tree, row_of(photo(taken_at=moment))) == compare(moment[: len(date)], date)


@MANY
@given(st.text("aAbB/%_\\. \n[*?", max_size=8), st.text("aAb%_\\.\n[*?", max_size=8))
def test_like_is_that_of_sqlite_where_there_is_but_ascii(
    db: sqlite3.Connection, text: str, pattern: str
) -> None:
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 0:
        native = db.execute("SELECT ? LIKE ? ESCAPE '\\'", (text, pattern)).fetchone()[0]
        assert truth_of(Like("path", pattern), {"path": text}) == bool(native)


@MANY
@given(
    TEXT.map(lambda text: text.replace("/", "")).filter(lambda text: text not in ("", ".", "..")),
    st.lists(TEXT, max_size=5, unique=True),
)
def test_under_is_the_folder_and_no_other(
    db: sqlite3.Connection, folder: str, names: list[str]
) -> None:
    paths = dict.fromkeys(
        [f"{folder}/{name}" for name in names] + [f"{folder}{name}" for name in names] + names
    )
    photos = {os.fsencode(path): photo(path) for path in paths}
    where = filter_all(None, under=folder)
    assert where is not None
    inside = os.fsencode(f"{folder}/")
    assert agreed(db, list(photos.values()), where) == [path.startswith(inside) for path in photos]


# -- no text does harm -----------------------------------------------------------------------------

SQL_WORD = re.compile(
    r"\(|\)|,|\?|=|<=?|>=?|AND|OR|NOT|IN|IS|NULL|CAST|AS|TEXT|BLOB|photo_like|" + "|".join(COLUMNS)
)
ATTACKS = [
    "1=1; drop table photos",
    "year = 1; drop table photos",
    "year = 1 or 1=1",
    "' or 1=1 --",
    "path = '' or 1=1 --'",
    "path = 'a'; delete from photos; --",
    "path = 'a''; delete from photos; --'",
    'path = "a\'; drop table photos; --"',
    "path like '%'' union select * from photos --'",
    "path = ''''''''",
    "path = 'a\0'' or 1=1'",
    "path = '\0'",
    "path\0 = 'a'",
    "year = 1 /* or */ or size = 1",
    "year = (select 1)",
    "path in (select path from photos)",
    "photos.path = 'a'",
    "[path] = 'a'",
    "`path` = 'a'",
    "path = ‘a’ or ’1’=’1’",
    "path = ʼaʼ",
    "ｙｅａｒ = 1",
    "year = ?",
    "year = ?1",
    "year = :a",
    "path = 'a' escape '\\'",
    "path glob '*'",
    "load_extension('x') = 1",
]


def checked(text: str) -> Filter | None:
    """The filter of any text, whose SQL is made of known words only; None for an error, which is a
    line.
    """
    try:
        where = parse_filter(text)
    except QueryError as error:
        assert len(str(error).splitlines()) == 1
        assert str(error).isprintable()
        return None
    condition, values = where.sql()
    assert re.sub(r"\s", "", SQL_WORD.sub("", condition)) == ""
    assert condition.count("?") == len(values)
    return where


@pytest.mark.parametrize("text", ATTACKS)
def test_an_attack_is_an_error_or_a_plain_value(db: sqlite3.Connection, text: str) -> None:
    photos = [photo("a"), photo("b")]
    where = checked(text)
    if where is not None:
        assert agreed(db, photos, where) == [False, False]
    assert agreed(db, photos, "path is not null") == [True, True]
    assert db.execute("SELECT name FROM sqlite_master WHERE name = 'photos'").fetchall() == [
        ("photos",)
    ]


def test_which_attacks_are_plain_values() -> None:
    assert [text for text in ATTACKS if checked(text)] == [
        "path = 'a''; delete from photos; --'",
        'path = "a\'; drop table photos; --"',
        "path like '%'' union select * from photos --'",
        "path = ''''''''",
        "path = 'a\0'' or 1=1'",
        "path = '\0'",
    ]


WORDS = [
    "(",
    ")",
    "not",
    "and",
    "or",
    "=",
    "<>",
    "like",
    "in",
    "between",
    "is",
    "null",
    "'a'",
    "'2019'",
    '"',
    "'",
    "5",
    "-",
    ",",
    "\\",
    "\n",
    "\0",
]
SOUP = st.lists(st.sampled_from([*WORDS, *COLUMNS, *ODD]), max_size=12).map(" ".join)


@pytest.mark.slow
@settings(parent=MANY, max_examples=250)
@given(
    st.text()
    | st.text(st.characters(), max_size=20)
    | SOUP
    | st.tuples(TREE.map(str), st.integers(0, 99), ANY_TEXT).map(
        lambda cut: cut[0][: cut[1]] + cut[2]
    )
)
@example("\ud800")
@example("year = '\ud800'")
@example("'" * 9_999)
@example("(" * MAX_LENGTH)
@example("not " * 2_500)
@example("year = " + "9" * 9_000)
@example("path = '" + "''" * 4_995 + "'")
def test_any_text_is_a_filter_or_one_line_of_error(db: sqlite3.Connection, text: str) -> None:
    where = checked(text)
    if where is not None:
        agreed(db, [photo("a"), photo("b", "2019-07-14T18:30:05", "Acme", latitude=1.5)], where)


@pytest.mark.parametrize(
    "tree",
    [
        Comparison("id", "=", 1),
        Comparison("1); --", "=", 1),
        Comparison("size", "= 1 or", 1),
        Like("x", "%"),
        IsNull("x"),
    ],
)
def test_a_tree_made_by_hand_cannot_bring_its_own_sql(tree: Filter) -> None:
    with pytest.raises(QueryError, match=r"^a filter has no "):
        tree.sql()
