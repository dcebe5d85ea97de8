from pathlib import Path

import pytest

from vitsearch.errors import QueryError
from vitsearch.labels.ground_truth import read_labels

PATHS = ["a.jpg", "birds/owl.jpg", "deep/birds/wren.jpg", "cats/tom.jpg"]


def test_the_folder_that_holds_a_photo_is_its_label() -> None:
    assert read_labels("folders", PATHS) == {
        "birds/owl.jpg": "birds",
        "deep/birds/wren.jpg": "birds",
        "cats/tom.jpg": "cats",
    }
    with pytest.raises(
        QueryError, match="there are no labels: no photo lies in a folder of its own"
    ):
        read_labels("folders", ["a.jpg", "b.jpg"])


def test_a_csv_file_labels_the_photos_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(
        (
            '\ufefflabel,path,more\n"big, grey",a.jpg,x\n cat ,cats/tom.jpg,y\ncat,gone.jpg,z\n'
        ).encode()
    )
    assert read_labels(str(file), PATHS) == {"a.jpg": "big, grey", "cats/tom.jpg": "cat"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "path;label\na.jpg;x\n",
            "has no column label and no column path: its first line must be path,label",
        ),
        ("", "has no column label and no column path"),
        ("path,label\na.jpg,\n", "line 2: the path or the label is empty"),
        ("path,label\na.jpg\n", "line 2: the path or the label is empty"),
        ("path,label\na.jpg,x\na.jpg,y\n", "line 3: a.jpg is labelled 'x' and 'y': keep one"),
        ('path,label\n"a.jpg,x\n', "is no CSV file"),
        ("path,label\nother.jpg,x\n", "is a photo of the collection"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(QueryError, match=words):
        read_labels(str(file), PATHS)


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(
        QueryError,
        match=r"cannot read the labels in folder \(No such file or directory\): give a CSV file",
    ):
        read_labels("folder", PATHS)
