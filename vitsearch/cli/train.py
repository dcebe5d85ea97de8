"""`vitsearch train`: words to a classifier from a few labelled photos."""

from pathlib import Path
from typing import Any

import click

from vitsearch.cli import show
from vitsearch.cli.label import chosen_templates, lines_of
from vitsearch.cli.options import COLLECTION, DEVICE, JSON, PHOTOS


@click.command()
@PHOTOS
@COLLECTION
@DEVICE
@click.option(
    "--labels-from", "source", required=True, metavar="folders|FILE.csv", help="The name of a photo's folder, or a CSV file: path,label."
)
@click.option(
    "--method",
    type=click.Choice(["probe", "prototype", "tip"]),
    default="probe",
    show_default=True,
    help="probe: logistic regression; prototype: mean vectors, from one example; tip: zero-shot and examples together.",
)
@click.option("--labels-file", metavar="FILE", help="For tip: the labels with their synonyms, one a line; else the classes' own names.")
@click.option("--template", "templates", multiple=True, metavar="T", help="For tip: plain, simple, imagenet, or your own with {}.")
@click.option("-o", "--output", required=True, metavar="DIR", help="Where the classifier goes.")
@JSON
def train(photos: str, source: str, method: str, labels_file: str | None, **options: Any) -> int:
    """Train a classifier on the labelled photos of PHOTOS; `vitsearch label PHOTOS --classifier DIR` uses it."""
    from vitsearch.collection import Collection
    from vitsearch.labelling import train_on
    from vitsearch.metrics import accuracy_interval

    if method != "tip" and (labels_file or options["templates"]):
        raise click.UsageError("--labels-file and --template go with --method tip", click.get_current_context())
    labels = lines_of(Path(labels_file)) if labels_file else None
    with Collection.open(photos, collection=options["collection"], device=options["device"]) as found:
        classifier, report = train_on(found, source, method, labels=labels, templates=chosen_templates(options["templates"]))  # type: ignore[arg-type]
        for text in found.notes:
            show.note(f"vitsearch: {text}")
    classifier.save(options["output"])
    low, high = accuracy_interval(report.right, report.judged) if report.judged else (0.0, 1.0)
    accuracy = report.right / report.judged if report.judged else None
    if options["as_json"]:
        facts = {"classes": report.classes, "photos": report.photos, "accuracy": accuracy, "low": low, "high": high}
        show.json_line(facts | {"output": options["output"]})
        return 0
    judged = "not judged, since a class has too few examples"
    if report.judged:
        judged = f"accuracy {accuracy:.3f} (95 % interval {low:.3f} to {high:.3f}) on photos left out in turn"
    show.line(f"{report.classes:,} classes from {report.photos:,} photos, {judged}; wrote {show.printable(options['output'])}")
    return 0
