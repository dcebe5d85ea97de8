"""Results: their files, facts and pictures, pages for notebooks, tables."""

import base64
import io
import os
import pickle
import re
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.photos import paint
from vitsearch import Collection, PhotoError, SearchResult, VitsearchError, index_folder, search_all
from vitsearch.collection.results import MAX_PICTURES, SIDE, SearchResults
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import UnknownPhoto

ORIENTATION = 0x112


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three photos, one of which lies on its side, indexed."""
    photos = tmp_path / "photos"
    paint(photos / "blue.png", "blue", size=(40, 20))
    paint(photos / "sub" / "red.png", "red", size=(600, 300))
    turned = Image.new("RGB", (64, 32), (20, 160, 40))
    exif = turned.getexif()
    exif[ORIENTATION] = 6
    turned.save(photos / "green.jpg", exif=exif)
    index_folder(photos, encoder=ColourEncoder())
    return photos


def searched(folder: Path, query: str = "red", top_k: int = 10) -> SearchResults:
    """Return the results of a collection that is closed by then."""
    with Collection.open(folder) as collection:
        return collection.search(query, top_k)


def test_a_result_has_its_file_its_facts_and_its_picture(folder: Path) -> None:
    red, *others = searched(folder)
    assert red == SearchResult("sub/red.png", red.score, red.photo_id)
    assert hash(red) == hash(SearchResult("sub/red.png", red.score, red.photo_id))
    assert red.file == str(folder / "sub" / "red.png")
    assert (red.photo.path, red.photo.photo_id) == ("sub/red.png", red.photo_id)
    assert (red.photo.info.width, red.photo.info.height) == (600, 300)
    assert (red.image().mode, red.image().size) == ("RGB", (600, 300))
    (green,) = (each for each in others if each.path == "green.jpg")
    assert green.image().size == (32, 64)  # upright


def test_results_are_a_list_and_plain_data(folder: Path) -> None:
    results = searched(folder)
    assert isinstance(results, list)
    assert results == [SearchResult(each.path, each.score, each.photo_id) for each in results]
    assert isinstance(results[:2], SearchResults)
    assert asdict(results[0]) == {
        "path": "sub/red.png",
        "score": results[0].score,
        "photo_id": results[0].photo_id,
        "file": str(folder / "sub" / "red.png"),
        "collection": "",
        "time": None,
        "relevance": None,  # `colour` cannot be judged
        "quotes": (),
    }


def test_results_are_pickled_small_with_what_leads_to_their_collection(folder: Path) -> None:
    results = searched(folder)
    data = pickle.dumps(results)
    assert len(data) < 1200
    again = pickle.loads(data)
    assert again == results
    assert type(again) is SearchResults
    assert np.array_equal(np.asarray(again[0].image()), np.asarray(results[0].image()))


def test_a_result_whose_photo_is_gone_says_so(folder: Path) -> None:
    red, blue = searched(folder)[0], searched(folder, "blue")[0]
    os.remove(red.file)
    with pytest.raises(PhotoError, match=re.escape(f"{red.file}: cannot be opened")):
        red.image()
    assert red.photo.path == "sub/red.png"
    index_folder(folder, encoder=ColourEncoder(), accept_missing=True)
    with pytest.raises(UnknownPhoto, match="sub/red.png is no longer in the collection"):
        _ = red.photo
    with pytest.raises(PhotoError, match="no longer in the collection"):
        red.image()
    paint(Path(blue.file), "yellow", size=(30, 20))
    with pytest.raises(PhotoError, match="it has changed since it was indexed"):
        blue.image()
    with pytest.raises(LookupError, match="this result is of no collection"):
        SearchResult("a.png", 1.0, 1).image()


def test_a_page_of_results_has_small_pictures_inside_it(folder: Path) -> None:
    page = searched(folder)._repr_html_()
    assert "3 results" in page
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    ]
    sizes = [picture.size for picture in pictures]
    assert sizes[0] == (SIDE, SIDE // 2)
    assert sorted(sizes) == [(32, 64), (40, 20), (160, 80)]
    assert re.findall(r"(?:src|href)=\"(?!data:)|https?:|url\(|<script", page) == []


def test_names_are_escaped_and_pages_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    name = "<img src=x onerror=alert(1)>&'"
    paint(folder / f"{name}.png", "red")
    paint(folder / f"{'x' * 200}.png", "red")
    for number in range(MAX_PICTURES + 3):
        paint(folder / f"{number}.png", "blue")
    index_folder(folder, encoder=ColourEncoder())
    with Collection.open(folder) as collection:
        results = collection.search("red", 100)
        for page in (results._repr_html_(), collection._repr_html_()):
            assert page.count("<img ") == MAX_PICTURES
            assert "<img src=x" not in page
            assert "x" * 61 not in page
            assert f"the first {MAX_PICTURES}" in page
            assert len(page) < 100_000
        assert "&lt;img src=x onerror=alert(1)&gt;&amp;&#x27;.png" in results._repr_html_()
        assert f"{MAX_PICTURES + 5} photos (colour)" in collection._repr_html_()


def test_a_page_says_what_cannot_be_shown(folder: Path) -> None:
    results = searched(folder)
    os.remove(results[0].file)
    page = results._repr_html_()
    assert (page.count("<img "), "cannot be opened" in page) == (2, True)
    (folder / ".vitsearch").rename(folder.parent / "away")
    page = results._repr_html_()
    assert (page.count("<img "), page.count("no collection")) == (0, 3)
    by_hand = SearchResults([SearchResult("a.png", 1.0, 1)])
    assert "this result is of no collection" in by_hand._repr_html_()
    assert "0 results" in SearchResults()._repr_html_()


def test_a_table_of_results(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    results = searched(folder)
    table = results.to_pandas()
    assert [*table.columns[:6]] == ["path", "score", "photo_id", "file", "collection", "time"]
    assert [*table["path"]] == [result.path for result in results]
    assert [*table["score"]] == [result.score for result in results]
    assert [*table["file"]] == [result.file for result in results]
    assert table["width"][0] == 600
    assert pandas.isna(table["camera"][0])
    empty = SearchResults().to_pandas()
    assert (len(empty), [*empty.columns]) == (0, [*table.columns])


@pytest.mark.skipif(sys.platform == "darwin", reason="names are Unicode there")
def test_a_table_holds_any_name(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    paint(tmp_path / "b\udcff.png", "red")
    index_folder(tmp_path, encoder=ColourEncoder())
    results = searched(tmp_path)
    assert [*results.to_pandas()["path"]] == ["b\udcff.png"]
    assert results._repr_html_().count("<img ") == 1


def test_without_pandas_one_line_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(VitsearchError, match="needs pandas: pip install pandas"):
        searched(folder).to_pandas()


def test_results_of_several_collections(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    paint(other / "crimson.png", "crimson", size=(30, 20))
    index_folder(other, encoder=ColourEncoder())
    results = search_all([folder, other], "red", 2)
    assert {result.file for result in results} == {
        str(folder / "sub" / "red.png"),
        str(other / "crimson.png"),
    }
    assert {result.collection for result in results} == {str(folder), str(other)}
    assert sorted(result.image().size for result in results) == [(30, 20), (600, 300)]
    assert results._repr_html_().count("<img ") == 2
