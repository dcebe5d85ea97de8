"""A run of embedding through a Ray Client (``ray://``): Ray Data works inside a cluster only, so the driver becomes a task there."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray as _ray

from vitsearch.distributed.cluster import cluster, errors_of_workers
from vitsearch.distributed.drive import Drive
from vitsearch.distributed.options import EmbedOptions, EmbedReport
from vitsearch.errors import CollectionError
from vitsearch.shards import open_shards
from vitsearch.types import Progress

ray: Any = _ray  # its types are stricter than what it takes
LOOK = 2.0  # seconds between looks at the shards


def run(source: str, output: str, options: EmbedOptions, progress: Callable[[Progress], None]) -> EmbedReport:
    """Embed as `Drive` does, in a task of the cluster at ``options.address``; local names are those of the cluster's machines.

    Progress is told by whole shards, where this machine can see them.
    """
    names = [name if "://" in name else os.path.abspath(name) for name in (source, output)]
    progress(Progress("loading", 0, None))
    with cluster(options.address, options.memory), errors_of_workers():
        task = ray.remote(num_cpus=0, max_retries=0)(_drive).remote(*names, replace(options, address=None))
        while not ray.wait([task], timeout=LOOK)[0]:
            _tell(names[1], progress)
        report: EmbedReport = ray.get(task)
        return report


def _drive(source: str, output: str, options: EmbedOptions) -> EmbedReport:
    return Drive(source, output, options, lambda _: None).whole()


def _tell(output: str, progress: Callable[[Progress], None]) -> None:
    with suppress(CollectionError):  # not listed yet, or not to be seen from here
        shards = open_shards(output)
        done = min(len(shards.finished()) * shards.manifest.shard_size, shards.manifest.rows)
        progress(Progress("embedding", done, shards.manifest.rows))
