"""The house: who may import whom, what is heavy, what the door shows, and what no file may hold."""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import vitsearch
from helpers.libraries import HEAVY
from helpers.paths import ROOT
from helpers.source_code import PACKAGE, dotted, name_of, sources

FLOORS = {
    0: ("_version", "errors", "types", "paths", "untrusted"),
    1: ("arrays", "vit", "records"),
    2: ("photos", "index"),
    3: ("encoders", "filters", "outputs"),
    4: ("labels", "shards", "milvus", "explain", "storage", "options"),
    5: ("classifiers", "interop", "cluster"),
    6: ("collection",),
    7: ("evaluation", "web", "agents"),
    8: ("cli",),
    9: ("", "__main__"),  # the public door, and the one for `python -m`
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
LIGHT = {  # what may be needed without an extra, at the top of a module
    "": {"numpy", "PIL"},
    "cli": {"numpy", "PIL", "click"},
    "encoders": {"numpy", "PIL", "tokenizers", "safetensors"},
    "vit": {"safetensors"},
    "labels": {"numpy", "PIL", "safetensors"},
    "classifiers": {"numpy", "PIL", "safetensors"},
}
MAX_LINES = 450


@dataclass(frozen=True)
class Import:
    """One import: by which module, of what, and whether it runs when the module is loaded."""

    module: str
    target: str
    line: int
    at_top: bool


def walk(node: ast.AST, at_top: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, and whether it runs when the module is loaded."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        inside = (
            at_top
            and not typing_only
            and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        )
        yield child, at_top
        yield from walk(child, inside)


def targets(node: ast.AST) -> list[str]:
    """The modules that one import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, f"line {node.lineno}: a relative import hides where it leads"
    own = [
        f"{node.module}.{alias.name}"
        for alias in node.names
        if f"{node.module}.{alias.name}".removeprefix("vitsearch.") in sources()
    ]
    return own if len(own) == len(node.names) else [*own, str(node.module)]


@cache
def imports() -> tuple[Import, ...]:
    return tuple(
        Import(module, target, node.lineno, at_top)  # type: ignore[attr-defined]
        for module, tree in sources().items()
        for node, at_top in walk(tree)
        for target in targets(node)
    )


def inner() -> list[Import]:
    """The imports of modules of the package, their target without the package's name."""
    found = [use for use in imports() if use.target.partition(".")[0] == "vitsearch"]
    return [Import(use.module, use.target.partition(".")[2], use.line, use.at_top) for use in found]


def room(module: str) -> str:
    return module.partition(".")[0]


def test_the_house_is_read() -> None:
    assert {"", "types", "cli.output", "encoders.base", "index.recall"} <= set(sources())
    read = [Import(use.module, use.target, 0, use.at_top) for use in imports()]
    assert Import("collection", "vitsearch.collection.query", 0, True) in read
    assert Import("encoders", "vitsearch.encoders.colour", 0, False) in read


def test_every_room_has_a_floor() -> None:
    assert sorted({room(module) for module in sources()} - set(FLOOR)) == []


def test_a_module_imports_only_from_lower_floors() -> None:
    wrong = [
        (
            f"{use.module or 'the door'} (floor {FLOOR[room(use.module)]}), line {use.line}, "
            "imports "
            f"{use.target or 'the door'}"
        )
        for use in inner()
        if room(use.module) != room(use.target)
        and FLOOR[room(use.target)] >= FLOOR[room(use.module)]
    ]
    assert wrong == []


def test_no_cycle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in sources()}
    for use in inner():
        graph[use.module].add(use.target)
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")
    assert order.index("types") < order.index("collection") < order.index("")


def test_heavy_libraries_are_imported_only_at_the_top_of_their_adapters() -> None:
    heavy = [use for use in imports() if use.target.partition(".")[0] in HEAVY]
    assert {use.module for use in heavy} >= {"vit.model", "index.faiss_index"}
    astray = [
        f"{use.module}:{use.line} {use.target}"
        for use in heavy
        if room(use.module) not in HEAVY[use.target.partition(".")[0]]
    ]
    inside = [f"{use.module}:{use.line} {use.target}" for use in heavy if not use.at_top]
    assert (astray, inside) == ([], [])


def test_adapters_are_imported_inside_the_function_that_names_them() -> None:
    adapters = {use.module for use in imports() if use.target.partition(".")[0] in HEAVY}
    early = [
        f"{use.module}:{use.line} {use.target}"
        for use in inner()
        if use.at_top and use.target in adapters and use.module not in adapters
    ]
    assert early == []


def test_other_libraries_at_the_top_are_those_of_the_light_core() -> None:
    known = {*sys.stdlib_module_names, *HEAVY, "vitsearch"}
    wrong = [
        f"{use.module}:{use.line} {use.target}"
        for use in imports()
        if use.at_top
        and (library := use.target.partition(".")[0]) not in known
        and library not in LIGHT.get(room(use.module), LIGHT[""])
    ]
    assert wrong == []


MAX_PUBLIC_NAMES, MAX_OWN_MODULES = 26, 15


def loaded_by(statement: str) -> set[str]:
    """The modules that one statement loads in a fresh interpreter."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return set(done.stdout.split())


def test_the_door_loads_nothing_heavy() -> None:
    loaded = loaded_by("import vitsearch")
    assert (
        len([name for name in loaded if name.partition(".")[0] == "vitsearch"]) <= MAX_OWN_MODULES
    )
    light = {"numpy", "PIL", "click", "tqdm", "tokenizers", "safetensors", "timm", "sklearn"}
    assert sorted(({*HEAVY} | light) & {name.partition(".")[0] for name in loaded}) == []


def test_a_collection_loads_nothing_heavy() -> None:
    loaded = {name.partition(".")[0] for name in loaded_by("from vitsearch import Collection")}
    assert {"vitsearch", "numpy"} <= loaded
    assert sorted({*HEAVY, "click", "tqdm", "tokenizers", "timm", "sklearn"} & loaded) == []


def test_the_door_is_whole() -> None:
    door = sources()[""]
    typed = {
        alias.name: str(node.module).removeprefix("vitsearch.")
        for block in door.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == vitsearch._MODULES  # what type checkers see is what a program gets
    assert set(vitsearch.__all__) == {*typed, "__version__"}
    assert len(vitsearch.__all__) <= MAX_PUBLIC_NAMES
    assert [name for name in vitsearch.__all__ if getattr(vitsearch, name, None) is None] == []
    assert set(vitsearch.__all__) <= set(dir(vitsearch))
    with pytest.raises(AttributeError, match="module 'vitsearch' has no attribute 'no_such'"):
        _ = vitsearch.no_such


PACKAGES = sorted({name_of(file).rpartition(".")[0] for file in PACKAGE.rglob("*.py")})


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_hides_a_module(package: str) -> None:
    """Every module can be imported, and a package hands on no function or class with the name of
    one of its modules.
    """
    parent = importlib.import_module(f"vitsearch.{package}".rstrip("."))
    modules = [
        name.rpartition(".")[2]
        for name in sources()
        if name and name.rpartition(".")[0] == package and name != "__main__"
    ]
    hidden = [
        name
        for name in modules
        if importlib.import_module(f"{parent.__name__}.{name}") is not getattr(parent, name)
    ]
    assert hidden == []


@pytest.mark.slow
def test_type_checkers_see_real_types(tmp_path: Path) -> None:
    assert (PACKAGE / "py.typed").is_file()
    program = tmp_path / "program.py"
    program.write_text(
        "import vitsearch\n"
        "photos = vitsearch.Collection.open('photos')\n"
        "reveal_type(photos.search('a dog'))\n"
        "reveal_type(vitsearch.index_folder('photos'))\n"
        "photos.serach('a dog')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", f"--config-file={ROOT / 'pyproject.toml'}",
         f"--cache-dir={ROOT / '.mypy_cache'}", str(program)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    assert 'type is "vitsearch.collection.results.SearchResults"' in done.stdout
    assert 'Revealed type is "vitsearch.types.IndexReport"' in done.stdout
    assert '"Collection" has no attribute "serach"' in done.stdout


def test_every_public_name_says_what_it_is() -> None:
    shown = [getattr(vitsearch, name) for name in vitsearch.__all__ if name != "__version__"]
    assert [thing.__name__ for thing in shown if not (thing.__doc__ or "").strip()] == []
    assert [
        thing.__name__ for thing in shown if not thing.__module__.startswith("vitsearch.")
    ] == []


def test_only_the_command_line_prints_and_exits() -> None:
    calls = [
        f"{module}:{node.lineno} {dotted(node.func)}"
        for module, tree in sources().items()
        if room(module) not in ("cli", "__main__")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and dotted(node.func)
        in {"print", "exit", "quit", "sys.exit", "os._exit", "logging.basicConfig"}
    ]
    assert calls == []


def test_nothing_unpickles_and_no_remote_code_runs() -> None:
    found = []
    for module, tree in sources().items():
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = dotted(node.func)
            options = {
                option.arg: ast.unparse(option.value)
                for option in node.keywords
                if option.arg in ("weights_only", "trust_remote_code", "allow_pickle")
            }
            loads = called == "torch.load" and options.get("weights_only") != "True"
            if (
                loads
                or options.get("trust_remote_code", "False") != "False"
                or options.get("allow_pickle", "False") != "False"
            ):
                found.append(f"{module}:{node.lineno} {called}")
    assert found == []
    assert [
        f"{use.module}:{use.line}"
        for use in imports()
        if use.target in {"pickle", "marshal", "shelve", "dill", "joblib"}
    ] == []


def users_of(kind: type[ast.AST], name: str, attribute: str = "") -> set[str]:
    """The modules with a node of a kind that is, or whose attribute is, of a name."""
    return {
        module
        for module, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, kind) and dotted(getattr(node, attribute, node)) == name
    }


def test_files_are_put_in_place_in_one_module() -> None:
    assert users_of(ast.Attribute, "os.replace") == {"records"}


def test_a_mismatch_is_worded_in_one_module() -> None:
    assert users_of(ast.Call, "EncoderMismatch", "func") == {"encoders.base"}


def test_no_file_is_too_long() -> None:
    lengths = {
        name_of(file): len(file.read_text(encoding="utf-8").splitlines())
        for file in PACKAGE.rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [module for module in sources() if empty & set(module.split("."))] == []


def test_no_file_names_a_place_of_one_machine() -> None:
    place = re.compile(
        r"(?<![\w.}~>-])/(?:" + "|".join(["work", "root", "home/" + "user"]) + r")(?![\w-])"
    )
    assert [
        bool(place.search(text)) for text in ("'/" + "root/x", "a/" + "work/b", "see /" + "work.")
    ] == [True, False, True]
    found = []
    for file in tracked():
        text = file.read_bytes().decode("utf-8", "replace")
        found += [
            f"{file.relative_to(ROOT)}: {line.strip()[:80]}"
            for line in text.splitlines()
            if place.search(line)
        ]
    assert found == []


def tracked() -> list[Path]:
    """The text files of the project: those that git knows, or those of an unpacked
    source archive.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        files = [
            file
            for part in ("vitsearch", "indexes", "examples", "tests")
            for file in (ROOT / part).rglob("*")
        ]
    kinds = {
        ".py",
        ".md",
        ".toml",
        ".json",
        ".txt",
        ".cfg",
        ".html",
        ".css",
        ".js",
        ".yml",
        ".yaml",
        "",
    }
    return [file for file in files if file.suffix in kinds and file.is_file()]
