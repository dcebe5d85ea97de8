"""What the words of a query say besides the picture, on written lists of queries."""

import re
import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitsearch.filters import parse_filter
from vitsearch.filters.phrases import read_words
from vitsearch.filters.words import FILE_KINDS, Vocabulary, all_of, picture_words
from vitsearch.photos.columns import COLUMNS, PRIVATE
from vitsearch.photos.formats import FORMATS, VIDEO

QUERIES = tomllib.loads((Path(__file__).parent / "word_queries.toml").read_text(encoding="utf-8"))
PLACES = re.compile("city|region|country")
TODAY = date(2026, 8, 12)
VOCABULARY = Vocabulary(
    columns=frozenset(COLUMNS) | {"city", "region", "country"},
    values={
        "city": ["Málaga", "Nice", "Bath", "Reading", "Orange", "Boston", "Paris", "Berlin"],
        "region": ["Lisbon", "New York", "Andalusia", "England", "Java"],
        "country": [
            "Portugal", "Spain", "United States", "China", "Turkey", "Chile", "France", "Brazil",
            "Jordan", "Georgia", "Italy", "Mexico", "Germany", "United Kingdom",
        ],
        "camera": [
            "Apple iPhone 12 Pro", "Apple iPhone 8", "Canon EOS R5", "NIKON D70", "Google Pixel 6",
            "samsung Galaxy S9",
        ],
        "label": ["dog", "red", "whisky"],
    },
    folders=["italy", "italy/rome", "beach"],
    years=frozenset({1978, *range(2003, 2027)}),
)  # fmt: skip
SCREENSHOTS = next(entry["where"] for entry in FILE_KINDS if entry["title"] == "screenshots")

VIDEOS = " or ".join(f"path like '%.{suffix}'" for suffix in VIDEO.suffixes)


def meaning(query: str, vocabulary: Vocabulary = VOCABULARY) -> tuple[str, str]:
    """Return the words of the picture and the filter of a query, as text."""
    phrases = read_words(query, vocabulary, TODAY)
    return picture_words(query, phrases), str(all_of(phrases) or "")


@pytest.mark.parametrize(("query", "words", "where"), QUERIES["understood"])
def test_what_is_said_besides_the_picture(query: str, words: str, where: str) -> None:
    expected = where.replace("SCREENSHOTS", f"({SCREENSHOTS})").replace("VIDEOS", f"({VIDEOS})")
    got = meaning(query)
    assert got[0] == words
    assert sorted(got[1].split(" and ")) == sorted(as_text(expected).split(" and "))


def as_text(where: str) -> str:
    """Return a filter as the tree of it is written; columns that are not there stay as they are."""
    known = {"city", "region", "country"} <= COLUMNS.keys()
    return str(parse_filter(where)) if known or not PLACES.search(where) else where


@pytest.mark.parametrize("query", QUERIES["plain"])
def test_everyday_queries_are_left_alone(query: str) -> None:
    assert read_words(query, VOCABULARY, TODAY) == []


def test_there_are_enough_of_both() -> None:
    assert len(QUERIES["understood"]) >= 150
    assert len(QUERIES["plain"]) >= 150


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ("beach Portugal 2019", ["Portugal", "2019"]),
        ("last August", ["last August (2025-08)"]),
        ("summer 2020", ["summer 2020 (2020-06 to 2020-08)"]),
        ("dogs since July 2019", ["since July 2019"]),
        ("hace dos años", ["hace dos años (2024)"]),
        ("trams in lisboa", ["Lisbon"]),
        ("shot on iphone", ["iphone"]),
        ("in the folder italy", ["folder italy"]),
    ],
)
def test_a_phrase_is_called_what_it_means(query: str, titles: list[str]) -> None:
    assert [phrase.title for phrase in read_words(query, VOCABULARY, TODAY)] == titles


@pytest.mark.parametrize("query", ["beach 2019", "Portugal", "shot on iPhone", "last summer"])
def test_columns_that_may_not_be_used_are_no_words(query: str) -> None:
    public = replace(VOCABULARY, columns=VOCABULARY.columns - PRIVATE - {"city", "country"})
    assert meaning(query, public) == (query, "")


def test_kinds_of_files_count_where_there_are_some() -> None:
    none = replace(VOCABULARY, has_files=lambda where: False)
    assert meaning("screenshots", none) == ("screenshots", "")


@pytest.mark.parametrize("query", ["dogs no screenshots please", "perros sin capturas"])
def test_kinds_of_files_are_left_out_also_where_there_are_none(query: str) -> None:
    none = replace(VOCABULARY, has_files=lambda where: False)
    assert meaning(query, none) == (query.split()[0], as_text(f"not ({SCREENSHOTS})"))


@pytest.mark.parametrize(
    ("today", "query", "where"),
    [
        (date(2024, 2, 29), "a year ago", "taken_at = '2023'"),
        (date(2024, 3, 31), "last month", "taken_at = '2024-02'"),
        (date(2024, 3, 31), "past 1 months", "taken_at between '2024-02-29' and '2024-03-31'"),
        (date(2024, 1, 15), "last month", "taken_at = '2023-12'"),
        (date(2024, 1, 15), "this winter", "taken_at between '2023-12' and '2024-02'"),
        (date(2024, 1, 15), "last winter", "taken_at between '2022-12' and '2023-02'"),
        (date(2024, 7, 1), "last summer", "taken_at between '2023-06' and '2023-08'"),
        (date(2024, 9, 1), "last summer", "taken_at between '2024-06' and '2024-08'"),
        (date(2024, 9, 1), "this winter", "taken_at between '2023-12' and '2024-02'"),
        (date(2024, 9, 2), "last monday", "taken_at = '2024-08-26'"),
        (date(2024, 12, 25), "last christmas", "taken_at between '2023-12-24' and '2023-12-26'"),
        (date(2024, 9, 1), "last weekend", "taken_at between '2024-08-24' and '2024-08-25'"),
        (date(2024, 9, 1), "this weekend", "taken_at between '2024-08-31' and '2024-09-01'"),
        (date(2024, 9, 1), "2025", ""),
        (date(2024, 9, 1), "next summer", ""),
    ],
)
def test_words_that_go_back_from_today(today: date, query: str, where: str) -> None:
    assert str(all_of(read_words(query, VOCABULARY, today)) or "") == where


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([word for query in QUERIES["plain"] for word in query.split()]),
            st.sampled_from([word for row in QUERIES["understood"] for word in row[0].split()]),
            st.text(max_size=4),
        ),
        max_size=12,
    ).map(" ".join)
)
@pytest.mark.slow
def test_any_text_is_read(text: str) -> None:
    """Phrases lie apart, in the text and outside quotes; without any the text stays as it is."""
    phrases = read_words(text, VOCABULARY, TODAY)
    ends = [0, *(phrase.end for phrase in phrases)]
    assert all(end <= phrase.start < phrase.end for end, phrase in zip(ends, phrases, strict=False))
    assert max(ends) <= len(text)
    if not phrases:
        assert picture_words(text, phrases) == text
    quoted = text.replace('"', "")
    assert read_words(f'"{quoted}"', VOCABULARY, TODAY) == []
    for phrase in phrases:
        assert phrase.where.sql()[0] if not PLACES.search(str(phrase.where)) else True


@pytest.mark.parametrize("name", ["JPEG", "PNG", "HEIC", "RAW", "GIF", "Video"])
def test_a_kind_of_files_has_every_suffix_of_its_format(name: str) -> None:
    entry = next(entry for entry in (*FORMATS, VIDEO) if entry.name == name)
    query = {"GIF": "gifs", "Video": "videos"}.get(name, f"{name} files")
    suffixes = " or ".join(f"path like '%.{suffix}'" for suffix in entry.suffixes)
    assert meaning(query) == ("", str(parse_filter(suffixes)))
