"""The command line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.paths import ROOT, TESTS
from vitsearch.cli.main import run


def vitsearch(
    *arguments: str | bytes | Path, cwd: Path | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own and return its exit code and the bytes of its
    output.
    """
    command = [sys.executable, "-c", "from vitsearch.cli import main; main()", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, env=environment(), timeout=60, **options
    )


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
