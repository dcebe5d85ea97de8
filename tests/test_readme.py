"""The README is true: its commands and its Python run, its links lead somewhere, and it names every
command and option group.
"""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click import Context, Option
from PIL import Image, ImageDraw

from helpers.paths import ROOT

pytestmark = pytest.mark.slow

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
NEEDS_A_DOWNLOAD = ("--model hf:", "--encoder open_clip:", "--encoder hf:", "--encoder local-dir:")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with photos/ in it: a few drawn pictures, one of them named dog.jpg."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for number, (name, colour) in enumerate(
        {"dog.jpg": "brown", "car.png": "red", "beach.jpg": "khaki", "sea.webp": "navy"}.items()
    ):
        image = Image.new("RGB", (160, 120), "white")
        ImageDraw.Draw(image).ellipse((10 + 10 * number, 20, 90 + 10 * number, 100), fill=colour)
        image.save(folder / "photos" / name)
    (folder / "corrected.csv").write_text(
        "path,label\ndog.jpg,animal\ncar.png,thing\n", encoding="utf-8"
    )
    (folder / "truth.csv").write_text(
        "path,label\ndog.jpg,dog\ncar.png,car\nbeach.jpg,shore\nsea.webp,shore\n", encoding="utf-8"
    )
    for name, photo in (("whippet", "dog.jpg"), ("sports car", "car.png")):
        (folder / "dataset" / name).mkdir(parents=True)
        shutil.copy(folder / "photos" / photo, folder / "dataset" / name)
    return folder


def environment() -> dict[str, str]:
    """The process's own, with this Python's commands first and no way to a model hub."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
    }


def serve(command: str, place: Path) -> None:
    """Start a server as the README says, ask it whether it is well, and stop it."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=place,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        address = re.search(r"http://[\d.:]+/", process.stderr.readline())
        try:
            assert address is not None
            with urllib.request.urlopen(f"{address[0]}healthz", timeout=20) as answer:
                assert answer.status == 200
        finally:
            process.terminate()
        assert process.wait(timeout=20) == 0


def test_every_command_runs(place: Path) -> None:
    assert len(COMMANDS) >= 12
    for command in COMMANDS:
        if command.startswith("vitsearch serve"):
            serve(command, place)
            continue
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"],
            cwd=place,
            env=environment(),
            capture_output=True,
            text=True,
        )
        if any(
            part in command for part in NEEDS_A_DOWNLOAD
        ):  # what a machine without the model says: one line
            assert done.returncode == 1, (command, done.stderr)
            assert re.fullmatch(r"vitsearch: .+\n", done.stderr), (command, done.stderr)
        elif "--multi" in command:  # no drawn picture shows a dog, a car or a beach
            assert (done.returncode, done.stdout) == (1, ""), (command, done.stderr)
            assert done.stderr == "vitsearch: 4 photos reach no label\n"
        else:
            assert done.returncode == 0, (command, done.stderr)
    labels = (place / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert labels[0] == "path,label,score"
    assert [line.split(",")[0] for line in labels[1:]] == [
        "beach.jpg",
        "car.png",
        "dog.jpg",
        "sea.webp",
    ]
    assert (place / "sunset.html").read_text(encoding="utf-8").count("<img") == 4


def test_the_python_runs(place: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=place, env=environment(), capture_output=True, text=True
    )
    assert done.stderr == ""
    assert sorted(line.split()[1] for line in done.stdout.splitlines()) == [
        "beach.jpg",
        "car.png",
        "dog.jpg",
        "sea.webp",
    ]


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_it_begins_with_set_up() -> None:
    """Under the picture stand the two commands that a fresh machine needs; they are not run here,
    since one of them runs these tests.
    """
    start = TEXT.split("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", start, re.DOTALL)
    assert [line.split("#")[0].strip() for line in block.splitlines()] == ["make demo", "make test"]
    assert start.index("![") < start.index(block)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {"demo", "test"} <= set(targets)


def test_every_command_is_in_the_table() -> None:
    from vitsearch.cli.main import cli

    context = Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    named = set(re.findall(r"^\| `vitsearch ([\w-]+)", TEXT, re.MULTILINE))
    assert named == set(commands)
    assert [name for name, command in commands.items() if not command.help] == []
    options = [
        (name, option)
        for name, command in commands.items()
        for option in command.params
        if isinstance(option, Option)
    ]
    assert [(name, option.name) for name, option in options if not option.help] == []
