from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for all tests of a module."""
    from helpers.browser import launched

    with launched() as started:
        yield started
