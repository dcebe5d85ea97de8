"""Bad input end to end: one line that says what and what next, no traceback, and the stored vectors
as they were.
"""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.cli import environment, full_disk, one_line, vitsearch
from helpers.collections import content, found_paths
from helpers.photos import paint, shade
from vitsearch import index_folder
from vitsearch.cli import run
from vitsearch.encoders.colour import ColourEncoder


def test_folders_that_cannot_be_indexed(tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_bytes(b"x")
    assert "no such folder" in one_line(capfd, "index", tmp_path / "missing", "--encoder", "colour")
    assert "no photos found" in one_line(capfd, "index", tmp_path / "empty", "--encoder", "colour")
    assert "is a file" in one_line(capfd, "index", tmp_path / "file.png", "--encoder", "colour")
    assert "no such folder" in one_line(capfd, "index", "a" * 5000)
    assert "no home folder" in one_line(capfd, "index", "~nobody-of-this-name")
    assert "is empty" in one_line(capfd, "index", "")
    assert "is empty" in one_line(capfd, "index", tmp_path, "--collection", "")
    assert os.listdir(tmp_path / "empty") == []


def test_a_folder_without_a_readable_photo_keeps_the_reasons(tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"words")
    assert "`vitsearch failures" in one_line(capfd, "index", tmp_path, "--encoder", "colour")
    assert run(["failures", str(tmp_path), "--json"]) == 0
    assert [json.loads(line)["path"] for line in capfd.readouterr().out.splitlines()] == ["bad.jpg"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--encoder", "nonsense"), ("--recipe", "nonsense"), ("--recipe", "./no.toml")],
)
def test_unknown_names_leave_nothing_behind(
    photos: Path, capfd: Any, option: str, value: str
) -> None:
    line = one_line(
        capfd,
        "index",
        photos,
        *(() if option == "--encoder" else ("--encoder", "colour")),
        option,
        value,
    )
    assert value in line.replace("no.toml", "./no.toml")
    assert not (photos / ".vitsearch").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["search", "red", "-k", "0"], 2),
        (["search", "red", "-k", "many"], 2),
        (["search", "red", "-0"], 2),
        (["search", ""], 2),
        (["search", "0:red"], 1),
        (["search", "red - red"], 1),
        (["search", "./no such photo.png"], 1),
        (["search", "./no\0name.png"], 1),
        (["similar", "no such photo.png"], 1),
        (["similar", "no\0name.png"], 1),
        (["label"], 2),
        (["label", "--labels", ""], 1),
        (["label", "--labels", "red,red"], 1),
        (["label", "--labels-file", "/no/such/file"], 1),
        (["label", "--labels", "red", "--template", "no place"], 1),
        (["label", "--labels", "red", "--output", "x.txt"], 1),
        (["index", "--encoder", "mini"], 1),
        (["index", "--encoder", "nonsense"], 1),
        (["index", "--recipe", "nonsense"], 1),
    ],
)
def test_wrong_words(indexed: Path, capfd: Any, arguments: list[str], code: int) -> None:
    before = content(indexed)
    one_line(capfd, arguments[0], indexed, *arguments[1:], code=code)
    assert content(indexed) == before


def test_search_before_index_says_how_to_index(photos: Path, capfd: Any) -> None:
    assert f"vitsearch index {photos}" in one_line(capfd, "search", photos, "red")
    assert not (photos / ".vitsearch").exists()


def test_an_emptied_folder_keeps_its_vectors(indexed: Path, capfd: Any) -> None:
    before = content(indexed)
    for file in indexed.rglob("*.png"):
        file.unlink()
    assert "nothing was removed" in one_line(capfd, "index", indexed)
    assert content(indexed) == before


SETTINGS = (
    "encoder",
    "encoder_fingerprint",
    "dtype",
    "dim",
    "recipe",
    "created_at",
    "root",
    "format",
)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("value", [None, 5.5, True, [], {}, -1])
def test_damaged_settings(indexed: Path, capfd: Any, name: str, value: object) -> None:
    file = indexed / ".vitsearch" / "collection.json"
    good = file.read_bytes()
    if name == "recipe" and value == {}:
        pytest.skip("the type is right")
    file.write_text(json.dumps({**json.loads(good), name: value}))
    for command in (
        ["search", indexed, "red"],
        ["index", indexed],
        ["info", indexed],
        ["verify", indexed],
    ):
        assert "collection.json" in one_line(capfd, *command)
    file.write_bytes(good)
    assert len(content(indexed)) == 4


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b"null", b"{}", b"[" * 100_000, b'{"format": 1}', b'{"format": 2}']
)
def test_settings_that_are_none_or_newer(indexed: Path, capfd: Any, text: bytes) -> None:
    (indexed / ".vitsearch" / "collection.json").write_bytes(text)
    for command in (["search", indexed, "red"], ["index", indexed], ["info", indexed]):
        assert ("newer" if b"2" in text else "damaged") in one_line(capfd, *command)


def test_a_newer_database(indexed: Path, capfd: Any) -> None:
    with sqlite3.connect(indexed / ".vitsearch" / "photos.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for command in (["search", indexed, "red"], ["index", indexed]):
        assert "newer" in one_line(capfd, *command)


def damaged(data: bytes, seed: int) -> bytes:
    rng, wrong = random.Random(seed), bytearray(data)
    if seed % 4 == 0:
        page = rng.randrange(len(wrong) // 4096) * 4096
        wrong[page : page + 4096] = rng.randbytes(4096)
    elif seed % 4 == 1:
        del wrong[rng.randrange(len(wrong)) :]
    elif seed % 4 == 2:
        wrong[:16] = b"garbage garbage!"
    else:
        start = rng.randrange(len(wrong) - 300)
        wrong[start : start + 300] = rng.randbytes(300)
    return bytes(wrong)


@pytest.mark.parametrize("seed", range(24))
def test_a_damaged_database_never_ends_in_a_traceback(
    tmp_path: Path, capfd: Any, seed: int
) -> None:
    folder = tmp_path / "photos"
    for number in range(60):
        paint(folder / f"{number}.png", shade(number), size=(4, 4))
    index_folder(folder, encoder=ColourEncoder())
    database, good = (
        folder / ".vitsearch" / "photos.db",
        (folder / ".vitsearch" / "photos.db").read_bytes(),
    )
    for command in (
        ["search", folder, "red"],
        ["label", folder, "--labels", "red,blue"],
        ["verify", folder],
        ["info", folder],
        ["index", folder],
    ):
        for rest in folder.glob(".vitsearch/photos.db*"):
            rest.unlink()
        database.write_bytes(damaged(good, seed))
        ended = run([str(word) for word in command])
        err = capfd.readouterr().err
        assert ended in (0, 1)
        assert [line for line in err.splitlines() if not line.startswith("vitsearch: ")] == []


def test_a_lost_database_is_made_again_and_the_old_index_not_believed(
    indexed: Path, capfd: Any
) -> None:
    (indexed / ".vitsearch" / "photos.db").unlink()
    assert "is missing" in one_line(capfd, "search", indexed, "red")
    assert not (indexed / ".vitsearch" / "photos.db").exists()
    for file in indexed.rglob("*.png"):
        file.unlink()
    for number, colour in enumerate(("pink", "teal", "brown", "white", "black")):
        paint(indexed / f"{number}.png", colour)
    assert run(["index", str(indexed)]) == 0
    assert [found_paths(indexed, colour, 1) for colour in ("pink", "teal", "white")] == [
        ["0.png"],
        ["1.png"],
        ["3.png"],
    ]
    capfd.readouterr()
    assert run(["verify", str(indexed)]) == 0, capfd.readouterr().out


def test_places_that_cannot_be_written(photos: Path, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for place in ("/proc/vitsearch", tmp_path / "file", tmp_path / "file" / "below"):
        one_line(capfd, "index", photos, "--encoder", "colour", "--collection", place)
    assert (tmp_path / "file").read_bytes() == b"x"


@pytest.fixture(scope="module")
def hundred_of_300(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 300 photos, of which 100 are indexed."""
    folder = tmp_path_factory.mktemp("300")
    for number in range(300):
        paint(folder / f"{number}.png", shade(number), size=(4, 4))
        if number == 99:
            index_folder(folder, encoder=ColourEncoder())
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("limit", [0, 100, 5_000, 40_000, 80_000])
def test_a_full_disk_loses_nothing(hundred_of_300: Path, tmp_path: Path, limit: int) -> None:
    folder = shutil.copytree(hundred_of_300, tmp_path / "photos")
    before = content(folder)
    shutil.copy(folder / "5.png", folder / "copy.png")
    with full_disk(limit):
        ended = vitsearch("index", folder)
    assert (ended.returncode, ended.stdout, ended.stderr.count(b"\n"), ended.stderr[:11]) == (
        1,
        b"",
        1,
        b"vitsearch: ",
    ), ended.stderr
    after = content(folder)
    assert {path: after.get(path) for path in before} == before
    assert sorted(found_paths(folder, "red", 1000)) == sorted(after)
    assert run(["index", str(folder)]) == 0
    assert len(content(folder)) == 301


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    "arguments", [["search", "red"], ["search", "red", "--json"], ["info"], ["index"]]
)
def test_output_to_a_full_disk(indexed: Path, arguments: list[str]) -> None:
    command = [
        sys.executable,
        "-c",
        "from vitsearch.cli import main; main()",
        arguments[0],
        str(indexed),
        *arguments[1:],
    ]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            command, env=environment(), stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert (ended.returncode, ended.stderr.count(b"\n"), ended.stderr[:11]) == (
        1,
        1,
        b"vitsearch: ",
    ), ended.stderr
