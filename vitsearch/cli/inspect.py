"""`vitsearch info`, `failures`, `verify`, `models`, `doctor`: what is here, and whether it is
sound.
"""

from typing import Any

import click

from vitsearch.cli.options import (
    ANYWHERE,
    COLLECTION,
    DEVICE,
    JSON,
    PHOTOS,
    CommandWithFacts,
    open_collection,
)
from vitsearch.cli.output import (
    print_json,
    print_line,
    print_note,
    print_table,
    printable,
    readable_size,
)


@click.command()
@ANYWHERE
@COLLECTION
@JSON
def info(photos: str, collection: str | None, as_json: bool) -> int:
    """Print what the collection of PHOTOS holds: counts, encoder, index, sizes and dates."""
    with open_collection(photos, {"collection": collection}) as found:
        facts = found.info()
    if as_json:
        print_json(facts)
    else:
        print_table(
            [
                (name.replace("_", " "), readable_size(value) if name.endswith("_bytes") else value)
                for name, value in facts.items()
            ]
        )
    return 0


@click.command()
@PHOTOS
@COLLECTION
@JSON
def failures(photos: str, collection: str | None, as_json: bool) -> int:
    """List the files of PHOTOS that are not in the collection, and why (failed: unreadable;
    skipped: not opened).
    """
    with _opened(photos, {"collection": collection}) as found:
        listed = found.failures()
    for one in listed:
        if as_json:
            print_json({"path": one.path, "state": one.state, "reason": one.reason})
        else:
            print_line(f"{one.state}\t{printable(one.path)}\t{printable(one.reason)}")
    if not listed:
        print_note("vitsearch: every photo is in the collection")
    return 0 if listed else 1


@click.command()
@PHOTOS
@COLLECTION
@DEVICE
@JSON
def verify(photos: str, as_json: bool, **options: Any) -> int:
    """Check the collection of PHOTOS: database, encoder, index, and which files are gone or
    changed.
    """
    with _opened(photos, options) as found:
        checks = found.verify()
    for check in checks:
        if as_json:
            print_json({"check": check.name, "ok": check.ok, "detail": check.detail})
        else:
            print_line(f"{'ok' if check.ok else 'BAD':4}{check.name}: {printable(check.detail)}")
    return 0 if all(check.ok for check in checks) else 1


def _sources() -> str:
    from vitsearch.encoders import SOURCES, package_sources

    known = [f"{source.spelling}: {source.help}" for source in SOURCES.values()]
    brought = [f"{name}: from the package {of}" for name, of in package_sources().items()]
    return "\b\nAn encoder is named in one of these forms:\n  " + "\n  ".join(known + brought)


@click.command(cls=CommandWithFacts, facts=_sources)
@click.argument("pattern", required=False)
@JSON
def models(pattern: str | None, as_json: bool) -> int:
    """List encoders with their published figures, and whether they are on this machine; PATTERN as
    in *SigLIP2*.
    """
    from dataclasses import asdict

    from vitsearch.encoders.catalogue import list_encoders

    listed = list_encoders(pattern)
    if as_json:
        for one in listed:
            print_json(asdict(one))
    elif not listed:
        print_note(
            f"vitsearch: no known encoder is named like {pattern!r}: try *SigLIP2*, ViT-B-32, hf:"
        )
    else:
        heads = ("encoder", "M params", "ImageNet %", "COCO R@1 %", "Spanish R@1 %", "here")
        figures = ((one.mparams, one.imagenet_top1, one.coco_r1, one.spanish_r1) for one in listed)
        columns = (["-" if value is None else value for value in row] for row in figures)
        print_table(
            [
                (one.name, *row, "yes" if one.on_this_machine else "no")
                for one, row in zip(listed, columns, strict=True)
            ],
            heads,
        )
        print_note(
            "vitsearch: figures as published: zero-shot ImageNet-1k, text to photo on COCO and on "
            "Crossmodal-3600 in Spanish"
        )
    return 0 if listed else 1


@click.command()
@JSON
def doctor(as_json: bool) -> int:
    """Print versions, processor, GPU (or why there is none), FAISS and where models
    are looked for.
    """
    from dataclasses import asdict

    from vitsearch.cli.doctor import diagnose

    facts = diagnose()
    if as_json:
        for fact in facts:
            print_json(asdict(fact))
    else:
        print_table([(fact.name, fact.value, fact.hint or "") for fact in facts])
    return 0


def _opened(photos: str, options: dict[str, Any]) -> Any:
    from vitsearch.collection import Collection

    return Collection.open(
        photos, collection=options.get("collection"), device=options.get("device") or "auto"
    )
