"""`vitsearch embed`: words to one run of embedding on a cluster."""

from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli import show
from vitsearch.cli.options import DEVICE, JSON
from vitsearch.cli.tune import bytes_of

if TYPE_CHECKING:
    from vitsearch.distributed import EmbedReport


@click.command()
@click.argument("source")
@click.argument("output")
@click.option("--encoder", default="mini", show_default=True, metavar="NAME", help="The model (`vitsearch models`).")
@click.option("--actors", type=click.IntRange(min=1), metavar="N", help="Copies of the model; one a GPU, or one a core.")
@click.option("--gpus-per-actor", type=click.FloatRange(min=0), default=0, show_default=True, metavar="X", help="GPUs, or parts of one.")
@click.option("--shard-size", type=click.IntRange(min=1), default=10_000, show_default=True, metavar="N", help="Photos in one file.")
@click.option("--address", metavar="RAY", help="The cluster: auto, HOST:PORT or ray://HOST:PORT; without it, this machine alone.")
@click.option(
    "--source-format",
    type=click.Choice(["auto", "folder", "parquet", "tar"]),
    default="auto",
    show_default=True,
    help="What SOURCE holds.",
)
@DEVICE
@click.option("--dtype", default="auto", show_default=True, metavar="T", help="float32, float16, bfloat16, int8 (on a CPU) or auto.")
@click.option("--runtime", type=click.Choice(["auto", "onnx", "torch"]), default="auto", show_default=True, help="As in `vitsearch index`.")
@click.option("--exact-decode", is_flag=True, help="Decode large JPEGs whole, not at the size that the model needs.")
@click.option("--max-megapixels", type=click.FloatRange(min=0, min_open=True), default=250, show_default=True, help="Largest picture.")
@click.option("--memory", default="2GB", show_default=True, metavar="SIZE", help="Memory in which decoded photos wait.")
@JSON
def embed(source: str, output: str, max_megapixels: float, memory: str, as_json: bool, **options: Any) -> int:
    """Embed the photos of SOURCE on a Ray cluster into Parquet shards in OUTPUT.

    SOURCE is a folder, a URL (s3://bucket/photos), Parquet files with paths or bytes, or tars; OUTPUT a folder or URL. A run that was
    stopped goes on. `vitsearch import`, `build` and `push` take the shards from there.
    """
    from dataclasses import asdict

    from vitsearch.cli.progress import ProgressBar
    from vitsearch.distributed import embed as embed_photos

    with ProgressBar() as bar:
        report = embed_photos(
            source, output, max_pixels=max(1, round(max_megapixels * 1e6)), memory=bytes_of(memory), progress=bar, **options
        )
    if as_json:
        show.json_line(asdict(report))
    else:
        _say(report, output)
    return 0


def _say(report: "EmbedReport", output: str) -> None:
    if not report.embedded:
        show.line(f"all {report.shards:,} shards of {report.rows:,} photos are in {show.printable(output)} already")
        return
    rate = report.embedded / report.seconds if report.seconds else 0.0
    show.line(
        f"{report.embedded:,} of {report.rows:,} photos are now in {report.written:,} shards in {show.printable(output)}, "
        f"{rate:.1f} a second for {report.seconds:.1f} s"
    )
    before = f"{report.start_seconds:.1f} s to start the cluster and {report.actors} actor{'s' if report.actors > 1 else ''}"
    show.note(f"vitsearch: before that {before}, {report.list_seconds:.1f} s to list the photos")
    if report.failed:
        show.note(f"vitsearch: {report.failed:,} files have no vector: the column `error` of their rows says why")
