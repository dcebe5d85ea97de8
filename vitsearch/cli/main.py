"""The commands; each translates words into one call of the library and its answer into lines."""

import sys
import warnings
from pathlib import Path

import click

from vitsearch._version import __version__
from vitsearch.cli import output as show
from vitsearch.cli.cluster import build, embed, push
from vitsearch.cli.compare import compare
from vitsearch.cli.evaluate import evaluate
from vitsearch.cli.explain import explain
from vitsearch.cli.index import index, prepare, tune
from vitsearch.cli.inspect import doctor, failures, info, models, verify
from vitsearch.cli.interop import export, import_vectors, merge
from vitsearch.cli.label import classify, label
from vitsearch.cli.search import dupes, search, similar
from vitsearch.cli.serve import serve
from vitsearch.cli.train import finetune, train
from vitsearch.errors import VitsearchError

INTERRUPTED = 130
RESUMABLE = (
    ["index"],
    ["embed"],
    ["build"],
    ["push"],
    ["eval"],
    ["demo"],
    ["push"],
)  # what these have stored is not done again


def main() -> None:
    """Run the command line and exit: 0 found, 1 nothing found or a known error, 2 wrong usage."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every known error becomes one line on stderr."""
    warnings.filterwarnings(
        "ignore", module=r"PIL\."
    )  # Pillow's remarks on damaged EXIF, which never fails a photo
    out, err = sys.stdout, sys.stderr
    try:
        code = cli.main(arguments, prog_name="vitsearch", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit:  # click's way out where the reader of stdout, such as `head`, has enough
        sys.stdout, sys.stderr = out, err
        return show.give_up_output(BrokenPipeError())
    except VitsearchError as error:
        show.note(f"vitsearch: {' '.join(str(error).split())}")
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        show.line(error.format_message())
        return 2
    except click.ClickException as error:
        command = (
            error.ctx.command_path
            if isinstance(error, click.UsageError) and error.ctx
            else "vitsearch"
        )
        show.note(f"vitsearch: {' '.join(error.format_message().split())} (see `{command} --help`)")
        return 2
    except show.Stopped as stopped:
        show.note(f"vitsearch: stopped; {stopped}")
        return INTERRUPTED
    except (KeyboardInterrupt, click.Abort):
        goes_on = (
            "; what was stored is kept, run the same command to go on"
            if arguments[:1] in RESUMABLE
            else ""
        )
        show.note(f"vitsearch: stopped{goes_on}")
        return INTERRUPTED
    except OSError as error:
        return show.give_up_output(error)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="vitsearch")
def cli() -> None:
    """Find, label and understand your photos: text and photo search over a folder, offline.

    Results go to stdout, progress and notes to stderr. Exit code 0: found; 1: nothing found or an
    error; 2: wrong usage.
    """


@cli.command()
@click.argument("photos", required=False, metavar="[PHOTOS]")
@click.option(
    "--output",
    default="demo",
    show_default=True,
    metavar="DIR",
    help="Where the collection and the contact sheets go.",
)
def demo(photos: str | None, output: str) -> int:
    """Index sample photos (or PHOTOS), search and label them, and draw a contact sheet as PNG and
    HTML.
    """
    from vitsearch.cli.demo import run_demo
    from vitsearch.cli.output import ProgressBar

    with ProgressBar() as bar:
        sheets = run_demo(
            Path(output), Path(photos) if photos else None, say=show.line, progress=bar
        )
    for sheet in sheets:
        show.line(f"wrote {show.printable(str(sheet))}")
    return 0


for _command in (info, failures, verify, models, doctor):
    cli.add_command(_command)
cli.add_command(index)
cli.add_command(search)
cli.add_command(similar)
cli.add_command(serve)
cli.add_command(dupes)
cli.add_command(label)
cli.add_command(train)
cli.add_command(finetune)
cli.add_command(classify)
cli.add_command(explain)
cli.add_command(evaluate)
cli.add_command(compare)
cli.add_command(export)
cli.add_command(import_vectors)
cli.add_command(merge)
cli.add_command(tune)
cli.add_command(prepare)
cli.add_command(embed)
cli.add_command(build)
cli.add_command(push)


# -- between the terminal and the library ----------------------------------------------------------
