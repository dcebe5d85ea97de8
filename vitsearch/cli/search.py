"""`vitsearch search` and `vitsearch similar`: a query to the photos most like it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli import show
from vitsearch.cli.opening import open_collection, sheet_root
from vitsearch.cli.options import ANYWHERE, COLLECTION, DEVICE, READ_ONLY, check_forms, filter_of, filters, results, wishes

if TYPE_CHECKING:
    from vitsearch.types import SearchResult

TOP_K = 10


@click.command()
@ANYWHERE
@click.argument("query")
@COLLECTION
@DEVICE
@filters
@wishes
@READ_ONLY
@results
def search(photos: str, query: str, **options: Any) -> int:
    """Search PHOTOS by words, by a photo (./photo.jpg), or by terms: "2:beach + ./dog.jpg - people".

    PHOTOS is an indexed folder, or a collection in Milvus: milvus://HOST:PORT/NAME.

    \b
    --where takes   = != < <= > >=, like, in (a, b), between a and b, is null; not, and, or, ( )
    its columns are path, taken_at, year, month, camera, width, height, latitude, longitude,
                    size, mtime, label, score
    """
    return _search(photos, query, lambda found, top_k, wish: found.search(query, top_k, **wish), options)


@click.command()
@ANYWHERE
@click.argument("photo")
@COLLECTION
@DEVICE
@filters
@wishes
@READ_ONLY
@results
def similar(photos: str, photo: str, **options: Any) -> int:
    """Search PHOTOS for those that look like PHOTO, a file anywhere or a path inside PHOTOS."""
    return _search(photos, f"like {photo}", lambda found, top_k, wish: found.similar(photo, top_k, **wish), options)


Ask = Callable[[Any, int | None, dict[str, Any]], "list[SearchResult]"]


def _search(photos: str, title: str, ask: Ask, options: dict[str, Any]) -> int:
    from vitsearch.sheet import check_suffix

    check_forms(options)
    if options["sheet"]:
        check_suffix(Path(options["sheet"]))
    wish = {name: options[name] for name in ("min_score", "offset", "diverse", "collapse")} | {"where": filter_of(options)}
    top_k = options["top_k"] or (None if options["min_score"] is not None else TOP_K)
    with open_collection(photos, options) as found:
        hits = ask(found, top_k, wish)
        for text in found.notes:
            show.note(f"vitsearch: {text}")
    _print(hits, options)
    if options["sheet"]:
        from vitsearch.sheet import write_sheet

        write_sheet(Path(options["sheet"]), [(title, [(hit.path, f"{hit.score:.3f}") for hit in hits])], root=sheet_root(photos, found))
        show.note(f"vitsearch: wrote {options['sheet']}")
    return 0 if hits else 1


def _print(hits: "Sequence[SearchResult]", options: dict[str, Any]) -> None:
    if options["only_paths"]:
        show.paths((hit.path for hit in hits), options["zero"])
        return
    for hit in hits:
        if options["as_json"]:
            show.json_line({"path": hit.path, "score": round(hit.score, 6)})
        else:
            show.line(f"{hit.score:.4f}\t{show.printable(hit.path)}")
