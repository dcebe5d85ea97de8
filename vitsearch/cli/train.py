"""`vitsearch train` and `finetune`: a classifier, or a whole model, from labelled photos."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from vitsearch.cli.label import chosen_templates, lines_of
from vitsearch.cli.options import COLLECTION, DEVICE, JSON, MODEL, PHOTOS
from vitsearch.cli.output import Stopped, photo_bar, print_json, print_line, print_note, printable


@click.command()
@PHOTOS
@COLLECTION
@MODEL
@click.option(
    "--labels-from",
    "source",
    required=True,
    metavar="folders|FILE.csv|examples",
    help="The name of a photo's folder, a CSV file: path,label, or what was said on the page.",
)
@click.option(
    "--method",
    type=click.Choice(["probe", "prototype", "tip"]),
    default="probe",
    show_default=True,
    help=(
        "probe: logistic regression; prototype: mean vectors, from one example; tip: zero-shot "
        "and examples together."
    ),
)
@click.option(
    "--labels-file",
    metavar="FILE",
    help="For tip: the labels with their synonyms, one a line; else the classes' own names.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="T",
    help="For tip: plain, simple, imagenet, or your own with {}.",
)
@click.option("-o", "--output", required=True, metavar="DIR", help="Where the classifier goes.")
@JSON
def train(photos: str, source: str, method: str, labels_file: str | None, **options: Any) -> int:
    """Train a classifier on the labelled photos of PHOTOS; `vitsearch label PHOTOS --classifier
    DIR` uses it.
    """
    from vitsearch.collection import Collection
    from vitsearch.evaluation import train_classifier
    from vitsearch.labels.metrics import accuracy_interval

    if method != "tip" and (labels_file or options["templates"]):
        raise click.UsageError(
            "--labels-file and --template go with --method tip", click.get_current_context()
        )
    labels = lines_of(Path(labels_file)) if labels_file else None
    with Collection.open(
        photos, collection=options["collection"], device=options["device"]
    ) as collection:
        classifier, report = train_classifier(
            collection,
            source,
            method,  # type: ignore[arg-type]
            labels=labels,
            templates=chosen_templates(options["templates"]),
        )
    classifier.save(options["output"])
    validated = report.validated
    low, high = accuracy_interval(report.right, validated) if validated else (0.0, 1.0)
    accuracy = report.right / validated if validated else None
    if options["as_json"]:
        facts = {
            "classes": report.classes,
            "photos": report.photos,
            "accuracy": accuracy,
            "low": low,
            "high": high,
        }
        print_json(facts | {"output": options["output"]})
        return 0
    accuracy_text = "not judged, since a class has too few examples"
    if report.validated:
        accuracy_text = (
            f"accuracy {accuracy:.3f} (95 % interval {low:.3f} to {high:.3f}) "
            "on photos left out in turn"
        )
    print_line(
        f"{report.classes:,} classes from {report.photos:,} photos, {accuracy_text}; wrote "
        f"{printable(options['output'])}"
    )
    return 0


# -- `vitsearch finetune` --------------------------------------------------------------------------


@click.command()
@PHOTOS
@click.option(
    "--labels-from",
    "source",
    required=True,
    metavar="folders|FILE.csv",
    help="The name of a photo's folder, or a CSV file: path,label.",
)
@click.option(
    "--model",
    default="mini",
    show_default=True,
    metavar="NAME",
    help="Where to begin: mini, hf:ORG/NAME, timm:NAME, local-dir:D.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="DIR",
    help="Where the model goes; its checkpoint too, until it is done.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --output that was stopped.")
@click.option(
    "--epochs", type=int, metavar="N", help="How often every photo is shown, at most (8)."
)
@click.option("--batch-size", type=int, metavar="N", help="Photos learned from at a time (32).")
@click.option("--learning-rate", type=float, metavar="X", help="Peak rate of the head (0.0003).")
@click.option(
    "--layer-decay",
    type=float,
    metavar="X",
    help="The rate of each layer beside that of the one above (0.75).",
)
@click.option(
    "--mixup",
    type=float,
    metavar="X",
    help="How much photos are mixed in pairs (0.2; 0: not at all).",
)
@click.option(
    "--average",
    type=float,
    metavar="X",
    help="Share of the trained weights in their mean with the start (0.5).",
)
@click.option("--magnitude", type=int, metavar="N", help="Strength of RandAugment, 0 to 30 (9).")
@click.option(
    "--validation",
    type=float,
    metavar="P",
    help="Share of each class left out to judge by and to stop early (0.2; 0: none).",
)
@click.option(
    "--patience",
    type=int,
    metavar="N",
    help="Stop after so many epochs without a better result (4).",
)
@click.option(
    "--seed", type=int, metavar="N", help="Of the split, the order and the augmentation (0)."
)
@DEVICE
@JSON
def finetune(photos: str, source: str, model: str, output: str, **options: Any) -> int:
    """Fine-tune a Vision Transformer on the labelled photos of PHOTOS; `vitsearch classify PHOTOS
    --model local-dir:DIR` uses it.

    Random crops, mirroring, RandAugment, mixup and label smoothing; slower learning for lower
    layers; a cosine schedule. A stopped run goes on with --resume.
    """
    from vitsearch.classifiers.finetune import FinetuneSettings
    from vitsearch.classifiers.finetune import finetune as run

    names = FinetuneSettings.__dataclass_fields__
    chosen = {name: options[name] for name in names if options.get(name) is not None}
    settings = FinetuneSettings(**chosen)
    with _Bar(not options["as_json"]) as bar:
        try:
            report = run(
                photos,
                source,
                output,
                model=model,
                settings=settings,
                device=options["device"],
                resume=options["resume"],
                progress=bar,
            )
        except KeyboardInterrupt:
            has_checkpoint = (Path(output) / "checkpoint.safetensors").exists()
            remaining = "nothing was kept yet"
            if has_checkpoint:
                remaining = "--resume goes on after the last epoch"
            raise Stopped(remaining) from None
    for path, reason in report.unreadable:
        print_note(f"vitsearch: {path}: {reason}")
    if options["as_json"]:
        print_json(_facts(report) | {"output": output})
        return 0
    print_line(
        f"{len(report.classes):,} classes from {report.photos:,} photos in "
        f"{report.seconds:.0f} s, {_accuracy_text(report)}"
    )
    print_line(
        f"wrote {printable(output)}: vitsearch classify PHOTOS --model "
        f"local-dir:{printable(str(Path(output)))}"
    )
    return 0


class _Bar:
    """Shows photos and rate of each epoch on stderr where that is a terminal, and a line for each
    finished epoch.
    """

    def __init__(self, lines: bool) -> None:
        self._lines, self._stage = lines, ("", 0)
        self._bar: Any = None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, step: Any) -> None:
        if step.stage == "judged":
            self._say(step.last)
            return
        if self._stage != (step.stage, step.epoch):
            self.__exit__()
            self._stage = (step.stage, step.epoch)
            self._bar = photo_bar(step.total, f"epoch {step.epoch}" if step.epoch else step.stage)
        self._bar.update(step.done - self._bar.n)

    def _say(self, result: Any) -> None:
        self.__exit__()
        if self._lines:
            accuracy_text, loss = "", "the start, under a fitted head"
            if result.validated:
                accuracy_text = f", {result.right} of {result.validated} left out right"
            if result.loss is not None:
                loss = f"loss {result.loss:.3f}"
            print_note(f"vitsearch: epoch {result.epoch}: {loss}{accuracy_text}")


def _accuracy_text(report: Any) -> str:
    from vitsearch.labels.metrics import accuracy_interval

    best = report.best
    if not best.validated:
        return f"{report.epochs[-1].epoch} epochs, no photo left out to judge by"
    low, high = accuracy_interval(best.right, best.validated)
    share = best.right / best.validated
    text = (
        f"accuracy {share:.3f} (95 % interval {low:.3f} to {high:.3f}) on {best.validated:,} left "
        f"out, which also chose epoch {best.epoch}"
    )
    if best.epoch == 0:
        return (
            f"{text}: no epoch was better than the fitted head, the network below it is unchanged"
        )
    return f"{text}, the mean with the start" if best.share < 1 else text


def _facts(report: Any) -> dict[str, Any]:
    """Return a report as one JSON object."""
    return asdict(report) | {
        "epochs": [epoch.to_record() for epoch in report.epochs],
        "best": report.best.to_record(),
        "unreadable": [{"path": path, "reason": reason} for path, reason in report.unreadable],
    }
