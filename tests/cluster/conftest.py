from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster that the runs of a test use, with one GPU that is none: what a GPU is given to runs
    on the CPU.
    """
    ray = pytest.importorskip("ray", reason="extra [ray]")
    ray.init(
        "local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
    )
    yield ray
    ray.shutdown()
