"""`vitsearch dupes`: photos that are there twice, as equal files or as look-alikes."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.options import COLLECTION, INDEXED, JSON, PATHS, filter_of, filters
from vitsearch.cli.output import (
    ProgressBar,
    photo_row,
    print_json,
    print_line,
    print_note,
    print_paths,
    printable,
)
from vitsearch.cli.serve import PREVIEW, Previewing, check_preview, previews

if TYPE_CHECKING:
    from vitsearch.collection import LookAlikes
    from vitsearch.collection.copies import LooksByContent, Proposal
    from vitsearch.types import Photo

EQUAL, ALIKE = "equal files", "look-alikes"


@click.command(cls=Previewing)
@INDEXED
@COLLECTION
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="X",
    help="Least cosine of look-alikes; that which fits the collection's encoder.",
)
@click.option("--only", type=click.Choice(["equal", "alike"]), help="Only one of the two lists.")
@click.option(
    "--vectors-only",
    is_flag=True,
    help="Find look-alikes by the vectors alone: no photo is read, but resized, grey and strongly "
    "compressed copies are missed.",
)
@click.option(
    "--others", is_flag=True, help="Print the paths of all but the best of each group, one a line."
)
@filters
@JSON
@PATHS
@click.option("--sheet", metavar="FILE", help="Also draw the groups as FILE.png or FILE.html.")
@PREVIEW
def dupes(photos: str, threshold: float | None, only: str | None, **options: Any) -> int:
    """List the photos of PHOTOS that are there twice: equal files first, then files that differ and
    look alike. Nothing is deleted.

    Of look-alikes the first is the one that the others look like, with their cosines. The best of
    each group is proposed to be kept, with the reason. Near vectors are confirmed by a perceptual
    hash; blank pictures are left out. --paths ends each group by an empty line.
    """
    from vitsearch.collection import Collection
    from vitsearch.outputs.contact_sheet import check_suffix

    if sum(map(bool, (options["only_paths"], options["as_json"], options["others"]))) > 1:
        raise click.UsageError(
            "give one of --json, --paths and --others", click.get_current_context()
        )
    check_preview(options)
    if options["sheet"]:
        check_suffix(Path(options["sheet"]))
    where = filter_of(options)
    with Collection.open(photos, collection=options["collection"]) as collection:
        equal = collection.duplicates(where=where) if only != "alike" else []
        cosine = collection.lookalike_threshold if threshold is None else threshold
        by_vector = bool(options["vectors_only"])
        alike, looks = _alike(collection, cosine, where, by_vector) if only != "equal" else ([], {})
    if not equal and not alike:
        none = {
            "equal": "no equal files",
            "alike": f"no photos that look alike from cosine {cosine:g} on",
        }
        print_note(f"vitsearch: {none[only] if only else ' and '.join(none.values())}")
        return 1
    alike = _with_keepers(alike, equal, looks)
    _print_groups(collection.root, equal, alike, looks, options)
    if options["sheet"]:
        _draw(Path(options["sheet"]), equal, alike, collection.root)
    return 0


def _alike(
    collection: Any, least: float, where: Any, by_vector: bool
) -> "tuple[list[LookAlikes], LooksByContent]":
    from vitsearch.collection.copies import find_copies

    with ProgressBar() as bar:
        if by_vector:
            return collection.lookalikes(least, where=where, progress=bar), {}
        copies = find_copies(collection, least, where=where, progress=bar)
    if copies.blank:
        pictures = "picture was" if copies.blank == 1 else "pictures were"
        print_note(f"vitsearch: {copies.blank:,} blank {pictures} left out")
    return copies.groups, copies.looks


def _with_keepers(
    alike: "Sequence[LookAlikes]", equal: "Sequence[Sequence[Photo]]", looks: "LooksByContent"
) -> "list[LookAlikes]":
    """Return the look-alikes with that one of equal files which is proposed to be kept."""
    from vitsearch.collection import LookAlikes
    from vitsearch.collection.copies import best_copy

    keepers = {group[0].fingerprint: best_copy(group, looks).photo for group in equal}

    def of(photo: "Photo") -> "Photo":
        return keepers.get(photo.fingerprint, photo)

    return [
        LookAlikes(of(group.photo), tuple((of(photo), score) for photo, score in group.others))
        for group in alike
    ]


def _print_groups(
    root: Path,
    equal: "Sequence[Sequence[Photo]]",
    alike: "Sequence[LookAlikes]",
    looks: "LooksByContent",
    options: dict[str, Any],
) -> None:
    from vitsearch.collection.copies import best_copy

    groups = [(EQUAL, [(photo, 1.0) for photo in group]) for group in equal]
    groups += [(ALIKE, [(group.photo, 1.0), *group.others]) for group in alike]
    proposals = [best_copy([photo for photo, _ in members], looks) for _, members in groups]
    if options["others"]:
        others = [
            photo.path
            for (_, members), proposal in zip(groups, proposals, strict=True)
            for photo, _ in members
            if photo != proposal.photo
        ]
        print_paths(dict.fromkeys(others), zero=False)
    elif options["only_paths"]:
        for _, members in groups:
            print_paths([*(photo.path for photo, _ in members), ""], zero=False)
    elif options["as_json"]:
        for number, (kind, members) in enumerate(groups, start=1):
            best = proposals[number - 1]
            for photo, score in members:
                is_best = photo == best.photo
                reason = {"reason": best.reason} if is_best else {}
                facts = {"group": number, "kind": kind, "keep": is_best, **reason}
                print_json(photo_row(root, photo.path, score=score, **facts))
    else:
        photos = {photo.path: photo for _, members in groups for photo, _ in members}
        paths = [photo.path for _, members in groups for photo, _ in members]
        drawn = previews(options["preview"], len(paths), lambda: (root, paths, photos))
        _print_lists(groups, proposals, drawn)


def _print_lists(
    groups: "Sequence[tuple[str, Sequence[tuple[Photo, float]]]]",
    proposals: "Sequence[Proposal]",
    drawn: Iterator[bytes],
) -> None:
    for kind in (EQUAL, ALIKE):
        of_kind = [
            (members, proposal)
            for (name, members), proposal in zip(groups, proposals, strict=True)
            if name == kind
        ]
        if of_kind:
            print_line(
                f"{kind}: {len(of_kind):,} {'group' if len(of_kind) == 1 else 'groups'}, "
                f"{sum(len(members) for members, _ in of_kind):,} photos"
            )
        for members, proposal in of_kind:
            print_line("")
            for photo, score in members:
                sys.stdout.buffer.write(next(drawn))
                prefix = "" if kind == EQUAL else f"{score:.4f}  "
                suffix = f"  (keep: {proposal.reason})" if photo == proposal.photo else ""
                print_line(f"  {prefix}{printable(photo.path)}{suffix}")
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
