"""`vitsearch build`: words to one index from shards."""

from typing import Any

import click

from vitsearch.cli import show
from vitsearch.cli.options import JSON
from vitsearch.cli.tune import bytes_of


@click.command()
@click.argument("output")
@click.argument("index")
@click.option(
    "--recipe", default="ivf-sq8", show_default=True, metavar="NAME|FILE", help="The index: ivf, ivf-sq8, ivf-pq, rabitq, a file."
)
@click.option("--memory", default="2GB", show_default=True, metavar="SIZE", help="Memory that a process may take: 400MB or more.")
@click.option("--recall", type=float, default=0.95, show_default=True, metavar="R", help="Recall@10 that the search is tuned to.")
@click.option("--address", metavar="RAY", help="Build parts on a Ray cluster: local, auto, or ray://HOST:PORT; all must see both folders.")
@JSON
def build(output: str, index: str, as_json: bool, memory: str, **options: Any) -> int:
    """Build the FAISS index of the shards in OUTPUT into the folder INDEX, with no more memory than allowed.

    A run that was stopped goes on with the parts that are there.
    """
    from dataclasses import asdict

    from vitsearch.distributed.build import build_index

    report = build_index(output, index, memory=bytes_of(memory), tell=lambda note: show.note(f"vitsearch: {note}"), **options)
    recipe, measured = report.recipe, report.measured
    if as_json:
        facts = asdict(report) | {"recipe": recipe.to_dict(), "seconds": {name: round(value, 3) for name, value in report.seconds.items()}}
        show.json_line(facts)
        return 0
    seconds = sum(report.seconds.values())
    show.line(
        f"{report.rows:,} photos of {report.shards:,} shards are in {show.printable(index)}, recipe {recipe.name}, in {seconds:.1f} s"
    )
    if measured is None:
        show.line("so few that each is compared: the search is exact")
    else:
        effort = ", ".join(f"{name} {value:g}" for name, value in recipe.search.items())
        show.line(f"recall@{measured.k} {measured.recall:.3f} ({measured.queries} photos), with {effort}")
        if measured.recall < options["recall"]:
            show.note(f"vitsearch: a recall of {options['recall']:g} is not reached: take a finer recipe, such as ivf-sq8 or ivf")
    return 0
