"""The README is short, begins with set-up, and what it says can be pasted in order."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click import Context

from helpers.pages import blocks, environment, run_shell, serve
from helpers.paths import ROOT
from vitsearch.cli import cli
from vitsearch.cli.demo import SEARCHES, copy_samples
from vitsearch.photos.formats import SUFFIXES

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_it_is_short_and_begins_with_set_up() -> None:
    """Under the picture stand the two commands that a fresh machine needs; they are not run here,
    since one of them runs these tests.
    """
    assert len(TEXT.encode()) <= 7000
    start = TEXT.split("\n## ")[0]
    (block,) = blocks(README, "sh")
    assert block in start
    assert [line.split("#")[0].strip() for line in block.splitlines()] == ["make demo", "make test"]
    assert start.index("![") < start.index(block)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {"demo", "test"} <= set(targets)


def test_what_it_counts() -> None:
    assert re.findall(r"All (\d+) commands", TEXT) == [str(len(cli.list_commands(Context(cli))))]
    assert re.findall(r"(\d+) suffixes in all", TEXT) == [str(len(SUFFIXES))]


@pytest.mark.slow
def test_its_blocks_run_in_order(tmp_path: Path) -> None:
    """In a folder as `make demo` leaves it: an environment, and the sample photos."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    copy_samples(tmp_path / "demo" / "photos")
    (block,) = blocks(README, "bash")
    *commands, last = block.splitlines()
    done = run_shell("\n".join(commands), tmp_path)
    assert done.returncode == 0, done.stderr
    assert last.startswith("vitsearch serve ")
    serve(last.replace('"$PHOTOS"', "demo/photos"), tmp_path)
    first = next(line for line in done.stdout.splitlines() if "\t" in line)
    assert first.split("\t")[1] == "coffee.png"
    assert "a cup of coffee" in SEARCHES
    assert (tmp_path / "coffee.html").is_file()
    labels = (tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert "chelsea.png,cat" in {line.rpartition(",")[0] for line in labels}

    (script,) = blocks(README, "python")
    python = [sys.executable, "-c", script]
    ran = subprocess.run(python, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert ran.stderr == ""
    hits = [line.split()[1] for line in ran.stdout.splitlines()]
    assert hits[0] == "coffee.png"
    assert len(hits) <= 5
