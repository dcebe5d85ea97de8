"""`vitsearch label` and `vitsearch classify`: labels of the photos by words, or by a model's
classes.
"""

import sys
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vitsearch.cli.options import (
    ANYWHERE,
    COLLECTION,
    JSON,
    LANGUAGE,
    MODEL,
    PHOTOS,
    check_outputs,
    check_place,
    open_collection,
    outputs,
)
from vitsearch.cli.output import (
    ProgressBar,
    check_rows_file,
    label_row,
    print_note,
    printable,
    write_label_rows,
    write_outputs,
)
from vitsearch.errors import VitsearchError
from vitsearch.types import Prediction, Progress

SURE = 0.5  # of the best label of a photo


def doubted(collection: Any, names: Sequence[str], templates: Any) -> set[str]:
    """Return the paths of the photos that "none of these" fits better than any of the names: of
    two words one may be far more probable than the other though the photo shows neither.
    """
    from vitsearch.labels import NOTHING

    best = collection.label(names, templates=templates, background=True)
    return {prediction.path for prediction in best if prediction.label == NOTHING}


def writes(options: dict[str, Any]) -> bool:
    """Return whether links or sidecars are written and nothing says down to which probability."""
    chosen = options["min_probability"], options.get("threshold")
    return bool(options["sort_into"] is not None or options["xmp"]) and chosen == (None, None)


def sure_enough(
    options: dict[str, Any], predictions: Sequence[Prediction], doubtful: Container[str] = ()
) -> Sequence[Prediction]:
    """Return the predictions, photo by photo and the best first, to write into links and sidecars.

    These are the ones of at least ``--min-probability``. Without it (and ``--threshold``), photos
    that are in doubt, or whose best label is less probable than `SURE`, are asked about; raises
    VitsearchError where nobody can be asked.
    """
    from vitsearch.labels import NOTHING

    if not writes(options):
        least = options["min_probability"] or 0.0
        return [prediction for prediction in predictions if prediction.score >= least]
    best: dict[str, Prediction] = {}
    for prediction in predictions:
        best.setdefault(prediction.path, prediction)
    unsure = {
        path
        for path, first in best.items()
        if first.label != NOTHING and (first.score < SURE or path in doubtful)
    }
    if not unsure or _confirmed([best[path] for path in best if path in unsure], len(best)):
        return predictions
    print_note(f"vitsearch: {_photos(len(unsure))} left out, for which no label is sure")
    return [prediction for prediction in predictions if prediction.path not in unsure]


def _confirmed(unsure: Sequence[Prediction], total: int) -> bool:
    """Return whether a person wants these labels written too; raises VitsearchError where nobody
    can be asked.
    """
    first = unsure[0]
    text = (
        f"no label is sure for {len(unsure):,} of {_photos(total)} (such as "
        f"{printable(first.label)!r} for {printable(first.path)})"
    )
    if sys.stdin.isatty() and sys.stderr.isatty():
        return click.confirm(f"vitsearch: {text}. Write their labels too?", err=True)
    raise VitsearchError(
        f"{text}: nothing was written; say with --min-probability P how probable a label must be, "
        "or write all with --min-probability 0"
    )


def _photos(count: int) -> str:
    return f"{count:,} {'photo' if count == 1 else 'photos'}"


# -- The commands ----------------------------------------------------------------------------------


@click.command()
@ANYWHERE
@COLLECTION
@MODEL
@LANGUAGE
@click.option(
    "--labels",
    metavar="A,B,C",
    help='The labels, with commas between: "cat = kitten | tabby, keep := a sharp photo".',
)
@click.option(
    "--labels-file", metavar="FILE", help="The labels, one a line; levels as in `animal > dog`."
)
@click.option(
    "--classifier",
    "trained",
    metavar="DIR",
    help="A classifier that `vitsearch train` made, instead of labels.",
)
@click.option(
    "--examples",
    is_flag=True,
    help="By what was said on the page (`vitsearch serve`, Labels) and trained there.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="T",
    help="plain, simple (7), imagenet (80), or your own with {}; may be repeated.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many labels a photo: 1, or with --multi all that reach the threshold.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Least probability (--multi: 0.5); of levels, the deepest that reaches it is given.",
)
@click.option(
    "--background",
    is_flag=True,
    help="Add the answer 'none of these', for photos that no label clearly fits.",
)
@click.option(
    "--multi", is_flag=True, help="Each label by itself: a photo may have several, or none."
)
@click.option(
    "--calibrate",
    metavar="folders|FILE.csv",
    help=(
        "Make the probabilities true on photos whose label is known: their "
        "folder's name, or path,label."
    ),
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Write the rows to FILE.csv or FILE.jsonl instead of printing them.",
)
@click.option("--store", is_flag=True, help="Keep the best label and its score in the collection.")
@outputs
@JSON
def label(photos: str, labels: str | None, labels_file: str | None, **options: Any) -> int:
    """Give every photo of PHOTOS its most fitting label (zero-shot: any words will do).

    \b
    cat = kitten | tabby     synonyms: the prompts of all three are averaged
    keep := a sharp photo    the prompts say this, the answer is "keep"
    animal > dog             levels: the answer is the path
    """
    _check(labels, labels_file, options)
    if options["output"]:
        check_rows_file(Path(options["output"]))
    check_place(photos, options)
    check_outputs(photos, options)
    with open_collection(photos, options) as collection:
        predictions = _predictions(collection, labels, labels_file, options)
        written = sure_enough(
            options, predictions, _doubted(collection, labels, labels_file, options)
        )
        if options["store"]:
            collection.store_labels(predictions)
        paths = [photo.path for photo in collection.photos()]
    rows = [label_row(collection.root, prediction) for prediction in predictions]
    write_label_rows(rows, options["output"], options["as_json"])
    unlabelled = len(paths) - len({prediction.photo_id for prediction in predictions})
    if unlabelled:
        print_note(f"vitsearch: {unlabelled:,} photos reach no label")
    write_outputs(collection.root, options, predictions, paths, written)
    return 0 if rows else 1


def _check(labels: str | None, labels_file: str | None, options: dict[str, Any]) -> None:
    """Raise UsageError for options that do not go together."""
    sources = (labels, labels_file, options["trained"], options["examples"] or None)
    fault = None
    if sum(source is not None for source in sources) != 1:
        fault = "give the labels with either --labels, --labels-file, --classifier or --examples"
    elif (options["trained"] or options["examples"]) and (
        options["background"] or options["templates"]
    ):
        option = "--classifier" if options["trained"] else "--examples"
        fault = f"--background and --template go with labels, not with {option}"
    elif options["examples"] and (options["top"] or options["multi"] or options["calibrate"]):
        fault = "--examples gives each photo one label: leave out --top, --multi and --calibrate"
    elif options["multi"] and options["background"]:
        fault = "--multi judges each label against the background already: leave out --background"
    if fault:
        raise click.UsageError(fault, click.get_current_context())


def _predictions(
    collection: Any, labels: str | None, labels_file: str | None, options: dict[str, Any]
) -> list[Prediction]:
    if options["examples"]:
        from vitsearch.collection.training import label_with_examples

        least = options["threshold"] or 0.0
        return [each for each in label_with_examples(collection) if each.score >= least]
    classifier = _classifier(collection, labels, labels_file, options)
    if options["calibrate"]:
        from vitsearch.evaluation import calibrate_on

        classifier, gained = calibrate_on(collection, classifier, options["calibrate"])
        print_note(
            f"vitsearch: calibration error {gained.error_before:.3f} before, "
            f"{gained.error_after:.3f} after "
            f"(logits times {gained.scale:.3g}, on {gained.photos:,} photos, each judged by "
            "the other half)"
        )
    top = options["top"] or (None if options["multi"] else 1)
    predictions: list[Prediction] = collection.label(
        classifier, top=top, threshold=options["threshold"], multi=options["multi"]
    )
    return predictions


def _classifier(
    collection: Any, labels: str | None, labels_file: str | None, options: dict[str, Any]
) -> Any:
    if options["trained"]:
        from vitsearch.evaluation import load_trained

        return load_trained(options["trained"])
    return collection.zero_shot(
        _names(labels, labels_file),
        chosen_templates(options["templates"]),
        options["background"],
        options["multi"],
    )


def _names(labels: str | None, labels_file: str | None) -> list[str]:
    return labels.split(",") if labels is not None else lines_of(Path(labels_file or ""))


def _doubted(
    collection: Any, labels: str | None, labels_file: str | None, options: dict[str, Any]
) -> set[str]:
    by_words = not (options["trained"] or options["examples"])
    if not writes(options) or not by_words or options["background"] or options["multi"]:
        return set()
    templates = chosen_templates(options["templates"])
    return doubted(collection, _names(labels, labels_file), templates)


def chosen_templates(named: tuple[str, ...]) -> str | tuple[str, ...]:
    """Return the templates of a repeated option: plain where there is none."""
    return "plain" if not named else named[0] if len(named) == 1 else named


def lines_of(file: Path) -> list[str]:
    """Return the lines of a text file that are not empty; raises VitsearchError."""
    try:
        return [
            text.strip()
            for text in file.read_text(encoding="utf-8-sig").splitlines()
            if text.strip()
        ]
    except OSError as error:
        raise VitsearchError(
            f"cannot read the labels in {file} ({error.strerror}): check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise VitsearchError(
            f"the labels in {file} are not UTF-8 text ({error.reason} at byte {error.start}): "
            "save it as UTF-8"
        ) from error


# -- `vitsearch classify`: a supervised classifier on the photos of a folder -----------------------


@click.command()
@PHOTOS
@click.option(
    "--model",
    default="mini",
    show_default=True,
    metavar="NAME",
    help="mini (ImageNet's classes), hf:ORG/NAME, timm:NAME, local-dir:DIR.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many classes a photo.",
)
@MODEL
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    metavar="T",
    help="float32, float16, bfloat16 or auto.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Photos computed at a time.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Write the rows to FILE.csv or FILE.jsonl instead of printing them.",
)
@outputs
@JSON
def classify(photos: str, model: str, top: int, **options: Any) -> int:
    """Name what is on every photo of PHOTOS by the classes that a model was trained on; no
    collection is needed.
    """
    from vitsearch.classifiers import load_classifier
    from vitsearch.errors import PhotoError, VitsearchError
    from vitsearch.photos.formats import named_suffixes
    from vitsearch.photos.walk import walk
    from vitsearch.storage import photo_root

    if options["output"]:
        check_rows_file(Path(options["output"]))
    check_outputs(photos, options)
    root = photo_root(photos)
    unreadable: list[str] = []
    files = list(
        walk(root, on_unreadable=lambda path, reason: unreadable.append(f"{path}: {reason}"))
    )
    problems = [f"{file.path}: {file.problem}" for file in files if file.problem]
    for problem in [*problems, *unreadable]:
        print_note(f"vitsearch: {problem}")
    paths = [file.path for file in files if file.problem is None]
    if not paths:
        raise VitsearchError(
            f"no photos found in {photos}: give a folder with {named_suffixes()} files"
        )
    classifier = load_classifier(model, device=options["device"], dtype=options["dtype"])
    answers = classifier.stream(
        [root / path for path in paths], top, batch_size=options["batch_size"]
    )
    predictions: list[Prediction] = []
    failed: set[str] = set()
    with ProgressBar() as bar:
        for done, (path, (_, labels)) in enumerate(zip(paths, answers, strict=True), start=1):
            if isinstance(labels, PhotoError):
                print_note(f"vitsearch: {path}: {labels}")
                failed.add(path)
            else:
                predictions += [replace(best, path=path) for best in labels]
            bar(Progress("classifying", done, len(paths), len(failed)))
    written = sure_enough(options, predictions)
    write_label_rows(
        [label_row(root, prediction) for prediction in predictions],
        options["output"],
        options["as_json"],
    )
    if failed:
        print_note(f"vitsearch: {len(failed):,} of {len(paths):,} photos could not be read")
    decoded = [path for path in paths if path not in failed]
    write_outputs(root, options, predictions, decoded, written)
    return 0 if predictions else 1
