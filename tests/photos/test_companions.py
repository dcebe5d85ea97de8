"""Files that belong to a photo beside them."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from helpers.photos import paint
from vitsearch.cli import cli
from vitsearch.collection import Collection
from vitsearch.collection.update import index_folder
from vitsearch.photos import WalkOptions
from vitsearch.photos.sidecars import companions_of
from vitsearch.photos.walk import WalkRecord, walk
from vitsearch.types import LeftOut


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        ("IMG_1.JPG IMG_1.CR2", {"IMG_1.CR2": "IMG_1.JPG"}),
        ("img_1.cr2 IMG_1.JPG", {"img_1.cr2": "IMG_1.JPG"}),
        ("IMG_1.HEIC IMG_1.DNG", {"IMG_1.DNG": "IMG_1.HEIC"}),
        ("IMG_1.HEIC IMG_1.jpeg IMG_1.DNG", {"IMG_1.DNG": "IMG_1.jpeg"}),
        ("a.jpg A.jpg a.nef A.nef", {"a.nef": "a.jpg", "A.nef": "A.jpg"}),
        ("a.jpg a.nef a.dng", {"a.nef": "a.jpg", "a.dng": "a.jpg"}),
        ("a.cr2 a.cr2.jpg", {"a.cr2": "a.cr2.jpg"}),
        ("a.jpg.cr2 a.jpg", {"a.jpg.cr2": "a.jpg"}),
        ("a.cr2 a.cr2.jpg a.jpg", {"a.cr2": "a.jpg"}),
        ("e\u0301.jpg \u00e9.raf", {"\u00e9.raf": "e\u0301.jpg"}),
        ("x/a.jpg y/a.cr2 a.cr2", {}),
        ("a.png a.cr2 a.nef b.jpg", {}),
        ("a-1.jpg a.cr2", {}),
        (".jpg .cr2", {}),
    ],
)
def test_which_files_belong_to_which_photo(names: str, pairs: dict[str, str]) -> None:
    assert companions_of(names.split()) == pairs
    assert companions_of(reversed(names.split())) == pairs


NAMES = [f"{stem}{end}" for stem in "aAb" for end in (".jpg", ".CR2", ".cr2.jpg", ".heic", ".dng")]


@given(st.lists(st.sampled_from(NAMES)))
def test_a_companion_is_never_a_photo_that_has_one(names: list[str]) -> None:
    pairs = companions_of(names)
    assert pairs.keys().isdisjoint(pairs.values())
    assert {*pairs, *pairs.values()} <= {*names}


def test_a_walk_takes_the_photo_and_records_its_companion(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/1.cr2", "a/2.CR2", "3.heic", "3.mov", "3.DNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    record = WalkRecord()
    assert [file.path for file in walk(tmp_path, record=record)] == ["3.heic", "a/1.jpg", "a/2.CR2"]
    assert [entry for entry in record.left_out if entry.reason == "companion"] == [
        LeftOut("3.DNG", "companion", "3.heic"),
        LeftOut("a/1.cr2", "companion", "a/1.jpg"),
    ]


def test_a_file_that_is_not_taken_has_no_companion(tmp_path: Path) -> None:
    for name in ("a.cr2", "b.cr2", "b.jpg", "c.cr2"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.jpg").mkdir()
    os.mkfifo(tmp_path / "c.jpg")
    record, options = WalkRecord(), WalkOptions(exclude=("b.jpg",))
    found = [file.path for file in walk(tmp_path, options, record=record)]
    assert found == ["a.cr2", "b.cr2", "c.cr2", "c.jpg"]
    assert record.left_out == [LeftOut("b.jpg", "excluded")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a photo with its RAW; what is a RAW here needs no reader."""
    paint(tmp_path / "a.jpg", "red")
    (tmp_path / "a.CR2").write_bytes((tmp_path / "a.jpg").read_bytes() + b"\0")
    paint(tmp_path / "b.png", "blue")
    return tmp_path


def listed(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    with Collection.open(folder) as collection:
        paths = [photo.path for photo in collection.photos()]
        companions = collection.companions(paths)
        assert collection.info()["companions"] == sum(map(len, companions.values()))
        return paths, companions


def test_a_photo_is_there_once_with_both_files(folder: Path) -> None:
    report = index_folder(folder, encoder="colour")
    assert (report.indexed, report.total, report.skipped, report.failed) == (2, 2, 0, 0)
    assert report.left_out == {"companion": 1}
    assert listed(folder) == (["a.jpg", "b.png"], {"a.jpg": ["a.CR2"]})
    rows = CliRunner().invoke(cli, ["search", str(folder), "red", "--json"]).output.splitlines()
    shown = [json.loads(row) for row in rows]
    assert [(row["path"], row.get("companions")) for row in shown] == [
        ("a.jpg", ["a.CR2"]),
        ("b.png", None),
    ]
    again = index_folder(folder, encoder="colour", reread="*")
    assert (again.indexed, again.unchanged, again.total, again.left_out) == (
        0,
        2,
        2,
        {"companion": 1},
    )


@pytest.mark.skipif("not __import__('importlib.util').util.find_spec('rawpy')", reason="no rawpy")
def test_either_file_may_go_and_come_back(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    away = tmp_path_factory.mktemp("away")
    index_folder(folder, encoder="colour")
    (folder / "a.jpg").rename(away / "a.jpg")
    report = index_folder(folder, encoder="colour")
    assert (report.indexed, report.removed, report.total) == (1, 1, 2)
    assert listed(folder) == (["a.CR2", "b.png"], {})
    (away / "a.jpg").rename(folder / "a.jpg")
    report = index_folder(folder, encoder="colour")
    assert (report.indexed, report.restored, report.removed, report.total) == (0, 1, 1, 2)
    assert listed(folder) == (["a.jpg", "b.png"], {"a.jpg": ["a.CR2"]})
    (folder / "a.CR2").unlink()
    report = index_folder(folder, encoder="colour")
    assert (report.unchanged, report.left_out) == (2, {})
    assert listed(folder) == (["a.jpg", "b.png"], {})
