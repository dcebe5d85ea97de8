"""The parts of an index, built as tasks of a Ray cluster."""

from collections.abc import Callable, Sequence
from typing import Any

import ray as _ray

from vitsearch.cluster.parts import Part, make_part
from vitsearch.cluster.ray_cluster import cluster, errors_of_workers

ray: Any = _ray  # its types are stricter than what it takes

_OBJECT_BYTES = 100_000_000  # of a cluster started here: its objects are only part numbers


def make_parts_on_cluster(parts: Sequence[Part], address: str, done: Callable[[int], None]) -> None:
    """Build parts on the Ray cluster at ``address``, whose machines all see the folder.

    ``done`` is called with the number of each part. A part whose worker is lost is built again.
    Raises what `make_part` raises, and VitsearchError where the cluster fails.
    """
    with cluster(address, _OBJECT_BYTES), errors_of_workers():
        task = ray.remote(make_part).options(num_cpus=1, max_retries=3)
        waiting = [task.remote(part) for part in parts]
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1)
            done(ray.get(ready[0]))
