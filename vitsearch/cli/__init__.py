"""The command line: each command translates its arguments into one call of the library, and the
result into lines.
"""

import faulthandler
import logging
import os
import re
import signal
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from vitsearch._version import __version__
from vitsearch.cli.output import Remarks, Stopped, give_up_output, print_line, print_note
from vitsearch.errors import VitsearchError

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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named; for a name that is not one, name the closest."""
        if args and args[0] not in entries():
            for close in get_close_matches(args[0], entries(), n=1):
                ctx.fail(f"No such command {args[0]!r}. Did you mean {close!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and help lines without importing the commands."""
        others = [name for name in entries() if not any(name in each for each in SECTIONS.values())]
        for title, names in {**SECTIONS, "Models, and this program": others}.items():
            with formatter.section(title):
                formatter.write_dl([(name, entries()[name].help) for name in names])


# of the help; commands that stand in none come last
SECTIONS = {
    "Photos and their collection": (
        "index", "watch", "info", "failures", "verify", "tune", "merge", "forget",
    ),
    "Search": ("search", "similar", "dupes", "explain", "serve", "mcp"),
    "Labels": ("label", "classify", "train", "finetune", "compare", "eval"),
    "Other programs and machines": ("export", "import", "embed", "build", "push"),
}  # fmt: skip
INTERRUPTED = 130
# a second run goes on from what the first one stored
RESUMABLE = {"index", "watch", "embed", "build", "push", "eval", "demo"}
UNHURRIED = {"index", "watch"}  # take what time of the processor other programs leave


def main() -> None:
    """Run the command line and exit: 0 found, 1 nothing found or a known error, 2 wrong usage.

    Ctrl-C ends a command in order, a second one at once. A fatal signal says where it came from.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the shell: no other file may get its number
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    with suppress(AttributeError, RuntimeError, OSError):  # where stderr is not a file
        faulthandler.enable()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    try:
        if UNHURRIED & set(sys.argv[1:2]):
            from vitsearch.collection.runs import yield_processor

            yield_processor()
    except KeyboardInterrupt:  # nothing was begun
        print_note("vitsearch: stopped")
        sys.exit(INTERRUPTED)
    sys.exit(run(sys.argv[1:]))


def _stop(*_: object) -> None:
    # what is on disk is whole at any moment, and a thread that hangs must not keep the process
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    raise KeyboardInterrupt


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every known error becomes one line on stderr."""
    # Pillow warns of damaged EXIF, which never fails a photo
    warnings.filterwarnings("ignore", module=r"PIL\.")
    out, err = sys.stdout, sys.stderr
    logger, remarks = logging.getLogger("vitsearch"), Remarks()
    logger.addHandler(remarks)
    logger.setLevel(logging.INFO)
    try:
        code = cli.main(arguments, prog_name="vitsearch", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit:  # click's way out where the reader of stdout, such as `head`, has enough
        sys.stdout, sys.stderr = out, err
        return give_up_output(BrokenPipeError())
    except VitsearchError as error:
        print_note(f"vitsearch: {' '.join(str(error).split())}")
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        print_line(error.format_message())
        return 2
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        command = context.command_path if context else "vitsearch"
        print_note(
            f"vitsearch: {' '.join(error.format_message().split())} (see `{command} --help`)"
        )
        return 2
    except Stopped as stopped:
        print_note(f"vitsearch: stopped; {stopped}")
        return INTERRUPTED
    except (KeyboardInterrupt, click.Abort):
        is_resumable = bool(RESUMABLE & set(arguments[:1]))
        hint = "; what was stored is kept, run the same command to go on" if is_resumable else ""
        print_note(f"vitsearch: stopped{hint}")
        return INTERRUPTED
    except MemoryError:
        print_note("vitsearch: this needs more memory than there is: free some, or give it less")
        return 1
    except OSError as error:
        return give_up_output(error)
    finally:
        logger.removeHandler(remarks)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, "-V", "--version", prog_name="vitsearch")
def cli() -> None:
    """Find, label and understand your photos: text and photo search over a folder, offline.

    Results go to stdout, progress and notes to stderr. Exit code 0: found; 1: nothing found or an
    error; 2: wrong usage.
    """
