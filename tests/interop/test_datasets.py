"""Datasets of the Hugging Face library: pictures as photos, and results as rows."""

import io
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from helpers.lazy import library
from vitsearch import Collection, index_folder
from vitsearch.errors import CollectionError, VitsearchError
from vitsearch.types import SearchResult

datasets = library("datasets", reason="needs the extra vitsearch[datasets]")
interop = library("vitsearch.interop.datasets")
COLOURS = ("red", "green", "blue")


def encoded(colour: str, kind: str) -> bytes:
    data = io.BytesIO()
    Pillow.new("RGB", (32, 24), colour).save(data, kind)
    return data.getvalue()


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    """Red as JPEG, a row without a picture, green as a file, blue as PNG."""
    (tmp_path / "green.webp").write_bytes(encoded("green", "WEBP"))
    pictures = [
        {"bytes": encoded("red", "JPEG"), "path": None},
        None,
        {"bytes": None, "path": str(tmp_path / "green.webp")},
        {"bytes": encoded("blue", "PNG"), "path": "any.jpg"},
    ]
    features = datasets.Features({"photo": datasets.Image(), "name": datasets.Value("string")})
    names = ["first", "none", "file", "last"]
    return datasets.Dataset.from_dict({"photo": pictures, "name": names}, features=features)


def test_pictures_become_photos_byte_for_byte_and_results_rows(
    dataset: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    files = interop.save_photos(dataset, folder, column="photo")
    assert [file.name for file in files] == ["00000000.jpg", "00000002.webp", "00000003.png"]
    assert [file.read_bytes() for file in files] == [
        encoded("red", "JPEG"),
        encoded("green", "WEBP"),
        encoded("blue", "PNG"),
    ]
    assert interop.save_photos(dataset, folder, column="photo") == files
    index_folder(folder, encoder="colour")
    with Collection.open(folder) as photos:
        hits = photos.search("blue", min_relevance=0)
    rows = interop.select_results(dataset, hits)
    assert rows["name"][0] == "last"
    assert sorted(rows["name"][:]) == ["file", "first", "last"]
    assert rows["score"][:] == pytest.approx([hit.score for hit in hits])
    assert interop.select_results(dataset, []).num_rows == 0


def test_what_is_not_of_the_dataset_is_refused(dataset: Any, tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="no column 'name' of pictures: it has photo"):
        interop.save_photos(dataset, tmp_path / "photos", column="name")
    assert not (tmp_path / "photos").exists()
    for path in ("holiday.jpg", "00000004.jpg"):
        with pytest.raises(CollectionError, match=f"{path} is not a photo that save_photos wrote"):
            interop.select_results(dataset, [SearchResult(path, 0.5, 1)])


def test_a_picture_elsewhere_and_a_column_score_are_one_line(dataset: Any, tmp_path: Path) -> None:
    (tmp_path / "green.webp").unlink()
    with pytest.raises(CollectionError, match=r"picture of row 2, .*green\.webp, cannot be read"):
        interop.save_photos(dataset, tmp_path / "photos", column="photo")
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["00000000.jpg"]
    scored = dataset.add_column("score", [0.0] * 4)
    with pytest.raises(CollectionError, match="the dataset has a column 'score' already"):
        interop.select_results(scored, [SearchResult("00000000.jpg", 0.5, 1)])


def test_the_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.delitem(sys.modules, "vitsearch.interop.datasets", raising=False)
    with pytest.raises(VitsearchError, match=r"pip install 'vitsearch\[datasets\]'"):
        import_module("vitsearch.interop.datasets")
