"""What the shell completes at the Tab key."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.cli import vitsearch


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    done = vitsearch("completion", shell)
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"_VITSEARCH_COMPLETE={shell}_complete" in done.stdout.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "expected"),
    [("vitsearch sea", ["search"]), ("vitsearch dupes --js", ["--json"])],
)
def test_bash_completes(typed: str, expected: list[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    script = """
    eval "$(vitsearch completion bash)"
    COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _vitsearch_completion vitsearch
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script, "-", typed],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
        check=True,
    )
    assert done.stdout.split() == expected
