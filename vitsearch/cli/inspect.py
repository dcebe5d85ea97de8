"""`vitsearch info`, `failures`, `verify`, `models` and `doctor`: what is here, and whether it
works.
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
    with open_collection(photos, {"collection": collection}) as opened:
        facts = opened.info()
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
    with _opened(photos, {"collection": collection}) as opened:
        listed = opened.failures()
    for skipped in listed:
        path, state, reason = skipped.path, skipped.state, skipped.reason
        if as_json:
            print_json({"path": path, "state": state, "reason": reason})
        else:
            print_line(f"{state}\t{printable(path)}\t{printable(reason)}")
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
    with _opened(photos, options) as collection:
        checks = collection.verify()
    for check in checks:
        if as_json:
            print_json({"check": check.name, "ok": check.ok, "detail": check.detail})
        else:
            print_line(f"{'ok' if check.ok else 'BAD':4}{check.name}: {printable(check.detail)}")
    return 0 if all(check.ok for check in checks) else 1


def _sources() -> str:
    from vitsearch.encoders import SOURCES, package_sources

    known = [f"{source.spelling}: {source.help}" for source in SOURCES.values()]
    others = [f"{name}: from the package {of}" for name, of in package_sources().items()]
    return "\b\nAn encoder is named in one of these forms:\n  " + "\n  ".join(known + others)


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
        for entry in listed:
            print_json(asdict(entry))
    elif not listed:
        print_note(
            f"vitsearch: no known encoder is named like {pattern!r}: try *SigLIP2*, ViT-B-32, hf:"
        )
    else:
        heads = ("encoder", "M params", "ImageNet %", "COCO R@1 %", "Spanish R@1 %", "here")
        rows = []
        for entry in listed:
            figures = (entry.mparams, entry.imagenet_top1, entry.coco_r1, entry.spanish_r1)
            cells = ("-" if value is None else value for value in figures)
            rows.append((entry.name, *cells, "yes" if entry.on_this_machine else "no"))
        print_table(rows, heads)
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
        for item in facts:
            print_json(asdict(item))
    else:
        print_table([(item.name, item.value, item.hint or "") for item in facts])
    return 0


def _opened(photos: str, options: dict[str, Any]) -> Any:
    from vitsearch.collection.collection import Collection

    return Collection.open(
        photos, collection=options.get("collection"), device=options.get("device") or "auto"
    )
