"""Every command and every block of Python in the docs runs, and the docs name every command."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click import Context, Option

from helpers.pages import PAGES, blocks, drawn_folder, environment, fences, run_shell, serve
from helpers.paths import ROOT
from vitsearch.cli import cli

NEEDS_A_DOWNLOAD = ("--model hf:", "--encoder open_clip:", "--encoder hf:", "--encoder local-dir:")
SCALE, ENGINES = ROOT / "docs" / "scale.md", pytest.mark.engines  # its commands start Ray
README = ROOT / "README.md"  # its blocks run as they stand there, in order: test_readme.py


def commands_of(page: Path) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines()]


def sessions_of(page: Path) -> list[str]:
    """The commands of blocks that show what they print, which other photos do not give."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


WITH_COMMANDS = [page for page in PAGES if page != README and commands_of(page)]
WITH_PYTHON = [page for page in PAGES if page != README and blocks(page, "python")]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_folder(tmp_path_factory.mktemp("docs") / "drawn")


@pytest.fixture
def place(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the drawn folder to work in."""
    return shutil.copytree(drawn, tmp_path / "place", symlinks=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=ENGINES if page == SCALE else ()) for page in WITH_COMMANDS],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_command_runs(page: Path, place: Path, programs: Path) -> None:
    for command in commands_of(page):
        if command.startswith("vitsearch serve"):
            serve(command, place, programs)
            continue
        done = run_shell(command, place, programs)
        if any(part in command for part in NEEDS_A_DOWNLOAD) and "local-dir:my" not in command:
            # what a machine without the model says: one line
            assert done.returncode == 1, (command, done.stderr)
            assert re.fullmatch(r"vitsearch: .+\n", done.stderr), (command, done.stderr)
        elif "--multi" in command:  # no drawn picture shows a dog, a car or a beach
            assert (done.returncode, done.stdout) == (1, ""), (command, done.stderr)
            assert done.stderr == "vitsearch: 5 photos reach no label\n"
        elif done.returncode == 1 and "vitsearch search" in command:  # nor what is sought
            assert "vitsearch: nothing here fits: the nearest are " in done.stderr, command
        else:
            assert done.returncode == 0, (command, done.stderr)
    for command in sessions_of(page):
        done = run_shell(command, place, programs)
        assert done.returncode in (0, 1), (command, done.stderr)  # 1: nothing found
        understood = re.search("vitsearch: (understood|nothing here fits)", done.stderr)
        assert understood or done.stdout, command  # of four pictures little can be told


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_runs(page: Path, place: Path, programs: Path) -> None:
    script = "\n".join(blocks(page, "python"))
    shutil.copytree(place / "photos" / ".vitsearch" / "index", place / "index", dirs_exist_ok=True)
    python = [programs / "python", "-c", script]
    done = subprocess.run(python, cwd=place, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_block_of_commands_is_left_out() -> None:
    """What is not marked as commands has none, but for the two that begin the README."""
    for page in PAGES:
        for marked, text in fences(page):
            if marked not in ("bash", "console") and (page, marked) != (README, "sh"):
                assert re.findall(r"^(?:\$ )?(?:vitsearch|make|pip) .*", text, re.M) == [], page


def test_every_command_is_in_the_table() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    context = Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    named = set(re.findall(r"^\| `vitsearch ([\w-]+)", text, re.MULTILINE))
    assert named == set(commands)
    assert [name for name, command in commands.items() if not command.help] == []
    options = [
        (name, option)
        for name, command in commands.items()
        for option in command.params
        if isinstance(option, Option)
    ]
    assert [(name, option.name) for name, option in options if not option.help] == []


def test_the_page_of_the_api_is_that_of_the_docstrings() -> None:
    written = ROOT / "docs" / "python.md"
    made = subprocess.run(
        [sys.executable, ROOT / ".ci" / "python_api.py", "-"],
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout == written.read_text(encoding="utf-8"), "run `make docs`"
