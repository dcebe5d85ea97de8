"""`vitsearch plan`: words to what embedding, indexing and serving so many photos will take."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli import show
from vitsearch.cli.options import JSON

if TYPE_CHECKING:
    from vitsearch.distributed.plan import Plan, Stage

RATES = {  # each may be given in place of what is assumed
    "megapixels": "Megapixels of a photo, which decoding and --photo-mb follow.",
    "photo_mb": "Megabytes of a photo.",
    "list_rate": "Files a second that the store lists.",
    "read_mbps": "MB a second that a machine reads.",
    "cores": "Cores of a machine.",
    "decode_per_core": "Photos a second that a core decodes.",
    "encode_rate": "Photos a second of one GPU (of one core, where there is none).",
    "encode_share": "Share of that rate which is reached.",
    "dim": "Numbers in a vector.",
    "write_mbps": "MB a second that a machine writes.",
    "row_bytes": "Bytes a photo beside its vector.",
    "shard_size": "Photos in a shard.",
    "build_per_core": "Vectors of 512 a second that a core puts into 4,096 lists.",
    "disk_mbps": "MB a second of the disk where the lists are merged.",
    "milvus_rate": "Vectors a second that the Milvus cluster takes.",
    "memory_gb": "GB of memory of a serving machine.",
}


def rates(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option for each rate."""
    for name, words in reversed(RATES.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, type=float, metavar="X", help=words)(command)
    return command


@click.command()
@click.option("--photos", required=True, metavar="N", help="How many: 200k, 1.5M, 50M, 5B.")
@click.option("--encoder", default="open_clip:ViT-B-32/laion2b_s34b_b79k", show_default=True, metavar="NAME", help="The model.")
@click.option("--machines", default="1xcpu", show_default=True, metavar="M", help="4x4090 (one GPU each), 2x8x4090 (eight each), 16xcpu.")
@click.option("--recipe", default="ivf-sq8", show_default=True, metavar="NAME|FILE", help="The index: of inverted lists.")
@click.option("--dtype", type=click.Choice(["float32", "int8"]), default="float32", show_default=True, help="Number format on a CPU.")
@click.option(
    "--price-per-hour", type=click.FloatRange(min=0), metavar="X", help="Of one machine, in any money; listing and pushing take one."
)
@rates
@JSON
def plan(photos: str, machines: str, as_json: bool, price_per_hour: float | None, **options: Any) -> int:
    """Say what so many photos take on so many machines: bytes, hours and money of each stage, and what that rests on."""
    from dataclasses import asdict

    from vitsearch.distributed.plan import Wish, make_plan, parse_count, parse_machines

    given = {name: options[name] for name in RATES if options[name] is not None}
    named = {name: options[name] for name in ("encoder", "recipe", "dtype")}
    wish = Wish(parse_count(photos), machines=parse_machines(machines), given=given, price_per_hour=price_per_hour, **named)
    made = make_plan(wish)
    if as_json:
        show.json_line(asdict(made))
    else:
        _show(made)
    return 0


def _show(made: "Plan") -> None:
    wish, serving = made.wish, made.serving
    show.line(f"{wish.photos:,} photos by {show.printable(wish.encoder)}, recipe {show.printable(wish.recipe)}, on {wish.machines}")
    show.line("")
    rows = [_row(stage) for stage in made.stages]
    rows += [_row(made.embedding, "= embedding"), *(_row(stage) for stage in made.after)]
    rows += [("total", "", _hours(made.total_hours), _money(made.total_money), "")]
    show.table(rows, ("stage", "bytes", "hours", "money", "bound by"))
    show.line("reading, decoding, encoding and writing go on at the same time: embedding is as slow as the slowest of them")
    show.line("")
    show.line(
        f"serving: {show.size(serving.memory_bytes)} in memory on {serving.machines:,} machine{'s' * (serving.machines != 1)}, "
        f"{show.size(serving.disk_bytes)} on disk, {serving.search_ms:,.1f} ms a search on two cores"
        + ("" if serving.money_per_month is None else f", {serving.money_per_month:,.2f} a month")
    )
    show.line("")
    show.line("where it stops being linear:")
    listed = [*made.stages, made.embedding, *made.after]
    show.table([(f"  {stage.name}", stage.linear) for stage in listed if stage.linear] + [("  serving", serving.note)])
    show.line("")
    show.line("this rests on (a flag of that name takes another number):")
    show.table([(f"  --{one.name.replace('_', '-')}", f"{one.value:,.10g}", one.unit, one.source) for one in made.assumptions])


def _row(stage: "Stage", name: str = "") -> tuple[str, str, str, str, str]:
    return name or stage.name, show.size(stage.bytes), _hours(stage.hours), _money(stage.money), stage.bound


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.3f}"


def _money(money: float | None) -> str:
    return "-" if money is None else f"{money:,.2f}"
