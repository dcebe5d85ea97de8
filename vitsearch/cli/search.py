"""`vitsearch search` and `similar`: the photos most like a query, or like a photo."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.options import (
    COLLECTION,
    KEYWORDS,
    LANGUAGE,
    MODEL,
    READ_ONLY,
    WORDS,
    check_forms,
    filter_of,
    filters,
    keywords,
    open_collection,
    pasteable,
    results,
)
from vitsearch.cli.output import (
    photo_row,
    print_json,
    print_line,
    print_note,
    print_paths,
    printable,
)
from vitsearch.cli.serve import (
    OPEN,
    PREVIEW,
    check_preview,
    open_results,
    previews,
    with_kind,
)
from vitsearch.errors import CollectionError
from vitsearch.options import TOP_K
from vitsearch.paths import shell_word

if TYPE_CHECKING:
    from vitsearch.collection import Collection
    from vitsearch.collection.understanding import Understood
    from vitsearch.types import Photo, SearchResult

NEAREST = 3  # results that are named where none fits


class _Search(click.Command):
    """A command whose last argument may begin with a minus, and whose help ends with what
    ``--where`` takes.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = with_kind(args)
        known = {name for param in self.params for name in (*param.opts, *param.secondary_opts)}
        # a space before a word keeps click from reading it as an option; a query may begin with one
        words = (f" {arg}" if _is_query(arg, known) else arg for arg in args if arg != "--")
        return super().parse_args(ctx, [*words])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from vitsearch.photos.columns import COLUMNS

        formatter.write_paragraph()
        formatter.write_text(
            "--where takes = != < <= > >=, like, contains, in (a, b), between a and b, is null; "
            f"not, and, or, ( ); its columns are {', '.join(COLUMNS)}"
        )


def _is_query(argument: str, known: set[str]) -> bool:
    """Return whether an argument that begins with a minus is words of a query: "- people",
    -people.
    """
    if not argument.startswith("-") or argument in known or argument in ("-h", "--help"):
        return False
    if argument.startswith("--"):
        return len(argument) > 2 and not argument[2].isalpha()  # --> exit
    if argument[:2] in known:  # -k5
        return not argument[2:].lstrip("=").isdecimal()
    return len(argument) != 2 or not argument[1].isalpha()


def _plus_and_minus(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, what in (("minus", "do not show"), ("plus", "also show")):
        command = click.option(
            f"--{name}",
            multiple=True,
            metavar="WORDS",
            help=f"Photos that {what} this: words, or ./photo.jpg; may be repeated.",
        )(command)
    return command


@click.command(cls=_Search)
@click.argument("names", nargs=-1, metavar="[PHOTOS]... QUERY")
@_plus_and_minus
@COLLECTION
@MODEL
@LANGUAGE
@WORDS
@filters
@keywords
@READ_ONLY
@results
@PREVIEW
@OPEN
def search(names: tuple[str, ...], **options: Any) -> int:
    """Search PHOTOS by words, by a photo (./photo.jpg), or by terms: "2:beach + ./dog.jpg -
    people".

    PHOTOS is an indexed folder, or a collection in Milvus: milvus://HOST:PORT/NAME; several of one
    model are searched together, and without any that of the working folder or of a folder above it.
    Dates, places, cameras and the like in QUERY filter the photos ("beach in Portugal last
    summer"); what was understood is said, --literal turns it off. A line has the score, the path,
    and how likely the photo shows the words; where none does, the nearest are said, exit code 1.
    """
    photos, query = _photos_and_query(names, bool(options["plus"] or options["minus"]))
    for sign, added in (("+", options["plus"]), ("-", options["minus"])):
        for words in added:
            query = f"{query} {sign} {_in_quotes(words)}" if query or sign == "-" else words
    return _search(photos, query.strip(), options)


@click.command(cls=_Search)
@click.argument("names", nargs=-1, metavar="[PHOTOS]... PHOTO")
@COLLECTION
@MODEL
@filters
@keywords
@READ_ONLY
@results
@PREVIEW
@OPEN
def similar(names: tuple[str, ...], **options: Any) -> int:
    """Search PHOTOS for those that look like PHOTO, a file anywhere or a path inside PHOTOS."""
    photos, photo = _photos_and_query(names, False)
    if photo.startswith(" -") and not os.path.exists(photo):
        photo = photo[1:]  # the space is that of `_Search`
    return _search(photos, Path(photo), options | {"literal": True, "min_relevance": 0})


def _photos_and_query(names: tuple[str, ...], has_terms: bool) -> tuple[list[str], str]:
    """Return the folders and the query of a command line; raises UsageError without a query."""
    from vitsearch.milvus import is_milvus
    from vitsearch.storage import CONFIG, FOLDER, collection_above

    *photos, query = names or ("",)
    is_collection = is_milvus(query) or any(
        os.path.isfile(os.path.join(query, part, CONFIG)) for part in (FOLDER, "")
    )
    if query and is_collection and (has_terms or not photos):
        photos, query = [*photos, query], ""
    words = [name for name in photos if Path(name).name == name and not os.path.exists(name)]
    if words and words == photos and os.path.isdir(query):
        command = click.get_current_context().info_name
        raise CollectionError(
            f"no such folder: {words[0]}: the folder of photos comes first: `vitsearch {command} "
            f"{shell_word(query)} {shell_word(' '.join(words))}`"
        )
    if words:  # more often a query without quotes than a folder
        raise CollectionError(
            f"no such folder: {words[0]}: check the spelling, and put a query of several words in "
            f'quotes: "{" ".join([*words, query])}"'
        )
    if not query.strip() and not has_terms:
        raise click.UsageError(
            "say what to search for, after the folder of photos", click.get_current_context()
        )
    return photos or [str(collection_above())], query


def _in_quotes(words: str) -> str:
    """Return words of a query in quotes that they do not hold."""
    quotes = next((each for each in ('""', "''", "“”") if not set(each) & set(words)), "«»")
    return f"{quotes[0]}{words}{quotes[1]}"


def _search(photos: Sequence[str], query: "str | Path", options: dict[str, Any]) -> int:
    from vitsearch.collection.several import search_opened
    from vitsearch.encoders.checkpoints import ONE_QUERY

    check_forms(options)
    check_preview(options)
    for name, option in (("collection", "--collection"), ("open_page", "--open")):
        if options[name] and len(photos) > 1:
            raise click.UsageError(
                f"{option} goes with one folder of photos", click.get_current_context()
            )
    if options["sheet"]:
        from vitsearch.outputs.contact_sheet import check_suffix

        check_suffix(Path(options["sheet"]))
    chosen = {name: options[name] for name in KEYWORDS} | {"where": filter_of(options)}
    chosen |= {name: options[name] for name in ("literal", "min_relevance")}
    top_k = options["top_k"] or (None if options["min_score"] is not None else TOP_K)
    with ExitStack() as stack:
        stack.callback(ONE_QUERY.reset, ONE_QUERY.set(True))
        opened = [stack.enter_context(open_collection(each, options)) for each in photos]
        understood = _understood(opened, query, chosen["literal"])
        if isinstance(query, Path):
            files = (each.file_of(query) for each in opened)
            query = next((file for file in files if file.exists()), opened[0].file_of(query))

        def find(top_k: int | None, chosen: Any) -> "Sequence[SearchResult]":
            if len(opened) > 1:
                return search_opened(opened, query, top_k, **chosen)
            return opened[0].search(query, top_k, **chosen)

        hits = find(top_k, chosen)
        _print(opened, hits, understood, options)
        if not hits:
            all_fit = {**chosen, "min_relevance": 0}
            nearest = find(NEAREST, all_fit) if chosen["min_relevance"] else []
            reason = (
                _nowhere(opened, options["under"]) or _nothing(nearest, understood, chosen)
                if any(map(len, opened))
                else _empty(photos[0], options["collection"])
            )
            print_note(f"vitsearch: {reason}")
            _note_unread_texts(opened[0], query)
        if options["sheet"]:
            _write_sheet(Path(options["sheet"]), str(query), opened, hits)
        for collection in opened:
            _note_changes(collection)
        open_it = _opening(photos[0], opened[0], query, options)
    open_it()
    return 0 if hits else 1


def _opening(
    photos: str, collection: "Collection", query: "str | Path", options: Mapping[str, Any]
) -> Callable[[], None]:
    """Return what opens the results on the page, once the collection is closed."""
    if not options["open_page"]:
        return lambda: None
    address = _address(collection, query, options)
    return lambda: open_results(photos, options["collection"], address)


def _address(collection: "Collection", query: "str | Path", options: Mapping[str, Any]) -> str:
    """Return the address of a search on the page; raises UsageError for a photo that is not in the
    collection.
    """
    from urllib.parse import urlencode

    pairs = {name: options[name] for name in ("where", "after", "before", "under")}
    if isinstance(query, Path):
        photo = _indexed(collection, query)
        if photo is None:
            raise click.UsageError(
                f"--open shows photos like one of the collection: {query} is not in it; drop it on "
                "the page instead",
                click.get_current_context(),
            )
        pairs[f"w{photo.photo_id}"] = "1"
    else:
        pairs |= {"q": query, "literal": "1" if options["literal"] else ""}
        pairs["nearest"] = "1" if options["min_relevance"] == 0 else ""
    return "/?" + urlencode({name: value for name, value in pairs.items() if value})


def _indexed(collection: "Collection", file: Path) -> "Photo | None":
    """Return the photo of the collection that a file is."""
    with suppress(ValueError):
        return collection.store.photo_at(file.relative_to(collection.root).as_posix())
    return None


def _understood(
    opened: "Sequence[Collection]", query: "str | Path", literal: bool
) -> "Understood | None":
    """Return what a query says besides the picture, and say it; None where that is nothing."""
    from vitsearch.collection.several import understand_all

    if isinstance(query, Path) or literal:
        return None
    understood = understand_all([each.vocabulary() for each in opened], query)
    if not understood.phrases:
        return None
    picture = f'photos like "{understood.picture}"' if understood.terms else "the newest first"
    titles = ", ".join(f"[{title}]" for title in understood.titles)
    print_note(f"vitsearch: understood {titles}: {picture} (--literal searches for all words)")
    return understood


def _nothing(
    nearest: "Sequence[SearchResult]", understood: "Understood | None", chosen: Mapping[str, Any]
) -> str:
    """Return why a search has no results, and the nearest ones where none fits the words."""
    if not nearest:
        return f"nothing found: {_limits(understood, chosen)}"
    names = ", ".join(printable(_shown_path(hit)) for hit in nearest)
    return f"nothing here fits: the nearest are {names} (--min-relevance 0 lists them)"


def _nowhere(opened: "Sequence[Collection]", under: str | None) -> str:
    """Return that no photo is in a folder, "" where there are some."""
    from vitsearch.filters import filter_all

    below = filter_all(None, under=under)
    if below is None or any(each.store.count_where(below) for each in opened):
        return ""
    names = ", ".join(each.backend.name for each in opened)
    return (
        f"nothing found: no photo is in a folder {under!r} of {names}: --under takes a folder "
        "inside it, such as italy/rome"
    )


def _empty(photos: str, collection: str | None) -> str:
    """Return how photos get into a collection that has none."""
    from vitsearch.milvus import is_milvus

    if is_milvus(photos):
        return "nothing found: no photo is in it yet: `vitsearch push` writes those of shards"
    command = f"vitsearch index {pasteable(photos, collection)}"
    return f"nothing found: no photo is indexed yet: wait for `{command}`, or run it again"


def _note_unread_texts(collection: "Collection", query: "str | Path") -> None:
    """Say of words in quotes that the text of the photos was never read."""
    from vitsearch.collection.passes import are_texts_read
    from vitsearch.collection.query import parse_query

    has_quotes = isinstance(query, str) and any(term.verbatim for term in parse_query(query))
    if has_quotes and not are_texts_read(collection.store):
        print_note(
            "vitsearch: words in quotes are looked for as text in photos too, which was not read: "
            f"`vitsearch index {shell_word(collection.root)} --ocr` reads it"
        )


def _limits(understood: "Understood | None", chosen: Mapping[str, Any]) -> str:
    """Return why a search may have no results."""
    if understood is not None:
        return f"no photo passes {', '.join(f'[{title}]' for title in understood.titles)}"
    if chosen["where"] is not None:
        return "no photo passes the filters"
    limits = [f"--{name.replace('_', '-')}" for name in ("min_score", "offset") if chosen[name]]
    return f"{' and '.join(limits)} left none" if limits else "there is no other photo"


def _rows(
    opened: "Sequence[Collection]", hits: "Sequence[SearchResult]", titles: Sequence[str]
) -> "Iterator[dict[str, Any]]":
    """Yield the row of each result for programs."""
    by_name = {collection.backend.name: collection for collection in opened}
    for hit in hits:
        collection = by_name.get(hit.collection, opened[0])
        row = photo_row(
            collection.root,
            hit.path,
            score=hit.score,
            relevance=hit.relevance,
            file=hit.file,
            collection=hit.collection or None,
            time=hit.time,
            quotes=hit.quotes or None,
            companions=collection.companions([hit.path]).get(hit.path) or None,
        )
        yield row | ({"understood": titles} if titles else {})


def _date_of(opened: "Sequence[Collection]", hit: "SearchResult") -> str:
    """Return when the photo of a list was taken."""
    by_name = {collection.backend.name: collection for collection in opened}
    photo = by_name.get(hit.collection, opened[0]).store.photo_at(hit.path)
    date = photo.info["taken_at"] if photo else None
    return str(date or "no date").replace("T", " ")


def _print(
    opened: "Sequence[Collection]",
    hits: "Sequence[SearchResult]",
    understood: "Understood | None",
    options: dict[str, Any],
) -> None:
    if options["only_paths"]:
        print_paths(map(_shown_path, hits), options["zero"])
        return
    if options["as_json"]:
        for row in _rows(opened, hits, understood.titles if understood else ()):
            print_json(row)
        return
    from vitsearch.photos.columns import clock

    is_list = understood is not None and not understood.terms
    drawn = previews(options["preview"], len(hits), lambda: _located(opened, hits))
    for hit, picture in zip(hits, drawn, strict=True):
        sys.stdout.buffer.write(picture)
        first = _date_of(opened, hit) if is_list else f"{hit.score:.4f}"
        moment = "" if hit.time is None else f"\t{clock(hit.time)}"
        fits = "" if hit.relevance is None else f"\t{hit.relevance:.2f}"
        quotes = "".join(f'\t"{printable(words)}"' for words in hit.quotes)
        print_line(f"{first}\t{printable(_shown_path(hit))}{moment}{fits}{quotes}")


def _shown_path(hit: "SearchResult") -> str:
    """Return the path of a result, absolute where several collections were searched."""
    return hit.file if hit.collection else hit.path


def _located(
    opened: "Sequence[Collection]", hits: "Sequence[SearchResult]"
) -> "tuple[Path, list[str], dict[str, Photo]]":
    """Return a folder above all results, their paths in it, and the indexed photos by them."""
    root = opened[0].root if len(opened) == 1 else Path(Path.cwd().anchor)
    by_name = {collection.backend.name: collection for collection in opened}
    paths, indexed = [], {}
    for hit in hits:
        path = Path(hit.file).relative_to(root).as_posix() if hit.collection else hit.path
        store = by_name.get(hit.collection, opened[0]).store
        photo = store.photo_at(hit.stored_path) or store.photo_at(hit.path)
        paths.append(path)
        if photo:
            indexed[path] = replace(photo, path=path)
    return root, paths, indexed


def _write_sheet(
    target: Path, title: str, opened: "Sequence[Collection]", hits: "Sequence[SearchResult]"
) -> None:
    from vitsearch.outputs.contact_sheet import write_sheet

    root, paths, indexed = _located(opened, hits)
    tiles = [(path, f"{hit.score:.3f}") for path, hit in zip(paths, hits, strict=True)]
    write_sheet(target, [(title, tiles)], root=root, photos=indexed)
    print_note(f"vitsearch: wrote {target}")


def _note_changes(collection: "Collection") -> None:
    """Say which folders have changed since they were indexed."""
    changed = collection.changed_folders()
    if changed:
        name = collection.root / changed[0] if changed[0] else collection.root
        more = f" and {len(changed) - 1:,} more folders have" if len(changed) > 1 else " has"
        print_note(
            f"vitsearch: {name}{more} changed since `vitsearch index "
            f"{shell_word(collection.root)}`: run it again to take in new photos"
        )
