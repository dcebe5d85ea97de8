"""`vitsearch models`: the known encoders, and which suits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vitsearch.cli.options import JSON, CommandWithFacts
from vitsearch.cli.output import print_json, print_line, print_note, print_table
from vitsearch.errors import EncoderError

if TYPE_CHECKING:
    from vitsearch.encoders.catalogue import EncoderListing


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
