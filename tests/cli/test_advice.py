"""What messages advise works when it is pasted into a shell, and mistakes that newcomers make."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.cli import vitsearch
from helpers.photos import paint
from vitsearch.cli import SECTIONS, entries
from vitsearch.cli.output import print_note, print_table, progress_line
from vitsearch.types import Progress

ADVISED = re.compile(r"`vitsearch ([^`]+)`")


def advised(stderr: bytes) -> list[list[str]]:
    """Return the arguments of each command that stands in a message."""
    return [shlex.split(command) for command in ADVISED.findall(stderr.decode())]


@pytest.mark.skipif(sys.platform == "win32", reason="quotes of a POSIX shell")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["beside", "elsewhere"])
def test_advice_names_a_folder_with_spaces_and_its_collection(
    tmp_path: Path, elsewhere: bool
) -> None:
    folder = tmp_path / "Ferien & mehr 🎉"
    folder.mkdir()
    paint(folder / "red.png", "red")
    (folder / "broken.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no photo")
    more = ["--collection", str(tmp_path / "the collection")] if elsewhere else []
    done = vitsearch("index", folder, *more, "--encoder", "colour")
    failures = ["failures", str(folder), *more]
    assert advised(done.stderr) == [failures, [*failures, "--left-out"]]
    assert vitsearch(*advised(done.stderr)[0]).stdout.startswith(b"failed\tbroken.jpg\t")
    (tmp_path / "no collection here").mkdir()
    missing = vitsearch("info", tmp_path / "no collection here")
    assert advised(missing.stderr) == [["index", str(tmp_path / "no collection here")]]
    missing = vitsearch("info", tmp_path, "--collection", tmp_path / "no such")
    assert advised(missing.stderr) == [
        ["index", str(tmp_path), "--collection", str(tmp_path / "no such")]
    ]


def test_arguments_in_the_wrong_order_are_told_with_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    for command, query in (("search", "a dog"), ("similar", "dog.jpg")):
        done = vitsearch(command, query, "my photos", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.decode() == (
            f"vitsearch: no such folder: {query}: the folder of photos comes first: "
            f"`vitsearch {command} 'my photos' {shlex.quote(query)}`\n"
        )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="shells there cannot close it")
def test_a_closed_standard_output_is_no_fault(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "red.png", "red")
    assert vitsearch("index", tmp_path / "photos", "--encoder", "colour").returncode == 0
    command = f"{shlex.quote(sys.executable)} -m vitsearch search photos red"
    for closed, code in ((">&-", 0), ("2>&-", 0), ("<&-", 0), (">&- 2>&- <&-", 0)):
        done = subprocess.run(
            ["sh", "-c", f"{command} {closed}"], cwd=tmp_path, capture_output=True, env=os.environ
        )
        assert (done.returncode, done.stderr) == (code, b"")


def test_every_command_stands_in_the_help_with_its_full_sentence() -> None:
    text = " ".join(vitsearch("--help").stdout.decode().split())
    for entry in entries().values():
        assert entry.help in text


def test_the_help_has_every_command_once_in_its_section() -> None:
    lines = vitsearch("--help").stdout.decode().splitlines()
    named = [line.split()[0] for line in lines if re.match(r"  [a-z]", line)]
    assert sorted(name for name in named if name in entries()) == [*entries()]
    sections = [line[:-1] for line in lines if re.match(r"[A-Z].*:$", line)]
    assert sections == ["Options", *SECTIONS, "Models, and this program"]


@pytest.mark.parametrize(
    ("mark", "command"),
    [
        ("pyvenv.cfg", "pip install"),
        ("pipx_metadata.json", "pipx runpip 'my tools' install"),
        ("uv-receipt.toml", "uv pip install --python '{prefix}'"),
    ],
)
def test_what_is_missing_is_installed_where_the_command_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    mark: str,
    command: str,
) -> None:
    prefix = tmp_path / "my tools"
    prefix.mkdir()
    (prefix / mark).touch()
    monkeypatch.setattr(sys, "prefix", str(prefix))
    print_note("vitsearch: this needs FAISS: pip install 'vitsearch[faiss]'")
    command = command.format(prefix=prefix)
    assert capsysbinary.readouterr().err.decode() == (
        f"vitsearch: this needs FAISS: {command} 'vitsearch[faiss]'\n"
    )


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        ("20", ["a name   licence  7", "another  -        10"]),
        ("19", ["a name", "    licence  7", "another", "    -        10"]),
    ],
)
def test_a_table_fits_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    columns: str,
    lines: list[str],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", columns)
    print_table([["a name", "licence", 7], ["another", "-", 10]])
    assert capsysbinary.readouterr().out.decode().splitlines() == lines


@pytest.mark.slow
def test_words_in_quotes_without_results_lead_to_the_text_in_photos(tmp_path: Path) -> None:
    paint(tmp_path / "my photos" / "red.png", "red")
    assert vitsearch("index", "my photos", cwd=tmp_path).returncode == 0
    done = vitsearch("search", "my photos", '"zxcv qwrt"', cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "vitsearch: nothing here fits: the nearest are red.png (--min-relevance 0 lists them)",
        "vitsearch: words in quotes are looked for as text in photos too, which was not read: "
        "`vitsearch index 'my photos' --ocr` reads it",
    ]
    assert vitsearch("search", "my photos", "zxcv qwrt", cwd=tmp_path).stderr.count(b"\n") == 1


def test_the_time_left_has_hours_only_where_there_are_some() -> None:
    lines = [progress_line(Progress("", 1, total), 1) for total in (31, 91, 7321)]
    assert [line.rpartition(", ")[2] for line in lines] == [
        "under a minute left",
        "about 2 min left",
        "about 2 h 2 min left",
    ]
