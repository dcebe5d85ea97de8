"""Sets of CLIP_benchmark: webdatasets of photos with a class or with captions."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from helpers.cli import vitsearch
from vitsearch.errors import QueryError
from vitsearch.evaluation.datasets import is_webdataset, unpack
from vitsearch.labels import Label

COLOURS = ("red", "green", "blue")


def picture(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(data, "PNG")
    return data.getvalue()


def write_tar(file: Path, members: dict[str, bytes]) -> None:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two tars of colours, in which one photo bears the number of another class."""
    folder = tmp_path / "wds_colours"
    folder.mkdir()
    (folder / "classnames.txt").write_text("red\ngreen\nblue\nno photo of this\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a {c} thing\n{c}\n")
    for tar in range(2):
        members: dict[str, bytes] = {}
        for number, colour in enumerate(COLOURS):
            members[f"s{number:03d}.cls"] = str(number).encode()
            members[f"s{number:03d}.png"] = picture(colour)
        write_tar(folder / "test" / f"{tar}.tar", members)
    write_tar(
        folder / "test" / "10.tar",
        {"x/s.0.png": picture("red"), "x/s.cls": b"2\n", "x/s.json": b""},
    )
    return folder


def test_photos_lie_in_folders_of_their_classes(dataset: Path) -> None:
    assert is_webdataset(dataset)
    packed = unpack(dataset)
    files = sorted(str(file.relative_to(packed.folder)) for file in packed.folder.rglob("*.png"))
    assert files == [
        "00000/0-s000.png", "00000/1-s000.png",
        "00001/0-s001.png", "00001/1-s001.png",
        "00002/0-s002.png", "00002/1-s002.png", "00002/10-x_s.0.png",
    ]  # fmt: skip
    names = [*COLOURS, "no photo of this"]
    assert packed.labels == [Label(f"0000{each}", (names[each],)) for each in range(4)]
    assert packed.templates == ["a {} thing", "{}"]
    assert (packed.folder / "00001" / "1-s001.png").read_bytes() == picture("green")
    assert unpack(dataset) == packed  # what is there is taken
    assert not is_webdataset(packed.folder)


def test_eval_takes_the_classes_and_templates_of_the_set(dataset: Path) -> None:
    done = vitsearch("eval", dataset, "--encoder", "colour", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (rows[0]["photos"], rows[0]["classes"], rows[0]["top1"]) == (7, 4, 6 / 7)


def test_the_photos_follow_the_tars(dataset: Path) -> None:
    unpack(dataset)
    members = {"x/s.png": picture("red"), "x_s.png": picture("blue"), "x s.png": picture("green")}
    classes = {f"{name.removesuffix('.png')}.cls": b"0" for name in members}
    (dataset / "test" / "1.tar").unlink()
    write_tar(dataset / "test" / "10.tar", dict(sorted({**members, **classes}.items())))
    packed = unpack(dataset)
    files = sorted((packed.folder / "00000").iterdir())
    assert [file.name for file in files] == [
        "0-s000.png", "10-x_s-2.png", "10-x_s-3.png", "10-x_s.png",
    ]  # fmt: skip
    assert {file.read_bytes() for file in files} == {picture(colour) for colour in COLOURS}
    (packed.folder / "tars.json").unlink()
    with pytest.raises(QueryError, match="it holds something else: move it away"):
        unpack(dataset)
    assert len(list((packed.folder / "00000").iterdir())) == 4


def test_captions_become_a_retrieval_set(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for number, colour in enumerate(COLOURS):
        members[f"{number}.png"] = picture(colour)
        members[f"{number}.txt"] = f"{colour}\na {colour} one\n\n".encode()
    write_tar(tmp_path / "test" / "0.tar", members)
    packed = unpack(tmp_path)
    assert (packed.labels, packed.templates) == (None, [])
    assert (packed.folder / "captions.tsv").read_text().splitlines()[:2] == [
        "0-0.png\tred",
        "0-0.png\ta red one",
    ]
    done = vitsearch("eval", tmp_path, "--encoder", "colour", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["photos"] == 3


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        (
            {"a.png": picture("red"), "a.cls": b"7"},
            "class of a is '7', not the number of a line",
        ),
        ({"a.png": picture("red"), "a.npy": b""}, "a has neither a class"),
        ({"a.png": picture("red"), "a.cls": b"-1"}, "the class of a is '-1'"),
    ],
)
def test_a_bad_set_is_refused_and_leaves_nothing(
    tmp_path: Path, members: dict[str, bytes], problem: str
) -> None:
    (tmp_path / "classnames.txt").write_text("red\n")
    write_tar(tmp_path / "test" / "0.tar", members)
    with pytest.raises(QueryError, match=problem):
        unpack(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["classnames.txt", "test"]


def test_a_tar_that_is_cut_is_refused(dataset: Path) -> None:
    tar = dataset / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes()[:1800])
    with pytest.raises(QueryError, match=r"0\.tar is cut or damaged"):
        unpack(dataset)
    done = vitsearch("eval", dataset, "--encoder", "colour")
    assert (done.returncode, done.stdout) == (1, b"")
