"""A real Milvus server on loopback, of the package `milvus`; it can be killed and started again."""

import contextlib
import os
import signal
from pathlib import Path

import pytest


class Server:
    """A server with its data in ``folder``, started at once."""

    def __init__(self, folder: Path) -> None:
        package = pytest.importorskip("milvus", reason="the package milvus, for Linux on x86-64")
        self._server = package.MilvusServer()
        self._server.set_base_dir(str(folder))
        self.start()

    def start(self) -> None:
        """Start it, with the data that there is, and wait until it answers."""
        self._server.start()

    def uri(self, collection: str) -> str:
        """Return the URI of a collection."""
        return f"milvus://127.0.0.1:{self._server.listen_port}/{collection}"

    def kill(self) -> None:
        """Kill it as the kernel does where memory runs out: nothing is written any more."""
        os.kill(self._server.server_proc.pid, signal.SIGKILL)
        self._server.server_proc.wait()

    def stop(self) -> None:
        """Stop it, if it runs."""
        with contextlib.suppress(ProcessLookupError):
            self._server.stop()
