"""The papers are true: the modules, names, rooms, commits and links that they name are there."""

import ast
import importlib
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from click import Group

import vitsearch
from helpers.paths import ROOT, TESTS
from vitsearch.cli import cli

ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAPERS = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "indexes" / "README.md"])
FILE = re.compile(r"`((?:vitsearch|tests|docs|indexes|benchmarks|examples)/[\w./-]*)`")
NAME = re.compile(r"`(vitsearch(?:\.\w+)+)(?:\(.*?\))?`")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
NOT_MODULES = {"vitsearch.json"}  # a file that is spelled like a module


@cache
def text_of(paper: Path) -> str:
    return paper.read_text(encoding="utf-8")


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            target = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(target, part):
                return False
            target = getattr(target, part)
        return True
    return False


def anchors(paper: Path) -> set[str]:
    """The anchors of a paper's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(paper), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_papers_are_there() -> None:
    names = {str(paper.relative_to(ROOT)) for paper in PAPERS}
    assert names >= {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"}
    assert names >= {"docs/architecture.md", "docs/scale.md"}


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_files_that_are_named_exist(paper: Path) -> None:
    named = set(FILE.findall(text_of(paper)))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_links_lead_somewhere(paper: Path) -> None:
    lost = []
    for target, anchor in LINK.findall(text_of(paper)):
        file = (paper.parent / target).resolve() if target else paper
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(f"{target}#{anchor}")
    assert lost == []


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md", "README.md"])
def test_names_that_are_written_exist(name: str) -> None:
    named = set(NAME.findall(text_of(ROOT / name))) - NOT_MODULES
    assert named
    assert sorted(name for name in named if not exists(name)) == []


def test_public_modules_have_their_names() -> None:
    section = text_of(ARCHITECTURE).partition("## Public names")[2]
    rows = re.findall(r"^\| `(vitsearch[.\w]+)` \| (.+) \|$", section, re.MULTILINE)
    assert len(rows) > 20
    missing = [
        f"{module}.{name}"
        for module, names in rows
        for name in re.findall(r"`(\w+)`", names)
        if not exists(f"{module}.{name}")
    ]
    assert missing == []


def test_every_name_of_the_door_is_described() -> None:
    section = text_of(ARCHITECTURE).partition("## Public names")[2]
    named = set(re.findall(r"`vitsearch\.(\w+)`", section.partition("These modules")[0]))
    assert named == {*vitsearch.__all__} - {"__version__"}


def test_floors_are_those_that_are_tested() -> None:
    tree = ast.parse((TESTS / "test_architecture.py").read_text(encoding="utf-8"))
    (floors,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    )
    section = text_of(ARCHITECTURE).partition("## Floors and rooms")[2].partition("\n## ")[0]
    table: dict[int, set[str]] = {}
    for floor, rooms in re.findall(r"^\| (\d) \| (.+?) \|", section, re.MULTILINE):
        names = re.findall(r"`(\w+)(?:/|\.py)`", rooms)
        table.setdefault(int(floor), set()).update(names)
    table[9] = {"" if name == "__init__" else name for name in table[9]}
    assert table == {floor: set(rooms) for floor, rooms in floors.items()}


def test_moved_names_have_a_new_import() -> None:
    """The right column of the CHANGELOG's tables names what is there today."""
    rows = re.findall(r"^\| `.+?` \| (.+?) \|$", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    named = {name for row in rows for name in NAME.findall(row)}
    assert len(named) > 20
    assert sorted(name for name in named if not exists(name)) == []


def test_make_targets_and_commands_that_are_named_exist() -> None:
    assert isinstance(cli, Group)
    targets = re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE)
    for paper in PAPERS:
        if paper.name == "CHANGELOG.md":  # names what is gone, too
            continue
        text = text_of(paper)
        made = re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE)
        run = re.findall(r"(?:^|`)vitsearch ([a-z][\w-]*)", text, re.MULTILINE)
        assert set(made) <= set(targets), paper.name
        assert set(run) <= set(cli.list_commands(None)), paper.name  # type: ignore[arg-type]


def test_the_citation_is_of_this_version() -> None:
    text = text_of(ROOT / "CITATION.cff")
    assert re.findall(r"^version: (.+)$", text, re.MULTILINE) == [vitsearch.__version__]
    assert re.findall(r"^license: (.+)$", text, re.MULTILINE) == ["Apache-2.0"]


def test_a_source_archive_has_the_papers() -> None:
    included = tomllib.loads(text_of(ROOT / "pyproject.toml"))["tool"]["hatch"]["build"]["targets"]
    papers = {paper.relative_to(ROOT).parts[0] for paper in PAPERS} | {"CITATION.cff", "Makefile"}
    assert papers <= set(included["sdist"]["include"])


def test_every_recipe_is_listed() -> None:
    recipes = {file.stem for file in (ROOT / "indexes" / "recipes").glob("*.toml")}
    assert len(recipes) > 10
    text = text_of(ROOT / "indexes" / "README.md")
    assert recipes <= set(re.findall(r"`([\w-]+)`", text))
