"""Queries that say more than a picture, on a real collection; several collections; folders."""

import os
import shutil
from datetime import date
from pathlib import Path

import pytest
from PIL import Image

from helpers.photos import paint
from vitsearch import Collection, QueryError, index_folder, search_all
from vitsearch.collection.understanding import FILE, KnownWords
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.storage import collection_above, locate


class OtherEncoder(ColourEncoder):
    """`colour` under another fingerprint."""

    fingerprint = "another"


def shot(file: Path, colour: str, taken: str = "", camera: str = "") -> Path:
    """Write a picture of one colour that says when and with what it was taken."""
    paint(file, colour)
    with Image.open(file) as image:
        tags = Image.Exif()
        if camera:
            tags[0x0110] = camera
        if taken:
            tags[0x8769] = {0x9003: taken}
        image.save(file, "PNG", exif=tags)
    return file


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("understanding") / "photos"
    shot(folder / "a.png", "red", "2018:07:14 12:00:00", "NIKON D70")
    shot(folder / "italy" / "b.png", "red", "2019:07:14 12:00:00", "Canon EOS R5")
    shot(folder / "italy" / "c.png", "blue", "2019:08:01 12:00:00")
    shot(folder / "Screenshot_d.png", "green")
    index_folder(folder, encoder=ColourEncoder())
    with Collection.open(folder) as opened:
        opened.store_labels(opened.label(["red", "blue", "green"]))
    return folder


@pytest.fixture
def opened(photos: Path) -> Collection:
    return Collection.open(photos, encoder=ColourEncoder())


@pytest.mark.parametrize(
    ("query", "paths", "titles"),
    [
        ("red", ["a.png", "italy/b.png", "Screenshot_d.png", "italy/c.png"], []),
        ("red 2019", ["italy/b.png", "italy/c.png"], ["2019"]),
        ("red in July", ["a.png", "italy/b.png"], ["July"]),
        ("2019", ["italy/c.png", "italy/b.png"], ["2019"]),  # the newest first
        ("since 2018", ["italy/c.png", "italy/b.png", "a.png"], ["since 2018"]),
        ("blue taken with the nikon", ["a.png"], ["nikon"]),
        ("folder italy", ["italy/c.png", "italy/b.png"], ["folder italy"]),
        ("screenshots", ["Screenshot_d.png"], ["screenshots"]),
        ("labelled green", ["Screenshot_d.png"], ["label green"]),
        ("2:red + blue 2019 - green", ["italy/b.png", "italy/c.png"], ["2019"]),
        ("red in 1987", [], ["1987"]),
    ],
)
def test_a_query_filters(
    opened: Collection, query: str, paths: list[str], titles: list[str]
) -> None:
    assert opened.understand(query).titles == titles
    assert [hit.path for hit in opened.search(query)] == paths


def test_literally_and_in_quotes_words_are_the_pictures(opened: Collection) -> None:
    everything = [hit.path for hit in opened.search("red")]
    assert [hit.path for hit in opened.search("red 2019", literal=True)] == everything
    assert [hit.path for hit in opened.search('"red 2019"')] == everything


def test_no_term_is_no_query(opened: Collection) -> None:
    for nothing in ((), [], "", "  "):
        with pytest.raises(QueryError):
            opened.search(nothing)


def test_a_batch_has_a_filter_for_each_query(opened: Collection) -> None:
    queries = ["red 2019", "red", "2018", "blue 2019"]
    assert opened.search_batch(queries) == [opened.search(query) for query in queries]
    one = opened.search("since 2018", 1, offset=1, where="path like 'italy/%'")
    assert [(hit.path, hit.score) for hit in one] == [("italy/b.png", 0.0)]


@pytest.mark.parametrize(
    ("query", "without"),
    [
        ("red 2019 folder italy", ["red folder italy", "red 2019"]),
        ("2:red in 2019 - 0.5:green", ["2:red - 0.5:green"]),
        ("2019", [""]),
        ('2019 + "red 2018"', ['"red 2018"']),
        ("2019 - green", ["- green"]),
        ("red -green 2019", ["red - green"]),
    ],
)
def test_a_phrase_can_be_taken_off(opened: Collection, query: str, without: list[str]) -> None:
    assert list(opened.understand(query).without) == without


def test_today_can_be_said(opened: Collection) -> None:
    understood = opened.understand("red last summer", today=date(2020, 1, 1))
    assert str(understood.where) == "taken_at between '2019-06' and '2019-08'"
    assert understood.picture == "red"


def test_the_words_are_those_of_the_present_state(photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    with Collection.open(folder, encoder=ColourEncoder()) as opened:
        assert opened.understand("labelled rose").titles == []
        opened.store_labels(opened.label(["rose = red", "blue", "green"]))
        assert opened.understand("labelled rose").titles == ["label rose"]
        shot(folder / "new.png", "red", camera="LEICA M6")
        assert opened.understand("leica m6").titles == []
        opened.update()
        assert opened.understand("leica m6").titles == ["leica m6"]


def test_words_that_take_long_to_read_are_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitsearch.collection.understanding.SLOW_SECONDS", -1)
    with Collection.open(photos) as opened:
        first = KnownWords(tmp_path).of(opened.store)
        written = (tmp_path / FILE).read_bytes()
        again = KnownWords(tmp_path).of(opened.store)
        (tmp_path / FILE).write_bytes(b"{")  # damaged: read from the photos again
        third = KnownWords(tmp_path).of(opened.store)
    assert first.values == again.values == third.values
    assert (tmp_path / FILE).read_bytes() == written


# -- several collections ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("others") / "more"
    shot(folder / "e.png", "red", "2019:12:24 12:00:00")
    shot(folder / "f.png", "yellow", "2020:01:01 12:00:00")
    index_folder(folder, encoder=ColourEncoder())
    return folder


def test_results_of_several_are_one_list(photos: Path, others: Path) -> None:
    hits = search_all([photos, others], "red", 3)
    files = [photos / "a.png", photos / "italy" / "b.png", others / "e.png"]
    assert [Path(hit.file) for hit in hits] == sorted(files)
    assert {hit.collection for hit in hits} == {str(photos), str(others)}
    rest = search_all([photos, others], "red", 10, offset=3)
    assert len({hit.file for hit in [*hits, *rest]}) == 6
    one = [hit.path for hit in search_all([photos], "red 2019")]
    assert one == ["italy/b.png", "italy/c.png"]


def test_what_one_of_several_knows_filters_them_all(photos: Path, others: Path) -> None:
    assert [hit.path for hit in search_all([others, photos], "red folder italy")] == [
        "italy/b.png",
        "italy/c.png",
    ]
    newest = search_all([photos, others], "since 2019")
    assert [hit.path for hit in newest] == ["f.png", "e.png", "italy/c.png", "italy/b.png"]


def test_scores_of_two_encoders_are_not_compared(photos: Path, tmp_path: Path) -> None:
    shot(tmp_path / "g.png", "red")
    index_folder(tmp_path, encoder=OtherEncoder())
    with pytest.raises(QueryError, match="scores of two encoders do not compare"):
        search_all([photos, tmp_path], "red")
    with pytest.raises(QueryError, match="at least one collection"):
        search_all([], "red")


# -- which collection is meant ---------------------------------------------------------------------


def test_the_folder_of_a_collection_names_it(photos: Path, tmp_path: Path) -> None:
    assert locate(photos) == (photos, photos / ".vitsearch")
    assert locate(photos / ".vitsearch") == (photos, photos / ".vitsearch")
    apart = tmp_path / "apart"
    index_folder(photos, collection=apart, encoder=ColourEncoder())
    assert locate(apart) == (photos, apart)
    with Collection.open(apart) as opened:
        assert opened.root == photos
        assert len(opened) == 4


def test_a_collection_is_looked_for_above(photos: Path, tmp_path: Path) -> None:
    assert collection_above(photos / "italy") == photos
    assert collection_above(photos) == photos
    with pytest.raises(CollectionNotFound, match="in a folder above it"):
        collection_above(tmp_path)
    with pytest.raises(CollectionError, match="no such folder"):
        locate(tmp_path / "gone")


def test_folders_that_changed_since_are_seen(photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    index_folder(folder, encoder=ColourEncoder())
    with Collection.open(folder) as opened:
        assert opened.changed_folders() == []
        later = (folder / ".vitsearch" / "walked").stat().st_mtime_ns + 10**9
        os.utime(folder / "italy", ns=(later, later))
        assert opened.changed_folders() == ["italy"]
        (folder / ".vitsearch" / "walked").unlink()
        assert opened.changed_folders() == []


@pytest.mark.slow
def test_places_of_the_collection_are_words(tmp_path: Path) -> None:
    pytest.importorskip("reverse_geocode")
    for name, north, west in (("lisbon.png", 38.71, 9.14), ("london.png", 51.5, 0.12)):
        file = paint(tmp_path / name, "red")
        with Image.open(file) as image:
            tags = Image.Exif()
            tags[0x8825] = {1: "N", 2: (north, 0.0, 0.0), 3: "W", 4: (west, 0.0, 0.0)}
            image.save(file, "PNG", exif=tags)
    index_folder(tmp_path, encoder=ColourEncoder())
    with Collection.open(tmp_path) as opened:
        for query in ("red in Portugal", "red Lisboa", "Portugal", "fotos de Portugal"):
            assert [hit.path for hit in opened.search(query)] == ["lisbon.png"], query
        for query in ("red from china", "portugal flag", "map of Portugal"):
            assert opened.understand(query).titles == [], query


def test_arguments_of_another_kind_are_named(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red")
    index_folder(tmp_path, encoder=ColourEncoder())
    for one in (str(tmp_path), tmp_path):
        with pytest.raises(QueryError, match="collections are a list, not one collection"):
            search_all(one, "red")  # type: ignore[arg-type]
    with Collection.open(tmp_path) as collection:
        with pytest.raises(QueryError, match="queries are a list, not one string"):
            collection.search_batch("red")
        wrong = {"where": 5, "collapse": "x", "min_score": "high", "diverse": None}
        for name, value in wrong.items():
            with pytest.raises(QueryError, match="is a (number|text or what parse_filter returns)"):
                collection.search("red", **{name: value})  # type: ignore[arg-type]
