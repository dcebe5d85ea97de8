"""Write docs/python.md (or, with `-`, to stdout): the names of `import vitsearch`, with their
signatures and docstrings.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import vitsearch

FILE = Path(__file__).parent.parent / "docs" / "python.md"
HEAD = """# Python

Everything here is `import vitsearch`; [architecture.md](architecture.md#public-names) lists what
further modules offer, and [examples/notebook.ipynb](../examples/notebook.ipynb) shows results with
their pictures.

```python
import vitsearch

vitsearch.index_folder("photos")
with vitsearch.Collection.open("photos") as photos:
    results = photos.search("a dog on a beach", top_k=3, where="width > 100")
    labels = photos.label(["dog", "car", "beach"])
results.to_pandas()
```

One open `Collection` serves any number of threads (as Gradio, Streamlit and FastAPI share it), goes
on in a forked process, and pickles as the place that is opened again. What goes wrong is raised as
a `VitsearchError`, in one line that says what and what next; remarks go to
`logging.getLogger("vitsearch")`.

This page is written from the docstrings by `make docs`.
"""
GROUPS = {
    "Collections": "Collection index_folder search_all Term Filter Recipe",
    "Results": "SearchResult Photo Prediction IndexReport Progress",
    "Models": "load_encoder Encoder load_classifier ImageClassifier LabelClassifier",
    "Learning": "train_classifier finetune evaluate compare",
    "Errors": "VitsearchError CollectionError EncoderError PhotoError QueryError",
}


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def definition(obj: Callable[..., Any]) -> ast.FunctionDef:
    """Return where a function stands in its source, past its decorators."""
    code = inspect.unwrap(obj).__code__
    (node,) = (
        node
        for node in ast.walk(_tree(code.co_filename))
        if isinstance(node, ast.FunctionDef)
        and code.co_firstlineno in {node.lineno, *(each.lineno for each in node.decorator_list)}
        and node.name == code.co_name
    )
    return node


def signature(name: str, obj: Callable[..., Any], *, method: bool = False) -> str:
    """Return `name(arguments) -> result` as it is written in the source, one argument a line where
    it is long.
    """
    node = definition(obj)
    if method and node.args.args and node.args.args[0].arg in ("self", "cls"):
        del node.args.args[0]
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{name}({ast.unparse(node.args)}){result}"
    if len(line) <= 100:
        return line
    parts = _split(ast.unparse(node.args))
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"


def _split(arguments: str) -> list[str]:
    """Return the arguments one by one: cut at the commas outside brackets and quotes."""
    parts, depth, start = [], 0, 0
    for position, sign in enumerate(arguments):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and not depth:
            parts.append(arguments[start:position].strip())
            start = position + 1
    return [*parts, arguments[start:].strip()]


def prose(obj: object) -> str:
    """Return the docstring as Markdown: what looks like a session becomes a block of code."""
    paragraphs = (inspect.getdoc(obj) or "").replace("``", "`").split("\n\n")
    return "\n\n".join(
        f"```pycon\n{paragraph}\n```"
        if paragraph.startswith(">>>")
        else textwrap.fill(" ".join(paragraph.split()), 100, break_on_hyphens=False)
        for paragraph in paragraphs
        if paragraph.strip()
    )


def members(cls: type) -> list[tuple[str, Any]]:
    """Return the public methods and properties of a class, in the order of the source."""
    named: dict[str, Any] = {}
    for base in reversed([base for base in cls.__mro__ if base.__module__.startswith("vitsearch")]):
        named |= {
            name: value
            for name, value in vars(base).items()
            if not name.startswith("_")
            and (inspect.isfunction(value) or isinstance(value, property | classmethod))
            and inspect.getdoc(getattr(cls, name))
        }
    return list(named.items())


def section(name: str) -> str:
    """Return what the page says of one name of the door."""
    obj = getattr(vitsearch, name)
    text = f"### {name}\n\n"
    if not inspect.isclass(obj):
        return f"{text}```python-signature\n{signature(name, obj)}\n```\n\n{prose(obj)}\n"
    text += f"{prose(obj)}\n"
    for member, value in members(obj):
        value = getattr(value, "__func__", value)
        if isinstance(value, property):
            text += f"\n#### {name}.{member}\n\n{prose(value)}\n"
            continue
        shown = signature(f"{name}.{member}", value, method=True)
        text += f"\n#### {name}.{member}\n\n```python-signature\n{shown}\n```\n\n{prose(value)}\n"
    return text


def page() -> str:
    """Return the whole page."""
    named = {name for names in GROUPS.values() for name in names.split()}
    assert named == {*vitsearch.__all__} - {"__version__"}, "GROUPS names what the door has"
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts += [f"## {title}\n", *(section(name) for name in names.split())]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).replace("python-signature", "py")


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(page())
    else:
        FILE.write_text(page(), encoding="utf-8")
