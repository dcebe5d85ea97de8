"""Libraries that are loaded when a test first uses them: each process collects all tests, and runs
some.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest


class _Library:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "pytestmark":  # for which pytest looks
            raise AttributeError(name)
        return getattr(import_module(self._name), name)


def library(name: str, *, reason: str = "") -> Any:
    """Return a library, or a module of the tests that needs some, to be loaded at its first use;
    where it is not installed the module that asks is skipped.
    """
    if find_spec(name.partition(".")[0]) is None:
        pytest.skip(reason or f"{name} is not installed", allow_module_level=True)
    return _Library(name)
