"""`vitsearch search`, `similar` and `dupes`: the photos most like a query, or like each other."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.options import (
    ANYWHERE,
    COLLECTION,
    DEVICE,
    JSON,
    KEYWORDS,
    PATHS,
    PHOTOS,
    READ_ONLY,
    check_forms,
    filter_of,
    filters,
    keywords,
    open_collection,
    results,
    sheet_root,
)
from vitsearch.cli.output import (
    ProgressBar,
    print_json,
    print_line,
    print_note,
    print_paths,
    printable,
)
from vitsearch.options import TOP_K

if TYPE_CHECKING:
    from vitsearch.collection import LookAlikes
    from vitsearch.types import Photo, SearchResult

EQUAL, ALIKE = "equal files", "look-alikes"


class _WithColumns(click.Command):
    """A command whose help ends with what ``--where`` takes."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from vitsearch.photos.columns import COLUMNS

        formatter.write_paragraph()
        formatter.write_text(
            "--where takes = != < <= > >=, like, contains, in (a, b), between a and b, is null; "
            f"not, and, or, ( ); its columns are {', '.join(COLUMNS)}"
        )


@click.command(cls=_WithColumns)
@ANYWHERE
@click.argument("query")
@COLLECTION
@DEVICE
@filters
@keywords
@READ_ONLY
@results
def search(photos: str, query: str, **options: Any) -> int:
    """Search PHOTOS by words, by a photo (./photo.jpg), or by terms: "2:beach + ./dog.jpg -
    people".

    PHOTOS is an indexed folder, or a collection in Milvus: milvus://HOST:PORT/NAME.
    """
    return _search(
        photos,
        query,
        lambda collection, top_k, options: collection.search(query, top_k, **options),
        options,
    )


@click.command()
@ANYWHERE
@click.argument("photo")
@COLLECTION
@DEVICE
@filters
@keywords
@READ_ONLY
@results
def similar(photos: str, photo: str, **options: Any) -> int:
    """Search PHOTOS for those that look like PHOTO, a file anywhere or a path inside PHOTOS."""
    return _search(
        photos,
        f"like {photo}",
        lambda collection, top_k, options: collection.similar(photo, top_k, **options),
        options,
    )


Query = Callable[[Any, int | None, dict[str, Any]], "list[SearchResult]"]


def _search(photos: str, title: str, run: Query, options: dict[str, Any]) -> int:
    from vitsearch.outputs.contact_sheet import check_suffix

    check_forms(options)
    if options["sheet"]:
        check_suffix(Path(options["sheet"]))
    search_options = {name: options[name] for name in KEYWORDS} | {"where": filter_of(options)}
    top_k = options["top_k"] or (None if options["min_score"] is not None else TOP_K)
    with open_collection(photos, options) as collection:
        hits = run(collection, top_k, search_options)
        stored = (collection.store.photo_at(hit.path) for hit in hits if options["sheet"])
        indexed = {photo.path: photo for photo in stored if photo}
        named = [hit.path for hit in hits if options["as_json"]]
        companions = collection.companions(named)
    _print(hits, companions, options)
    if options["sheet"]:
        from vitsearch.outputs.contact_sheet import write_sheet

        write_sheet(
            Path(options["sheet"]),
            [(title, [(hit.path, f"{hit.score:.3f}") for hit in hits])],
            root=sheet_root(photos, collection),
            photos=indexed,
        )
        print_note(f"vitsearch: wrote {options['sheet']}")
    return 0 if hits else 1


def _print(
    hits: "Sequence[SearchResult]", companions: dict[str, list[str]], options: dict[str, Any]
) -> None:
    if options["only_paths"]:
        print_paths((hit.path for hit in hits), options["zero"])
        return
    for hit in hits:
        if options["as_json"]:
            others = {"companions": companions[hit.path]} if hit.path in companions else {}
            print_json({"path": hit.path, "score": round(hit.score, 6), **others})
        else:
            print_line(f"{hit.score:.4f}\t{printable(hit.path)}")


# -- Photos that are there twice, as equal files or as look-alikes ---------------------------------


@click.command()
@PHOTOS
@COLLECTION
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="X",
    help="Least cosine of look-alikes; that which fits the collection's encoder.",
)
@click.option("--only", type=click.Choice(["equal", "alike"]), help="Only one of the two lists.")
@filters
@JSON
@PATHS
@click.option("--sheet", metavar="FILE", help="Also draw the groups as FILE.png or FILE.html.")
def dupes(photos: str, threshold: float | None, only: str | None, **options: Any) -> int:
    """List the photos of PHOTOS that are there twice: equal files first, then files that differ and
    look alike. Nothing is deleted.

    Of look-alikes the first is the one that the others look like, with their cosines. --paths ends
    each group by an empty line.
    """
    from vitsearch.collection.collection import Collection
    from vitsearch.outputs.contact_sheet import check_suffix

    if options["only_paths"] and options["as_json"]:
        raise click.UsageError("give either --json or --paths", click.get_current_context())
    if options["sheet"]:
        check_suffix(Path(options["sheet"]))
    where = filter_of(options)
    with Collection.open(photos, collection=options["collection"]) as collection:
        equal = collection.duplicates(where=where) if only != "alike" else []
        cosine = collection.lookalike_threshold if threshold is None else threshold
        alike = _alike(collection, cosine, where) if only != "equal" else []
    if not equal and not alike:
        none = {
            "equal": "no equal files",
            "alike": f"no photos that look alike from cosine {cosine:g} on",
        }
        print_note(f"vitsearch: {none[only] if only else ' and '.join(none.values())}")
        return 1
    _print_groups(equal, alike, options)
    if options["sheet"]:
        _draw(Path(options["sheet"]), equal, alike, Path(photos))
    return 0


def _alike(collection: Any, least: float, where: Any) -> "list[LookAlikes]":
    with ProgressBar() as bar:
        alike: list[LookAlikes] = collection.lookalikes(least, where=where, progress=bar)
        return alike


def _print_groups(
    equal: "Sequence[Sequence[Photo]]", alike: "Sequence[LookAlikes]", options: dict[str, Any]
) -> None:
    groups = [(EQUAL, [(photo.path, 1.0) for photo in group]) for group in equal]
    groups += [
        (ALIKE, [(group.photo.path, 1.0), *((photo.path, score) for photo, score in group.others)])
        for group in alike
    ]
    if options["only_paths"]:
        for _, members in groups:
            print_paths([*(path for path, _ in members), ""], zero=False)
    elif options["as_json"]:
        for number, (kind, members) in enumerate(groups, start=1):
            for path, score in members:
                print_json({"group": number, "kind": kind, "path": path, "score": round(score, 6)})
    else:
        _print_lists(groups)


def _print_lists(groups: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> None:
    for kind in (EQUAL, ALIKE):
        of_kind = [members for name, members in groups if name == kind]
        if of_kind:
            print_line(
                f"{kind}: {len(of_kind):,} {'group' if len(of_kind) == 1 else 'groups'}, "
                f"{sum(map(len, of_kind)):,} photos"
            )
        for members in of_kind:
            print_line("")
            for path, score in members:
                prefix = "" if kind == EQUAL else f"{score:.4f}  "
                print_line(f"  {prefix}{printable(path)}")
        if of_kind and kind == EQUAL and len(of_kind) < len(groups):
            print_line("")


def _draw(
    file: Path, equal: "Sequence[Sequence[Photo]]", alike: "Sequence[LookAlikes]", root: Path
) -> None:
    from vitsearch.outputs.contact_sheet import write_sheet

    sections = [
        (f"equal files {number}", [(photo.path, "") for photo in group])
        for number, group in enumerate(equal, start=1)
    ]
    for number, group in enumerate(alike, start=1):
        others = [(photo.path, f"{score:.3f}") for photo, score in group.others]
        sections.append((f"look-alikes {number}", [(group.photo.path, ""), *others]))
    drawn = [*equal, *([group.photo, *(photo for photo, _ in group.others)] for group in alike)]
    indexed = {photo.path: photo for group in drawn for photo in group}
    write_sheet(file, sections, root=root, photos=indexed)
    print_note(f"vitsearch: wrote {file}")
