"""`vitsearch models`: the known encoders, and which suits; `vitsearch eval`: how accurate one is on
photos in one folder for each class.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.label import chosen_templates, lines_of
from vitsearch.cli.options import JSON, LANGUAGE, MODEL, TEMPLATES, CommandWithFacts, flag
from vitsearch.cli.output import ProgressBar, print_json, print_line, print_note, print_table
from vitsearch.errors import EncoderError
from vitsearch.options import IndexOptions

if TYPE_CHECKING:
    from vitsearch.encoders.catalogue import EncoderListing
    from vitsearch.evaluation import Accuracy, Retrieval
    from vitsearch.labels import Label


def _count(context: click.Context, param: click.Parameter, value: str) -> int:
    """Return a number of photos, or that of the photos in a folder."""
    if value.isdecimal():
        number = int(value)
    else:
        from vitsearch.photos.walk import walk
        from vitsearch.storage import photo_root

        number = sum(1 for _ in walk(photo_root(value)))
    if number < 1:
        raise click.BadParameter(
            f"{value!r} is not a number of photos, nor a folder with some", context, param
        )
    return number


def _sources() -> str:
    from vitsearch.encoders import SOURCES, package_sources

    known = [f"{source.spelling}: {source.help}" for source in SOURCES.values()]
    others = [f"{name}: from the package {of}" for name, of in package_sources().items()]
    return "\b\nAn encoder is named in one of these forms:\n  " + "\n  ".join(known + others)


@click.command(cls=CommandWithFacts, facts=_sources)
@click.argument("pattern", required=False)
@click.option("--recommend", is_flag=True, help="Name what suits your photos and this machine.")
@click.option(
    "--photos",
    callback=_count,
    default="10000",
    show_default=True,
    metavar="N|FOLDER",
    help="With --recommend: how many photos there are, or the folder with them.",
)
@click.option(
    "--language",
    default="en",
    show_default=True,
    metavar="CODE",
    help="With --recommend: the language of your queries.",
)
@click.option("--gpu", is_flag=True, help="With --recommend: for a GPU, not for these cores.")
@click.option("--commercial", is_flag=True, help="Only models whose licence allows commercial use.")
@click.option(
    "--speed",
    is_flag=True,
    help="Measure those that are on this machine: loads each and embeds 96 pictures.",
)
@JSON
def models(
    pattern: str | None,
    recommend: bool,
    photos: int,
    language: str,
    gpu: bool,
    commercial: bool,
    speed: bool,
    as_json: bool,
) -> int:
    """List encoders with licence, languages, size and published figures, and whether they are on
    this machine; PATTERN as in *SigLIP2*.
    """
    from vitsearch.encoders.catalogue import list_encoders

    if recommend:
        return _recommend(photos, language, gpu=gpu, commercial=commercial, as_json=as_json)
    listed = [each for each in list_encoders(pattern) if each.commercial or not commercial]
    speeds = {each.name: _speed(each.name) for each in listed if speed and each.on_this_machine}
    if as_json:
        for entry in listed:
            measured = {"pictures_per_second": speeds.get(entry.name)} if speed else {}
            print_json({**asdict(entry), **measured})
    elif not listed:
        print_note(
            f"vitsearch: no known encoder is named like {pattern!r}: try *SigLIP2*, ViT-B-32, hf:"
        )
    else:
        _print_encoders(listed, speeds if speed else None)
    return 0 if listed else 1


def _print_encoders(
    listed: Sequence["EncoderListing"], speeds: Mapping[str, float | None] | None
) -> None:
    heads = ["encoder", "licence", "languages", "GB", "ImageNet %", "COCO R@1 %", "Spanish R@1 %"]
    rows = []
    for entry in listed:
        licence = f"{entry.licence or '-'}{' (NC)' if entry.commercial is False else ''}"
        languages = " ".join(entry.languages) or ("many" if entry.reads_text else "none")
        size = None if entry.gigabytes is None else f"{entry.gigabytes:.1f}"
        figures = (size, entry.imagenet_top1, entry.coco_r1, entry.spanish_r1)
        cells: list[object] = [entry.name, licence, languages]
        cells += ["-" if value is None else value for value in figures]
        if speeds is not None:
            rate = speeds.get(entry.name)
            cells.append("-" if rate is None else f"{rate:.1f}")
        rows.append([*cells, "yes" if entry.on_this_machine else "no"])
    print_table(rows, [*heads, *(["photos/s"] if speeds is not None else []), "here"])
    print_note(
        "vitsearch: figures as published: zero-shot ImageNet-1k, text to photo on COCO and on "
        "Crossmodal-3600 in Spanish; GB of float32 weights; (NC): no commercial use; "
        "docs/models.md has the sources"
    )


def _speed(name: str) -> float | None:
    """Return the pictures that an encoder embeds in a second, None with a note where it cannot be
    loaded.
    """
    from vitsearch.encoders import load_encoder
    from vitsearch.encoders.batching import is_out_of_memory
    from vitsearch.encoders.catalogue import pictures_per_second
    from vitsearch.encoders.checkpoints import named_by

    try:
        with named_by("--speed"):  # nothing is downloaded to be measured
            return round(pictures_per_second(load_encoder(name, throughput=True)), 1)
    except Exception as error:
        if not isinstance(error, EncoderError) and not is_out_of_memory(error):
            raise
        known = str(error) if isinstance(error, EncoderError) else f"{name}: out of memory"
        print_note(f"vitsearch: {known}")
        return None


def _recommend(photos: int, language: str, *, gpu: bool, commercial: bool, as_json: bool) -> int:
    from vitsearch.encoders.catalogue import recommend
    from vitsearch.encoders.onnx import usable_cores

    cores = usable_cores()
    code = re.split("[-_]", language.lower())[0]
    for answer in recommend(photos, language=code, cores=cores, gpu=gpu, commercial=commercial):
        if as_json:
            print_json(asdict(answer))
            continue
        time = ""
        if answer.hours is not None:
            time = f"; about {answer.hours:.1f} hours for {photos:,} photos on {cores} cores"
        print_line(f"{answer.encoder.name}\t{answer.reason}{time}")
    print_note("vitsearch: figures as published; docs/models.md has their sources")
    return 0


# -- Accuracy --------------------------------------------------------------------------------------


WORST = 10
Recalls = tuple[str, "Mapping[int, float]", "Callable[[int], tuple[float, float]]"]


@click.command("eval")
@click.argument("dataset")
@flag(IndexOptions, "encoder")
@click.option(
    "--collection", metavar="DIR", help="Where the collection is, when not in DATASET/.vitsearch."
)
@TEMPLATES
@click.option(
    "--labels-file",
    metavar="FILE",
    help="What each folder's photos show, one a line: n01440764 := tench.",
)
@click.option(
    "--captions",
    metavar="FILE",
    help="Lines of path, tab, caption; or 'descriptions': those of the photos, as of a data set.",
)
@click.option(
    "--classifier",
    "trained",
    metavar="DIR",
    help="A classifier that `vitsearch train` made, instead of zero-shot.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="Also a supervised classifier: mini, hf:ORG/NAME, timm:NAME, local-dir:DIR.",
)
@MODEL
@LANGUAGE
@JSON
def evaluate(
    dataset: str, trained: str | None, model: str | None, as_json: bool, **options: Any
) -> int:
    """Measure top-1, top-5 and per-class accuracy on DATASET, which holds one folder of photos for
    each class, or is a webdataset of CLIP_benchmark (DATASET/test/0.tar, classnames.txt), which is
    unpacked in it.

    Where a file captions.tsv (path, tab, caption) lies in it, or with --captions, retrieval recall
    at 1, 5 and 10 too; with that DATASET may be a collection in Milvus. Figures compare with
    CLIP_benchmark's.
    """
    from vitsearch.classifiers import load_classifier
    from vitsearch.collection import Collection
    from vitsearch.evaluation import evaluate as measured
    from vitsearch.evaluation import load_trained
    from vitsearch.evaluation.datasets import is_webdataset, unpack
    from vitsearch.labels import check_templates
    from vitsearch.milvus import is_milvus

    if trained and options["templates"]:
        raise click.UsageError(
            "--template goes with zero-shot, not with --classifier", click.get_current_context()
        )
    if trained and options["labels_file"] and not model:
        raise click.UsageError(
            "--labels-file goes with zero-shot or --model, not with --classifier",
            click.get_current_context(),
        )
    templates = chosen_templates(options["templates"])
    check_templates(templates)  # before the photos are indexed
    labels: Sequence[str | Label] | None = None
    if options["labels_file"] is not None:
        labels = lines_of(Path(options["labels_file"]))
    with_photos: Sequence[str | Label] | None = labels
    all_labels = False
    if is_webdataset(Path(dataset)):
        packed = unpack(Path(dataset))
        if labels is None and packed.labels is not None:
            all_labels = True
            with_photos = [each for each in packed.labels if (packed.folder / each.name).is_dir()]
        dataset, labels = str(packed.folder), labels or packed.labels
        templates = templates if options["templates"] else tuple(packed.templates) or templates
        check_templates(templates)
    classifier = load_trained(trained) if trained is not None else None
    network = load_classifier(model, device=options["device"]) if model is not None else None
    if not is_milvus(dataset):
        _index(dataset, options)
    with Collection.open(
        dataset, collection=options["collection"], device=options["device"]
    ) as collection:
        result = measured(
            collection,
            classifier,
            labels=labels if classifier is None else None,
            templates=templates,
            all_labels=all_labels,
            captions=options["captions"],
        )
        accuracies = [result.accuracy] if result.accuracy else []
        if network:
            accuracies.append(
                _model_accuracy(collection, network, with_photos, result.photos - result.left_out)
            )
    if result.left_out and result.accuracy:
        print_note(
            f"vitsearch: {result.left_out:,} of {result.photos:,} photos lie in "
            "no folder and are left out"
        )
    (_print_json if as_json else _print_tables)(accuracies, result.retrieval)
    return 0


def _index(dataset: str, options: dict[str, Any]) -> None:
    from vitsearch.collection.update import index_folder

    with ProgressBar() as bar:
        report = index_folder(
            dataset,
            collection=options["collection"],
            encoder=options["encoder"],
            device=options["device"],
            progress=bar,
        )
    if report.failed or report.skipped:
        print_note(
            f"vitsearch: {report.failed + report.skipped} files are not in the set: `vitsearch "
            f"failures {dataset}` says why"
        )


def _model_accuracy(
    collection: Any, network: Any, labels: "Sequence[str | Label] | None", photos: int
) -> "Accuracy":
    from vitsearch.evaluation import evaluate_model

    with ProgressBar() as bar:
        return evaluate_model(collection, network, labels=labels, progress=bar)


def _print_json(accuracies: Sequence["Accuracy"], retrieval: "Retrieval | None") -> None:
    """Write a line for each classifier, for each of its classes, and for the retrieval."""
    for accuracy in accuracies:
        facts: dict[str, Any] = {
            "classifier": accuracy.classifier,
            "photos": accuracy.top1.total,
            "classes": accuracy.classes,
        }
        for name, share in (("top1", accuracy.top1), ("top5", accuracy.top5)):
            low, high = share.interval if share else (None, None)
            value = share.value if share else None
            facts |= {name: value, f"{name}_low": low, f"{name}_high": high}
        facts["mean_per_class"] = accuracy.mean_per_class
        facts["calibration_error"] = accuracy.calibration_error
        print_json(facts)
        for name, share in accuracy.per_class.items():
            row: dict[str, Any] = {"classifier": accuracy.classifier, "class": name}
            print_json(row | {"photos": share.total, "right": share.right})
    if retrieval:
        facts = {
            "photos": retrieval.photos,
            "captions": retrieval.captions,
            "unknown_captions": retrieval.unknown,
        }
        for name, recalls, interval in _recalls(retrieval):
            for k, value in recalls.items():
                low, high = interval(k)
                key = f"{name}_retrieval_recall@{k}"
                facts |= {key: value, f"{key}_low": low, f"{key}_high": high}
        print_json(facts)


def _print_tables(accuracies: Sequence["Accuracy"], retrieval: "Retrieval | None") -> None:
    if accuracies:
        heads = (
            "classifier",
            "photos",
            "classes",
            "top-1 (95 % interval)",
            "top-5 (95 % interval)",
            "per class",
            "calibration error",
        )
        print_table([_row(accuracy) for accuracy in accuracies], heads)
    for accuracy in accuracies:
        _print_worst(accuracy)
    if retrieval:
        titles = {"image": "text to photo", "text": "photo to text"}
        if accuracies:
            print_line("")
        sizes = (retrieval.photos, retrieval.captions)
        print_table(
            [
                (titles[name], *sizes, *(_with_interval(recalls[k], interval(k)) for k in recalls))
                for name, recalls, interval in _recalls(retrieval)
            ],
            (
                "retrieval",
                "photos",
                "captions",
                *(f"R@{k} (95 % interval)" for k in retrieval.image_recall),
            ),
        )


def _recalls(retrieval: "Retrieval") -> list[Recalls]:
    return [
        ("image", retrieval.image_recall, retrieval.image_interval),
        ("text", retrieval.text_recall, retrieval.text_interval),
    ]


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"


def _row(accuracy: "Accuracy") -> tuple[object, ...]:
    shares = [
        _with_interval(share.value, share.interval) if share else "-"
        for share in (accuracy.top1, accuracy.top5)
    ]
    return (
        accuracy.classifier,
        accuracy.top1.total,
        accuracy.classes,
        *shares,
        f"{accuracy.mean_per_class:.4f}",
        f"{accuracy.calibration_error:.4f}",
    )


def _print_worst(accuracy: "Accuracy") -> None:
    """Write the classes that are recognised least often; all where there are few."""
    rows = sorted(accuracy.per_class.items(), key=lambda item: item[1].value)[:WORST]
    has_more = len(accuracy.per_class) > WORST
    which = f"the {WORST} classes recognised least" if has_more else "classes"
    print_line("")
    print_table(
        [(name, share.total, share.right, f"{share.value:.4f}") for name, share in rows],
        (f"{accuracy.classifier}: {which}", "photos", "right", "share"),
    )
