"""`vitsearch export`, `import` and `merge`: collections in and out."""

import json
import os
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from vitsearch.cli.options import COLLECTION, DEVICE, JSON, PHOTOS, pasteable
from vitsearch.cli.output import (
    MAX_PROBLEMS,
    ProgressBar,
    label_row,
    print_json,
    print_line,
    print_note,
    printable,
    write_rows,
)
from vitsearch.errors import CollectionError
from vitsearch.paths import shell_word
from vitsearch.types import Prediction

if TYPE_CHECKING:
    from vitsearch.collection import Collection
    from vitsearch.interop import Layout

FORMATS = ("clip-retrieval", "faiss", "shards")
ALBUMS, EXAMPLES = "albums", "examples"
_OPTIONS = ("device", "paths_from", "check", "partial", "root", "allow_download")


@click.command()
@PHOTOS
@click.argument("output")
@COLLECTION
@click.option(
    "--format",
    "layout",
    type=click.Choice((*FORMATS, ALBUMS, EXAMPLES)),
    default=FORMATS[0],
    show_default=True,
    help="What to write.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Photos in one file of clip-retrieval (1,000,000) or in one shard (10,000).",
)
@click.option(
    "--recipe",
    default="flat",
    show_default=True,
    metavar="NAME|FILE",
    help="faiss: the kind of index.",
)
@JSON
def export(photos: str, output: str, **options: Any) -> int:
    """Write the vectors of PHOTOS into OUTPUT, a folder or for shards also a URL, for other tools
    and machines.

    \b
    clip-retrieval   img_emb/*.npy and metadata/*.parquet, as clip-retrieval reads them
    faiss            index.faiss, ids.npy and paths.jsonl
    shards           shards/*.parquet, as `vitsearch embed` writes them
    albums           albums and saved searches, not vectors: one file of JSON
    examples         photos with the labels that were given on the page: FILE.csv
    """
    from vitsearch.collection import Collection

    with (
        Collection.open(photos, collection=options["collection"]) as collection,
        ProgressBar() as progress,
    ):
        if options["layout"] == ALBUMS:
            return _export_albums(collection, output, options["as_json"])
        if options["layout"] == EXAMPLES:
            return _export_examples(collection, output, options["as_json"])
        names = {"faiss": ("recipe",)}.get(options["layout"], ("shard_size",))
        details = {name: options[name] for name in names if options[name]}
        count = collection.export(output, options["layout"], progress=progress, **details)
    if options["as_json"]:
        print_json({"photos": count, "format": options["layout"], "output": output})
    else:
        print_line(f"{count:,} photos are in {printable(output)}")
    return 0 if count else 1


def _export_albums(collection: "Collection", output: str, as_json: bool) -> int:
    """Write the albums with the paths of their photos, and the saved searches, as JSON."""
    from vitsearch.records import atomic_write
    from vitsearch.storage.filesystem import disk_errors

    stored = collection.albums()
    text = json.dumps(stored, ensure_ascii=True, indent=2)
    with disk_errors(Path(output).parent):
        atomic_write(Path(output), f"{text}\n".encode())
    count = len(stored["albums"])
    if as_json:
        print_json({"albums": count, "format": ALBUMS, "output": output})
    else:
        print_line(f"{count:,} {'album is' if count == 1 else 'albums are'} in {printable(output)}")
    return 0 if count else 1


def _export_examples(collection: "Collection", output: str, as_json: bool) -> int:
    """Write the photos whose labels were given on the page, as files of labels are read."""
    from vitsearch.collection.training import right_labels

    rows = [
        label_row(collection.root, Prediction(path, label, 1.0))
        for path, label in right_labels(collection).items()
    ]
    write_rows(Path(output), rows)
    if as_json:
        print_json({"examples": len(rows), "format": EXAMPLES, "output": output})
    else:
        print_line(f"{len(rows):,} examples are in {printable(output)}")
    return 0


@click.command(name="import")
@click.argument("source")
@click.argument("photos", metavar="[PHOTOS]", required=False)
@COLLECTION
@click.option(
    "--format",
    "layout",
    type=click.Choice(("auto", *FORMATS)),
    default="auto",
    show_default=True,
    help="What SOURCE holds.",
)
@click.option(
    "--encoder",
    metavar="NAME",
    help="The model that made the vectors, where SOURCE does not say it.",
)
@click.option(
    "--paths-from",
    metavar="DIR",
    help="What the paths in SOURCE begin with in place of PHOTOS, as it is written there.",
)
@click.option(
    "--photos",
    "root",
    metavar="DIR",
    help="shards without PHOTOS: the folder of the photos, which are not read.",
)
@click.option(
    "--allow-download",
    is_flag=True,
    help="Download the encoder that SOURCE names where it is not on this machine.",
)
@click.option(
    "--check",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    metavar="N",
    help="Photos embedded to compare.",
)
@click.option(
    "--partial", is_flag=True, help="shards: take those that are there though some are missing."
)
@DEVICE
@JSON
def import_vectors(source: str, photos: str | None, **options: Any) -> int:
    """Make the collection of PHOTOS of the vectors in SOURCE, or add them to it; photos are not
    embedded again.

    Shards (of `vitsearch embed`, in a folder or at a URL) are imported without PHOTOS too, into
    --collection DIR: no photo needs to be on this machine.
    """
    from vitsearch.interop import ImportOptions, importer_of

    layout = _layout(source, options["layout"])
    if photos is None and (layout != "shards" or not options["collection"]):
        raise click.UsageError(
            "name the folder PHOTOS; only shards are imported without it, into --collection DIR"
        )
    chosen = {name: options[name] for name in _OPTIONS}
    with ProgressBar() as progress:
        report = importer_of(layout)(
            source,
            photos,
            collection=options["collection"],
            encoder=options["encoder"],
            options=ImportOptions(**chosen),
            progress=progress,
        )
    for path, reason in report.problems[:MAX_PROBLEMS]:
        print_note(f"vitsearch: {path}: {reason}")
    counts = {name: value for name, value in asdict(report).items() if isinstance(value, int)}
    _print_counts(
        counts,
        options["as_json"],
        "photos are searchable",
        _target(photos, options) if photos else None,
    )
    if photos is None and not options["as_json"]:
        _print_search_hint(options["collection"])
    return 0


def _print_search_hint(collection: str) -> None:
    """Say how to search a collection whose photos need not be here; `index` would take the photos
    for removed.
    """
    from vitsearch.storage import read_collection_config

    root = read_collection_config(Path(collection), Path(collection)).root
    print_note(
        f"vitsearch: search it with `vitsearch search {shell_word(root)} WORDS "
        f"--collection {shell_word(collection)}`"
    )


def _layout(source: str, requested: str) -> "Layout":
    """Return what SOURCE holds."""
    from vitsearch.interop.shards import holds_shards

    if requested != "auto":
        return cast("Layout", requested)
    if holds_shards(source):
        return "shards"
    if not os.path.isdir(source):
        raise CollectionError(
            f"SOURCE is a folder with vectors: {source} is "
            f"{'a file' if os.path.exists(source) else 'not there'}"
        )
    return "clip-retrieval" if (Path(source) / "img_emb").is_dir() else "faiss"


@click.command()
@click.argument("source_photos", metavar="SOURCE_PHOTOS")
@PHOTOS
@COLLECTION
@click.option(
    "--source-collection",
    metavar="DIR",
    help="Where the source's collection is, when not in SOURCE_PHOTOS/.vitsearch.",
)
@JSON
def merge(source_photos: str, photos: str, **options: Any) -> int:
    """Copy the photos in the collection of SOURCE_PHOTOS, a folder in PHOTOS, into the collection
    of PHOTOS.
    """
    from vitsearch.collection.local import open_local
    from vitsearch.interop import merge as merge_collections

    with (
        closing(open_local(source_photos, collection=options["source_collection"])) as source,
        closing(open_local(photos, collection=options["collection"])) as target,
        ProgressBar() as progress,
    ):
        report = merge_collections(source, target, progress=progress)
    _print_counts(asdict(report), options["as_json"], "photos are in the collection")
    return 0


def _print_counts(
    counts: dict[str, int], as_json: bool, what: str, target: str | None = None
) -> None:
    if as_json:
        print_json(counts)
        return
    done = ", ".join(
        f"{count:,} {name}" for name, count in counts.items() if name != "total" and count
    )
    print_line(f"{counts['total']:,} {what} ({done})")
    if target is not None and counts["imported"]:
        print_note(f"vitsearch: `vitsearch index {target}` embeds what is missing")


def _target(photos: str, options: dict[str, Any]) -> str:
    return pasteable(photos, options["collection"])
