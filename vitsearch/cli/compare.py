"""`vitsearch compare`: zero-shot beside a supervised classifier beside a probe."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.label import chosen_templates, lines_of
from vitsearch.cli.options import COLLECTION, DEVICE, JSON, PHOTOS
from vitsearch.cli.output import (
    ProgressBar,
    check_rows_file,
    print_json,
    print_line,
    print_note,
    print_table,
    printable,
)

if TYPE_CHECKING:
    from vitsearch.evaluation import ClassMap, Comparison, Method
    from vitsearch.outputs.contact_sheet import Section, Verdict

SHOWN = 20  # disagreements printed, and labels
NAMED = 3  # classes of a label
DRAWN = 400  # and drawn
COLUMNS = ("path", "way", "label", "score", "truth", "right")


@click.command()
@PHOTOS
@click.option(
    "--labels",
    metavar="A,B,C",
    help='The labels, with commas between: "cat, dog = hound, animal > bird".',
)
@click.option("--labels-file", metavar="FILE", help="The labels, one a line.")
@click.option(
    "--model",
    default="mini",
    show_default=True,
    metavar="NAME",
    help="mini, hf:ORG/NAME, timm:NAME, local-dir:DIR.",
)
@click.option(
    "--truth",
    metavar="folders|FILE.csv",
    help="The photos' true labels: their folder's name, or path,label.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="T",
    help="plain, simple, imagenet, or your own with {}; may be repeated.",
)
@click.option(
    "--class-map",
    "class_map",
    metavar="FILE",
    help="Which class is which label: read, or written where there is no such file.",
)
@click.option("--confusion", metavar="FILE.png", help="Draw the confusion matrices; needs --truth.")
@click.option(
    "--sheet",
    metavar="FILE",
    help="Draw the photos on which they disagree as FILE.html, .png or .jpg.",
)
@click.option("--output", metavar="FILE", help="Write every answer to FILE.csv or FILE.jsonl.")
@COLLECTION
@DEVICE
@JSON
def compare(photos: str, labels: str | None, labels_file: str | None, **options: Any) -> int:
    """Compare zero-shot, a supervised MODEL and (with --truth) a probe on the indexed PHOTOS.

    The classes of MODEL that are a label, by name, synonym or WordNet's hypernyms ("dog": all
    breeds), count for it; scores are probabilities among the labels. Rates of zero-shot and probe
    are of labelling stored vectors, that of MODEL includes reading the photos.
    """
    from vitsearch.classifiers import load_classifier
    from vitsearch.collection import Collection
    from vitsearch.evaluation import compare as compared
    from vitsearch.labels import check_templates

    if (labels is None) == (labels_file is None):
        raise click.UsageError(
            "give the labels with either --labels or --labels-file", click.get_current_context()
        )
    if options["confusion"] and not options["truth"]:
        raise click.UsageError("--confusion needs --truth", click.get_current_context())
    names = labels.split(",") if labels is not None else lines_of(Path(labels_file or ""))
    _check_files(len(names), options)
    templates = chosen_templates(options["templates"])
    check_templates(templates)
    with Collection.open(
        photos, collection=options["collection"], device=options["device"]
    ) as found:
        network = load_classifier(options["model"], device=options["device"])
        class_map = _class_map(
            options["class_map"], network.classes, names, quiet=options["as_json"]
        )
        with ProgressBar() as bar:
            result = compared(
                found,
                names,
                model=network,
                truth=options["truth"],
                templates=templates,
                class_map=class_map,
                progress=bar,
            )
        for text in result.notes:
            print_note(f"vitsearch: {text}")
        root = found.root
    _note_failed(result)
    _write_files(result, root, options)
    (_print_json if options["as_json"] else _print_tables)(result)
    return 0


def _check_files(labels: int, options: dict[str, Any]) -> None:
    """Raise VitsearchError for a file that cannot be written: said before long work,
    not after it.
    """
    from vitsearch.errors import VitsearchError
    from vitsearch.outputs.confusion_matrix import check_confusion
    from vitsearch.outputs.contact_sheet import check_suffix

    if options["output"]:
        check_rows_file(Path(options["output"]))
    if options["confusion"]:
        check_confusion(Path(options["confusion"]), labels)
    if options["sheet"]:
        check_suffix(Path(options["sheet"]))
    for file in filter(None, (options["sheet"], options["class_map"])):
        if not Path(file).parent.is_dir():
            raise VitsearchError(f"cannot write {file}: there is no folder {Path(file).parent}")


def _class_map(
    file: str | None, classes: Sequence[str], labels: Sequence[str], *, quiet: bool
) -> "ClassMap":
    """Return the class map of a file, which is written where it is not there, or a derived one; say
    which classes one that is new has.
    """
    from vitsearch.evaluation import derive_class_map, read_class_map, write_class_map

    if file is not None and Path(file).exists():
        return read_class_map(file, classes, labels)
    derived = derive_class_map(classes, labels)
    if file is not None:
        write_class_map(file, derived)
        count = sum(label is not None for label in derived.labels)
        print_note(
            f"vitsearch: wrote {file}: {count:,} of {len(classes):,} classes are a label; "
            "edit it and run this again"
        )
    if not quiet:
        _note_classes(derived, labels, "; --class-map FILE to edit" if file is None else "")
    return derived


def _note_classes(derived: "ClassMap", labels: Sequence[str], hint: str) -> None:
    """Say for each label that has classes how many, and the first of them."""
    from vitsearch.labels import parse_labels

    names = [label.name for label in parse_labels(labels)]
    found = [
        (name, [derived.classes[place] for place in places])
        for name, places in zip(names, derived.columns(names), strict=True)
    ]
    said = [(name, classes) for name, classes in found if classes]
    for name, classes in said[:SHOWN]:
        some = ", ".join(classes[:NAMED]) + (", ..." if len(classes) > NAMED else "")
        print_note(
            f"vitsearch: {name}: {len(classes):,} "
            f"{'class' if len(classes) == 1 else 'classes'} "
            f"({some}){hint}"
        )
    if len(said) > SHOWN:
        print_note(f"vitsearch: and classes of {len(said) - SHOWN:,} more labels{hint}")


def _note_failed(result: "Comparison") -> None:
    for way in result.methods:
        for path, reason in way.failed:
            print_note(f"vitsearch: {way.name}: {path}: {reason}")


# -- files -----------------------------------------------------------------------------------------


def _write_files(result: "Comparison", root: Path, options: dict[str, Any]) -> None:
    from vitsearch.outputs.confusion_matrix import write_confusion
    from vitsearch.outputs.contact_sheet import write_sheet
    from vitsearch.outputs.drawing import write_page

    if options["output"]:
        rows = list(_rows(result))
        content = _content(rows, Path(options["output"]).suffix.lower())
        write_page(Path(options["output"]), content.encode("utf-8", "surrogateescape"), "rows")
        print_note(f"vitsearch: wrote {len(rows)} rows to {options['output']}")
    if options["confusion"]:
        matrices = {
            f"{way.name} {way.accuracy.value:.3f}": way.confusion
            for way in result.methods
            if way.accuracy and way.confusion is not None
        }
        write_confusion(Path(options["confusion"]), result.labels, matrices)
        print_note(f"vitsearch: wrote {options['confusion']}")
    if options["sheet"]:
        drawn = result.disagreements[:DRAWN]
        write_sheet(
            Path(options["sheet"]),
            _sections(result, drawn),
            root=root,
            title=f"Photos on which {_ways(result)} differ",
        )
        left = (
            f", the first of {len(result.disagreements):,}"
            if len(drawn) < len(result.disagreements)
            else ""
        )
        print_note(f"vitsearch: wrote {len(drawn)} disagreements to {options['sheet']}{left}")


def _rows(result: "Comparison") -> Iterator[dict[str, Any]]:
    """Yield a row for each photo and way; label and score are None where there is no answer."""
    for place, path in enumerate(result.photos):
        truth = result.truth[place] if result.truth else None
        for way in result.methods:
            label, score = way.answers[place] or (None, None)
            right = None if truth is None or label is None else label == truth
            score = None if score is None else round(score, 6)
            yield {
                "path": path,
                "way": way.name,
                "label": label,
                "score": score,
                "truth": truth,
                "right": right,
            }


def _content(rows: Sequence[dict[str, Any]], suffix: str) -> str:
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        row | {"right": "" if row["right"] is None else int(row["right"])} for row in rows
    )
    return out.getvalue()


def _sections(result: "Comparison", places: Sequence[int]) -> list["Section"]:
    """Return the photos by who is right, or all in one section where that is not known."""
    groups: dict[str, list[tuple[str, list[Verdict]]]] = defaultdict(list)
    for place in places:
        groups[_title(result, place)].append((result.photos[place], _verdicts(result, place)))
    return [*groups.items()] or [("the ways agree on every photo", [])]


def _ways(result: "Comparison") -> str:
    """Return the names of the ways as a sentence has them."""
    *names, last = [way.name for way in result.methods]
    return f"{', '.join(names)} and {last}"


def _title(result: "Comparison", place: int) -> str:
    if result.truth is None:
        return f"{_ways(result)} disagree"
    said = [
        (way.name, answer[0] == result.truth[place])
        for way in result.methods
        if (answer := way.answers[place])
    ]
    right, wrong = (
        [name for name, is_right in said if is_right is wanted] for wanted in (True, False)
    )
    if not right:
        return "all wrong, each otherwise"
    return f"{' and '.join(right)} right, {' and '.join(wrong)} wrong"


def _verdicts(result: "Comparison", place: int) -> list["Verdict"]:
    from vitsearch.outputs.contact_sheet import Verdict

    truth = result.truth[place] if result.truth else None
    rows = [
        Verdict(way.name, answer[0], answer[1], None if truth is None else answer[0] == truth)
        for way in result.methods
        if (answer := way.answers[place])
    ]
    return rows if truth is None else [*rows, Verdict("truth", truth)]


# -- for people and programs -----------------------------------------------------------------------


def _print_json(result: "Comparison") -> None:
    """Write a line for each way, for each of its classes, for each pair of ways and for each
    disagreement.
    """
    for way in result.methods:
        low, high = way.accuracy.interval if way.accuracy else (None, None)
        facts: dict[str, Any] = {
            "way": way.name,
            "model": way.model,
            "photos": way.photo_count,
            "failed": len(way.failed),
        }
        facts |= {
            "accuracy": way.accuracy.value if way.accuracy else None,
            "accuracy_low": low,
            "accuracy_high": high,
        }
        print_json(
            facts
            | {
                "calibration_error": way.calibration_error,
                "photos_per_second": round(way.photos_per_second, 1),
            }
        )
        for label, share in (way.per_class or {}).items():
            print_json(
                {"way": way.name, "class": label, "photos": share.total, "right": share.right}
            )
    for pair, share in result.agreement.items():
        print_json({"ways": pair, "photos": share.total, "agree": share.right})
    for place in result.disagreements:
        answers: dict[str, str] = {
            way.name: answer[0] for way in result.methods if (answer := way.answers[place])
        }
        print_json(
            {
                "disagreement": result.photos[place],
                **answers,
                "truth": result.truth[place] if result.truth else None,
            }
        )


def _print_tables(result: "Comparison") -> None:
    judged = result.truth is not None
    heads = (
        "way",
        "model",
        "photos",
        *(("accuracy (95 % interval)", "calibration error") if judged else ()),
        "photos/s",
    )
    print_table([_way_row(way) for way in result.methods], heads)
    print_line("(photos/s: zero-shot and probe label stored vectors; supervised reads the photos)")
    print_line("")
    print_table(
        [
            (f"{one} = {two}", f"{share.value:.4f}", f"{share.right:,} of {share.total:,}")
            for (one, two), share in result.agreement.items()
        ],
        ("agreement", "share", "photos"),
    )
    if judged:
        print_line("")
        print_table(
            [_class_row(result, label) for label in result.labels],
            ("label", *(way.name for way in result.methods)),
        )
    print_line("")
    print_line(f"they disagree on {len(result.disagreements):,} of {len(result.photos):,} photos")
    for place in result.disagreements[:SHOWN]:
        print_line(f"  {printable(result.photos[place])}: {printable(_said(result, place))}")
    if len(result.disagreements) > SHOWN:
        print_line(
            f"  and {len(result.disagreements) - SHOWN:,} more: --output or --sheet has them"
        )


def _way_row(way: "Method") -> tuple[object, ...]:
    judged: tuple[object, ...] = ()
    if way.accuracy:
        error = "-" if way.calibration_error is None else f"{way.calibration_error:.4f}"
        judged = (
            (
                f"{way.accuracy.value:.4f} ({way.accuracy.interval[0]:.4f} to "
                f"{way.accuracy.interval[1]:.4f})"
            ),
            error,
        )
    return (way.name, way.model, f"{way.photo_count:,}", *judged, f"{way.photos_per_second:,.0f}")


def _class_row(result: "Comparison", label: str) -> tuple[object, ...]:
    shares = [(way.per_class or {}).get(label) for way in result.methods]
    return (
        label,
        *(
            f"{share.value:.3f} ({share.right:,}/{share.total:,})" if share else "-"
            for share in shares
        ),
    )


def _said(result: "Comparison", place: int) -> str:
    said = [
        f"{one.who} {one.label}" + ("" if one.score is None else f" {one.score:.2f}")
        for one in _verdicts(result, place)
    ]
    return ", ".join(said)
