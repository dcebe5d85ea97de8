"""`vitsearch forget`: the photos that were put aside are deleted."""

from typing import Any

import click

from vitsearch.cli.options import COLLECTION, JSON, PHOTOS, open_collection
from vitsearch.cli.output import print_json, print_line


@click.command()
@PHOTOS
@COLLECTION
@JSON
def forget(photos: str, as_json: bool, **options: Any) -> int:
    """Delete the photos of PHOTOS that were put aside because their files are gone.

    Without it `vitsearch index` deletes them after 30 days (--keep-missing). Photos that are there
    stay, and so do their files.
    """
    with open_collection(photos, options) as collection:
        count = collection.forget()
    if as_json:
        print_json({"forgotten": count})
    else:
        print_line(f"{count:,} photos that were put aside are forgotten")
    return 0 if count else 1
