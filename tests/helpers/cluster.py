"""Commands that start a Ray cluster."""

import subprocess
import sys
from pathlib import Path

from helpers.cli import environment


def command(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line, which starts a cluster of its own."""
    code = [sys.executable, "-c", "from vitsearch.cli import main; main()", *arguments]
    return subprocess.run(
        code, capture_output=True, env=environment(), timeout=300, text=True, cwd=cwd
    )
