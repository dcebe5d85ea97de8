"""Where labels go beside the terminal: folders of photos, and XMP sidecars."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from vitsearch.cli import show
from vitsearch.types import Prediction

MOST_PROBLEMS = 10  # named one by one; the rest is counted


def outputs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the commands that label photos."""
    options = (
        click.option(
            "--sort-into",
            metavar="DIR",
            help="Put links to the photos into a folder for each label, DIR/LABEL; what an earlier run of the same photos put there goes.",
        ),
        click.option("--copy", is_flag=True, help="With --sort-into: copies instead of links."),
        click.option("--xmp", is_flag=True, help="Write the labels as keywords into XMP sidecars beside the photos (PHOTO.jpg.xmp)."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_outputs(root: str | Path, options: dict[str, Any]) -> None:
    """Raise UsageError or VitsearchError where the labels could not be written: said before long work, not after it."""
    if options["copy"] and options["sort_into"] is None:
        raise click.UsageError("--copy goes with --sort-into", click.get_current_context())
    if options["sort_into"] is not None:
        from vitsearch.layout import photo_root
        from vitsearch.sorting import check_target

        check_target(options["sort_into"], photo_root(root))


def write_outputs(root: Path, options: dict[str, Any], predictions: Sequence[Prediction], photos: Iterable[str]) -> None:
    """Sort the photos and write their sidecars as the options ask; ``photos`` are the paths of all that were looked at."""
    if options["sort_into"] is not None:
        from vitsearch.sorting import sort_into

        done = sort_into(options["sort_into"], predictions, root=root, copy=options["copy"])
        made = {"copied" if options["copy"] else "linked": done.made, "as before": done.unchanged, "removed": done.removed}
        _say(f"sorted into {options['sort_into']}", made, "not sorted", done.problems)
    if options["xmp"]:
        from vitsearch.classify import NOTHING
        from vitsearch.sidecars import write_sidecars

        keywords = [one for one in predictions if one.label != NOTHING]
        report = write_sidecars(keywords, root=root, photos=photos)
        _say("XMP sidecars", {"written": report.written, "as before": report.unchanged}, "not written", report.problems)


def _say(what: str, counts: dict[str, int], failed: str, problems: Sequence[tuple[str, str]]) -> None:
    for path, reason in problems[:MOST_PROBLEMS]:
        show.note(f"vitsearch: {path}: {reason}")
    if len(problems) > MOST_PROBLEMS:
        show.note(f"vitsearch: and {len(problems) - MOST_PROBLEMS:,} more")
    said = [f"{count:,} {name}" for name, count in {**counts, failed: len(problems)}.items() if count]
    show.note(f"vitsearch: {what}: {', '.join(said) or 'nothing to do'}")
