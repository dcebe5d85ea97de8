"""`vitsearch explain`: why a photo fits a text."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.options import COLLECTION, JSON, LANGUAGE, MODEL, PHOTOS
from vitsearch.cli.output import photo_row, print_json, print_line, print_note, printable
from vitsearch.errors import PhotoError, VitsearchError

if TYPE_CHECKING:
    from vitsearch.explain import Explanation

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
    from vitsearch.collection.collection import Collection
    from vitsearch.encoders.language import readable
    from vitsearch.explain import explain as find
    from vitsearch.explain.draw import check_suffix, write_explanation

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
