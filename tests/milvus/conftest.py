import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True, scope="module")
def _ready_at_once() -> Iterator[None]:
    """Have the client ask sooner than after half a second whether an index is built: here it has
    few rows.
    """
    waiting = SimpleNamespace(**vars(time))
    waiting.sleep = lambda seconds: time.sleep(min(seconds, 0.02))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pymilvus.client.grpc_handler.time", waiting)
        yield
