"""`vitsearch embed`, `build` and `push`: vectors of many photos, as shards, an index or Milvus."""

from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.options import DEVICE, JSON, bytes_of
from vitsearch.cli.output import ProgressBar, print_json, print_line, print_note, printable

if TYPE_CHECKING:
    from vitsearch.cluster import EmbedReport


@click.command()
@click.argument("source")
@click.argument("output")
@click.option(
    "--encoder",
    default="mini",
    show_default=True,
    metavar="NAME",
    help="The model (`vitsearch models`).",
)
@click.option(
    "--actors",
    type=click.IntRange(min=1),
    metavar="N",
    help="Copies of the model; one a GPU, or one a core.",
)
@click.option(
    "--gpus-per-actor",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    metavar="X",
    help="GPUs, or parts of one.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Photos in one file.",
)
@click.option(
    "--address",
    metavar="RAY",
    help="The cluster: auto, HOST:PORT or ray://HOST:PORT; without it, this machine alone.",
)
@click.option(
    "--source-format",
    type=click.Choice(["auto", "folder", "parquet", "tar"]),
    default="auto",
    show_default=True,
    help="What SOURCE holds.",
)
@click.option(
    "--allow-urls", is_flag=True, help="Fetch photos that Parquet names in a column url (LAION)."
)
@click.option(
    "--allow-private-urls",
    is_flag=True,
    help="Fetch them also from addresses of private networks, such as this machine's.",
)
@DEVICE
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    metavar="T",
    help="float32, float16, bfloat16, int8 (on a CPU) or auto.",
)
@click.option(
    "--runtime",
    type=click.Choice(["auto", "onnx", "torch"]),
    default="auto",
    show_default=True,
    help="As in `vitsearch index`.",
)
@click.option(
    "--exact-decode",
    is_flag=True,
    help="Decode large JPEGs whole, not at the size that the model needs.",
)
@click.option(
    "--max-megapixels",
    type=click.FloatRange(min=0, min_open=True),
    default=250,
    show_default=True,
    help="Largest picture.",
)
@click.option(
    "--memory",
    default="2GB",
    show_default=True,
    metavar="SIZE",
    help="Memory in which decoded photos wait.",
)
@JSON
def embed(
    source: str, output: str, max_megapixels: float, memory: str, as_json: bool, **options: Any
) -> int:
    """Embed the photos of SOURCE on a Ray cluster into Parquet shards in OUTPUT.

    SOURCE is a folder, a URL (s3://bucket/photos), Parquet files with paths or bytes, or tars;
    OUTPUT a folder or URL. A run that was stopped goes on. `vitsearch import`, `build` and `push`
    take the shards from there.
    """
    from dataclasses import asdict

    from vitsearch.cluster import embed as embed_photos

    allow_urls, private = options.pop("allow_urls"), options.pop("allow_private_urls")
    with ProgressBar() as bar:
        report = embed_photos(
            source,
            output,
            max_pixels=max(1, round(max_megapixels * 1e6)),
            memory=bytes_of(memory),
            urls="private" if private else "public" if allow_urls else "none",
            progress=bar,
            **options,
        )
    if as_json:
        print_json(asdict(report))
    else:
        _print_report(report, output)
    return 0


def _print_report(report: "EmbedReport", output: str) -> None:
    if not report.embedded:
        print_line(
            f"all {report.shards:,} shards of {report.rows:,} photos are in "
            f"{printable(output)} already"
        )
        return
    rate = report.embedded / report.seconds if report.seconds else 0.0
    print_line(
        f"{report.embedded - report.failed:,} of {report.rows:,} photos now have a vector, in "
        f"{report.written:,} shards in {printable(output)}: {rate:.1f} "
        f"a second for {report.seconds:.1f} s"
    )
    actors = "1 actor" if report.actors == 1 else f"{report.actors} actors"
    before = f"{report.start_seconds:.1f} s to start the cluster and {actors}"
    print_note(f"vitsearch: before that {before}, {report.list_seconds:.1f} s to list the photos")
    if report.failed:
        print_note(
            f"vitsearch: {report.failed:,} files have no vector: the column "
            "`error` of their rows says why"
        )


# -- `vitsearch build` -----------------------------------------------------------------------------


@click.command()
@click.argument("output")
@click.argument("index")
@click.option(
    "--recipe",
    default="ivf-sq8",
    show_default=True,
    metavar="NAME|FILE",
    help="The index: ivf, ivf-sq8, ivf-pq, rabitq, a file.",
)
@click.option(
    "--memory",
    default="2GB",
    show_default=True,
    metavar="SIZE",
    help="Memory that a process may take: 400MB or more.",
)
@click.option(
    "--recall",
    type=float,
    default=0.95,
    show_default=True,
    metavar="R",
    help="Recall@10 that the search is tuned to.",
)
@click.option(
    "--address",
    metavar="RAY",
    help=(
        "Build parts on a Ray cluster: local, auto, or ray://HOST:PORT; all must see both folders."
    ),
)
@JSON
def build(output: str, index: str, as_json: bool, memory: str, **options: Any) -> int:
    """Build the FAISS index of the shards in OUTPUT into the folder INDEX, with no more memory than
    allowed.

    A run that was stopped goes on with the parts that are there.
    """
    from vitsearch.cluster.build import build_index

    report = build_index(output, index, memory=bytes_of(memory), **options)
    recipe, measured = report.recipe, report.measured
    if as_json:
        print_json(report.to_dict())
        return 0
    seconds = sum(report.seconds.values())
    print_line(
        f"{report.rows:,} photos of {report.shards:,} shards are in {printable(index)}, "
        f"recipe {recipe.name}, in {seconds:.1f} s"
    )
    if measured is None:
        print_line("so few that each is compared: the search is exact")
    else:
        effort = ", ".join(f"{name} {value:g}" for name, value in recipe.search.items())
        print_line(
            f"recall@{measured.k} {measured.recall:.3f} ({measured.queries} photos), with {effort}"
        )
        if measured.recall < options["recall"]:
            print_note(
                f"vitsearch: a recall of {options['recall']:g} is not reached: take a finer "
                "recipe, such as ivf-sq8 or ivf"
            )
    return 0


# -- `vitsearch push` ------------------------------------------------------------------------------


@click.command()
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--milvus",
    "uri",
    required=True,
    metavar="URI",
    help="milvus://HOST:PORT, milvus+https://HOST:PORT or milvus://PATH/FILE.db.",
)
@click.option(
    "--collection",
    "name",
    metavar="NAME",
    help="Its name there, when not the last part of the URI.",
)
@click.option(
    "--index",
    metavar="TYPE",
    help="AUTOINDEX (of a new one), FLAT (exact), IVF_FLAT, IVF_SQ8, HNSW, SCANN or DISKANN.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="Photos written at a time.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that write to a server, each a shard at a time.",
)
@JSON
def push(output: str, uri: str, as_json: bool, **options: Any) -> int:
    """Write the shards in OUTPUT into a collection of Milvus, to be searched as
    milvus://HOST:PORT/NAME.

    The token of a server is read from MILVUS_TOKEN. A push may be repeated: what is there is
    compared, and not written again.
    """
    from vitsearch.cluster.push import push as run

    with ProgressBar() as progress:
        report = run(
            output,
            uri,
            options["name"],
            index=options["index"],
            batch=options["batch"],
            workers=options["workers"],
            progress=progress,
        )
    for text in report.notes:
        print_note(f"vitsearch: {text}")
    if report.missing_shards:
        print_note(
            f"vitsearch: {report.missing_shards:,} shards are not there "
            "yet: push again when they are"
        )
    if as_json:
        print_json(report.to_dict())
        return 0
    left_out = f", {report.left_out:,} that Milvus cannot hold" if report.left_out else ""
    done = f"{report.written:,} written, {report.unchanged:,} unchanged{left_out}; {report.index}"
    print_line(
        f"{report.collection} holds {report.total:,} photos ({done}) in {report.seconds:.1f} s"
    )
    print_note(
        f"vitsearch: {report.verified} of {report.checked} stored vectors were "
        "searched for and found again"
    )
    return 0
