"""The command line."""

import contextlib
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import ROOT, TESTS
from vitsearch.cli import run


def vitsearch(
    *arguments: str | bytes | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in this process and return its exit code and the bytes of its output, as
    `vitsearch_process` does, which costs a second or more.

    What Python warns of by default is on stderr here too. What a library writes past `sys.stdout`,
    and what only a process can show (signals, pipes, threads that keep it alive), is not.
    """
    command = [os.fsdecode(argument) for argument in arguments]
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n", write_through=True) for _ in range(2)
    )
    with (
        contextlib.chdir(cwd or os.curdir),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _warnings_on_stderr(),
    ):
        code = run(command)
    return subprocess.CompletedProcess(command, code, out.buffer.getvalue(), err.buffer.getvalue())


@contextlib.contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Show for the block the warnings that a process shows, pytest's filters put aside."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for kind in (
            DeprecationWarning,
            PendingDeprecationWarning,
            ImportWarning,
            ResourceWarning,
        ):
            warnings.simplefilter("ignore", kind)
        warnings.showwarning = lambda message, category, filename, line, *_: sys.stderr.write(
            warnings.formatwarning(message, category, filename, line)
        )
        yield


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file that this process writes grow over so many bytes for the block."""
    import resource  # Windows has none

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def vitsearch_process(
    *arguments: str | bytes | Path, cwd: Path | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process and return its exit code and the bytes of its output."""
    command = [sys.executable, "-c", "from vitsearch.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, env=environment(), timeout=timeout)


def environment() -> dict[str, str]:
    """Return an environment in which a child process finds this checkout and uses one thread."""
    return os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}",
        "OMP_NUM_THREADS": "1",
    }


def one_line(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 1) -> str:
    """Run a command that must fail with one line on stderr and nothing on stdout, and return the
    line.
    """
    capfd.readouterr()
    ended = run([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    assert (ended, out, err.count("\n"), err[:11]) == (code, "", 1, "vitsearch: "), err
    return err.strip()
