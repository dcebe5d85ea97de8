"""Servers of other programs, run for a test."""

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from helpers.web_client import wait_until


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether somebody listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(command: Sequence[str], folder: Path, port: int, **variables: str) -> Iterator[None]:
    """Run a server in a folder, with more variables of its environment, until the end of the block;
    ``port`` is where it listens.
    """
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, env=os.environ | variables, cwd=folder
    )
    try:
        wait_until(lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        yield
    finally:
        process.terminate()
        process.communicate()
