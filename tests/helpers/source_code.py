"""The modules of the package as trees, parsed once in a process."""

import ast
from functools import cache
from pathlib import Path

from helpers.paths import ROOT

PACKAGE = ROOT / "vitsearch"


def name_of(file: Path) -> str:
    """The dotted name of a module inside the package, "" for the door."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of the package by its name."""
    return {
        name_of(file): ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def dotted(node: ast.AST) -> str:
    """What stands there where it is a name or a name of a name, as ``os.replace``; else ""."""
    if isinstance(node, ast.Attribute):
        of = dotted(node.value)
        return f"{of}.{node.attr}" if of else ""
    return node.id if isinstance(node, ast.Name) else ""
