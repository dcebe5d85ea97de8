"""`vitsearch info`, `failures` and `verify`: what is here, and whether it works."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.options import (
    ANYWHERE,
    COLLECTION,
    INDEXED,
    JSON,
    MODEL,
    open_collection,
)
from vitsearch.cli.output import (
    photo_row,
    print_json,
    print_line,
    print_note,
    print_table,
    printable,
    readable_size,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vitsearch.types import LeftOut, SkippedPhoto


@click.command()
@ANYWHERE
@COLLECTION
@JSON
def info(photos: str, collection: str | None, as_json: bool) -> int:
    """Print what the collection of PHOTOS holds: counts, encoder, index, sizes and dates."""
    with open_collection(photos, {"collection": collection}) as opened:
        facts = opened.info()
    if as_json:
        print_json(facts)
    else:
        print_table(
            [
                _fact_in_words(name, value)
                for name, value in facts.items()
                if value or name == "photos"
            ]
        )
    return 0


_WORDS = {  # where a person would not guess what a key of --json means
    "moments": "further moments of videos",
    "failed": "files that could not be read",
    "skipped": "files that were not opened",
    "companions": "files beside another of the same photo",
    "put_aside": "photos whose files are gone",
    "put_aside_since": "the first of them since",
    "encoder_fingerprint": "fingerprint of the encoder",
    "dtype": "number format of the encoder",
    "dtype_reason": "why this number format",
    "dim": "numbers in a vector",
    "recipe": "recipe asked for",
    "recall": "recall@10 of the index",
    "recall_is_old": "recall measured before later changes",
    "format": "format of the collection",
    "database_bytes": "size of the database",
    "index_bytes": "size of the index",
}


def _fact_in_words(name: str, value: object) -> tuple[str, object]:
    words = _WORDS.get(name, name.replace("_", " "))
    if name.endswith("_bytes") and isinstance(value, int):
        return words, readable_size(value)
    return words, "yes" if value is True else value


@click.command()
@INDEXED
@COLLECTION
@click.option(
    "--left-out",
    is_flag=True,
    help="Also list what was left out: hidden, recycle bins, snapshots, previews, by --exclude, "
    "links to folders, other kinds.",
)
@click.option("--sheet", metavar="FILE", help="Also draw them as FILE.png or FILE.html.")
@JSON
def failures(
    photos: str, collection: str | None, left_out: bool, sheet: str | None, as_json: bool
) -> int:
    """List the files of PHOTOS that are not in the collection, and why (failed: unreadable;
    skipped: not opened).

    Folders and files that the system could not read are listed too: photos of theirs stay in the
    collection as they were. What was left out is counted, or listed with --left-out.
    """
    from dataclasses import astuple

    from vitsearch.collection.absence import UNREADABLE, count_left_out, left_out_line

    if sheet:  # imported here alone: it loads Pillow
        from vitsearch.outputs.contact_sheet import check_suffix

        check_suffix(Path(sheet))
    with _opened(photos, {"collection": collection}) as opened:
        listed, others = opened.failures(), opened.left_out()
    rows: list[dict[str, Any]] = [
        photo_row(opened.root, path, state=state, reason=reason, transient=transient)
        for path, state, reason, transient in map(astuple, listed)
    ]
    unread = [entry for entry in others if entry.reason in UNREADABLE]
    rows += [_unread_row(opened.root, entry) for entry in unread]
    if left_out:
        rows += [_left_out_row(opened.root, entry) for entry in others if entry not in unread]
    for row in rows:
        if as_json:
            print_json(row)
        else:
            print_line(f"{row['state']}\t{printable(row['path'])}\t{printable(row['reason'])}")
    if sheet and listed:
        _draw_failures(Path(sheet), listed, opened.root)
    counts = count_left_out(entry for entry in others if entry not in unread)
    if counts["left_out"] and not left_out:
        print_note(f"vitsearch: {left_out_line(counts)}: --left-out lists them")
    if not listed and not unread:
        print_note("vitsearch: every photo is in the collection")
    return 0 if rows else 1


def _draw_failures(file: Path, listed: "Sequence[SkippedPhoto]", root: Path) -> None:
    from vitsearch.outputs.contact_sheet import MAX_TILES, write_sheet

    by_reason: dict[str, list[tuple[str, str]]] = {}
    for each in listed[:MAX_TILES]:
        by_reason.setdefault(each.reason, []).append((each.path, each.state))
    write_sheet(file, list(by_reason.items()), root=root)
    print_note(f"vitsearch: wrote {file}")


def _unread_row(root: Path, entry: "LeftOut") -> dict[str, Any]:
    detail = entry.detail
    reason = detail if detail.startswith("cannot") else f"cannot be read: {detail}"
    return photo_row(root, entry.path, state="unreadable", reason=reason, transient=True)


def _left_out_row(root: Path, entry: "LeftOut") -> dict[str, Any]:
    files = "file that is not a photo" if entry.files == 1 else "files that are not photos"
    if entry.reason == "extension" and entry.detail:
        files = f"without a reader: {entry.detail}"
    reason = {
        "extension": f"{entry.files:,} {files}",
        "excluded": "by --exclude",
        "hidden": "hidden (--include-hidden takes it)",
        "recycle bin": "a recycle bin (--include-hidden takes it)",
        "snapshots": "snapshots of the disk (--include-hidden takes them)",
        "previews": "previews and data of a photo program (--include-hidden takes them)",
        "link": "a link to a folder (--follow-symlinks enters it, once)",
        "companion": f"belongs to {entry.detail}",
    }[entry.reason]
    row = photo_row(root, entry.path, state="left out", reason=reason, files=entry.files)
    return {key: row[key] for key in row if key != "file" or entry.reason != "extension"}  # *.xmp


@click.command()
@INDEXED
@COLLECTION
@MODEL
@click.option(
    "--content", is_flag=True, help="Read every photo, and say whose content has changed."
)
@JSON
def verify(photos: str, content: bool, as_json: bool, **options: Any) -> int:
    """Check the collection of PHOTOS: database, encoder, index, and which files are gone or
    changed.
    """
    with _opened(photos, options) as collection:
        checks = collection.verify(content=content)
    for check in checks:
        if as_json:
            paths = {"paths": check.paths} if check.paths else {}
            print_json({"check": check.name, "ok": check.ok, "detail": check.detail, **paths})
            continue
        print_line(f"{'ok' if check.ok else 'BAD':4}{check.name}: {printable(check.detail)}")
        for path in check.paths:
            print_line(f"    {printable(path)}")
    return 0 if all(check.ok for check in checks) else 1


def _opened(photos: str, options: dict[str, Any]) -> Any:
    from vitsearch.collection.collection import Collection

    return Collection.open(
        photos, collection=options.get("collection"), device=options.get("device") or "auto"
    )
