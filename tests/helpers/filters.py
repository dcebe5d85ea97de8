"""Filters and photos to try them on, and what SQLite and the plain test say of each."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from hypothesis import strategies as st

from helpers.filter_oracle import matches, row_of, truth_of
from vitsearch.filters import Filter, parse_filter, prepare
from vitsearch.filters.tree import And, Between, Comparison, In, IsNull, Like, Not, Or
from vitsearch.photos.columns import COLUMNS, METADATA
from vitsearch.storage.connections import connect
from vitsearch.storage.schema import MIGRATIONS
from vitsearch.types import Photo, PhotoInfo

NEVER = "9999-12-31T23:59:59"
DATES = [
    None,
    "2018-12-31T23:59:59",
    "2019-07-01T00:00:00",
    "2019-07-14T18:30:05",
    "2019-08-01T00:00:00",
    "2020-01-01T00:00:00",
]
JULY_COMPARED = {
    "=": "..xx..",
    "!=": ".x..xx",
    "<": ".x....",
    "<=": ".xxx..",
    ">": "....xx",
    ">=": "..xxxx",
}
ODD = [
    "",
    "a",
    "A",
    "é",
    "e\u0301",
    "É",
    "\u0301",
    "é/e\u0301",
    "ß",
    "İ",
    "ı",
    "ſ",
    "K",
    "\u212a",
    "'",
    '"',
    "''",
    "%",
    "_",
    "\\",
    "\n",
    "\u2028",
    "\U0001f415",
    "\udcff",
    "\udcc3",
    "~",
    ";--",
]


def photo(
    path: str = "a.jpg", taken_at: str | None = None, camera: str | None = None, **facts: float
) -> Photo:
    metadata = {"taken_at": taken_at, "camera": camera, "latitude": facts.get("latitude")}
    info = PhotoInfo(int(facts.get("width", 640)), 480, metadata)
    return Photo(1, path, int(facts.get("size", 10)), int(facts.get("mtime_ns", 0)), b"f", info)


def put(db: sqlite3.Connection, photos: Sequence[Photo]) -> None:
    names = ("path", "label", "size", "mtime_ns", "width", "height", "label_score", *METADATA)
    for number, one in enumerate(photos):
        info = one.info
        stored = (one.path, one.label, one.size, one.mtime_ns, info.width, info.height)
        values = [*stored, one.label_score, *(info[name] for name in METADATA)]
        marks = ["CAST(? AS TEXT)" if isinstance(value, str) else "?" for value in values]
        raw = [os.fsencode(value) if isinstance(value, str) else value for value in values]
        db.execute(
            f"INSERT INTO photos ({', '.join(names)}, id, fingerprint) "
            f"VALUES ({', '.join(marks)}, ?, x'00')",
            (*raw, number),
        )


def asked(db: sqlite3.Connection, photos: Sequence[Photo], where: Filter) -> list[bool | None]:
    """What SQLite says of each photo: true, false or null."""
    condition, values = where.sql()
    db.execute("BEGIN")
    try:
        put(db, photos)
        found = db.execute(f"SELECT {condition} FROM photo_facts ORDER BY id", values).fetchall()
        matching = [
            row[0]
            for row in db.execute(
                f"SELECT id FROM photo_facts WHERE {condition} ORDER BY id", values
            )
        ]
    finally:
        db.execute("ROLLBACK")
    truths = [None if row[0] is None else bool(row[0]) for row in found]
    assert matching == [number for number, truth in enumerate(truths) if truth]
    return truths


def agreed(
    db: sqlite3.Connection, photos: Sequence[Photo], where: Filter | str
) -> list[bool | None]:
    """What both SQLite and the plain test say of each photo."""
    tree = parse_filter(where) if isinstance(where, str) else where
    truths = [truth_of(tree, row_of(one)) for one in photos]
    assert [matches(tree, row_of(one)) for one in photos] == [truth is True for truth in truths]
    assert asked(db, photos, tree) == truths
    return truths


TEXT = st.one_of(
    st.lists(st.sampled_from([*ODD, "/", "italy/"]), max_size=4).map("".join),
    st.text("aAbB/%_\\'é", max_size=5),
)
ANY_TEXT = TEXT | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
MOMENT = st.datetimes(min_value=datetime(1969, 12, 30)).map(
    lambda moment: moment.isoformat(timespec="seconds")
)
NEAR_MOMENT = (
    st.sampled_from(
        [
            *filter(None, DATES),
            "2019-07-14T18:30:06",
            "2019-07-14T18:31:00",
            "2019-07-15T00:00:00",
            NEVER,
        ]
    )
    | MOMENT
)
DATE = st.builds(
    lambda moment, length: moment[:length], NEAR_MOMENT, st.sampled_from([4, 7, 10, 13, 16, 19])
)
WHOLE = st.sampled_from([0, 1, 7, 12, 2019, 640, 2**53 + 1, -(2**63), 2**63 - 1]) | st.integers(
    -3, 2025
)
REAL = st.sampled_from([0.0, -13.25, 0.5, 2019.0, 1e300, -1e300, 5e-324]) | st.floats(
    allow_nan=False, allow_infinity=False
)
WITHIN = st.integers(-(2**63), 2**63 - 1)
STORED = {  # what a metadata column may hold, by its kind and whether it is an integer
    ("text", False): ANY_TEXT,
    ("date", False): NEAR_MOMENT,
    ("number", False): REAL,
    ("number", True): WHOLE | WITHIN,
}
METADATA_VALUES = {
    name: st.none() | STORED[column.kind, column.integer] for name, column in METADATA.items()
}
PHOTO = st.builds(
    Photo,
    st.just(1),
    ANY_TEXT,
    WHOLE | WITHIN,
    st.sampled_from([0, -1, 10**18, 1_563_129_005 * 10**9]) | WITHIN,
    st.just(b"f"),
    st.builds(PhotoInfo, WHOLE, WHOLE, st.fixed_dictionaries(METADATA_VALUES)),
    st.none() | ANY_TEXT,
    st.none() | REAL,
)
PHOTOS = st.lists(PHOTO, min_size=1, max_size=6, unique_by=lambda one: os.fsencode(one.path))
VALUES = {"text": ANY_TEXT, "number": WHOLE | REAL, "date": DATE}
PATTERN = ANY_TEXT.filter(lambda text: (len(text) - len(text.rstrip("\\"))) % 2 == 0)


def column_tests(column: str) -> st.SearchStrategy[Filter]:
    value = VALUES[COLUMNS[column].kind]
    tests: list[st.SearchStrategy[Filter]] = [
        st.builds(Comparison, st.just(column), st.sampled_from(list(JULY_COMPARED)), value),
        st.builds(Between, st.just(column), value, value),
        st.builds(In, st.just(column), st.lists(value, min_size=1, max_size=4).map(tuple)),
        st.just(IsNull(column)),
    ]
    if COLUMNS[column].kind != "number":
        tests.append(st.builds(Like, st.just(column), PATTERN))
    return st.one_of(tests)


def joined(part: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    parts = st.lists(part, min_size=2, max_size=4).map(tuple)
    return st.builds(Not, part) | st.builds(And, parts) | st.builds(Or, parts)


TREE = st.recursive(st.sampled_from(list(COLUMNS)).flatmap(column_tests), joined, max_leaves=12)


@contextmanager
def filter_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open a real file with the store's tables, prepared for filters; a test leaves it empty."""
    with closing(connect(folder / "photos.db", False)) as db:
        for migration in MIGRATIONS:
            db.executescript(migration)
        prepare(db)
        yield db


YEAR = Comparison("year", "=", 2019)


ALL_COLUMNS = ", ".join(COLUMNS)
