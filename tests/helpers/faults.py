"""A disk that fails: a preloaded library between this package and the files below one folder, and
a process with that library that runs commands, each in a fork of its own.
"""

import ctypes
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from helpers.cli import environment
from helpers.paths import TESTS

SOURCE = TESTS / "helpers" / "faults.c"
KILLED = 137  # the exit code of a run that was stopped at a change


@dataclass(frozen=True)
class Disk:
    """What the disk below a folder does.

    ``refuse`` maps calls (flock, fcntl, mmap, fsync, link, symlink) to the errno that they fail
    with. From the change number ``stop_at`` on (0: never) every change fails with ``error``; 0 ends
    the process there, in the middle of the change.
    """

    folder: str
    refuse: Mapping[str, int] = field(default_factory=dict)
    stop_at: int = 0
    error: int = 0


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, its output, and how many changes the disk saw."""

    code: int
    out: str
    err: str
    changes: int


@cache
def library() -> Path:
    """Return the compiled library; skips the test where there is no compiler or no Linux."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("a preloaded library needs Linux and a C compiler (cc)")
    file = Path(tempfile.mkdtemp(prefix="vitsearch-faults-")) / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", file, SOURCE, "-ldl"], check=True)
    return file


class FaultyDisk:
    """A process whose disk fails as it is asked to; every command runs in a fork of it."""

    def __init__(self) -> None:
        self.preload = library()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "helpers.faults", str(self.preload)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment() | {"LD_PRELOAD": str(self.preload)},
        )

    def run(
        self, disk: Disk, *arguments: object, constants: Mapping[str, float] | None = None
    ) -> Ended:
        """Run a command of the command line on this disk.

        ``constants`` are other values for constants of the package, by their dotted names.
        """
        assert self._process.stdin
        assert self._process.stdout
        words = [os.fspath(each) if isinstance(each, Path) else str(each) for each in arguments]
        order = {"disk": vars(disk), "arguments": words, "constants": dict(constants or {})}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process, and remove the library."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        shutil.rmtree(self.preload.parent)
        library.cache_clear()


@contextmanager
def faulty_disk() -> Iterator[FaultyDisk]:
    """Yield a `FaultyDisk`; skips the test where there cannot be one."""
    disk = FaultyDisk()
    try:
        yield disk
    finally:
        disk.close()


# -- inside the process ----------------------------------------------------------------------------


def _serve(library: str) -> None:
    faults = ctypes.CDLL(library)
    faults.fault_folder(b"")
    faults.fault_count.restype = ctypes.c_long
    _warm()
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(_in_a_fork(faults, order)), file=answers, flush=True)


def _warm() -> None:
    """Import what commands use, so that a fork need not."""
    with tempfile.TemporaryDirectory() as folder:
        from helpers.photos import paint

        paint(Path(folder, "red.png"), "red")
        for arguments in (["index", folder, "--encoder", "colour"], ["search", folder, "red"]):
            _run(arguments)
        import vitsearch.collection.maintain
        import vitsearch.index.faiss_index  # noqa: F401


def _run(arguments: Sequence[str]) -> tuple[int, str, str]:
    from vitsearch.cli import run

    kept = sys.stdout, sys.stderr
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n", write_through=True) for _ in range(2)
    )
    sys.stdout, sys.stderr = out, err
    try:
        code = run(list(arguments))
    finally:
        sys.stdout, sys.stderr = kept
    return code, *(text.buffer.getvalue().decode("utf-8", "replace") for text in (out, err))


def _in_a_fork(faults: Any, order: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        disk = order["disk"]
        faults.fault_folder(os.fsencode(os.path.realpath(disk["folder"])))
        for call, error in disk["refuse"].items():
            assert faults.fault_refuse(call.encode(), error) == 0, call
        for name, value in order["constants"].items():
            module, _, constant = name.rpartition(".")
            assert hasattr(import_module(module), constant), name
            setattr(import_module(module), constant, value)
        faults.fault_stop(ctypes.c_long(disk["stop_at"]), disk["error"])
        try:
            code, out, err = _run(order["arguments"])
        except BaseException:
            import traceback

            code, out, err = 1, "", traceback.format_exc()
        facts = {"code": code, "out": out, "err": err, "changes": faults.fault_count()}
        with os.fdopen(writing, "w") as answer:
            json.dump(facts, answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(text) if text else {"code": status, "out": "", "err": "", "changes": 0}


if __name__ == "__main__":
    _serve(sys.argv[1])
