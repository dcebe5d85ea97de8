"""`vitsearch index` and `forget`: words to one run of indexing; what was put aside is deleted."""

import math
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.options import (
    ALLOW_DOWNLOAD,
    COLLECTION,
    JSON,
    MODEL,
    PHOTOS,
    CommandWithFacts,
    bytes_of,
    flags,
    open_collection,
    pasteable,
)
from vitsearch.cli.output import (
    ProgressBar,
    print_json,
    print_line,
    print_note,
    printable,
    readable_size,
)
from vitsearch.options import IndexOptions

# -- `vitsearch prepare-model`: the export of a model for ONNX Runtime, made ahead -----------------


@click.command("prepare-model")
@click.argument("name")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="The number format.",
)
@JSON
def prepare(name: str, dtype: str, as_json: bool) -> int:
    """Export the model NAME for ONNX Runtime, so that it runs on the CPU without PyTorch;
    `vitsearch index` does it by itself.

    int8 is smaller and, on most processors, faster; its vectors differ a little and fit only a
    collection that was made with it.
    """
    from vitsearch.encoders import needs_preparation, prepare_model, without_preparation

    if not needs_preparation(name):
        if as_json:
            print_json({"name": name, "made": False})
        else:
            print_line(f"{printable(name)} {without_preparation(name)}")
        return 0
    prepared = prepare_model(name, dtype=dtype)
    if as_json:
        print_json(asdict(prepared))
        return 0
    done = "exported" if prepared.made else "was there already"
    print_line(
        f"{printable(prepared.name)} in {dtype}: {done}, "
        f"{readable_size(prepared.size_bytes)} in "
        f"{printable(prepared.folder)}"
    )
    print_line(
        f"vectors of fixed pictures and texts: cosine of at least {prepared.cosine:.5f} to "
        "those "
        "of PyTorch in float32"
    )
    return 0


# -- `vitsearch tune`: words to the search effort of a collection's index --------------------------


@click.command()
@PHOTOS
@COLLECTION
@MODEL
@click.option(
    "--recall",
    type=float,
    default=0.95,
    show_default=True,
    metavar="R",
    help="Share of the true ten best that is to be found.",
)
@JSON
def tune(photos: str, recall: float, as_json: bool, **options: Any) -> int:
    """Measure the index of PHOTOS against exact search and set the least effort that reaches a
    recall@10.
    """
    from dataclasses import asdict

    from vitsearch.collection import Collection

    with Collection.open(photos, **options) as collection:
        report = collection.tune(recall)
    measured = report.measured
    if as_json:
        tried = [{**asdict(each), "recipe": each.recipe.to_dict()} for each in report.tried]
        facts = asdict(measured) if measured else None
        print_json({"recipe": report.recipe.to_dict(), "measured": facts, "tried": tried})
        return 0
    _print_tried(report.tried)
    if measured is None:
        print_line(f"recipe {report.recipe.name} compares every photo: there is nothing to tune")
    else:
        words = "" if measured.texts is None else f", {measured.texts:.3f} for words"
        effort = (
            ", ".join(f"{name} {value:g}" for name, value in report.recipe.search.items())
            or "as it was"
        )
        print_line(
            f"recall@{measured.k} {measured.photos:.3f} for photos{words} ({measured.queries} "
            f"queries), with {effort}"
        )
    if measured and measured.recall < recall:
        print_note(
            f"vitsearch: {recall:g} is not reached: take a finer recipe, such as --recipe "
            "hnsw or "
            "flat"
        )
    return 0


def _print_tried(tried: Sequence["Trial"]) -> None:
    """Print what each recipe did on a sample of the photos."""
    if tried:
        print_line("recipe        photos  words  ms a search  bytes a vector  effort")
    for trial in tried:
        words = "    -" if trial.texts is None else f"{trial.texts:.3f}"
        effort = ", ".join(f"{name} {value:g}" for name, value in trial.recipe.search.items())
        effort += f"{', ' if effort else ''}overfetch {trial.recipe.overfetch}"
        print_line(
            f"{trial.recipe.name:12}  {trial.photos:.3f}   {words}  {trial.query_ms:11.2f}  "
            f"{trial.bytes_per_vector:14,}  {'' if trial.recipe.is_exact else effort}".rstrip()
        )


# -- `vitsearch index`: words to one run of indexing -----------------------------------------------

if TYPE_CHECKING:
    from vitsearch.index.recall import Trial
    from vitsearch.types import IndexReport, Stages

COUNTS = (
    "indexed",
    "unchanged",
    "moved",
    "restored",
    "removed",
    "out_of_reach",
    "skipped",
    "failed",
)


def _formats() -> str:
    from vitsearch.photos.formats import VIDEO, named_suffixes

    videos = ", ".join(VIDEO.suffixes[:6])
    return (
        f"Photos are {named_suffixes()} files, videos (with vitsearch[video]) {videos} and others; "
        "what else is in PHOTOS is passed over."
    )


@click.command(cls=CommandWithFacts, facts=_formats)
@PHOTOS
@COLLECTION
@ALLOW_DOWNLOAD
@flags(
    IndexOptions,
    decode_timeout={"callback": lambda *values: _seconds(values[-1])},
    reread={"is_flag": False, "flag_value": "*"},
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="Memory that recipe auto may take, such as 2GB; a quarter of the machine's.",
)
@click.option(
    "--recall",
    type=float,
    metavar="R",
    help="Recall@10 that the search is tuned to; 0.95 with recipe auto.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
@JSON
def index(
    photos: str,
    as_json: bool,
    memory: str | None,
    recall: float | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Index the folder PHOTOS, or bring its collection up to date.

    It takes what time of the processor other programs leave.
    """
    from dataclasses import asdict

    from vitsearch.collection.update import index_folder

    options["recipe"] = _recipe(options["recipe"], memory, recall)
    with ProgressBar(quiet=quiet) as bar:
        report = index_folder(photos, progress=bar, **options)
    if as_json:
        print_json(asdict(report))
        return 0
    print_line(_summary(report, options["keep_missing"]))
    if report.texts_read:
        print_note(f"vitsearch: read the text of {report.texts_read:,} photos")
    if report.indexed:
        print_note(_time_line(report.stages))
    for note in _notes(pasteable(photos, options["collection"]), report):
        print_note(f"vitsearch: {note}")
    return 0


def _until_end(stop: threading.Event) -> None:
    """Set an event once there is nothing more to read from standard input."""
    sys.stdin.buffer.read()
    stop.set()


def _summary(report: "IndexReport", keep_missing: int) -> str:
    """Return one line on what a run did."""
    words = {
        "removed": "put aside" if keep_missing else "removed",
        "out_of_reach": "out of reach",
    }
    done = ", ".join(
        f"{getattr(report, name):,} {words.get(name, name)}"
        for name in COUNTS
        if getattr(report, name)
    )
    return (
        f"{report.total:,} photos are searchable ({done}) in {report.seconds:.1f} s, and "
        f"{report.load_seconds:.1f} s to load the model"
    )


@click.command()
@PHOTOS
@COLLECTION
@ALLOW_DOWNLOAD
@click.option(
    "--poll",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Walk the folder so often, instead of being told of changes; every 10 s where it is on "
    "another machine.",
)
@flags(
    IndexOptions,
    decode_timeout={"callback": lambda *values: _seconds(values[-1])},
    reread={"hidden": True},
)
@click.option(
    "--with-stdin",
    "ends_with_stdin",
    is_flag=True,
    hidden=True,
    help="End when there is nothing more to read from standard input.",
)
@JSON
def watch(
    photos: str, as_json: bool, poll: float | None, ends_with_stdin: bool, **options: Any
) -> int:
    """Index the folder PHOTOS and go on watching it: new photos are searchable in a few seconds,
    until Ctrl-C.

    `vitsearch serve` beside it shows them as they come. It takes what time of the processor other
    programs leave.
    """
    from vitsearch.collection.runs import watch_folder

    stop = threading.Event()
    if ends_with_stdin:  # which is closed however the process ends that started this one
        threading.Thread(target=_until_end, args=(stop,), daemon=True).start()
    with ProgressBar() as bar:
        for report in watch_folder(photos, poll=poll, stop=stop, progress=bar, **options):
            bar.close()
            if ends_with_stdin and report.unchanged == report.total:
                continue
            if as_json:
                print_json(asdict(report))
            else:
                print_line(_summary(report, options["keep_missing"]))
    return 0


def _notes(named: str, report: "IndexReport") -> Iterator[str]:
    """Yield a line on each kind of file that is not in the collection, which commands name so."""
    from vitsearch.collection.absence import UNREADABLE, left_out_line
    from vitsearch.photos.formats import WITHOUT_READER

    if report.texts_failed:
        yield (
            f"the text of {report.texts_failed:,} photos could not be read; `vitsearch index "
            f"{named} --ocr --retry` tries again"
        )
    if report.failed or report.skipped:
        yield (
            f"{report.failed + report.skipped} files are not in the collection: "
            f"`vitsearch failures {named}` says why"
        )
    if unread := sum(report.left_out.get(reason, 0) for reason in UNREADABLE):
        yield (
            f"{unread:,} of the folders and files could not be read: `vitsearch failures {named}` "
            "lists them; what was known of them stays"
        )
    chosen = {name: n for name, n in report.left_out.items() if name not in UNREADABLE}
    if chosen:
        line = left_out_line({"left_out": chosen, "extensions": report.extensions})
        yield f"{line}: `vitsearch failures {named} --left-out` lists them"
    if suffixes := sorted(_suffixes(report) & WITHOUT_READER.keys()):
        yield (
            f"pictures without a reader: {', '.join(suffixes)}: `vitsearch failures {named} "
            "--left-out` says how to have them"
        )


def _suffixes(report: "IndexReport") -> set[str]:
    return {glob.removeprefix("*.") for glob in report.extensions}


def _seconds(value: float | None) -> float | None:
    """Return a limit of time; raises BadParameter unless it is a finite number above 0."""
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value} is not a finite number of seconds above 0.")
    return value


def _time_line(stages: "Stages") -> str:
    """Return one line on where the time of a run went, the largest share first."""
    shares = sorted(stages.shares().items(), key=lambda share: -share[1])
    words = {"disk": "the disk", "model": "the model", "looking": "looking for files"}
    named = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.01)
    return f"vitsearch: of the work, {named}: bound by {words.get(stages.bound, stages.bound)}"


def _recipe(name: str | None, memory: str | None, recall: float | None) -> Any:
    """Return the recipe asked for, with the memory and the recall that were named, or None where
    nothing was.
    """
    from vitsearch.index.recipe import Recipe, load_recipe

    if memory is None and recall is None:
        return name
    facts = load_recipe(name or "auto").to_dict()
    facts |= {} if memory is None else {"memory": bytes_of(memory)}
    return Recipe.from_dict(
        facts | ({} if recall is None else {"recall": recall}), source="--recall"
    )


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
