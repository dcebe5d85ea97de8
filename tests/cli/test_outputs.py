"""`label` and `classify` write folders of links or copies, and XMP sidecars."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from helpers.cli import vitsearch
from helpers.photos import paint
from vitsearch import index_folder
from vitsearch.classifiers.finetune import EpochResult
from vitsearch.cli.train import _accuracy_text
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.outputs.sorting import MANIFEST

SUBJECT = (
    "{http://purl.org/dc/elements/1.1/}subject//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
)
FEW = ("--labels", "red,blue", "--threshold", "0.99")


def files(folder: Path) -> list[str]:
    return sorted(
        Path(above, name).relative_to(folder).as_posix()
        for above, _, here in os.walk(folder)
        for name in here
        if name != MANIFEST and ".vitsearch/" not in f"{above}/"
    )


def keywords(sidecar: Path) -> list[str | None]:
    return [item.text for item in ET.fromstring(sidecar.read_bytes()).iterfind(f".//{SUBJECT}")]


def test_labels_are_drawn_the_surest_first(indexed: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "labels.html"
    done = vitsearch("label", indexed, "--labels", "red,blue", "--sheet", sheet)
    assert (done.returncode, done.stderr) == (0, f"vitsearch: wrote {sheet}\n".encode())
    surest = sorted(
        (line.split("\t") for line in done.stdout.decode().splitlines()),
        key=lambda row: (-float(row[0]), row[2]),
    )
    page = sheet.read_text(encoding="utf-8")
    by_label = {name: [row[2] for row in surest if row[1] == name] for name in ("red", "blue")}
    for name, paths in by_label.items():
        begins = page.index(f"{name} ({len(paths)})")
        places = [page.index(Path(path).name, begins) for path in paths]
        assert paths
        assert places == sorted(places)
    refused = vitsearch("classify", indexed, "--sheet", tmp_path / "labels.gif")
    assert (refused.returncode, refused.stdout) == (1, b"")


def test_label_sorts_photos_into_folders(indexed: Path, tmp_path: Path) -> None:
    target = tmp_path / "by label"
    done = vitsearch("label", indexed, *FEW, "--sort-into", target)
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 2)
    assert (
        done.stderr.decode()
        == f"vitsearch: 2 photos reach no label\nvitsearch: sorted into {target}: 2 linked\n"
    )
    assert files(target) == ["blue/blue.png", "red/red.png"]
    assert (target / "red/red.png").is_symlink()
    assert (target / "red/red.png").read_bytes() == (indexed / "red.png").read_bytes()
    (indexed / "red.png").unlink()
    again = vitsearch(
        "label",
        indexed,
        "--labels",
        "red,navy := blue",
        "--threshold",
        "0.99",
        "--sort-into",
        target,
        "--copy",
    )
    assert again.stderr.decode().splitlines()[1:] == [
        "vitsearch: red.png: the photo is gone: index again",
        f"vitsearch: sorted into {target}: 1 copied, 2 removed, 1 not sorted",
    ]
    assert files(target) == ["navy/blue.png"]
    assert not (target / "navy/blue.png").is_symlink()


def test_label_writes_keywords_into_sidecars(indexed: Path) -> None:
    (indexed / "red.png.xmp").write_bytes(b"no XMP")
    labels = ("--labels", "warm > red,cold > blue", "--threshold", "0.99", "--xmp")
    done = vitsearch("label", indexed, *labels)
    assert done.stderr.decode().splitlines()[1:] == [
        (
            "vitsearch: red.png: its sidecar red.png.xmp is left as it is: it is not well-formed "
            "XML: "
            "syntax error: line 1, column 0"
        ),
        "vitsearch: XMP sidecars: 1 written, 1 not written",
    ]
    assert (indexed / "red.png.xmp").read_bytes() == b"no XMP"
    assert keywords(indexed / "sub/blue.png.xmp") == ["cold", "blue"]
    (indexed / "red.png.xmp").unlink()
    assert vitsearch("label", indexed, *labels).stderr.endswith(
        b"XMP sidecars: 1 written, 1 as before\n"
    )
    assert keywords(indexed / "red.png.xmp") == ["warm", "red"]
    nothing = vitsearch("label", indexed, "--labels", "grey", "--background", "--xmp")
    assert b"none of these\tred.png\n" in nothing.stdout
    assert nothing.stderr.endswith(b"XMP sidecars: 2 written\n")
    assert keywords(indexed / "red.png.xmp") == []
    assert vitsearch("index", indexed).stdout.startswith(b"4 photos are searchable (4 unchanged)")


def test_a_photo_of_several_labels_has_them_all(indexed: Path, tmp_path: Path) -> None:
    done = vitsearch(
        "label",
        indexed,
        "--labels",
        "red,blue",
        "--top",
        "2",
        "--sort-into",
        tmp_path / "sorted",
        "--xmp",
        "--min-probability",
        "0",
    )
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 8)
    assert files(tmp_path / "sorted")[:4] == [
        "blue/blue.png",
        "blue/green.png",
        "blue/red.png",
        "blue/yellow.png",
    ]
    assert keywords(indexed / "sub/blue.png.xmp") == ["blue", "red"]


@pytest.mark.parametrize("command", [["label", "--labels", "red,blue"], ["classify"]])
def test_what_cannot_be_is_said_before_the_work(
    photos: Path, tmp_path: Path, command: list[str]
) -> None:
    """Neither a collection nor a model is looked for."""
    name, *rest = command
    rest += ["--device", "none"]
    (tmp_path / "file").write_bytes(b"")
    inside = vitsearch(name, photos, *rest, "--sort-into", photos / "sorted")
    assert (inside.returncode, inside.stdout) == (1, b"")
    assert inside.stderr.decode() == (
        f"vitsearch: cannot sort into {photos}/sorted: it lies in the photo folder and would be "
        f"indexed; name one outside {photos}\n"
    )
    file = vitsearch(name, photos, *rest, "--sort-into", tmp_path / "file")
    assert file.stderr.decode() == (
        f"vitsearch: cannot sort into {tmp_path}/file: {tmp_path}/file is a file, not a folder; "
        "name another folder\n"
    )
    empty = vitsearch(name, photos, *rest, "--sort-into", "")
    assert (
        empty.stderr == b"vitsearch: the name of the folder to sort into is empty: name a folder\n"
    )
    alone = vitsearch(name, photos, *rest, "--copy")
    assert (alone.returncode, alone.stderr) == (
        2,
        f"vitsearch: --copy goes with --sort-into (see `vitsearch {name} --help`)\n".encode(),
    )
    assert files(photos) == ["green.png", "red.png", "sub/blue.png", "yellow.png"]


@pytest.mark.slow
def test_classify_sorts_and_writes_keywords(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no photo")
    done = vitsearch(
        "classify",
        photos,
        "--sort-into",
        tmp_path / "sorted",
        "--copy",
        "--xmp",
        "--min-probability",
        "0",
        "--output",
        tmp_path / "rows.csv",
    )
    assert done.returncode == 0
    assert done.stderr.decode().splitlines()[-3:] == [
        "vitsearch: 1 of 5 photos could not be read",
        f"vitsearch: sorted into {tmp_path}/sorted: 4 copied",
        "vitsearch: XMP sidecars: 4 written",
    ]
    rows = [line.split(",")[:2] for line in (tmp_path / "rows.csv").read_text().splitlines()[1:]]
    assert [path for path, _ in rows] == ["green.png", "red.png", "sub/blue.png", "yellow.png"]
    assert files(tmp_path / "sorted") == sorted(
        f"{label}/{os.path.basename(path)}" for path, label in rows
    )
    assert [keywords(photos / f"{path}.xmp") for path, _ in rows] == [[label] for _, label in rows]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_names_that_are_not_text(tmp_path: Path) -> None:
    odd = paint(tmp_path / "photos" / os.fsdecode(b"bad\xff\n.png"), "red")
    index_folder(odd.parent, encoder=ColourEncoder())
    done = vitsearch(
        "label", odd.parent, "--labels", "red,blue", "--sort-into", tmp_path / "sorted", "--xmp"
    )
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 2)
    assert files(tmp_path / "sorted") == [f"red/{odd.name}"]
    assert keywords(odd.with_name(f"{odd.name}.xmp")) == ["red"]


@pytest.mark.slow
def test_what_is_not_sure_is_asked_about_before_it_is_written(photos: Path, tmp_path: Path) -> None:
    """Of real photos: a retina is no beach, however much less it is a cat."""
    data = pytest.importorskip("skimage.data", reason="its sample photos")
    folder = tmp_path / "real"
    folder.mkdir()
    for name, shown in (("cat.png", data.chelsea()), ("retina.png", data.retina())):
        Image.fromarray(shown).resize((300, 300)).save(folder / name)
    index_folder(folder)
    labels = ("label", folder, "--labels", "cat,beach", "--xmp")
    refused = vitsearch(*labels)
    assert (refused.returncode, refused.stdout, refused.stderr.decode()) == (
        1,
        b"",
        "vitsearch: no label is sure for 1 of 2 photos (such as 'beach' for retina.png): nothing "
        "was written; say with --min-probability P how probable a label must be, or write all with "
        "--min-probability 0\n",
    )
    assert sidecars(folder) == []
    for answer, written in (("n", ["cat.png.xmp"]), ("y", ["cat.png.xmp", "retina.png.xmp"])):
        code, asked = on_a_terminal([os.fsdecode(each) for each in labels], answer)
        assert code == 0
        assert "Write their labels too? [y/N]" in asked
        assert sidecars(folder) == written
        for name in written:
            (folder / name).unlink()
    for chosen, written in (("0.99", ["cat.png.xmp"]), ("0", ["cat.png.xmp", "retina.png.xmp"])):
        assert vitsearch(*labels, "--min-probability", chosen).returncode == 0
        assert sidecars(folder) == written
        for name in written:
            (folder / name).unlink()
    assert vitsearch(*labels, "--threshold", "0.6").returncode == 0  # as scripts say it
    assert sidecars(folder) == ["cat.png.xmp", "retina.png.xmp"]
    unsure = vitsearch("classify", photos, "--xmp")
    assert (unsure.returncode, b"no label is sure" in unsure.stderr) == (1, True)


def sidecars(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.xmp"))


def on_a_terminal(arguments: list[str], answer: str) -> tuple[int, str]:
    """Run a command with a terminal for its input and errors, and give an answer."""
    command, screen = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "vitsearch", *arguments],
        stdin=screen,
        stderr=screen,
        stdout=subprocess.DEVNULL,
    )
    os.close(screen)
    text = ""
    with os.fdopen(command, "r+b", buffering=0) as terminal:
        while "[y/N]" not in text:
            text += terminal.read(1000).decode()
        terminal.write(f"{answer}\n".encode())
        try:
            while piece := terminal.read(1000):
                text += piece.decode()
        except OSError:  # the other end is closed
            pass
    return child.wait(), text


@pytest.mark.parametrize(
    ("best", "told"),
    [
        (EpochResult(2, 0.1, 1.0, 0, 0, 0.0), "3 epochs, no photo left out to judge by"),
        (EpochResult(3, 0.1, 1.0, 9, 10, 0.2), "left out, which also chose epoch 3"),
        (EpochResult(3, 0.1, 0.5, 9, 10, 0.2), "epoch 3, the mean with the start"),
        (
            EpochResult(0, None, 0.0, 9, 10, 0.2),
            "no epoch was better than the fitted head, the network below it is unchanged",
        ),
    ],
)
def test_what_fine_tuning_says_of_its_accuracy(best: EpochResult, told: str) -> None:
    last = EpochResult(3, 0.1, 1.0, 9, 10, 0.2)
    said = _accuracy_text(SimpleNamespace(best=best, epochs=[last]))
    assert said.endswith(told)
    assert said.startswith("accuracy 0.900 (95 % interval ") == bool(best.validated)
