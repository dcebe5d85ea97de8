"""`vitsearch export`, `import` and `merge`: collections in and out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from vitsearch.cli import show
from vitsearch.cli.options import COLLECTION, DEVICE, JSON, PHOTOS

FORMATS = ("clip-retrieval", "faiss")
MOST_PROBLEMS = 10  # named one by one; the rest is counted


@click.command()
@PHOTOS
@click.argument("output")
@COLLECTION
@click.option("--format", "layout", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True, help="What to write.")
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    metavar="N",
    help="clip-retrieval: photos in one file.",
)
@click.option("--recipe", default="flat", show_default=True, metavar="NAME|FILE", help="faiss: the kind of index.")
@JSON
def export(photos: str, output: str, **options: Any) -> int:
    """Write the vectors of PHOTOS into the folder OUTPUT, for other tools.

    \b
    clip-retrieval   img_emb/*.npy and metadata/*.parquet, as `clip-retrieval index` and `back` read them
    faiss            index.faiss, ids.npy and paths.jsonl
    """
    from vitsearch.collection import Collection
    from vitsearch.exchange import export_clip_retrieval, export_faiss

    with Collection.open(photos, collection=options["collection"]) as found, _bar("exporting") as progress:
        if options["layout"] == "faiss":
            count = export_faiss(found, output, recipe=options["recipe"], progress=progress)
        else:
            count = export_clip_retrieval(found, output, shard_size=options["shard_size"], progress=progress)
    if options["as_json"]:
        show.json_line({"photos": count, "format": options["layout"], "output": output})
    else:
        show.line(f"{count:,} photos are in {show.printable(output)}")
    return 0 if count else 1


@click.command(name="import")
@click.argument("source")
@PHOTOS
@COLLECTION
@click.option("--format", "layout", type=click.Choice(("auto", *FORMATS)), default="auto", show_default=True, help="What SOURCE holds.")
@click.option("--encoder", metavar="NAME", help="The model that made the vectors, where SOURCE does not say it.")
@click.option("--paths-from", metavar="DIR", help="What the paths in SOURCE begin with in place of PHOTOS, as it is written there.")
@click.option("--check", type=click.IntRange(min=1), default=16, show_default=True, metavar="N", help="Photos embedded to compare.")
@DEVICE
@JSON
def import_vectors(source: str, photos: str, **options: Any) -> int:
    """Make the collection of PHOTOS of the vectors in the folder SOURCE, or add them to it; photos are not embedded again."""
    from vitsearch.exchange import ImportOptions, import_clip_retrieval, import_faiss

    layout = options["layout"]
    is_clip = layout == FORMATS[0] or (layout == "auto" and (Path(source) / "img_emb").is_dir())
    bring_in = import_clip_retrieval if is_clip else import_faiss
    wish = ImportOptions(device=options["device"], paths_from=options["paths_from"], check=options["check"])
    with _bar("importing") as progress:
        report = bring_in(source, photos, collection=options["collection"], encoder=options["encoder"], options=wish, progress=progress)
    for path, reason in report.problems[:MOST_PROBLEMS]:
        show.note(f"vitsearch: {path}: {reason}")
    counts = {name: value for name, value in asdict(report).items() if isinstance(value, int)}
    _say(counts, options["as_json"], "photos are searchable", _target(photos, options))
    return 0


@click.command()
@click.argument("source_photos", metavar="SOURCE_PHOTOS")
@PHOTOS
@COLLECTION
@click.option("--source-collection", metavar="DIR", help="Where the source's collection is, when not in SOURCE_PHOTOS/.vitsearch.")
@JSON
def merge(source_photos: str, photos: str, **options: Any) -> int:
    """Copy the photos in the collection of SOURCE_PHOTOS, a folder in PHOTOS, into the collection of PHOTOS."""
    from vitsearch.collection import Collection
    from vitsearch.exchange import merge as merge_collections

    with (
        Collection.open(source_photos, collection=options["source_collection"]) as source,
        Collection.open(photos, collection=options["collection"]) as target,
        _bar("merging") as progress,
    ):
        report = merge_collections(source, target, progress=progress)
    _say(asdict(report), options["as_json"], "photos are in the collection", _target(photos, options))
    return 0


def _say(counts: dict[str, int], as_json: bool, what: str, target: str) -> None:
    if as_json:
        show.json_line(counts)
        return
    done = ", ".join(f"{count:,} {name}" for name, count in counts.items() if name != "total" and count)
    show.line(f"{counts['total']:,} {what} ({done})")
    if counts.get("imported") or counts.get("added") or counts.get("replaced"):
        show.note(
            f"vitsearch: `vitsearch index {target}` embeds what is missing and builds the index; searches look at every vector until then"
        )


def _target(photos: str, options: dict[str, Any]) -> str:
    return f"{photos} --collection {options['collection']}" if options["collection"] else photos


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    from vitsearch.cli.progress import photo_bar

    with photo_bar(None, what) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
