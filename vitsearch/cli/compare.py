"""`vitsearch compare`: zero-shot, a supervised classifier and a probe on the same photos."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.label import chosen_templates, lines_of
from vitsearch.cli.options import COLLECTION, JSON, MODEL, PHOTOS, TEMPLATES
from vitsearch.cli.output import (
    ProgressBar,
    check_rows_file,
    photo_row,
    print_json,
    print_line,
    print_note,
    print_table,
    printable,
)

if TYPE_CHECKING:
    from vitsearch.evaluation import ClassMap
    from vitsearch.evaluation.comparison import Comparison, Method
    from vitsearch.outputs.contact_sheet import Section, Verdict

SHOWN = 20  # disagreements, and labels, that are printed
UNEVEN = 10  # times as many classes as another label: said
NAMED = 3  # classes of a label that are printed
DRAWN = 400  # disagreements on the sheet
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
@TEMPLATES
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
@click.option(
    "-o", "--output", metavar="FILE", help="Write every answer to FILE.csv or FILE.jsonl."
)
@COLLECTION
@MODEL
@JSON
def compare(photos: str, labels: str | None, labels_file: str | None, **options: Any) -> int:
    """Compare zero-shot, a supervised MODEL and (with --truth) a probe on the indexed PHOTOS.

    The classes of MODEL that are a label, by name, synonym or WordNet's hypernyms ("dog": all
    breeds), count for it; scores are probabilities among the labels. Rates of zero-shot and probe
    are of labelling stored vectors, that of MODEL includes reading the photos.
    """
    from vitsearch.classifiers import load_classifier
    from vitsearch.collection import Collection
    from vitsearch.evaluation.comparison import compare as compared
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
    ) as collection:
        network = load_classifier(options["model"], device=options["device"])
        class_map = _class_map(
            options["class_map"], network.classes, names, quiet=options["as_json"]
        )
        with ProgressBar() as bar:
            result = compared(
                collection,
                names,
                model=network,
                truth=options["truth"],
                templates=templates,
                class_map=class_map,
                progress=bar,
            )
        for text in result.notes:
            print_note(f"vitsearch: {text}")
        root = collection.root
    _note_failed(result)
    _write_files(result, root, options)
    if options["as_json"]:
        _print_json(result, root)
    else:
        _print_tables(result)
    return 0


def _check_files(labels: int, options: dict[str, Any]) -> None:
    """Raise VitsearchError for a file that cannot be written, before the long work begins."""
    from vitsearch.errors import VitsearchError
    from vitsearch.outputs import check_confusion
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
    """Return the class map of a file, or a derived one, which is written to the file and shown."""
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
    columns = zip(names, derived.columns(names), strict=True)
    with_classes = [
        (name, [derived.classes[position] for position in positions])
        for name, positions in columns
        if len(positions)
    ]
    for name, classes in with_classes[:SHOWN]:
        first = ", ".join(classes[:NAMED]) + (", ..." if len(classes) > NAMED else "")
        noun = "class" if len(classes) == 1 else "classes"
        print_note(f"vitsearch: {name}: {len(classes):,} {noun} ({first}){hint}")
    if len(with_classes) > SHOWN:
        print_note(f"vitsearch: and classes of {len(with_classes) - SHOWN:,} more labels{hint}")
    if len(with_classes) > 1:
        ordered = sorted(with_classes, key=lambda each: len(each[1]))
        (fewest, few), (largest, many) = ordered[0], ordered[-1]
        if len(many) >= UNEVEN * len(few):
            print_note(
                f"vitsearch: the probability of a label is the sum of its classes', shared out "
                f"among the labels: {largest} ({len(many):,} classes) has an advantage over "
                f"{fewest} ({len(few):,})"
            )


def _note_failed(result: "Comparison") -> None:
    for method in result.methods:
        for path, reason in method.failed:
            print_note(f"vitsearch: {method.name}: {path}: {reason}")


# -- Files -----------------------------------------------------------------------------------------


def _write_files(result: "Comparison", root: Path, options: dict[str, Any]) -> None:
    from vitsearch.outputs import write_confusion, write_page
    from vitsearch.outputs.contact_sheet import write_sheet

    if options["output"]:
        rows = list(_rows(result))
        content = _content(rows, Path(options["output"]).suffix.lower())
        write_page(Path(options["output"]), content.encode("utf-8", "surrogateescape"), "rows")
        print_note(f"vitsearch: wrote {len(rows)} rows to {options['output']}")
    if options["confusion"]:
        matrices = {
            f"{method.name} {method.accuracy.value:.3f}": method.confusion
            for method in result.methods
            if method.accuracy and method.confusion is not None
        }
        write_confusion(Path(options["confusion"]), result.labels, matrices)
        print_note(f"vitsearch: wrote {options['confusion']}")
    if options["sheet"]:
        drawn = result.disagreements[:DRAWN]
        write_sheet(
            Path(options["sheet"]),
            _sections(result, drawn),
            root=root,
            title=f"Photos on which {_names(result)} differ",
        )
        left = (
            f", the first of {len(result.disagreements):,}"
            if len(drawn) < len(result.disagreements)
            else ""
        )
        print_note(f"vitsearch: wrote {len(drawn)} disagreements to {options['sheet']}{left}")


def _rows(result: "Comparison") -> Iterator[dict[str, Any]]:
    """Yield a row for each photo and method; label and score are None where there is no answer."""
    for position, path in enumerate(result.photos):
        truth = result.truth[position] if result.truth else None
        for method in result.methods:
            label, score = method.answers[position] or (None, None)
            right = None if truth is None or label is None else label == truth
            score = None if score is None else round(score, 6)
            yield {
                "path": path,
                "way": method.name,
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


def _sections(result: "Comparison", positions: Sequence[int]) -> list["Section"]:
    """Return the photos by who is right, or all in one section where that is not known."""
    groups: dict[str, list[tuple[str, list[Verdict]]]] = defaultdict(list)
    for position in positions:
        photo = (result.photos[position], _verdicts(result, position))
        groups[_title(result, position)].append(photo)
    return [*groups.items()] or [("the ways agree on every photo", [])]


def _names(result: "Comparison") -> str:
    """Return the names of the methods as a sentence lists them."""
    *names, last = [method.name for method in result.methods]
    return f"{', '.join(names)} and {last}"


def _title(result: "Comparison", position: int) -> str:
    if result.truth is None:
        return f"{_names(result)} disagree"
    right: list[str] = []
    wrong: list[str] = []
    for method in result.methods:
        if prediction := method.answers[position]:
            (right if prediction[0] == result.truth[position] else wrong).append(method.name)
    if not right:
        return "all wrong, each otherwise"
    return f"{' and '.join(right)} right, {' and '.join(wrong)} wrong"


def _verdicts(result: "Comparison", position: int) -> list["Verdict"]:
    from vitsearch.outputs.contact_sheet import Verdict

    truth = result.truth[position] if result.truth else None
    rows = []
    for method in result.methods:
        if prediction := method.answers[position]:
            label, score = prediction
            is_right = None if truth is None else label == truth
            rows.append(Verdict(method.name, label, score, is_right))
    return rows if truth is None else [*rows, Verdict("truth", truth)]


# -- Lines on stdout -------------------------------------------------------------------------------


def _print_json(result: "Comparison", root: Path) -> None:
    """Write a line for each method, each of its classes, each pair of methods and each
    disagreement.
    """
    for method in result.methods:
        low, high = method.accuracy.interval if method.accuracy else (None, None)
        print_json(
            {
                "way": method.name,
                "model": method.model,
                "photos": method.photo_count,
                "failed": len(method.failed),
                "accuracy": method.accuracy.value if method.accuracy else None,
                "accuracy_low": low,
                "accuracy_high": high,
                "calibration_error": method.calibration_error,
                "photos_per_second": round(method.photos_per_second, 1),
            }
        )
        for label, share in (method.per_class or {}).items():
            print_json(
                {"way": method.name, "class": label, "photos": share.total, "right": share.right}
            )
    for pair, share in result.agreement.items():
        print_json({"ways": pair, "photos": share.total, "agree": share.right})
    for position in result.disagreements:
        path = result.photos[position]
        row = photo_row(root, path, disagreement=path)
        for method in result.methods:
            if prediction := method.answers[position]:
                row[method.name] = prediction[0]
        row["truth"] = result.truth[position] if result.truth else None
        print_json(row)


def _print_tables(result: "Comparison") -> None:
    has_truth = result.truth is not None
    heads = (
        "way",
        "model",
        "photos",
        *(("accuracy (95 % interval)", "calibration error") if has_truth else ()),
        "photos/s",
    )
    print_table([_method_row(method) for method in result.methods], heads)
    print_line("(photos/s: zero-shot and probe label stored vectors; supervised reads the photos)")
    print_line("")
    print_table(
        [
            (" = ".join(pair), f"{share.value:.4f}", f"{share.right:,} of {share.total:,}")
            for pair, share in result.agreement.items()
        ],
        ("agreement", "share", "photos"),
    )
    if has_truth:
        print_line("")
        print_table(
            [_class_row(result, label) for label in result.labels],
            ("label", *(method.name for method in result.methods)),
        )
    print_line("")
    print_line(f"they disagree on {len(result.disagreements):,} of {len(result.photos):,} photos")
    for position in result.disagreements[:SHOWN]:
        path, answers = result.photos[position], _answers(result, position)
        print_line(f"  {printable(path)}: {printable(answers)}")
    if len(result.disagreements) > SHOWN:
        print_line(
            f"  and {len(result.disagreements) - SHOWN:,} more: --output or --sheet has them"
        )


def _method_row(method: "Method") -> tuple[object, ...]:
    cells = [method.name, method.model, f"{method.photo_count:,}"]
    if method.accuracy:
        low, high = method.accuracy.interval
        cells.append(f"{method.accuracy.value:.4f} ({low:.4f} to {high:.4f})")
        error = method.calibration_error
        cells.append("-" if error is None else f"{error:.4f}")
    return (*cells, f"{method.photos_per_second:,.0f}")


def _class_row(result: "Comparison", label: str) -> tuple[object, ...]:
    shares = [(method.per_class or {}).get(label) for method in result.methods]
    return (
        label,
        *(
            f"{share.value:.3f} ({share.right:,}/{share.total:,})" if share else "-"
            for share in shares
        ),
    )


def _answers(result: "Comparison", position: int) -> str:
    return ", ".join(
        f"{verdict.who} {verdict.label}"
        + ("" if verdict.score is None else f" {verdict.score:.2f}")
        for verdict in _verdicts(result, position)
    )
