"""Arguments and options that several commands share."""

from collections.abc import Callable
from typing import Any

import click

PHOTOS = click.argument("photos", metavar="PHOTOS")
COLLECTION = click.option("--collection", metavar="DIR", help="Where the collection is, when not in PHOTOS/.vitsearch.")
DEVICE = click.option("--device", default="auto", show_default=True, metavar="D", help="cpu, cuda, cuda:1, mps or auto.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON Lines in pure ASCII.")


def results(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the commands that print results."""
    options = (
        click.option("-k", "--top-k", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="How many results."),
        JSON,
        click.option("--paths", "only_paths", is_flag=True, help="Print bare paths, relative to PHOTOS."),
        click.option("-0", "zero", is_flag=True, help="With --paths: end each by a zero byte, for `xargs -0`."),
        click.option("--sheet", metavar="FILE", help="Also draw the results as FILE.png or FILE.html."),
    )
    for option in reversed(options):
        command = option(command)
    return command
