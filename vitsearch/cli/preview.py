"""Results as pictures in the terminal, and on the page in the browser."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.output import print_note, printable

if TYPE_CHECKING:
    from vitsearch.types import Photo

# as `vitsearch.outputs.terminal` names them, which loads what draws pictures
KINDS = ("kitty", "iterm2", "sixel", "blocks")
AUTO = "auto"
PREVIEW = click.option(
    "--preview",
    is_flag=False,
    flag_value=AUTO,
    type=click.Choice([AUTO, *KINDS]),
    metavar="[KIND]",
    help="Draw the photos in the terminal above their lines: as kitty, iterm2, sixel or blocks, or "
    "without KIND as the terminal can. Nothing is drawn where the output is no terminal.",
)
OPEN = click.option(
    "--open",
    "open_page",
    is_flag=True,
    help="Open these results on the page, of the `vitsearch serve` that runs for PHOTOS, or of one "
    "that is started and runs until Ctrl-C.",
)


def with_kind(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line in which what follows ``--preview`` is its kind only where
    it is one.
    """
    following = [*arguments[1:], ""]
    return [
        f"--preview={AUTO}" if word == "--preview" and after not in (AUTO, *KINDS) else word
        for word, after in zip(arguments, following, strict=False)
    ]


class Previewing(click.Command):
    """A command with `PREVIEW`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_kind(args))


def check_preview(options: Mapping[str, Any]) -> None:
    """Raise UsageError for forms of output in which no pictures are."""
    for_programs = (options.get(name) for name in ("only_paths", "as_json", "others"))
    if options["preview"] and any(for_programs):
        raise click.UsageError(
            "--preview draws above lines for people: leave out --json, --paths and --others",
            click.get_current_context(),
        )


def previews(
    kind: str | None,
    count: int,
    located: "Callable[[], tuple[Path, Sequence[str], Mapping[str, Photo]]]",
) -> Iterator[bytes]:
    """Yield what draws each of so many photos, with a line's end, b"" where nothing is to be drawn;
    ``located`` gives their root, their paths below it, and the indexed ones by path.
    """
    if not kind or not sys.stdout.isatty():
        yield from (b"" for _ in range(count))
        return
    from vitsearch.errors import PhotoError
    from vitsearch.outputs.pictures import small_pictures
    from vitsearch.outputs.terminal import SIDE, device_attributes, drawn, kind_of_terminal

    chosen = kind_of_terminal(os.environ, device_attributes) if kind == AUTO else kind
    true_colour = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
    root, paths, photos = located()
    for picture in small_pictures(paths, root=root, photos=photos, side=SIDE):
        if isinstance(picture, PhotoError):
            yield f"({printable(str(picture))})\n".encode("utf-8", "backslashreplace")
        else:
            yield drawn(picture, chosen, true_colour=true_colour) + b"\n"


def open_results(photos: str, collection: str | None, address: str) -> None:
    """Open an address of the page of PHOTOS, such as ``/?q=cat``, in the browser; where no server
    of it runs, be one until Ctrl-C.
    """
    import webbrowser

    from vitsearch.web.process import page_at, running

    entrance = running(photos, collection)
    if entrance:
        webbrowser.open(page_at(entrance, address))
        print_note("vitsearch: opened on the page that is being served")
        return
    from vitsearch.cli.serve import serve_results

    serve_results(photos, collection, address)
