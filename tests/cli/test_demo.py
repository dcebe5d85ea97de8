"""The demo indexes, searches, labels and draws; with the sample photos and with a folder of one's
own.
"""

from pathlib import Path

import pytest
from PIL import Image

from vitsearch.cli.demo import LABELS, OWN_LABELS, SEARCHES, copy_samples, run_demo
from vitsearch.collection import Collection

pytestmark = pytest.mark.slow


def test_demo_of_the_sample_photos(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the sample photos come with scikit-image")
    said: list[str] = []
    sheets = run_demo(tmp_path, None, say=said.append, progress=lambda _: None, encoder="colour")
    assert sheets == [tmp_path / "contact-sheet.png", tmp_path / "contact-sheet.html"]
    assert Image.open(sheets[0]).size[0] > 1000
    names = sorted(file.name for file in (tmp_path / "photos").iterdir())
    assert {"chelsea.png", "coffee.png", "rocket.jpg"} <= set(names)
    with Collection.open(tmp_path / "photos", collection=tmp_path / "collection") as found:
        assert [photo.path for photo in found.photos()] == names
        assert {one.label for one in found.label(LABELS)} <= set(LABELS)
    assert [line for line in said if line.startswith("\n“")] == [
        f"\n“{words}”" for words in SEARCHES
    ]
    assert sheets[1].read_text(encoding="utf-8").count("<img") == 16 + min(len(names), 20)


def test_demo_of_a_folder_of_ones_own_leaves_it_as_it_was(tmp_path: Path) -> None:
    photos = tmp_path / "mine"
    photos.mkdir()
    Image.new("RGB", (40, 30), "red").save(photos / "red.png")
    Image.new("RGB", (40, 30), "blue").save(photos / "blue.png")
    run_demo(
        tmp_path / "out", photos, say=lambda _: None, progress=lambda _: None, encoder="colour"
    )
    assert sorted(file.name for file in photos.iterdir()) == ["blue.png", "red.png"]
    with Collection.open(photos, collection=tmp_path / "out" / "collection") as found:
        assert len(found.label(OWN_LABELS)) == 2


def test_samples_are_copied_once(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the sample photos come with scikit-image")
    folder = copy_samples(tmp_path / "photos")
    (folder / "coffee.png").write_bytes(b"mine")
    copy_samples(folder)
    assert (folder / "coffee.png").read_bytes() == b"mine"
