"""Several nodes of Ray on this machine: one dies, one is not like the others, none is left."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.photos import paint, shade
from vitsearch import Collection, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.shards import open_shards

pytestmark = [pytest.mark.engines, pytest.mark.slow]

DRIVER = """
import sys
from vitsearch.cluster import embed, run
from vitsearch.errors import VitsearchError

run.SILENCE = float(sys.argv[4])
try:
    source, output, address = sys.argv[1:4]
    embed(source, output, encoder="colour", shard_size=50, address=address,
          progress=lambda step: print(step.stage, step.done, flush=True))
except VitsearchError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes") / "photos"
    for number in range(1500):
        paint(folder / f"{number:04}.png", shade(number), shade(3 * number + 1), size=(320, 240))
    return folder


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that takes no work; `add_node` brings machines with a core."""
    ray_nodes = pytest.importorskip("ray.cluster_utils", reason="extra [ray]")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    head = {"num_cpus": 0, "object_store_memory": 200_000_000, "include_dashboard": False}
    cluster = ray_nodes.Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def added(cluster: Any, **options: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=200_000_000, **options)


def embedded(
    photos: Path, output: Path, cluster: Any, *, silence: float = 120.0, then: Callable[[], object]
) -> tuple[int, str]:
    """Embed, call ``then`` after 200 photos, and return the exit status and the standard error."""
    run = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(photos), str(output), cluster.address, str(silence)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout
    for line in run.stdout:
        stage, done = line.split()
        if stage == "embedding" and int(done) >= 200:
            then()
            break
    _, errors = run.communicate(timeout=300)
    return run.returncode, errors


def vectors(photos: Path, output: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the vectors of a shard set by path, and those of one machine."""
    blocks = open_shards(output).blocks()
    rows = {
        row.path: half.tobytes()
        for block, halves in blocks
        for row, half in zip(block, halves, strict=True)
    }
    index_folder(photos, encoder=ColourEncoder())
    with Collection.open(photos, encoder=ColourEncoder()) as collection:
        local = {
            photo.path: collection.store.vector(photo.photo_id).tobytes()
            for photo in collection.photos()
        }
    return rows, local


def test_a_node_that_dies_loses_nothing(nodes: Any, photos: Path, tmp_path: Path) -> None:
    dying = [added(nodes) for _ in range(3)][-1]
    nodes.wait_for_nodes()
    status, errors = embedded(
        photos, tmp_path / "out", nodes, then=lambda: nodes.remove_node(dying, allow_graceful=False)
    )
    assert status == 0, errors
    assert open_shards(tmp_path / "out").manifest.complete
    rows, local = vectors(photos, tmp_path / "out")
    assert rows == local


def test_a_run_without_nodes_says_so_and_is_taken_up(
    nodes: Any, photos: Path, tmp_path: Path
) -> None:
    workers = [added(nodes) for _ in range(2)]
    nodes.wait_for_nodes()

    def kill() -> None:
        for node in workers:
            nodes.remove_node(node, allow_graceful=False)

    status, errors = embedded(photos, tmp_path / "out", nodes, silence=15.0, then=kill)
    assert (status, errors.splitlines()[-1]) == (
        1,
        "no machine with 0.5 CPU is left in the cluster: 1 of 3 are alive: add machines, and run "
        "the same command again, finished shards are kept",
    )
    finished = len(open_shards(tmp_path / "out").finished())
    assert 0 < finished < 30
    added(nodes)
    nodes.wait_for_nodes()
    status, errors = embedded(photos, tmp_path / "out", nodes, then=lambda: None)
    assert status == 0, errors
    rows, local = vectors(photos, tmp_path / "out")
    assert rows == local


def test_a_node_with_another_version_is_named(nodes: Any, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import vitsearch._version\nvitsearch._version.__version__ = '0.0.1'\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    added(nodes)
    added(nodes, env_vars={"PYTHONPATH": path})
    nodes.wait_for_nodes()
    status, errors = embedded(photos, tmp_path / "out", nodes, then=lambda: None)
    assert status == 1
    assert "has vitsearch 0.0.1, not " in errors.splitlines()[-1]


def test_a_node_that_does_not_see_the_photos_is_named(
    nodes: Any, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    hidden = f"mount --bind {tmp_path / 'empty'} {photos}"
    if subprocess.run(["unshare", "-m", "sh", "-c", hidden], capture_output=True).returncode:
        pytest.skip("a file system of its own for a process needs root")
    ray = Path(sys.executable).with_name("ray")
    start = f"{ray} start --address={nodes.address} --num-cpus=1 --block --disable-usage-stats"
    added(nodes)
    command = ["unshare", "-m", "sh", "-c", f"{hidden} && exec {start}"]
    blind = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_nodes(nodes, 3)
        status, errors = embedded(photos, tmp_path / "out", nodes, then=lambda: None)
    finally:
        blind.terminate()
        blind.wait()
    assert status == 1
    assert f"does not see the photos of {photos} (cannot be opened: No such" in errors
    assert open_shards(tmp_path / "out").finished() == []


def wait_for_nodes(cluster: Any, count: int) -> None:
    """Wait until the cluster has so many nodes, also those that it did not start itself."""
    from ray._raylet import GcsClient

    end = time.monotonic() + 60
    while len(GcsClient(address=cluster.address).get_all_node_info()) < count:
        assert time.monotonic() < end, "the node does not come"
        time.sleep(0.2)
