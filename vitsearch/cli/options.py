"""Arguments and options that several commands share."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vitsearch.where import Where


def _on_disk(context: click.Context, _: click.Parameter, photos: Any) -> Any:
    """Return the name of a photo folder; raises CollectionError for one of a collection in Milvus."""
    if isinstance(photos, str) and photos.startswith(("milvus://", "milvus+https://")):
        from vitsearch.errors import CollectionError

        raise CollectionError(
            f"{photos} is a collection in Milvus, and `{context.command_path}` works on a folder of photos: name the folder; "
            "search, similar, label, info and serve read from Milvus"
        )
    return photos


PHOTOS = click.argument("photos", metavar="PHOTOS", callback=_on_disk)
ANYWHERE = click.argument("photos", metavar="PHOTOS")  # or milvus://HOST:PORT/NAME, see `open_collection`
COLLECTION = click.option("--collection", metavar="DIR", help="Where the collection is, when not in PHOTOS/.vitsearch.")
DEVICE = click.option("--device", default="auto", show_default=True, metavar="D", help="cpu, cuda, cuda:1, mps or auto.")
READ_ONLY = click.option("--read-only", is_flag=True, help="Refuse a damaged index instead of searching every stored vector.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON Lines in pure ASCII.")
PATHS = click.option("--paths", "only_paths", is_flag=True, help="Print bare paths, relative to PHOTOS.")
ZERO = click.option("-0", "zero", is_flag=True, help="With --paths: end each by a zero byte, for `xargs -0`.")

Command = Callable[..., Any]


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


results = _all(
    click.option("-k", "--top-k", type=click.IntRange(min=1), metavar="N", help="How many results: 10, or with --min-score all."),
    JSON,
    PATHS,
    ZERO,
    click.option("--sheet", metavar="FILE", help="Also draw the results as FILE.png or FILE.html."),
)
filters = _all(
    click.option("--where", metavar="FILTER", help="Only photos like this: \"year >= 2019 and path like 'italy/%'\"."),
    click.option("--after", metavar="DATE", help="Only photos taken on or after 2019, 2019-07 or 2019-07-14."),
    click.option("--before", metavar="DATE", help="Only photos taken before it."),
    click.option("--under", metavar="FOLDER", help="Only photos in this folder of PHOTOS and below."),
)
wishes = _all(
    click.option("--min-score", type=click.FloatRange(-1, 1), metavar="X", help="Only results with a cosine of X or more."),
    click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Pass over the first N results."),
    click.option(
        "--diverse",
        type=click.FloatRange(0, 1),
        default=0.0,
        metavar="X",
        help="Results unlike each other: from 0, the most alike to the query, to 1.",
    ),
    click.option("--collapse", is_flag=True, help="Show one photo of those that are the same or look alike."),
)


def filter_of(options: Mapping[str, Any]) -> "Where | None":
    """Return the filter that the options of `filters` say together; raises QueryError."""
    from vitsearch.where import where_all

    return where_all(options["where"], after=options["after"], before=options["before"], under=options["under"])


def check_forms(options: Mapping[str, Any]) -> None:
    """Raise UsageError for forms of output that do not go together."""
    if options["zero"] and not options["only_paths"]:
        raise click.UsageError("-0 goes with --paths", click.get_current_context())
    if options["only_paths"] and options["as_json"]:
        raise click.UsageError("give either --json or --paths", click.get_current_context())
