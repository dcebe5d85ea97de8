"""The words of the house: names that the field does not use, and words that say nothing, stay out.

docs/architecture.md has the words that took their place.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from helpers.paths import ROOT
from helpers.source_code import PACKAGE, sources

FORMER = """
Asked Atlas Brought Choice Clock DELTA Drive Dropped Fetched Fresh Groups Guard Here Looking MAIN
Made Passport PatientEncoder Pick Place Plan Prepared Ranking Remembered Searcher Settings Shadow
Shot Spool Tally Terms Upkeep Visit WaitingWeights Way WayName Wish Wishes FeatureTap
ChildDecoders ThreadDecoder ahead asked at_once atlas bring bring_up_to_date brought build_shadow
bulk check_loss check_some collapsed columns_of combined decisive_files fact fold folded given
gpus guide home in_company judged kept kind_of let_go likest look looking make_plan map_ahead most
on_gone on_known one outgrown own pace passport place propose put_fact quoted read_truth refusal
said shadow shadows share_cores shot shots some squash stamp take_at_word take_in taken taught
tell told visit wanted way whole why wish wish_of wishes found
"""
PRAGMA = re.compile(r"\s+# (type: ignore|noqa).*")  # says something to a tool, not to a reader
OF_AMOUNTS = re.compile(r"_?(MOST|LEAST|LONGEST|LARGEST|DEEPEST)(_|$)")  # MAX_ and MIN_ say it


def names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The names that a module gives to things, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name, node.lineno


def test_no_former_name_is_left() -> None:
    words = FORMER.split()
    former = {*words, *(f"_{word}" for word in words)}
    left = [
        f"{module}:{line} {name}"
        for module, tree in sources().items()
        for name, line in names(tree)
        if name in former or OF_AMOUNTS.match(name)
    ]
    # a merge reports it under this name, in JSON too
    assert [name for name in left if not re.match(r"interop:\d+ kept$", name)] == []


def test_lines_have_at_most_100_columns() -> None:
    long = [
        f"{file.relative_to(ROOT)}:{number}"
        for folder in ("vitsearch", "tests", "benchmarks", "examples", "training")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if len(PRAGMA.sub("", line)) > 100
    ]
    assert long == []


def test_modules_are_named_by_their_paths() -> None:
    """Every module that a comment, a docstring or a page names is there."""
    known = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in PACKAGE.rglob("*.py")
    }
    rooms = {name.split(".")[1] for name in known if "." in name}
    mention = re.compile(r"\bvitsearch(?:\.[a-z_][a-z0-9_]*)+\b(?!\()")
    astray = []
    for file in [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "docs").glob("*.md"))]:
        for named in mention.findall(file.read_text(encoding="utf-8")):
            parts = named.split(".")
            if parts[1] in rooms and len(parts) > 2 and not _is_there(parts, known):
                astray.append(f"{file.relative_to(ROOT)}: {named}")
    assert astray == []


def _is_there(parts: list[str], known: set[str]) -> bool:
    """Whether a dotted name is a module, or a name in one."""
    if ".".join(parts) in known:
        return True
    module = Path(*parts[:-1])
    for file in (ROOT / module.with_suffix(".py"), ROOT / module / "__init__.py"):
        if file.exists() and re.search(rf"\b{parts[-1]}\b", file.read_text(encoding="utf-8")):
            return True
    return False
