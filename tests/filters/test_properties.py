"""Any filter is read as it is written, means one thing, and does no harm."""

import operator
import os
import re
import sqlite3
from unicodedata import normalize

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers.filter_oracle import matches, row_of, truth_of
from helpers.filters import (
    ANY_TEXT,
    DATE,
    JULY_COMPARED,
    NEAR_MOMENT,
    ODD,
    PHOTOS,
    TEXT,
    TREE,
    agreed,
    photo,
)
from vitsearch.errors import QueryError
from vitsearch.filters import MAX_LENGTH, Filter, filter_all, parse_filter
from vitsearch.filters.tree import Comparison, IsNull, Like
from vitsearch.photos.columns import COLUMNS
from vitsearch.types import Photo

# -- properties ------------------------------------------------------------------------------------

MANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
@example("e\u0301", ["\u00e9/a"])  # one folder, in either normal form
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
    forms = folder, normalize("NFC", folder), normalize("NFD", folder)
    inside = tuple(os.fsencode(f"{form}/") for form in forms)
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
    "contains",
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
@settings(parent=MANY, max_examples=120)
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
