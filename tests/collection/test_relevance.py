"""Relevance: what fits words, and what is answered where nothing does."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.photos import paint
from vitsearch import Collection, index_folder, load_encoder, search_all
from vitsearch.cli.demo import copy_samples
from vitsearch.collection.query import Term
from vitsearch.collection.relevance import FILE, Lines, Scale, meaningless_lines, measured_scale
from vitsearch.encoders.base import Encoder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.options import SearchOptions

NONSENSE = ("asdf qwer", "xkcjv", "zxcvb 4711", "grumbulo snarf", "3141592", "qqqq wwww eeee")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs of the demo, indexed with `mini`."""
    folder = copy_samples(tmp_path_factory.mktemp("relevance") / "photos")
    index_folder(folder, encoder="mini")
    return folder


@pytest.fixture(scope="module")
def collection(photos: Path) -> Iterator[Collection]:
    with Collection.open(photos) as opened:
        yield opened


@pytest.mark.parametrize("query", NONSENSE)
def test_nothing_fits_words_without_meaning(collection: Collection, query: str) -> None:
    assert collection.search(query) == []
    nearest = collection.search(query, 3, min_relevance=0)
    assert len(nearest) == 3
    assert all(hit.relevance is not None and hit.relevance < 0.1 for hit in nearest)


@pytest.mark.parametrize(("query", "first"), [("a cat", "chelsea.png"), ("coffee", "coffee.png")])
def test_what_is_there_is_found_in_a_small_folder(
    collection: Collection, query: str, first: str
) -> None:
    best, *others = collection.search(query)
    assert best.path == first
    assert (best.relevance or 0) > 0.1
    assert [hit.relevance for hit in others] == sorted(
        (hit.relevance for hit in others), key=lambda each: -(each or 0)
    )


def test_what_is_left_out_is_the_end_of_the_list(collection: Collection) -> None:
    every = collection.search("a cat", min_relevance=0)
    for least in (0.0, 0.1, 0.3, 0.9):
        fitting = [hit for hit in every if (hit.relevance or 0) >= least]
        assert collection.search("a cat", min_relevance=least) == fitting
    assert collection.search("a cat", min_relevance=1) == []
    filtered = collection.search("a cat", 9, where="path != 'chelsea.png'", min_relevance=0)
    assert filtered == [hit for hit in every if hit.path != "chelsea.png"]
    assert collection.search("a cat - dog")[0].path == "chelsea.png"


def test_photos_and_mixed_queries_are_not_judged(photos: Path, collection: Collection) -> None:
    number = len(collection)
    like = collection.similar(photos / "coffee.png", number)
    assert len(like) == number - 1
    mixed = collection.search([Term("asdf qwer"), Term(photos / "coffee.png")], number)
    assert len(mixed) == number - 1
    away = collection.search("- asdf qwer", number)
    assert len(away) == number
    assert {hit.relevance for hit in [*like, *mixed, *away]} == {None}


def test_a_batch_has_what_single_searches_have(collection: Collection) -> None:
    queries = ["a cat", "asdf qwer", "coffee"]
    batch = collection.search_batch(queries)
    single = [collection.search(query) for query in queries]
    assert [[hit.path for hit in each] for each in batch] == [
        [hit.path for hit in each] for each in single
    ]
    assert [len(each) > 0 for each in batch] == [True, False, True]


@pytest.mark.parametrize("least", [0.1, 0.5])
def test_what_is_cut_is_what_is_left_out_of_the_search(
    collection: Collection, least: float
) -> None:
    there = ("a cat", "cat", "un gato", "coffee", "a cat - dog", "brick", "an elephant")
    queries = [*there, *NONSENSE]
    cut = collection.search_batch(queries, min_relevance=least)
    # with a least score, even this, what is not relevant is never found
    left_out = collection.search_batch(queries, min_relevance=least, min_score=-1)
    assert cut == left_out
    assert [[hit.relevance for hit in hits] for hits in cut] == [
        [hit.relevance for hit in hits] for hits in left_out
    ]
    meanings = collection.queries.read_all(queries)
    for options in (
        SearchOptions(10, min_relevance=least),
        SearchOptions(3, min_relevance=least, min_score=-1),
    ):
        every = collection.find(meanings, SearchOptions(12, min_relevance=0))
        answers = collection.find_or_nearest(meanings, options)
        assert [each.nearest for each in answers] == [
            [] if each.hits else hits for each, hits in zip(answers, every, strict=True)
        ]
        assert any(each.hits for each in answers)
        assert any(each.nearest for each in answers)


@pytest.mark.slow
def test_several_collections_and_a_folder_of_few(photos: Path, tmp_path: Path) -> None:
    for name in ("chelsea.png", "coffee.png"):
        (tmp_path / "few").mkdir(exist_ok=True)
        shutil.copyfile(photos / name, tmp_path / "few" / name)
    index_folder(tmp_path / "few", encoder="mini")
    assert search_all([tmp_path / "few", photos], "xkcjv") == []
    assert [hit.path for hit in search_all([tmp_path / "few", photos], "a cat", 2)] == [
        "chelsea.png"
    ] * 2
    with Collection.open(tmp_path / "few") as few:
        assert few.search("coffee", 1)[0].path == "coffee.png"
        table = few.search("coffee").to_pandas()
    assert table["relevance"].between(0.1, 1).all()


def test_an_encoder_to_which_all_words_are_alike_is_not_asked(tmp_path: Path) -> None:
    paint(tmp_path / "red.png", "red")
    paint(tmp_path / "blue.png", "blue")
    index_folder(tmp_path, encoder=ColourEncoder())
    with Collection.open(tmp_path) as collection:
        found = collection.search("asdf qwer")
    assert [hit.relevance for hit in found] == [None, None]


@pytest.mark.slow
def test_the_scale_of_a_large_collection_is_written_and_checked(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitsearch.collection.relevance.SLOW_SECONDS", -1)
    file = photos / ".vitsearch" / FILE
    answers = []
    for content in (None, None, "{}", file):
        if content == "{}":
            file.write_text('{"state": "x", "photos": 0}')
        with Collection.open(photos) as collection:
            answers.append([hit.relevance for hit in collection.search("a cat")])
        assert file.is_file()
    assert answers[0]
    assert answers == [answers[0]] * 4


def test_lines_come_from_the_cache_as_they_were_made() -> None:
    encoder = load_encoder("mini")
    assert isinstance(encoder, Encoder)
    made, stored = Lines.of(encoder), Lines.of(encoder)
    assert np.array_equal(made.things, stored.things)
    assert np.array_equal(made.meaningless, stored.meaningless)
    assert len(set(meaningless_lines())) > 120
    assert meaningless_lines() == meaningless_lines()


def test_without_photos_nothing_can_be_told() -> None:
    encoder = ColourEncoder()
    assert (
        measured_scale(Lines.of(encoder), np.empty((0, encoder.dim), dtype=np.float32), 0) is None
    )


@given(st.floats(0.001, 0.999), st.floats(-0.5, 0.5), st.integers(1, 10**7), st.floats(0.01, 0.5))
def test_the_least_score_is_where_the_relevance_begins(
    relevance: float, likeness: float, photos: int, spread: float
) -> None:
    scale = Scale("", photos, 0.2, spread, -0.1, 0.1)
    even = scale.even(likeness)
    least = scale.least_score(relevance, even)
    assert math.isclose(scale.relevance(least, even), relevance, rel_tol=1e-6)
    assert scale.relevance(least + 0.01, even) > relevance
    assert scale.least_score(0, even) == -math.inf
    assert scale.least_score(1, even) == math.inf
