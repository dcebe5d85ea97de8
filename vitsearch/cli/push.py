"""`vitsearch push`: shards into a collection of Milvus."""

from typing import Any

import click

from vitsearch.cli import show
from vitsearch.cli.options import JSON
from vitsearch.cli.progress import counted_bar


@click.command()
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--milvus", "uri", required=True, metavar="URI", help="milvus://HOST:PORT, milvus+https://HOST:PORT or milvus://PATH/FILE.db."
)
@click.option("--collection", "name", metavar="NAME", help="Its name there, when not the last part of the URI.")
@click.option("--index", metavar="TYPE", help="AUTOINDEX (of a new one), FLAT (exact), IVF_FLAT, IVF_SQ8, HNSW, SCANN or DISKANN.")
@click.option("--batch", type=click.IntRange(1, 10_000), default=1000, show_default=True, metavar="N", help="Photos written at a time.")
@JSON
def push(output: str, uri: str, as_json: bool, **options: Any) -> int:
    """Write the shards in OUTPUT into a collection of Milvus, to be searched as milvus://HOST:PORT/NAME.

    The token of a server is read from MILVUS_TOKEN. A push may be repeated: what is there is compared, and not written again.
    """
    from dataclasses import asdict

    from vitsearch.distributed.push import push as run

    with counted_bar("pushing") as progress:
        report = run(output, uri, options["name"], index=options["index"], batch=options["batch"], progress=progress)
    for text in report.notes:
        show.note(f"vitsearch: {text}")
    if report.missing:
        show.note(f"vitsearch: {report.missing:,} shards are not there yet: push again when they are")
    if as_json:
        show.json_line(asdict(report))
        return 0
    left_out = f", {report.unheld:,} that Milvus cannot hold" if report.unheld else ""
    done = f"{report.written:,} written, {report.unchanged:,} unchanged{left_out}; {report.index}"
    show.line(f"{report.place} holds {report.total:,} photos ({done}) in {report.seconds:.1f} s")
    show.note(f"vitsearch: {report.found} of {report.checked} stored vectors were searched for and found again")
    return 0
