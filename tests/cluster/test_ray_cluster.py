"""The Ray cluster that is started on this machine, as the network sees it."""

import subprocess
import sys

import pytest

from helpers.lazy import library
from helpers.paths import ROOT

library("ray", reason="extra [ray]")

PROGRAM = """
import os
from vitsearch.cluster.ray_cluster import cluster, ray
with cluster(None, 100_000_000):
    print(repr(ray._private.worker.get_dashboard_url()), os.environ.get("RAY_AUTH_MODE"))
"""


@pytest.mark.engines
@pytest.mark.slow
def test_a_cluster_started_here_has_no_dashboard_and_wants_a_token() -> None:
    """Its ports are open to the network, and it runs what is sent to them."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["'' token"], done.stderr
