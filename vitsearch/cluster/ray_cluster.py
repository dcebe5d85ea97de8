"""A connection to a Ray cluster: an existing one, or one started on this machine."""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray as _ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitsearch.cluster.shard_index import Part, make_part
from vitsearch.encoders.onnx import usable_cores
from vitsearch.errors import VitsearchError

CONNECT_TIMEOUT = 10.0  # seconds
CLIENT_ATTEMPTS = 3
NODE_TIMEOUT = 180.0  # seconds for a machine to start Python and read one photo

ray: Any = _ray  # its types are stricter than what it takes


@contextmanager
def cluster(address: str | None, memory: int) -> Iterator[None]:
    """Connect to a Ray cluster for the block: to the one at ``address``, or to a new one.

    A new cluster is started on this machine and stopped after the block; ``memory`` is how many
    bytes its objects may take. An existing connection of the program is used as it is. Raises
    VitsearchError where the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    _check_reached(address)
    # Ray's internal warnings would go to the terminal
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    local: dict[str, Any] = {}
    if not address:
        local = {
            "num_cpus": usable_cores(),
            "object_store_memory": max(memory, 100_000_000),
            "include_dashboard": False,
        }
    _connect(address, local)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str | None, local: dict[str, Any]) -> None:
    """Connect, through a Ray Client more than once: a busy head fails now and then to start the
    process that serves a client, and has time again a moment later.
    """
    attempts = CLIENT_ATTEMPTS if (address or "").startswith("ray://") else 1
    for left in reversed(range(attempts)):
        try:
            with _silenced():
                ray.init(
                    address=address or "local",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **local,
                )
            return
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            if left:
                ray.shutdown()
                continue
            raise VitsearchError(
                f"no Ray cluster at {address or 'this machine'} ({_last_line(error)}): check the "
                "address, or leave it out to use this machine alone"
            ) from error


@contextmanager
def _silenced() -> Iterator[None]:
    """Hide what Ray's core prints while it starts; errors are raised all the same."""
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


def _check_reached(address: str | None) -> None:
    """Raise VitsearchError where nothing listens at an address of host and port.

    Ray itself would go on trying for a minute.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise VitsearchError(
            f"no Ray cluster at {address} ({getattr(error, 'strerror', None) or error}): check the "
            "address, or leave it out to use this machine alone"
        ) from error


def check_nodes(problem: Callable[..., str | None], *arguments: object) -> None:
    """Raise VitsearchError where ``problem`` returns one on a machine of the cluster, naming it.

    Machines that die meanwhile are left to Ray; the driver's knows itself.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in _working_nodes() if node["NodeID"] != here]
    task = ray.remote(num_cpus=0, max_retries=0)(problem)
    answers = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(*arguments): node
        for node in nodes
    }  # fmt: skip
    problems = {node["NodeID"]: _problem_of(answer) for answer, node in answers.items()}
    for node in _working_nodes():
        if text := problems.get(node["NodeID"]):
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            raise VitsearchError(f"the machine {name} {text}")


def _working_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _problem_of(answer: Any) -> str | None:
    try:
        problem: str | None = ray.get(answer, timeout=NODE_TIMEOUT)
        return problem
    except GetTimeoutError:
        return f"does not answer within {NODE_TIMEOUT:g} s: look at its Ray logs, or take it out"
    except RayError as error:
        lines = " ".join(_last_line(error).split())
        return f"cannot run vitsearch ({lines}): pip install 'vitsearch[ray]' there"


def lacking(resources: Mapping[str, float]) -> str | None:
    """Return what to say where no machine that is alive has these resources, None where one has."""
    nodes = ray.nodes()
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if any(all(node.get(_RAY[name], 0) >= resources[name] for name in resources) for node in alive):
        return None
    needs = " and ".join(f"{number:g} {_RAY[name]}" for name, number in resources.items())
    return f"no machine with {needs} is left in the cluster: {len(alive)} of {len(nodes)} are alive"


_RAY = {"num_cpus": "CPU", "num_gpus": "GPU"}


@contextmanager
def errors_of_workers() -> Iterator[None]:
    """Raise a VitsearchError of another machine as it is, any other error of Ray as one line."""
    try:
        yield
    except RayError as error:
        ours = _ours(error)
        if ours is not None:
            raise ours from error
        raise VitsearchError(
            f"the cluster failed ({_last_line(error)}): run the same command again, finished "
            "shards are kept"
        ) from error


def _ours(error: BaseException) -> VitsearchError | None:
    """Return the VitsearchError that an error of Ray carries as cause or context, if any."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, RayTaskError | RayActorError):
            # where it is of the cause's class too, its text is still the worker's traceback
            waiting.append(getattr(current, "cause", None))
        elif isinstance(current, VitsearchError):
            return current
    return None


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]


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
