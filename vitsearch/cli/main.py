"""The commands; each translates words into one call of the library and its answer into lines."""

import sys
import warnings
from pathlib import Path
from typing import Any

import click

from vitsearch._version import __version__
from vitsearch.cli import show
from vitsearch.cli.build import build
from vitsearch.cli.classify import classify
from vitsearch.cli.compare import compare
from vitsearch.cli.dupes import dupes
from vitsearch.cli.embed import embed
from vitsearch.cli.evaluate import evaluate
from vitsearch.cli.exchange import export, import_vectors, merge
from vitsearch.cli.explain import explain
from vitsearch.cli.finetune import finetune
from vitsearch.cli.index import index
from vitsearch.cli.label import label
from vitsearch.cli.opening import open_collection
from vitsearch.cli.options import ANYWHERE, COLLECTION, DEVICE, JSON, PHOTOS
from vitsearch.cli.prepare import prepare
from vitsearch.cli.push import push
from vitsearch.cli.search import search, similar
from vitsearch.cli.serve import serve
from vitsearch.cli.train import train
from vitsearch.cli.tune import tune
from vitsearch.errors import VitsearchError

INTERRUPTED = 130
RESUMABLE = (["index"], ["embed"], ["build"], ["push"], ["eval"], ["demo"], ["push"])  # what these have stored is not done again


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
    except show.Stopped as stopped:
        show.note(f"vitsearch: stopped; {stopped}")
        return INTERRUPTED
    except (KeyboardInterrupt, click.Abort):
        goes_on = "; what was stored is kept, run the same command to go on" if arguments[:1] in RESUMABLE else ""
        show.note(f"vitsearch: stopped{goes_on}")
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
@ANYWHERE
@COLLECTION
@JSON
def info(photos: str, collection: str | None, as_json: bool) -> int:
    """Print what the collection of PHOTOS holds: counts, encoder, index, sizes and dates."""
    from vitsearch.collection import MilvusCollection
    from vitsearch.report import collection_info

    with open_collection(photos, {"collection": collection}) as found:
        facts = found.info() if isinstance(found, MilvusCollection) else collection_info(found)
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


cli.add_command(index)
cli.add_command(search)
cli.add_command(similar)
cli.add_command(serve)
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
cli.add_command(prepare)
cli.add_command(embed)
cli.add_command(build)
cli.add_command(push)


# -- between the terminal and the library -----------------------------------------------------------------------------


def _opened(photos: str, options: dict[str, Any]) -> Any:
    from vitsearch.collection import Collection

    return Collection.open(photos, collection=options.get("collection"), device=options.get("device") or "auto")
