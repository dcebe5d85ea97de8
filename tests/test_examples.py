"""Each example runs and prints what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

import vitsearch

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, str(EXAMPLES / script), *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    run("draw_sample_photos.py", str(folder))
    vitsearch.index_folder(folder, encoder="colour")
    return folder


def test_quickstart(drawn: Path) -> None:
    lines = run("quickstart.py", str(drawn), "red")
    names = sorted(photo.path for photo in vitsearch.Collection.open(drawn).photos())
    assert lines[0] == f"{len(names)} photos are searchable"
    assert [line.split("  ")[1] for line in lines[1:]] == [hit.path for hit in vitsearch.Collection.open(drawn).search("red", 5)]


def test_zero_shot_label(drawn: Path) -> None:
    lines = run("zero_shot_label.py", str(drawn), "red", "green", "blue")
    expected = vitsearch.Collection.open(drawn).label(["red", "green", "blue"], templates="simple")
    assert [line.split()[1:] for line in lines[:-1]] == [[one.label, one.path] for one in expected]


def test_every_example_is_run_here() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    assert [script.name for script in EXAMPLES.glob("*.py") if f'"{script.name}"' not in tested] == []
