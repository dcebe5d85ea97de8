"""`vitsearch classify`: a supervised classifier on the photos of a folder."""

from pathlib import Path
from typing import Any

import click

from vitsearch.cli import show
from vitsearch.cli.options import DEVICE, JSON, PHOTOS


@click.command()
@PHOTOS
@click.option(
    "--model",
    default="mini",
    show_default=True,
    metavar="NAME",
    help="mini (ImageNet's classes), hf:ORG/NAME, timm:NAME, local-dir:DIR.",
)
@click.option("--top", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="How many classes a photo.")
@DEVICE
@click.option("--dtype", default="auto", show_default=True, metavar="T", help="float32, float16, bfloat16 or auto.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, metavar="N", help="Photos computed at a time.")
@click.option("--output", metavar="FILE", help="Write the rows to FILE.csv or FILE.jsonl instead of printing them.")
@JSON
def classify(photos: str, model: str, top: int, **options: Any) -> int:
    """Name what is on every photo of PHOTOS by the classes that a model was trained on; no collection is needed."""
    from vitsearch.cli.progress import photo_bar
    from vitsearch.errors import PhotoError, VitsearchError
    from vitsearch.layout import photo_root
    from vitsearch.photos import walk
    from vitsearch.supervised import load_classifier

    if options["output"]:
        show.check_rows_file(Path(options["output"]))
    found = [one for one in walk(photo_root(photos)) if one.problem is None]
    if not found:
        raise VitsearchError(f"no photos found in {photos}: give a folder with jpg, png, webp, tiff, bmp, gif or heic files")
    classifier = load_classifier(model, device=options["device"], dtype=options["dtype"])
    answers = classifier.stream([Path(photos) / one.path for one in found], top, batch_size=options["batch_size"])
    rows: list[dict[str, Any]] = []
    failed = 0
    with photo_bar(len(found), "classifying") as bar:
        for one, (_, labels) in zip(found, answers, strict=True):
            if isinstance(labels, PhotoError):
                show.note(f"vitsearch: {one.path}: {labels}")
                failed += 1
            else:
                rows += [show.label_row(one.path, best) for best in labels]
            bar.update()
    show.label_rows(rows, options["output"], options["as_json"])
    if failed:
        show.note(f"vitsearch: {failed:,} of {len(found):,} photos could not be read")
    return 0 if rows else 1
