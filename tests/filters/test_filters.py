"""The filter: what is written is read, SQLite and the plain test say the same, and no text does
harm.
"""

import os
import re
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from helpers.filter_oracle import row_of
from helpers.filters import (
    ALL_COLUMNS,
    DATES,
    JULY_COMPARED,
    YEAR,
    agreed,
    photo,
)
from vitsearch.errors import QueryError
from vitsearch.filters import MAX_DEPTH, MAX_VALUES, filter_all, parse_filter, prepare
from vitsearch.filters.tree import Comparison, Like
from vitsearch.photos.columns import COLUMNS
from vitsearch.storage.connections import connect
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, PhotoInfo

METADATA_SAMPLE = {
    "taken_at": "2024-05-06T07:08:09",
    "camera": "Acme X1",
    "latitude": 52.5,
    "longitude": -13.25,
}


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


NAMES = ("Müller/Bär.jpg", "Mu\u0308ller/Ba\u0308r.jpg", "Mu\u0308ller/Bär.jpg", "muller/bar.jpg")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("path = 'Müller/Bär.jpg'", "xxx."),
        ("path != 'Müller/Bär.jpg'", "...x"),
        ("path in ('a', 'Müller/Bär.jpg')", "xxx."),
        ("path not in ('Müller/Bär.jpg')", "...x"),
        ("path like 'müller/%'", "xxx."),
        ("path like 'm_ller/b_r.jpg'", "xxxx"),
        ("path contains 'ER/BÄ'", "xxx."),
        ("path not contains 'ä'", "...x"),
    ],
)
def test_names_are_equal_composed_and_decomposed(
    db: sqlite3.Connection, text: str, marks: str, form: str
) -> None:
    truths = agreed(db, [photo(name) for name in NAMES], unicodedata.normalize(form, text))
    assert truths == [mark == "x" for mark in marks]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_under_a_folder_in_either_form(db: sqlite3.Connection, form: str) -> None:
    paths = [f"{name}/x.jpg" for name in NAMES]
    where = filter_all(None, under=unicodedata.normalize(form, "Müller/Bär.jpg"))
    assert where is not None
    assert agreed(db, [photo(path) for path in paths], where) == [True, True, True, False]


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


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_under_a_folder_that_a_mac_named(db: sqlite3.Connection, typed: str) -> None:
    where = filter_all(None, under=unicodedata.normalize(typed, "Müller"))
    assert where is not None
    paths = [f"{unicodedata.normalize(form, 'Müller')}/a.jpg" for form in ("NFC", "NFD")]
    assert agreed(db, [photo(path) for path in (*paths, "Muller/a.jpg")], where) == [
        True,
        True,
        False,
    ]


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


@pytest.mark.slow
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
