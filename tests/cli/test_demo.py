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
    assert [line.partition("”")[0] for line in said if line.startswith("\n“")] == [
        f"\n“{words}" for words in SEARCHES
    ]
    alike = said.index("\nphotos that look alike")
    assert said.index("\nlabels of at least 0.5") > alike
    assert sheets[1].read_text(encoding="utf-8").count("<img") == len(
        [line for line in said if line.startswith("  ")]
    )


def test_the_demo_shows_what_mini_finds_and_that_nothing_fits(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the sample photos come with scikit-image")
    said: list[str] = []
    run_demo(tmp_path, None, say=said.append, progress=lambda _: None)
    assert "\n“an elephant”: nothing fits" in said
    for words, best in (("a cat", "chelsea.png"), ("a rocket launch", "rocket.jpg")):
        assert said[said.index(f"\n“{words}”") + 1].split()[1] == best
    alike = said.index("\nphotos that look alike")
    pair = ["motorcycle_left.png", "motorcycle_right.png"]
    assert [line.split()[1] for line in said[alike + 1 : alike + 3]] == pair


def test_demos_of_folders_of_ones_own_leave_them_as_they_were(tmp_path: Path) -> None:
    """One after the other into the same output, also of folders that are called the same."""
    said: list[str] = []
    for folder, colours in (
        (tmp_path / "mine", ("red", "blue")),
        (tmp_path / "b" / "mine", ("red",)),
    ):
        folder.mkdir(parents=True)
        for colour in colours:
            Image.new("RGB", (40, 30), colour).save(folder / f"{colour}.png")
        run_demo(
            tmp_path / "out", folder, say=said.append, progress=lambda _: None, encoder="colour"
        )
        assert {file.name for file in folder.iterdir()} == {f"{colour}.png" for colour in colours}
    counts = [line.split()[0] for line in said if " photos in " in line]
    assert counts == ["2", "1"]
    run_demo(
        tmp_path / "out",
        tmp_path / "mine",
        say=said.append,
        progress=lambda _: None,
        collection=tmp_path / "elsewhere",
        encoder="colour",
    )
    with Collection.open(tmp_path / "mine", collection=tmp_path / "elsewhere") as opened:
        assert len(opened.label(OWN_LABELS)) == 2


def test_samples_are_copied_once(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the sample photos come with scikit-image")
    folder = copy_samples(tmp_path / "photos")
    (folder / "coffee.png").write_bytes(b"mine")
    copy_samples(folder)
    assert (folder / "coffee.png").read_bytes() == b"mine"
