"""Filters in Milvus' own language: the same rows as in SQLite, for real rows in Milvus Lite."""

import dataclasses
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.filter_oracle import row_of as values_of
from helpers.filters import PATTERN, PHOTOS, TREE, agreed, filter_database, photo
from vitsearch.errors import QueryError
from vitsearch.filters import Filter, parse_filter
from vitsearch.filters.tree import Between, Comparison, In, IsNull, Like, Not
from vitsearch.milvus import CollectionMetadata, connect, milvus_filter, parse_uri
from vitsearch.milvus.client import Connection
from vitsearch.milvus.filter import casefold
from vitsearch.milvus.schema import photo_of, rejection, row_of
from vitsearch.photos.columns import COLUMNS
from vitsearch.types import Photo

EVERYTHING = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
MANY = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with filter_database(tmp_path_factory.mktemp("where")) as db:
        yield db


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """An empty collection in a file of Milvus Lite."""
    with closing(
        connect(parse_uri(f"milvus://{tmp_path_factory.mktemp('milvus') / 'a.db'}/photos"))
    ) as found:
        found.create(CollectionMetadata("colour", "f", "float32", 2, "", "", "scaled"), "FLAT", {})
        found.load()
        yield found


def put(milvus: Connection, photos: Sequence[Photo]) -> list[Photo]:
    """Fill the collection with those photos that it can hold, and return them, numbered."""
    held = [one for one in photos if rejection(one) is None]
    numbered = [
        dataclasses.replace(one, photo_id=number, fingerprint=b"f" * 16)
        for number, one in enumerate(held, 1)
    ]
    milvus._client.delete(milvus.uri.name, filter="id > 0")
    if numbered:
        milvus.upsert([row_of(one, np.array([1, 0], dtype=np.float16)) for one in numbered])
    return numbered


def left(milvus: Connection, condition: str) -> list[int]:
    return [row["id"] for page in milvus.pages(["id"], condition) for row in page]


def check(
    milvus: Connection, db: sqlite3.Connection, photos: Sequence[Photo], tree: Filter
) -> list[bool]:
    """What Milvus says of each photo, which is what SQLite and the plain test say."""
    truths = agreed(db, photos, tree)
    found = left(milvus, milvus_filter(tree))
    assert found == [one.photo_id for one, truth in zip(photos, truths, strict=True) if truth], (
        milvus_filter(tree)
    )
    return [truth is True for truth in truths]


@MANY
@given(PHOTOS, st.lists(TREE, min_size=5, max_size=5))
@pytest.mark.slow
def test_filters_leave_the_same_rows_as_in_sqlite(
    milvus: Connection, db: sqlite3.Connection, photos: list[Photo], trees: list[Filter]
) -> None:
    held = put(milvus, photos)
    for tree in trees if held else ():
        try:
            milvus_filter(tree)
        except QueryError as error:
            assert str(error).startswith("Milvus holds UTF-8 only, so that ")
            continue
        check(milvus, db, held, tree)


@MANY
@given(
    PHOTOS,
    st.lists(PATTERN, min_size=5, max_size=5),
    st.sampled_from([name for name, column in COLUMNS.items() if column.kind != "number"]),
    st.booleans(),
)
@pytest.mark.slow
def test_patterns_leave_the_same_rows(
    milvus: Connection,
    db: sqlite3.Connection,
    photos: list[Photo],
    patterns: list[str],
    column: str,
    no: bool,
) -> None:
    held = put(milvus, photos)
    for pattern in patterns if held else ():
        check(milvus, db, held, Not(Like(column, pattern)) if no else Like(column, pattern))


@MANY
@given(PHOTOS)
@pytest.mark.slow
def test_a_photo_comes_back_as_it_was(milvus: Connection, photos: list[Photo]) -> None:
    held = put(milvus, photos)
    rows = [row for page in milvus.pages([], "id > 0") for row in page]
    assert [photo_of(row) for row in rows] == held


ODD = [
    "50% off.jpg",
    "50x off.jpg",
    "a_b",
    "axb",
    "a\\b",
    "a\\\\b",
    "it's",
    '"q"',
    "line\nbreak",
    "tab\t",
    "\0",
    "é",
    "É",
    "ſ",
    "S",
    "K",
    "k",
]


@pytest.mark.parametrize(
    "text",
    [
        r"path like '%\%%'",
        r"path like 'a\_b'",
        r"path like 'a_b'",
        r"path like 'A\\B'",
        r"path like '%\\%'",
        "path like '%''%'",
        "path like '%\"%'",
        "path like 'line_break'",
        "path like 'É'",
        "path like 's'",
        "path like 'k'",
        "path not like '%a%'",
        "path like '%%'",
        "path = 'it''s'",
        "path = 'a\\b'",
        ("path > 'a' and path < 'b'"),
        ("path in ('tab\t', '\0', '\"q\"')"),
        "not path = 'line\nbreak'",
        "path like ''",
        "path like '_'",
    ],
)
def test_quotes_and_escapes(milvus: Connection, db: sqlite3.Connection, text: str) -> None:
    check(milvus, db, put(milvus, [photo(name) for name in ODD]), parse_filter(text))


EDGES = [-(2**63), -(2**63) + 1, -1, 0, 1, 2**63 - 1]
AROUND = [*EDGES, -(2.0**63), 2.0**63, -1e300, 1e300, 0.5, -0.5, -0.0, 1.0]


@pytest.mark.parametrize("sign", ["=", "!=", "<", "<=", ">", ">=", ""])  # "": lists and ranges
@pytest.mark.parametrize("column", ["size", "year", "latitude"])
@pytest.mark.slow
def test_numbers_at_the_edges_of_64_bits(
    milvus: Connection, db: sqlite3.Connection, sign: str, column: str
) -> None:
    photos = [
        photo(f"{size}", taken_at="2019-01-01T00:00:00", size=size, latitude=float(size))
        for size in EDGES
    ] + [photo("x")]
    held = put(milvus, photos)
    for value in [*AROUND, 2**53 + 1, 2019, 2019.5, 5e-324]:
        if sign:
            check(milvus, db, held, Comparison(column, sign, value))
            continue
        check(milvus, db, held, In(column, (value, 7)))
        check(milvus, db, held, Not(In(column, (value, 7))))
        check(milvus, db, held, Not(Between(column, value, 3)))


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("year = 2019", "year == 2019"),
        ("not year = 2019", "(year is not null and year != 2019)"),
        ("not (year < 2019 or path = 'a')", '(year >= 2019 and path != "a")'),
        ("size >= 2.5", "size >= 3"),
        ("month = 2.5", "id < 0"),
        ("month != 2.5", "month is not null"),
        ("path is null", "id < 0"),
        ("path is null or year = 2019", "year == 2019"),
        ("size < 1e300", "id > 0"),
        ("taken_at = '2019-07'", '(taken_at >= "2019-07" and taken_at < "2019-07~")'),
        ("taken_at <= '2019'", 'taken_at < "2019~"'),
        ("camera like '%Nikon%'", 'camera_folded like "%nikon%"'),
        ("camera not like 'X'", '(camera is not null and not (camera_folded == "x"))'),
        ("taken_at like '%t18%'", 'taken_at like "%T18%"'),
        ("taken_at like '%x%'", "id < 0"),
        ("month in (6, 7, 6)", "month in [6, 7]"),
        ("month not in (6, 0.5)", "(month is not null and month not in [6])"),
        ("latitude in (1, 2.5)", "(latitude == 1.0 or latitude == 2.5)"),
        ("path = 'a\"b\\c\n'", 'path == "a\\"b\\\\c\\n"'),
    ],
)
def test_the_words_of_a_filter(text: str, condition: str) -> None:
    assert milvus_filter(parse_filter(text)) == condition


def test_a_name_that_is_no_utf_8_is_in_no_collection() -> None:
    assert milvus_filter(Comparison("path", "=", "caf\udce9")) == "id < 0"
    assert milvus_filter(Comparison("camera", "!=", "caf\udce9")) == "camera is not null"
    assert milvus_filter(Like("path", "%\udce9%")) == "id < 0"
    assert milvus_filter(In("path", ("caf\udce9", "a"))) == 'path in ["a"]'
    with pytest.raises(
        QueryError,
        match=(
            r"^Milvus holds UTF-8 only, so that path < 'caf\\udce9' cannot be asked: leave out "
            r"that name$"
        ),
    ):
        milvus_filter(Comparison("path", "<", "caf\udce9"))


@pytest.mark.parametrize(
    "tree",
    [
        Comparison("id", "=", 1),
        Comparison("size", "= 1 or", 1),
        Comparison("size", "=", "1 or"),
        Like("x", "%"),
        IsNull("x"),
        In("id", (1,)),
    ],
)
def test_a_tree_made_by_hand_cannot_bring_its_own_words(tree: Filter) -> None:
    with pytest.raises(QueryError):
        milvus_filter(tree)


@pytest.mark.slow
def test_folding_is_what_python_takes_for_equal_in_any_case() -> None:
    """Over all characters: each is like its folded one, and two cased ones are folded to one
    exactly where they are alike.
    """
    table = dict(zip(EVERYTHING, casefold(EVERYTHING), strict=True))
    changed = {char: fold for char, fold in table.items() if char != fold}
    assert not set(table.values()) & set("%_\\\"'\0\n\r\t\x7f\u2028\u2029")
    marks = set("%_\\\"'\u2028\u2029") | {chr(code) for code in (*range(32), *range(127, 160))}
    assert [
        char
        for char, fold in changed.items()
        if char not in marks and not re.fullmatch(char, fold, re.IGNORECASE)
    ] == []
    assert len({table[mark] for mark in marks}) == len(
        marks
    )  # nor is one mark taken for another, or for a letter
    cased = [char for char in EVERYTHING if char.lower() != char or char.upper() != char]
    groups: dict[str, set[str]] = {}
    for char in (*changed, *changed.values(), *cased, *marks):  # any other is alone
        groups.setdefault(table[char], set()).add(char)
    assert [group for group in groups.values() if group & marks and len(group) > 1] == []
    whole, with_case = "".join(cased), set(cased)
    assert [
        char
        for char in cased
        if set(re.findall(char, whole, re.IGNORECASE)) != groups[table[char]] & with_case
    ] == []


def test_what_milvus_cannot_hold() -> None:
    assert [rejection(photo(path)) for path in ("café", "caf\udce9", "a" * 65_536)] == [
        None,
        "the name is not UTF-8",
        "the name is longer than 65,535 bytes",
    ]
    assert rejection(photo("a", None, "x\udcff")) == "the camera is not UTF-8"


def test_the_columns_of_a_photo_are_what_is_stored() -> None:
    one = photo("Ä%.jpg", "2019-07-14T18:30:05", "Nikon", latitude=-1.5)
    row = row_of(one, np.array([0.5, 1], dtype=np.float16))
    assert {name: row[name] for name in COLUMNS} == values_of(one)
    assert (row["path_folded"], row["camera_folded"], row["label_folded"]) == (
        "äA.jpg",
        "nikon",
        None,
    )
    assert row["vector"].tolist() == [0.5, 1.0]


PLACES = {
    "milvus://localhost:19530/photos": ("http://localhost:19530", "photos", None),
    "milvus://db.example.org/photos": ("http://db.example.org:19530", "photos", None),
    "milvus+https://[::1]:443/a_1/": ("https://[::1]:443", "a_1", None),
    "milvus://./a.db/photos": ("a.db", "photos", Path("a.db")),
    "milvus:///data/x/a.db/photos": ("/data/x/a.db", "photos", Path("/data/x/a.db")),
}


def test_places() -> None:
    found = {name: parse_uri(name) for name in PLACES}
    assert {
        name: (place.address, place.name, place.file) for name, place in found.items()
    } == PLACES
    assert (
        parse_uri("milvus://localhost:19530", "photos") == found["milvus://localhost:19530/photos"]
    )
    assert (
        parse_uri("milvus://localhost:19530/photos", "photos")
        == found["milvus://localhost:19530/photos"]
    )
    assert parse_uri("milvus://./a.db", "photos") == found["milvus://./a.db/photos"]
    assert [str(place) for place in found.values()][:1] == ["milvus://localhost:19530/photos"]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("http://localhost/photos", None),
        ("milvus://localhost:19530", None),
        ("milvus://", None),
        ("milvus:///photos", None),
        ("milvus://localhost:99999/photos", None),
        ("milvus://localhost/my-photos", None),
        ("milvus://a b/photos", None),
        ("milvus://localhost/photos", "others"),
        ("milvus+https://./a.db/photos", None),
        ("milvus://localhost/1a", None),
    ],
)
def test_a_wrong_place_is_told_in_one_line(uri: str, name: str | None) -> None:
    from vitsearch.errors import CollectionError

    with pytest.raises(CollectionError) as caught:
        parse_uri(uri, name)
    assert len(str(caught.value).splitlines()) == 1
