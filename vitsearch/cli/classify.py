"""`vitsearch classify`: a supervised classifier on the photos of a folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vitsearch.cli import show
from vitsearch.cli.options import DEVICE, JSON, PHOTOS
from vitsearch.cli.outputs import check_outputs, outputs, write_outputs
from vitsearch.types import Prediction


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
@outputs
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
    check_outputs(photos, options)
    root = photo_root(photos)
    unreadable: list[str] = []
    files = list(walk(root, on_unreadable=lambda path, reason: unreadable.append(f"{path}: {reason}")))
    for problem in [*(f"{one.path}: {one.problem}" for one in files if one.problem), *unreadable]:
        show.note(f"vitsearch: {problem}")
    found = [one.path for one in files if one.problem is None]
    if not found:
        raise VitsearchError(f"no photos found in {photos}: give a folder with jpg, png, webp, tiff, bmp, gif or heic files")
    classifier = load_classifier(model, device=options["device"], dtype=options["dtype"])
    answers = classifier.stream([root / path for path in found], top, batch_size=options["batch_size"])
    predictions: list[Prediction] = []
    failed: set[str] = set()
    with photo_bar(len(found), "classifying") as bar:
        for path, (_, labels) in zip(found, answers, strict=True):
            if isinstance(labels, PhotoError):
                show.note(f"vitsearch: {path}: {labels}")
                failed.add(path)
            else:
                predictions += [replace(best, path=path) for best in labels]
            bar.update()
    show.label_rows([show.label_row(one.path, one) for one in predictions], options["output"], options["as_json"])
    if failed:
        show.note(f"vitsearch: {len(failed):,} of {len(found):,} photos could not be read")
    write_outputs(root, options, predictions, [path for path in found if path not in failed])
    return 0 if predictions else 1
