"""A Ray cluster: one that is there, or one of this machine for as long as it is needed."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray as _ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from vitsearch.encoders.onnx.session import usable_cores
from vitsearch.errors import VitsearchError

REACHED = 10.0  # seconds to wait for an answer

ray: Any = _ray  # its types are stricter than what it takes


@contextmanager
def cluster(address: str | None, memory: int) -> Iterator[None]:
    """Be connected to a Ray cluster in the block: to the one at ``address``, or to one that is
    started here and ended after it.

    ``memory`` is how many bytes the objects of a cluster that is started here may take. A
    connection that the program has already is used as it is. Raises VitsearchError where the
    cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    _check_reached(address)
    os.environ.setdefault(
        "RAY_BACKEND_LOG_LEVEL", "fatal"
    )  # its warnings about its own workings would go to the terminal
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    local = (
        {}
        if address
        else {
            "num_cpus": usable_cores(),
            "object_store_memory": max(memory, 100_000_000),
            "include_dashboard": False,
        }
    )
    try:
        with _silenced():
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **local,
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise VitsearchError(
            f"no Ray cluster at {address or 'this machine'} ({_words(error)}): check the "
            "address, "
            "or leave it out to use this machine alone"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep what Ray's core prints while it starts off the terminal; what goes wrong is raised."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_reached(address: str | None) -> None:
    """Raise VitsearchError where nobody listens at an address of host and port: Ray itself goes on
    trying for a minute.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED).close()
    except (OSError, OverflowError) as error:
        raise VitsearchError(
            f"no Ray cluster at {address} ({getattr(error, 'strerror', None) or error}): check "
            "the address, or leave it out to use this "
            "machine alone"
        ) from error


@contextmanager
def errors_of_workers() -> Iterator[None]:
    """Raise an error of ours that happened on another machine as it is, and any other of Ray's as
    one line.
    """
    try:
        yield
    except RayError as error:
        ours = _ours(error)
        if ours is not None:
            raise ours from error
        raise VitsearchError(
            f"the cluster failed ({_words(error)}): run the same command again, finished "
            "shards "
            "are kept"
        ) from error


def _ours(error: BaseException) -> VitsearchError | None:
    """Return the error of ours that an error of Ray's carries, by whatever way."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, VitsearchError):
            return one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, RayTaskError):
            waiting.append(getattr(one, "cause", None))
        if isinstance(one, RayActorError):
            waiting.append(getattr(one, "cause", None))
    return None


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
