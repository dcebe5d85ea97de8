"""Arguments and options that several commands share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.options import (
    TOP_K,
    IndexOptions,
    Option,
    SearchOptions,
    options_of,
    value_type,
)
from vitsearch.paths import shell_word

if TYPE_CHECKING:
    from vitsearch.filters.tree import Filter


def _on_disk(context: click.Context, _: click.Parameter, photos: Any) -> Any:
    """Return the name of a photo folder; raises CollectionError for one of a
    collection in Milvus.
    """
    if isinstance(photos, str) and photos.startswith(("milvus://", "milvus+https://")):
        from vitsearch.errors import CollectionError

        raise CollectionError(
            f"{photos} is a collection in Milvus, and `{context.command_path}` works on a folder "
            "of photos: name the folder; "
            "search, similar, label, info and serve read from Milvus"
        )
    return photos


Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


def all_of(*decorators: Decorator) -> Decorator:
    """Return a decorator that adds several arguments and flags, in this order."""

    def add(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


def pasteable(photos: str, collection: str | None) -> str:
    """Return how commands that are pasted into a shell name a folder and its collection."""
    elsewhere = f" --collection {shell_word(collection)}" if collection else ""
    return shell_word(photos) + elsewhere


def _allow_downloads(context: click.Context) -> None:
    """Allow the downloads of this command."""
    from vitsearch.encoders.checkpoints import downloads_allowed

    context.with_resource(downloads_allowed())


def _say_language(context: click.Context, code: str) -> None:
    """Say in which language the texts of this command are."""
    from vitsearch.encoders.language import texts_in

    context.with_resource(texts_in(code))


def flag(options: type, name: str, **changes: Any) -> Decorator:
    """Return the flag of a field of `SearchOptions` or `IndexOptions`; ``changes`` are click's
    keywords.
    """
    entry, option = options_of(options)[name]
    facts: dict[str, Any] = {"metavar": option.metavar, "help": option.help}
    kind = value_type(entry)
    default: Any = entry.default
    if kind is bool and not option.flag:
        facts |= {"is_flag": True}
    elif kind is tuple:
        facts |= {"multiple": True}
    else:
        facts |= {"type": _flag_type(kind, option), "default": default, "show_default": True}
    if option.unit > 1:
        facts |= {"default": default // option.unit, "callback": _in_units(option.unit)}
    facts["show_default"] = bool(facts.get("default"))
    names = [option.short] if option.short else []
    names.append(option.flag or f"--{name.replace('_', '-')}")
    return click.option(name, *names, **facts | changes)


def _flag_type(kind: type, option: Option) -> Any:
    if option.choices:
        return click.Choice(option.choices)
    if option.unit > 1:
        return click.FloatRange(min=0, min_open=True)
    if option.minimum is None or kind not in (int, float):
        return None if kind in (bool, str) else kind
    limits: tuple[Any, Any] = (option.minimum, option.maximum)
    return click.IntRange(*limits) if kind is int else click.FloatRange(*limits)


def _in_units(unit: int) -> Callable[[click.Context, click.Parameter, float], int]:
    return lambda context, parameter, value: max(1, round(value * unit))


def flags(options: type, **changes: Mapping[str, Any]) -> Decorator:
    """Return the flags of all fields of an options dataclass, in their order; ``changes`` are
    click's keywords by the field's name.
    """
    return all_of(*(flag(options, name, **changes.get(name, {})) for name in options_of(options)))


def _or_above(context: click.Context, parameter: click.Parameter, photos: Any) -> Any:
    """Return the named folder, or without one the next above with a collection, as git does."""
    if photos is None:
        from vitsearch.storage import collection_above

        return str(collection_above())
    return photos


def _on_disk_or_above(context: click.Context, parameter: click.Parameter, photos: Any) -> Any:
    return _or_above(context, parameter, _on_disk(context, parameter, photos))


PHOTOS = click.argument("photos", metavar="PHOTOS", callback=_on_disk)
# or milvus://HOST:PORT/NAME, see `open_collection`
ANYWHERE = click.argument("photos", metavar="[PHOTOS]", required=False, callback=_or_above)
INDEXED = click.argument("photos", metavar="[PHOTOS]", required=False, callback=_on_disk_or_above)
COLLECTION = click.option(
    "--collection", metavar="DIR", help="Where the collection is, when not in PHOTOS/.vitsearch."
)
DEVICE = flag(IndexOptions, "device")
ALLOW_DOWNLOAD = click.option(
    "--allow-download",
    is_flag=True,
    expose_value=False,
    callback=lambda context, _, allowed: _allow_downloads(context) if allowed else None,
    help="Download the model that the collection names where it is not on this machine.",
)
MODEL = all_of(DEVICE, ALLOW_DOWNLOAD)  # of a collection
LANGUAGE = click.option(
    "--language",
    expose_value=False,
    metavar="CODE",
    callback=lambda context, _, code: _say_language(context, code) if code else None,
    help="Language of your texts, as de or deu_Latn, for a model that is told it (NLLB); guessed "
    "for each text without it.",
)
TEMPLATES = click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="T",
    help="plain, simple, imagenet, or your own with {}; may be repeated.",
)
READ_ONLY = click.option(
    "--read-only",
    is_flag=True,
    help="Refuse a damaged index instead of searching every stored vector.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON Lines in pure ASCII.")
PATHS = click.option(
    "--paths", "only_paths", is_flag=True, help="Print bare paths, relative to PHOTOS."
)
ZERO = click.option(
    "-0", "zero", is_flag=True, help="With --paths: end each by a zero byte, for `xargs -0`."
)

results = all_of(
    flag(
        SearchOptions,
        "top_k",
        default=None,
        show_default=False,
        help=f"How many results: {TOP_K}, or with --min-score all.",
    ),
    JSON,
    PATHS,
    ZERO,
    click.option("--sheet", metavar="FILE", help="Also draw the results as FILE.png or FILE.html."),
)
filters = all_of(
    flag(SearchOptions, "where"),
    click.option(
        "--after", metavar="DATE", help="Only photos taken on or after 2019, 2019-07 or 2019-07-14."
    ),
    click.option("--before", metavar="DATE", help="Only photos taken before it."),
    click.option(
        "--under", metavar="FOLDER", help="Only photos in this folder of PHOTOS and below."
    ),
)
KEYWORDS = tuple(
    name
    for name in options_of(SearchOptions)
    if name not in ("top_k", "where", "literal", "min_relevance")
)
keywords = all_of(*(flag(SearchOptions, name) for name in KEYWORDS))
# of words
WORDS = all_of(flag(SearchOptions, "literal"), flag(SearchOptions, "min_relevance"))


def filter_of(options: Mapping[str, Any]) -> "Filter | None":
    """Return the filter that the options of `filters` say together; raises QueryError."""
    from vitsearch.filters import filter_all

    return filter_all(
        options["where"], after=options["after"], before=options["before"], under=options["under"]
    )


def check_forms(options: Mapping[str, Any]) -> None:
    """Raise UsageError for forms of output that do not go together."""
    if options["zero"] and not options["only_paths"]:
        raise click.UsageError("-0 goes with --paths", click.get_current_context())
    if options["only_paths"] and options["as_json"]:
        raise click.UsageError("give either --json or --paths", click.get_current_context())


class CommandWithFacts(click.Command):
    """A command whose help ends with facts of the library, which is loaded only to show them."""

    def __init__(self, *arguments: Any, facts: Callable[[], str], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._facts = facts

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.epilog = self._facts()
        super().format_epilog(ctx, formatter)


# -- Opening what PHOTOS names: a folder with its collection, or a collection in Milvus ------------

if TYPE_CHECKING:
    from vitsearch.collection import Collection

_ONLY_ON_DISK = {
    "collection": (
        "--collection DIR goes with a folder of photos: the last part of "
        "milvus://HOST:PORT/NAME names the collection"
    ),
    "store": "--store writes into a collection on disk: label that one, and push it again",
    "sort_into": (
        "--sort-into takes a folder of photos: label that one, or write the labels with "
        "--output FILE.csv"
    ),
    "is_followed": "--watch follows a folder of photos, not a collection in Milvus",
    "xmp": (
        "--xmp writes beside the photos: label their folder, or write the labels with --output "
        "FILE.csv"
    ),
}


def open_collection(photos: str, options: Mapping[str, Any]) -> "Collection":
    """Return the collection that PHOTOS names; raises UsageError for an option that does not go
    with Milvus.
    """
    from vitsearch.collection import Collection

    check_place(photos, options)
    return Collection.open(
        photos,
        collection=options.get("collection"),
        device=options.get("device") or "auto",
        read_only=options.get("read_only") or False,
    )


def check_place(photos: str, options: Mapping[str, Any]) -> None:
    """Raise UsageError for an option that does not go with a collection in Milvus."""
    from vitsearch.milvus import is_milvus

    if options.get("root") and not is_milvus(photos):
        raise click.UsageError(
            "--photos ROOT goes with a collection in Milvus: PHOTOS says where these are",
            click.get_current_context(),
        )
    for name, reason in _ONLY_ON_DISK.items() if is_milvus(photos) else ():
        if options.get(name):
            raise click.UsageError(reason, click.get_current_context())


# -- Where labels go beside the terminal: folders of photos, and XMP sidecars ---------------------


def outputs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the commands that label photos."""
    options = (
        click.option(
            "--sort-into",
            metavar="DIR",
            help=(
                "Put links to the photos into a folder for each label, DIR/LABEL; what an "
                "earlier run of the same photos put there goes."
            ),
        ),
        click.option("--copy", is_flag=True, help="With --sort-into: copies instead of links."),
        click.option(
            "--xmp",
            is_flag=True,
            help=(
                "Write the labels as keywords into XMP sidecars beside the photos (PHOTO.jpg.xmp)."
            ),
        ),
        click.option(
            "--min-probability",
            type=click.FloatRange(0, 1),
            metavar="P",
            help=(
                "With --sort-into and --xmp: write only labels of at least this probability, 0: "
                "all. Without it a terminal asks where no label is sure, and else none is written."
            ),
        ),
        click.option(
            "--sheet",
            metavar="FILE",
            help="Also draw the photos of each label, the surest first, as FILE.png or FILE.html.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_outputs(root: str | Path, options: dict[str, Any]) -> None:
    """Raise UsageError or VitsearchError where the labels could not be written: said before long
    work, not after it.
    """
    if options["copy"] and options["sort_into"] is None:
        raise click.UsageError("--copy goes with --sort-into", click.get_current_context())
    if options["sort_into"] is not None:
        from vitsearch.outputs.sorting import check_target
        from vitsearch.storage import locate

        check_target(options["sort_into"], locate(root, options.get("collection"))[0])
    if options["sheet"]:
        from vitsearch.outputs.contact_sheet import check_suffix

        check_suffix(Path(options["sheet"]))


def bytes_of(text: str) -> int:
    """Return the bytes of a size such as 2GB, 500MB or 1.5 GiB; raises BadParameter."""
    units = {
        "": 1,
        "B": 1,
        "KB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "TB": 1e12,
        "KIB": 2**10,
        "MIB": 2**20,
        "GIB": 2**30,
        "TIB": 2**40,
    }
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
