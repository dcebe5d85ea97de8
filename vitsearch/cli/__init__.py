"""The command line: the only place that talks to the terminal."""

from vitsearch.cli.main import main

__all__ = ["main"]
