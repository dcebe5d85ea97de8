"""The commands by name: each is imported when it is run, and its help line is read from its source.

Every function of this package under ``@click.command(...)`` is a command, named as the decorator
says or as the function.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import click

_DECORATOR = "\n@click.command("
_QUOTED = re.compile(r'(?:name=)?"([\w-]+)"')


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is not imported yet: its module, its function, and the first lines of help."""

    module: str
    function: str
    help: str


@cache
def entries() -> dict[str, Entry]:
    """Return the commands in order of name."""
    table: dict[str, Entry] = {}
    for file in Path(__file__).parent.glob("*.py"):
        for part in file.read_text(encoding="utf-8").split(_DECORATOR)[1:]:
            decorator, _, source = part.partition("\ndef ")
            function = source[: source.index("(")]
            name = _QUOTED.match(decorator)
            summary = source.split('"""', 2)[1].split("\n\n")[0]
            table[name[1] if name else function] = Entry(
                f"{__package__}.{file.stem}", function, " ".join(summary.split())
            )
    return dict(sorted(table.items()))


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands in order."""
        return list(entries())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now; None for a name that is not one."""
        entry = entries().get(cmd_name)
        if entry is None:
            return None
        command: Any = getattr(import_module(entry.module), entry.function)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and help lines without importing the commands."""
        width = formatter.width - 6 - max(map(len, entries()))
        rows = [
            (name, click.Command(name, help=entry.help).get_short_help_str(width))
            for name, entry in entries().items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
