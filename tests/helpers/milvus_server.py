"""A real Milvus server on loopback, of the package `milvus`; it can be killed and started again."""

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from vitsearch.arrays import Halves, unit_rows
from vitsearch.photos.columns import METADATA

VALUES = {"text": "Ä", "date": "2019-07-14T18:30:05", "number": 3}
COMPLETE = {name: VALUES[column.kind] for name, column in METADATA.items()}  # for want of nulls


def like_photos(count: int, dim: int, seed: int = 0) -> Halves:
    """Return unit rows ``(count, dim)`` with a few strong directions, as photos have."""
    random = np.random.default_rng(seed)
    spread = random.standard_normal((count, dim)) * np.exp(-np.arange(dim) / 12)
    return unit_rows(spread.astype(np.float32)).astype(np.float16)


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
