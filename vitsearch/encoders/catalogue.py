"""The encoders known by name, with their published figures (``catalogue.toml`` names
the sources). Where encoders come from, and how one is loaded, is `vitsearch.encoders.SOURCES`.
"""

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import resources
from typing import Any

from vitsearch.encoders.checkpoints import TRANSFORMERS_FILES, is_cached, open_clip_files


@dataclass(frozen=True, slots=True)
class EncoderListing:
    """One known encoder; figures are as published, None where none was found.

    ``mparams`` counts millions of parameters (pictures and text), ``gflops`` are for one picture
    and one text, ``dim`` is the length of a vector. Accuracies in percent: ``imagenet_top1``
    zero-shot on ImageNet-1k, ``coco_r1`` text to photo on COCO, ``spanish_r1`` the same for Spanish
    on Crossmodal-3600. ``on_this_machine``: its weights are part of the package or in the Hugging
    Face cache.
    """

    name: str
    dim: int | None
    mparams: float | None
    gflops: float | None
    imagenet_top1: float | None
    coco_r1: float | None
    spanish_r1: float | None
    on_this_machine: bool


def list_encoders(pattern: str | None = None) -> list[EncoderListing]:
    """Return the known encoders in the order of the catalogue, all or those whose name matches.

    A pattern with ``*``, ``?`` or ``[`` must match the whole name, another one a part of it; case
    does not matter. Neither torch nor a hub library is imported, and nothing is downloaded.
    """
    rows = tomllib.loads(
        resources.files("vitsearch.encoders").joinpath("catalogue.toml").read_text(encoding="utf-8")
    )["encoders"]
    return [_listing(row) for row in rows if pattern is None or _matches(row["name"], pattern)]


def _matches(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    return fnmatch(name, pattern) if set(pattern) & set("*?[") else pattern in name


def _listing(row: dict[str, Any]) -> EncoderListing:
    return EncoderListing(
        name=row["name"],
        dim=row.get("dim"),
        mparams=row.get("mparams"),
        gflops=row.get("gflops"),
        imagenet_top1=row.get("imagenet_top1"),
        coco_r1=row.get("coco_r1"),
        spanish_r1=row.get("spanish_r1"),
        on_this_machine=_is_here(row),
    )


def _is_here(row: dict[str, Any]) -> bool:
    repo = row.get("repo")
    if not repo:
        return True  # part of the package
    source = row["name"].partition(":")[0]
    return is_cached(
        repo, TRANSFORMERS_FILES if source == "hf" else open_clip_files(row.get("file"))
    )
