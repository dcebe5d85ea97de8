"""`vitsearch tune`: words to the search effort of a collection's index."""

from typing import Any

import click

from vitsearch.cli import show
from vitsearch.cli.options import COLLECTION, DEVICE, JSON, PHOTOS


@click.command()
@PHOTOS
@COLLECTION
@DEVICE
@click.option("--recall", type=float, default=0.95, show_default=True, metavar="R", help="Share of the true ten best that is to be found.")
@JSON
def tune(photos: str, recall: float, as_json: bool, **options: Any) -> int:
    """Measure the index of PHOTOS against exact search and set the least effort that reaches a recall@10."""
    from dataclasses import asdict

    from vitsearch.tuning import tune_collection

    report = tune_collection(photos, recall=recall, **options)
    measured = report.measured
    if as_json:
        show.json_line({"recipe": report.recipe.to_dict(), "measured": asdict(measured) if measured else None})
    elif measured is None:
        show.line(f"recipe {report.recipe.name} compares every photo: there is nothing to tune")
    else:
        words = "" if measured.texts is None else f", {measured.texts:.3f} for words"
        effort = ", ".join(f"{name} {value:g}" for name, value in report.recipe.search.items()) or "as it was"
        show.line(f"recall@{measured.k} {measured.photos:.3f} for photos{words} ({measured.queries} queries), with {effort}")
    if measured and measured.recall < recall:
        show.note(f"vitsearch: {recall:g} is not reached: take a finer recipe, such as --recipe hnsw or flat")
    return 0


def bytes_of(text: str) -> int:
    """Return the bytes of a size such as 2GB, 500MB or 1.5 GiB; raises BadParameter."""
    units = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    number = text.strip().rstrip("BbIiKkMmGgTt ")
    unit = text.strip()[len(number) :].strip().upper()
    unit = unit if unit in units else f"{unit}B"
    try:
        count = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no size: write it as 2GB or 500MB") from error
    if count < 1:
        raise click.BadParameter(f"{text!r} is no size: write it as 2GB or 500MB")
    return count
