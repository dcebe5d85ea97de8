"""The commands; each translates words into one call of the library and its answer into lines."""

import sys
import warnings
from pathlib import Path
from typing import Any

import click

from vitsearch._version import __version__
from vitsearch.cli import show
from vitsearch.cli.classify import classify
from vitsearch.cli.compare import compare
from vitsearch.cli.dupes import dupes
from vitsearch.cli.evaluate import evaluate
from vitsearch.cli.exchange import export, import_vectors, merge
from vitsearch.cli.explain import explain
from vitsearch.cli.finetune import finetune
from vitsearch.cli.label import label
from vitsearch.cli.options import COLLECTION, DEVICE, JSON, PHOTOS
from vitsearch.cli.search import search, similar
from vitsearch.cli.train import train
from vitsearch.cli.tune import bytes_of, tune
from vitsearch.errors import VitsearchError

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit: 0 found, 1 nothing found or a known error, 2 wrong usage."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every known error becomes one line on stderr."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # Pillow's remarks on damaged EXIF, which never fails a photo
    out, err = sys.stdout, sys.stderr
    try:
        code = cli.main(arguments, prog_name="vitsearch", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit:  # click's way out where the reader of stdout, such as `head`, has enough
        sys.stdout, sys.stderr = out, err
        return show.give_up_output(BrokenPipeError())
    except VitsearchError as error:
        show.note(f"vitsearch: {' '.join(str(error).split())}")
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        show.line(error.format_message())
        return 2
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "vitsearch"
        show.note(f"vitsearch: {' '.join(error.format_message().split())} (see `{command} --help`)")
        return 2
    except (KeyboardInterrupt, click.Abort):
        show.note("vitsearch: stopped; what was stored is kept, run the same command to go on")
        return INTERRUPTED
    except OSError as error:
        return show.give_up_output(error)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="vitsearch")
def cli() -> None:
    """Find, label and understand your photos: text and photo search over a folder, offline.

    Results go to stdout, progress and notes to stderr. Exit code 0: found; 1: nothing found or an error; 2: wrong usage.
    """


@cli.command()
@PHOTOS
@COLLECTION
@click.option("--encoder", metavar="NAME", help="The model (`vitsearch models`); mini for a new collection.")
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    help="The index: auto, flat, hnsw, ivf, ivf-sq8, ivf-pq, sq8, rabitq, disk, gpu-flat, gpu-ivf or a TOML file; auto for a new one.",
)
@click.option("--memory", metavar="SIZE", help="Memory that recipe auto may take, such as 2GB; a quarter of the machine's.")
@click.option("--recall", type=float, metavar="R", help="Recall@10 that the search is tuned to; 0.95 with recipe auto.")
@DEVICE
@click.option("--dtype", default="auto", show_default=True, metavar="T", help="float32, float16, bfloat16 or auto.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, metavar="N", help="Photos encoded and stored at a time."
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Threads that decode; one a core.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out paths or names like this; may be repeated.")
@click.option("--include-hidden", is_flag=True, help="Take hidden files and folders too.")
@click.option("--follow-symlinks", is_flag=True, help="Enter linked folders (links to files are always followed).")
@click.option("--retry", is_flag=True, help="Try again the files that failed before.")
@click.option(
    "--max-megapixels", type=click.FloatRange(min=0, min_open=True), default=250, show_default=True, help="Largest picture to decode."
)
@JSON
def index(photos: str, max_megapixels: float, as_json: bool, memory: str | None, recall: float | None, **options: Any) -> int:
    """Index the folder PHOTOS, or bring its collection up to date."""
    from dataclasses import asdict

    from vitsearch.cli.progress import ProgressBar
    from vitsearch.indexing import index_folder

    options["recipe"] = _recipe(options["recipe"], memory, recall)
    with ProgressBar() as bar:
        report = index_folder(photos, max_pixels=max(1, round(max_megapixels * 1e6)), progress=bar, **options)
    if as_json:
        show.json_line(asdict(report))
        return 0
    done = ", ".join(f"{count:,} {name}" for name, count in asdict(report).items() if isinstance(count, int) and name != "total" and count)
    show.line(
        f"{report.total:,} photos are searchable ({done}) in {report.seconds:.1f} s, and {report.load_seconds:.1f} s to load the model"
    )
    if report.failed or report.skipped:
        show.note(f"vitsearch: {report.failed + report.skipped} files are not in the collection: `vitsearch failures {photos}` says why")
    return 0


@cli.command()
@PHOTOS
@COLLECTION
@JSON
def info(photos: str, collection: str | None, as_json: bool) -> int:
    """Print what the collection of PHOTOS holds: counts, encoder, index, sizes and dates."""
    from vitsearch.report import collection_info

    with _opened(photos, {"collection": collection}) as found:
        facts = collection_info(found)
    if as_json:
        show.json_line(facts)
    else:
        show.table([(name.replace("_", " "), show.size(value) if name.endswith("_bytes") else value) for name, value in facts.items()])
    return 0


@cli.command()
@PHOTOS
@COLLECTION
@JSON
def failures(photos: str, collection: str | None, as_json: bool) -> int:
    """List the files of PHOTOS that are not in the collection, and why (failed: unreadable; skipped: not opened)."""
    with _opened(photos, {"collection": collection}) as found:
        listed = found.failures()
    for one in listed:
        if as_json:
            show.json_line({"path": one.path, "state": one.state, "reason": one.reason})
        else:
            show.line(f"{one.state}\t{show.printable(one.path)}\t{show.printable(one.reason)}")
    if not listed:
        show.note("vitsearch: every photo is in the collection")
    return 0 if listed else 1


@cli.command()
@PHOTOS
@COLLECTION
@DEVICE
@JSON
def verify(photos: str, as_json: bool, **options: Any) -> int:
    """Check the collection of PHOTOS: database, encoder, index, and which files are gone or changed."""
    from vitsearch.report import verify_collection

    with _opened(photos, options) as found:
        checks = verify_collection(found)
    for check in checks:
        if as_json:
            show.json_line({"check": check.name, "ok": check.ok, "detail": check.detail})
        else:
            show.line(f"{'ok' if check.ok else 'BAD':4}{check.name}: {show.printable(check.detail)}")
    return 0 if all(check.ok for check in checks) else 1


@cli.command()
@click.argument("pattern", required=False)
@JSON
def models(pattern: str | None, as_json: bool) -> int:
    """List encoders with their published figures, and whether they are on this machine; PATTERN as in *SigLIP2*."""
    from dataclasses import asdict

    from vitsearch.encoders.catalogue import list_encoders

    listed = list_encoders(pattern)
    if as_json:
        for one in listed:
            show.json_line(asdict(one))
    elif not listed:
        show.note(f"vitsearch: no known encoder is named like {pattern!r}: try *SigLIP2*, ViT-B-32, hf:")
    else:
        heads = ("encoder", "M params", "ImageNet %", "COCO R@1 %", "Spanish R@1 %", "here")
        figures = ((one.mparams, one.imagenet_top1, one.coco_r1, one.spanish_r1) for one in listed)
        columns = (["-" if value is None else value for value in row] for row in figures)
        show.table([(one.name, *row, "yes" if one.on_this_machine else "no") for one, row in zip(listed, columns, strict=True)], heads)
        show.note("vitsearch: figures as published: zero-shot ImageNet-1k, text to photo on COCO and on Crossmodal-3600 in Spanish")
    return 0 if listed else 1


@cli.command()
@JSON
def doctor(as_json: bool) -> int:
    """Print versions, processor, GPU (or why there is none), FAISS and where models are looked for."""
    from dataclasses import asdict

    from vitsearch.doctor import diagnose

    facts = diagnose()
    if as_json:
        for fact in facts:
            show.json_line(asdict(fact))
    else:
        show.table([(fact.name, fact.value, fact.hint or "") for fact in facts])
    return 0


@cli.command()
@click.argument("photos", required=False, metavar="[PHOTOS]")
@click.option("--output", default="demo", show_default=True, metavar="DIR", help="Where the collection and the contact sheets go.")
def demo(photos: str | None, output: str) -> int:
    """Index sample photos (or PHOTOS), search and label them, and draw a contact sheet as PNG and HTML."""
    from vitsearch.cli.progress import ProgressBar
    from vitsearch.demo import run_demo

    with ProgressBar() as bar:
        sheets = run_demo(Path(output), Path(photos) if photos else None, say=show.line, progress=bar)
    for sheet in sheets:
        show.line(f"wrote {show.printable(str(sheet))}")
    return 0


cli.add_command(search)
cli.add_command(similar)
cli.add_command(dupes)
cli.add_command(label)
cli.add_command(train)
cli.add_command(finetune)
cli.add_command(classify)
cli.add_command(explain)
cli.add_command(evaluate)
cli.add_command(compare)
cli.add_command(export)
cli.add_command(import_vectors)
cli.add_command(merge)
cli.add_command(tune)


# -- between the terminal and the library -----------------------------------------------------------------------------


def _recipe(name: str | None, memory: str | None, recall: float | None) -> Any:
    """Return the recipe asked for, with the memory and the recall that were named, or None where nothing was."""
    from vitsearch.recipes import Recipe, load_recipe

    if memory is None and recall is None:
        return name
    facts = load_recipe(name or "auto").to_dict()
    facts |= {} if memory is None else {"memory": bytes_of(memory)}
    return Recipe.from_dict(facts | ({} if recall is None else {"recall": recall}), source="--recall")


def _opened(photos: str, options: dict[str, Any]) -> Any:
    from vitsearch.collection import Collection

    return Collection.open(photos, collection=options.get("collection"), device=options.get("device") or "auto")
