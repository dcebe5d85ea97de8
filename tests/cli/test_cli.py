"""The command line: what goes where, in which form, with which exit code."""

import csv
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.cli import environment, vitsearch
from helpers.photos import paint
from vitsearch import Collection, Progress, index_folder, load_classifier
from vitsearch.cli.output import ProgressBar
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.labels import LinearClassifier

ODD = os.fsdecode(b"bad\xff byte.png")
REPORT = {
    "texts_read",
    "texts_failed",
    "indexed",
    "unchanged",
    "moved",
    "removed",
    "restored",
    "put_aside",
    "out_of_reach",
    "left_out",
    "extensions",
    "skipped",
    "failed",
    "seconds",
    "load_seconds",
    "stages",
    "total",
}


def rows(output: bytes) -> list[dict[str, object]]:
    """Return JSON Lines, which must be pure ASCII."""
    return [json.loads(line) for line in output.decode("ascii").splitlines()]


def test_index_search_similar_label(photos: Path) -> None:
    done = vitsearch("index", photos, "--encoder", "colour", "--json")
    (report,) = rows(done.stdout)
    assert (done.returncode, done.stderr, set(report)) == (0, b"", REPORT)
    assert (report["indexed"], report["total"]) == (4, 4)
    again = vitsearch("index", photos)
    assert again.stdout.startswith(b"4 photos are searchable (4 unchanged) in ")
    found = vitsearch("search", photos, "red", "-k", "2")
    assert (found.returncode, found.stdout, found.stderr) == (
        0,
        b"1.0000\tred.png\n0.0000\tgreen.png\n",
        b"",
    )
    like = vitsearch("similar", photos, "sub/blue.png", "-k", "1", "--json")
    assert rows(like.stdout) == [
        {"path": "green.png", "score": 0.0, "file": str(photos / "green.png")}
    ]
    labels = vitsearch("label", photos, "--labels", "red,blue", "--json")
    assert [(row["path"], row["label"]) for row in rows(labels.stdout)][:2] == [
        ("green.png", "red"),
        ("red.png", "red"),
    ]
    assert list(rows(labels.stdout)[0]) == ["path", "score", "label", "file"]


def test_search_by_a_photo_is_relative_to_the_working_folder(indexed: Path) -> None:
    paint(indexed / "a + b.png", "red")
    index_folder(indexed)
    done = vitsearch("search", indexed, '"./a + b.png"', "-k", "1", "--paths", cwd=indexed)
    assert done.stdout == b"red.png\n"


def test_search_before_index_says_how(photos: Path) -> None:
    done = vitsearch("search", photos, "red")
    assert (done.returncode, done.stdout) == (1, b"")
    assert (
        done.stderr
        == f"vitsearch: no collection in {photos}/.vitsearch: "
        f"run `vitsearch index {photos}` first\n".encode()
    )


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_names_that_are_not_text(photos: Path) -> None:
    paint(photos / ODD, "cyan")
    paint(photos / "two\nlines.png", "purple")
    vitsearch("index", photos, "--encoder", "colour")
    assert rows(vitsearch("search", photos, "cyan", "-k", "1", "--json").stdout) == [
        {"path": ODD, "score": 1.0, "file": str(photos / ODD)}
    ]
    assert b"bad\\udcff byte.png" in vitsearch("search", photos, "cyan", "-k", "1", "--json").stdout
    assert vitsearch("search", photos, "cyan", "-k", "1").stdout == b"1.0000\tbad\xff byte.png\n"
    assert vitsearch("search", photos, "purple", "-k", "1").stdout == b"1.0000\ttwo\\nlines.png\n"
    assert (
        vitsearch("search", photos, "purple", "-k", "2", "--paths", "-0").stdout.split(b"\0")[0]
        == b"two\nlines.png"
    )
    assert vitsearch("search", photos, "cyan", "-k", "1", "--paths").stdout == b"bad\xff byte.png\n"


def test_failures(indexed: Path) -> None:
    none = vitsearch("failures", indexed, "--json")
    assert (none.returncode, none.stdout) == (1, b"")
    (indexed / "bad.jpg").write_bytes(b"")
    (indexed / "gone.jpg").symlink_to(indexed / "nowhere.jpg")
    assert vitsearch("index", indexed).returncode == 0
    listed = rows(vitsearch("failures", indexed, "--json").stdout)
    assert [(row["path"], row["state"]) for row in listed] == [
        ("bad.jpg", "failed"),
        ("gone.jpg", "skipped"),
    ]
    keys = ["path", "file", "state", "reason", "transient"]
    assert [list(row) for row in listed] == [keys] * 2
    sheet = indexed.parent / "failures.html"
    drawn = vitsearch("failures", indexed, "--sheet", sheet)
    assert (drawn.stdout.count(b"\n"), drawn.stderr) == (2, f"vitsearch: wrote {sheet}\n".encode())
    page = html.unescape(sheet.read_text(encoding="utf-8"))
    assert all(row["reason"] in page and row["path"] in page for row in listed)


def test_info(indexed: Path) -> None:
    (facts,) = rows(vitsearch("info", indexed, "--json").stdout)
    chosen = {
        name: facts[name]
        for name in ("photos", "failed", "skipped", "encoder", "dim", "recipe", "format")
    }
    assert chosen == {
        "photos": 4,
        "failed": 0,
        "skipped": 0,
        "encoder": "colour",
        "dim": 27,
        "recipe": "auto",
        "format": 1,
    }
    assert facts["database_bytes"] > 0  # type: ignore[operator]
    assert vitsearch("info", indexed).stdout.startswith(b"photos   ")


def test_info_says_in_words_what_there_is(indexed: Path) -> None:
    lines = vitsearch("info", indexed).stdout.decode().splitlines()
    names = [line.split("  ")[0] for line in lines]
    assert names[:4] == [
        "photos",
        "encoder",
        "fingerprint of the encoder",
        "number format of the encoder",
    ]
    assert not any(" None" in line or line.endswith(" 0") for line in lines)


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ProgressBar(line_every=0) as bar:
        bar(Progress("embedding", 0, 4, 0))
        bar(Progress("embedding", 2, 4, 1))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" photos")[0] for line in lines] == [
        "vitsearch: indexing: 0 of 4",
        "vitsearch: indexing: 2 of 4",
    ]
    assert " a second, 1 failed, under a minute left" in lines[1]
    for quiet in (ProgressBar(quiet=True, line_every=0), ProgressBar()):
        quiet(Progress("embedding", 2, 4, 0))
    assert capsys.readouterr().err == ""


def test_a_collection_made_with_an_encoder_object_says_so(photos: Path) -> None:
    encoder = ColourEncoder()
    encoder.name = "mine"
    index_folder(photos, encoder=encoder)
    done = vitsearch("search", photos, "red")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"was made with an encoder object called 'mine'" in done.stderr


def labelled(*arguments: str | Path) -> list[tuple[str, str]]:
    return [
        (row["path"], row["label"]) for row in rows(vitsearch("label", *arguments, "--json").stdout)
    ]


def test_label_with_levels_thresholds_and_a_background(indexed: Path, tmp_path: Path) -> None:
    names = tmp_path / "labels.txt"
    names.write_text("warm > red\nwarm > sun := yellow\ncold > blue = navy\n")
    right = [
        ("green.png", "warm > sun"),
        ("red.png", "warm > red"),
        ("sub/blue.png", "cold > blue"),
        ("yellow.png", "warm > sun"),
    ]
    assert labelled(indexed, "--labels-file", names)[1:] == right[1:]
    assert labelled(indexed, "--labels-file", names, "--threshold", "0.999999")[-1] == (
        "yellow.png",
        "warm > sun",
    )
    several = labelled(indexed, "--labels", "red,yellow,blue", "--multi")
    assert {("red.png", "red"), ("yellow.png", "yellow"), ("sub/blue.png", "blue")} <= set(several)
    few = vitsearch("label", indexed, "--labels", "red,blue", "--threshold", "0.99")
    assert few.stderr == b"vitsearch: 2 photos reach no label\n"
    assert ("red.png", "red") in labelled(indexed, "--labels", "red", "--background")


def test_label_calibrates_on_the_names_of_folders(tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        for i in range(8):
            paint(tmp_path / "photos" / colour / f"{i}.png", colour, (200 - i, 200, 200))
    assert vitsearch("index", tmp_path / "photos", "--encoder", "colour").returncode == 0
    done = vitsearch("label", tmp_path / "photos", "--labels", "red,blue", "--calibrate", "folders")
    assert done.stderr.startswith(b"vitsearch: calibration error ")
    assert done.stderr.endswith(b" on 16 photos, each judged by the other half)\n")
    assert done.stdout.count(b"\tred\tred/") == 8
    wrong = vitsearch(
        "label", tmp_path / "photos", "--labels", "red,green", "--calibrate", "folders"
    )
    assert wrong.stderr == (
        b"vitsearch: photos are labelled blue, which the classifier does not have: it has red, "
        b"green\n"
    )


def test_labels_to_files_and_into_the_collection(indexed: Path, tmp_path: Path) -> None:
    names = tmp_path / "labels.txt"
    names.write_text("\ufeffred\n\nblue\ngreen\n", encoding="utf-8")
    done = vitsearch(
        "label",
        indexed,
        "--labels-file",
        names,
        "--top",
        "2",
        "--output",
        tmp_path / "out.csv",
        "--store",
    )
    assert (done.returncode, done.stdout) == (0, b"")
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert next((row["path"], row["label"]) for row in written if row["path"] == "red.png") == (
        "red.png",
        "red",
    )
    assert len(written) == 8
    vitsearch(
        "label",
        indexed,
        "--labels",
        "red,blue,green",
        "--template",
        "a {} thing",
        "--output",
        tmp_path / "out.jsonl",
    )
    lines = rows((tmp_path / "out.jsonl").read_bytes())
    assert {row["path"]: row["label"] for row in lines}["sub/blue.png"] == "blue"
    with Collection.open(indexed) as found:
        assert {photo.path: photo.label for photo in found.photos()}["sub/blue.png"] == "blue"


def test_sheets(indexed: Path, tmp_path: Path) -> None:
    for name in ("sheet.png", "sheet.html"):
        done = vitsearch("search", indexed, "red", "--sheet", tmp_path / name)
        assert (done.returncode, done.stderr) == (
            0,
            f"vitsearch: wrote {tmp_path / name}\n".encode(),
        )
    assert Image.open(tmp_path / "sheet.png").size[0] > 500
    assert (tmp_path / "sheet.html").read_text(encoding="utf-8").count("<img") == 4


def test_nothing_found_is_exit_code_1(tmp_path: Path) -> None:
    paint(tmp_path / "only.png", "red")
    index_folder(tmp_path, encoder=ColourEncoder())
    done = vitsearch("similar", tmp_path, "only.png")
    assert (done.returncode, done.stdout) == (1, b"")


def test_verify_names_each_fault(indexed: Path) -> None:
    sound = vitsearch("verify", indexed, "--json")
    assert [(row["check"], row["ok"]) for row in rows(sound.stdout)] == [
        (n, True) for n in ("database", "encoder", "index", "files")
    ]
    assert sound.returncode == 0
    (indexed / "red.png").unlink()
    os.utime(indexed / "green.png", (1, 1))
    index = indexed / ".vitsearch" / "index" / "vectors.f16"
    index.write_bytes(index.read_bytes()[:-2])
    done = vitsearch("verify", indexed, "--json")
    assert [row["ok"] for row in rows(done.stdout)] == [True, True, False, False]
    assert (
        rows(done.stdout)[3]["detail"]
        == "1 gone (red.png) and 1 changed (green.png): run `vitsearch index`"
    )
    assert done.returncode == 1
    assert vitsearch("index", indexed).returncode == 0
    assert vitsearch("verify", indexed).returncode == 0


def test_verify_of_another_encoder(indexed: Path) -> None:
    file = indexed / ".vitsearch" / "collection.json"
    file.write_text(file.read_text().replace(ColourEncoder.fingerprint, "0" * 32))
    done = vitsearch("verify", indexed, "--json")
    assert done.returncode == 1
    assert [row["check"] for row in rows(done.stdout) if not row["ok"]] == [
        "encoder",
        "index",
    ] or b"was made with" in done.stdout


@pytest.mark.slow
def test_a_reader_that_has_enough(indexed: Path) -> None:
    command = (
        f"'{sys.executable}' -m vitsearch search '{indexed}' red | true; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment())
    assert (done.stdout, done.stderr) == (b"0\n", b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "PHOTOS", "red", "-k", "0"],
        ["search", "PHOTOS"],
        ["search", "PHOTOS", "red", "-0"],
        ["label", "PHOTOS"],
        ["label", "PHOTOS", "--labels", "a,b", "--labels-file", "x"],
        ["label", "PHOTOS", "--labels", "a,b", "--classifier", "x"],
        ["label", "PHOTOS", "--classifier", "x", "--background"],
        ["index", "PHOTOS", "--batch-size", "0"],
        ["nonsense"],
        ["index", "PHOTOS", "--no-such-flag"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(indexed: Path, arguments: list[str]) -> None:
    done = vitsearch(*[str(indexed) if word == "PHOTOS" else word for word in arguments])
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(rb"vitsearch: .+ \(see `vitsearch[ a-z]* --help`\)\n", done.stderr)


def test_a_model_is_recommended_for_a_folder(photos: Path, tmp_path: Path) -> None:
    number = sum(1 for file in photos.rglob("*") if file.suffix in (".png", ".jpg"))
    counted, named = (
        vitsearch("models", "--recommend", "--photos", each) for each in (photos, str(number))
    )
    assert (counted.returncode, counted.stdout) == (0, named.stdout)
    assert f"hours for {number} photos" in counted.stdout.decode()
    (tmp_path / "empty").mkdir()
    for none in (tmp_path / "empty", "0"):
        done = vitsearch("models", "--recommend", "--photos", none)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"is not a number of photos, nor a folder with some" in done.stderr
    done = vitsearch("models", "--recommend", "--photos", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no such folder" in done.stderr


def test_the_closest_command_is_named() -> None:
    for name, expected in (("serch", "search"), ("modles", "models")):
        done = vitsearch(name, "photos")
        assert (done.returncode, done.stdout) == (2, b"")
        assert f"No such command '{name}'. Did you mean '{expected}'?" in done.stderr.decode()
    assert b"No such command 'xyzzy'." in vitsearch("xyzzy").stderr


def test_help_version_models_doctor() -> None:
    for command in (
        "index",
        "search",
        "similar",
        "dupes",
        "explain",
        "label",
        "train",
        "classify",
        "info",
        "failures",
        "verify",
        "models",
        "doctor",
        "demo",
    ):
        done = vitsearch(command, "--help")
        assert (done.returncode, done.stdout[:17]) == (
            0,
            f"Usage: vitsearch {command}"[:17].encode(),
        )
    assert re.fullmatch(rb"vitsearch, version \d+\.\d+\.\d+\n", vitsearch("--version").stdout)
    listed = rows(vitsearch("models", "*SigLIP2*", "--json").stdout)
    assert {row["name"] for row in listed} >= {"open_clip:ViT-B-16-SigLIP2/webli"}
    assert vitsearch("models", "no such model").returncode == 1
    assert {row["name"] for row in rows(vitsearch("doctor", "--json").stdout)} >= {
        "vitsearch",
        "python",
        "numpy",
    }


@pytest.mark.slow
def test_a_search_with_mini_never_imports_torch(photos: Path) -> None:
    pytest.importorskip("vitsearch.encoders.mini")
    code = (
        "import sys\nfrom vitsearch.cli import run\n"
        f"assert run(['index', {str(photos)!r}]) == 0 and run(['search', {str(photos)!r}, 'a red "
        "square', '--min-relevance', '0']) == 0\n"
        "sys.exit(str([name for name in ('torch', 'transformers', 'open_clip') if name in "
        "sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment())
    assert done.stderr.decode().strip().endswith("[]")


@pytest.mark.slow
def test_train_and_label_with_what_was_trained(tmp_path: Path) -> None:
    folder, model = tmp_path / "photos", tmp_path / "model"
    for colour in ("red", "blue"):
        for i in range(6):
            paint(folder / colour / f"{i}.png", colour, (120 + 20 * i, 200, 90))
    paint(folder / "new.png", "red", (150, 190, 90))
    assert vitsearch("index", folder, "--encoder", "colour").returncode == 0
    for method in ("probe", "prototype", "tip"):
        done = vitsearch(
            "train", folder, "--labels-from", "folders", "--method", method, "-o", model, "--json"
        )
        (report,) = rows(done.stdout)
        assert (done.returncode, done.stderr) == (0, b"")
        assert (report["classes"], report["photos"], report["accuracy"]) == (2, 12, 1.0)
        assert labelled(folder, "--classifier", model)[-1] == ("red/5.png", "red")
        assert ("new.png", "red") in labelled(folder, "--classifier", model)
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\nred/0.png,warm\nblue/0.png,cold\n")
    done = vitsearch("train", folder, "--labels-from", labels, "--method", "prototype", "-o", model)
    assert (
        done.stdout
        == "2 classes from 2 photos, not judged, since a class has too few examples; "
        f"wrote {model}\n".encode()
    )
    assert labelled(folder, "--classifier", model)[-1] == ("red/5.png", "warm")
    for arguments, words in (
        (
            ["--labels-from", labels, "-o", model],
            b"the class 'cold' has one example: a probe needs two of each",
        ),
        (
            [
                "--labels-from",
                labels,
                "--method",
                "tip",
                "--labels-file",
                names_file(tmp_path),
                "-o",
                model,
            ],
            b"there is no example of big",
        ),
        (
            ["--labels-from", "folders", "--template", "{}", "-o", model],
            b"--labels-file and --template go with --method tip",
        ),
    ):
        wrong = vitsearch("train", folder, *arguments)
        assert wrong.returncode in (1, 2)
        assert words in wrong.stderr


def names_file(folder: Path) -> Path:
    file = folder / "names.txt"
    file.write_text("warm\ncold\nbig\n")
    return file


def test_a_classifier_of_another_encoder_is_refused(indexed: Path, tmp_path: Path) -> None:
    LinearClassifier(
        ("a", "b"), np.eye(2, dtype=np.float32), np.zeros(2, dtype=np.float32), fingerprint="other"
    ).save(tmp_path / "model")
    done = vitsearch("label", indexed, "--classifier", tmp_path / "model")
    assert (done.returncode, done.stdout) == (1, b"")
    assert (
        b"the classifier was made for the vectors of another encoder than colour: train it again "
        b"here"
    ) in done.stderr
    none = vitsearch("label", indexed, "--classifier", tmp_path)
    assert f"vitsearch: there is no classifier in {tmp_path}".encode() in none.stderr


@pytest.mark.slow
def test_classify_names_what_mini_was_trained_on(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    done = vitsearch("classify", photos, "--json", "--top", "2")
    assert done.returncode == 0
    assert done.stderr.splitlines()[0].startswith(b"vitsearch: broken.png: not a photo")
    assert done.stderr.splitlines()[1:] == [b"vitsearch: 1 of 5 photos could not be read"]
    assert [row["path"] for row in rows(done.stdout)][::2] == [
        "green.png",
        "red.png",
        "sub/blue.png",
        "yellow.png",
    ]
    wanted = load_classifier("mini")(photos / "red.png", 2)[0]
    assert [row["label"] for row in rows(done.stdout) if row["path"] == "red.png"] == [
        one.label for one in wanted
    ]
    vitsearch("classify", photos, "--output", tmp_path / "out.csv")
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [
            "green.png",
            "red.png",
            "sub/blue.png",
            "yellow.png",
        ]
    for arguments, words in (
        ([tmp_path / "empty"], b"vitsearch: "),
        ([photos, "--model", "resnet"], b"there is no classifier 'resnet'"),
        ([photos, "--output", "out.txt"], b"cannot write out.txt: name it .csv or .jsonl"),
        ([photos, "--output", tmp_path / "no" / "out.csv"], b"there is no folder"),
    ):
        wrong = vitsearch("classify", *arguments)
        assert (wrong.returncode, wrong.stdout) == (1, b"")
        assert words in wrong.stderr
        assert wrong.stderr.count(b"\n") == 1


def test_ctrl_c_while_the_command_line_is_imported_prints_nothing(tmp_path: Path) -> None:
    """The signal comes when click is looked for, long before a command runs."""
    code = (
        "import os, signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from vitsearch.__main__ import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "search", tmp_path, "red"],
        capture_output=True,
        env=environment(),
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "nice"), reason="this system has no niceness")
@pytest.mark.parametrize(("command", "least"), [("index", 10), ("search", 0)])
def test_index_gives_way_to_other_programs(command: str, least: int) -> None:
    code = (
        "import os\n"
        "from vitsearch.cli import main\n"
        "before = os.nice(0)\n"
        "try: main()\n"
        "except SystemExit: print(before, os.nice(0))\n"
    )
    arguments = [sys.executable, "-c", code, command, "/no/such/folder", "red"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment())
    before, after = (int(number) for number in done.stdout.split())
    assert after == max(before, least)


def test_ctrl_c_while_indexing_is_prepared_ends_in_order() -> None:
    code = """
import sys
import vitsearch.collection.runs as runs
from vitsearch.__main__ import main
def stop():
    raise KeyboardInterrupt
runs.yield_processor, sys.argv = stop, ["vitsearch", "index", "photos"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True)
    assert (ended.returncode, ended.stderr) == (130, b"vitsearch: stopped\n")
