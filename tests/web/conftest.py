from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for all tests of a module."""
    from helpers.browser import launched

    with launched() as started:
        yield started


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection of helpers/web_site.py, to be copied."""
    from helpers.web_site import make_collection

    return make_collection(tmp_path_factory.mktemp("samples"))
