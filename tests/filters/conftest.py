import sqlite3
from collections.abc import Iterator

import pytest

from helpers.filters import filter_database


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with filter_database(tmp_path_factory.mktemp("where")) as db:
        yield db
