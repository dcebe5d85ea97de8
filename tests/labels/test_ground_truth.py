import unicodedata
from pathlib import Path

import pytest

from vitsearch.errors import QueryError
from vitsearch.labels.labels import read_labels

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
            "path:label\na.jpg:x\n",
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


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Bär/Müsli.jpg") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "data",
    [
        b"path;label\r\nBIRD;owl\r\n",
        b"path\tlabel\nBIRD\towl\n",
        b"Label, PATH\nowl,BIRD\n",
        "path,label\nBIRD,owl\n".encode("utf-16"),
        "path,label\nBIRD,owl\n".encode("utf-16-le"),
        "path;label\nBIRD;owl\n".encode("utf-16-be"),
        b"path,label\n./BIRD,owl\n",
        b"path,label\nbirds//owl.jpg,owl\n",
        b"path,label\n.\\birds\\owl.jpg,owl\n",
        b"path,label\n\n\nBIRD,owl\n",
    ],
)
def test_spreadsheets_and_programs_write_it_in_many_ways(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "labels.csv"
    name = "birds/owl.jpg"
    wide = next(
        (form for form in ("utf-16-le", "utf-16-be") if "BIRD".encode(form) in data), "ascii"
    )
    file.write_bytes(data.replace("BIRD".encode(wide), name.encode(wide)))
    assert read_labels(str(file), PATHS) == {name: "owl"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("stored", [COMPOSED, DECOMPOSED])
def test_composed_and_decomposed_names_are_one(tmp_path: Path, stored: str, encoding: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(f"path,label\n{COMPOSED},Frühstück\n".encode(encoding))
    assert read_labels(str(file), ["a.jpg", stored]) == {stored: "Frühstück"}
    file.write_bytes(f"path,label\n{DECOMPOSED},x\n{COMPOSED},y\n".encode())
    assert read_labels(str(file), sorted([COMPOSED, DECOMPOSED])) == {
        DECOMPOSED: "x",
        COMPOSED: "y",
    }


def test_rows_that_match_no_photo_are_logged(tmp_path: Path, remarks: list[str]) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("path,label\na.jpg,x\nb.jpg,x\nc.jpg,x\n/cats/tom.jpg,x\nd.jpg,x\n")
    assert read_labels(str(file), PATHS) == {"a.jpg": "x"}
    assert remarks == [f"4 rows of {file} match no photo ('b.jpg', 'c.jpg', '/cats/tom.jpg', ...)"]
