"""`vitsearch info`, `failures` and `verify`: what is here, and whether it works; and `vitsearch
explain`: why a photo fits a text.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.options import (
    ANYWHERE,
    COLLECTION,
    INDEXED,
    JSON,
    LANGUAGE,
    MODEL,
    PHOTOS,
    open_collection,
)
from vitsearch.cli.output import (
    fitting_here,
    photo_row,
    print_json,
    print_line,
    print_note,
    print_table,
    printable,
    readable_size,
)
from vitsearch.errors import PhotoError, VitsearchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vitsearch.explain import Explanation
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
            reason = fitting_here(printable(row["reason"]))
            print_line(f"{row['state']}\t{printable(row['path'])}\t{reason}")
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
    from vitsearch.collection import Collection

    return Collection.open(
        photos, collection=options.get("collection"), device=options.get("device") or "auto"
    )


# -- explain ---------------------------------------------------------------------------------------


OUTPUT = "explanation.png"


@click.command()
@PHOTOS
@click.argument("photo")
@COLLECTION
@MODEL
@LANGUAGE
@click.option(
    "--text",
    metavar="WORDS",
    help="Show what speaks for these words; without it, where the model looks (attention rollout).",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help=f"The picture, .png or .jpg; {OUTPUT} unless --json is given.",
)
@JSON
def explain(
    photos: str, photo: str, text: str | None, output: str | None, as_json: bool, **options: Any
) -> int:
    """Draw which parts of PHOTO, a file anywhere or a path inside PHOTOS, the collection's encoder
    looks at.
    """
    from vitsearch.collection import Collection
    from vitsearch.encoders.language import readable
    from vitsearch.explain import check_suffix, write_explanation
    from vitsearch.explain import explain as find

    target = Path(output) if output else None if as_json else Path(OUTPUT)
    with Collection.open(
        photos, collection=options["collection"], device=options["device"]
    ) as collection:
        file = _photo_file(photo, collection.root)
        if target:
            check_suffix(target)
            _check_spared(target, file)
        try:
            image = collection.read_photo(photo)
        except PhotoError as error:
            raise PhotoError(f"the photo {str(file)!r}: {error}") from error
        if "torch" not in sys.modules and find_spec("torch"):
            print_note("vitsearch: loading PyTorch, which takes some seconds")
        explanation = find(collection.encoder, image, None if text is None else readable(text))
    if target:
        write_explanation(target, image, explanation, name=file.name)
    if as_json:
        print_json(
            _row(collection.root, file, explanation)
            | {"photo": photo, "output": None if target is None else str(target)}
        )
    else:
        score = "-" if explanation.score is None else f"{explanation.score:.4f}"
        print_line(f"{score}\t{printable(str(target))}")
    return 0


def _photo_file(photo: str, root: Path) -> Path:
    from vitsearch.collection.query import photo_path

    path = photo_path(photo)
    return path if path.exists() or not (root / path).exists() else root / path


def _check_spared(target: Path, photo: Path) -> None:
    if target.exists() and photo.exists() and os.path.samefile(target, photo):
        raise VitsearchError(
            f"cannot write {str(target)!r}: it is the photo itself; name "
            "another place with --output"
        )


def _row(root: Path, file: Path, explanation: "Explanation") -> dict[str, Any]:
    path, folder = os.path.abspath(file), os.path.abspath(root)
    inside = os.path.relpath(path, folder)
    return photo_row(
        folder,
        path if inside.startswith("..") else inside.replace(os.sep, "/"),
        score=explanation.score,
        text=explanation.text,
        method=explanation.method,
        encoder=explanation.encoder,
        box=[round(edge, 2) for edge in explanation.box],
        patches=[[round(float(cell), 4) for cell in row] for row in explanation.relevance],
    )
