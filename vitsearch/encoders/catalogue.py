"""The known encoders, with what their authors and testers published of them: ``catalogue.toml``."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import resources
from typing import Any

from vitsearch.encoders.checkpoints import (
    TRANSFORMERS_FILES,
    cached_snapshot,
    is_cached,
    open_clip_files,
    sentence_transformers_files,
)


@dataclass(frozen=True, slots=True)
class EncoderListing:
    """One known encoder; figures are as published, None where none was found.

    ``mparams`` counts millions of parameters (pictures and text), ``gflops`` are for one picture
    and one text, ``dim`` is the length of a vector. Accuracies in percent: ``imagenet_top1``
    zero-shot on ImageNet-1k, ``coco_r1`` text to photo on COCO, ``spanish_r1`` and
    ``r1_by_language`` the same on Crossmodal-3600. ``licence`` is that of the weights, and
    ``commercial`` whether it allows commercial use; None where it was not found. ``languages`` are
    those that texts may be in, none for many, and ``reads_text`` whether there are texts at all.
    ``on_this_machine``: its weights are part of the package or in the Hugging Face cache.
    """

    name: str
    dim: int | None
    mparams: float | None
    gflops: float | None
    imagenet_top1: float | None
    coco_r1: float | None
    spanish_r1: float | None
    r1_by_language: Mapping[str, float]
    licence: str | None
    commercial: bool | None
    languages: tuple[str, ...]
    reads_text: bool
    on_this_machine: bool

    @property
    def gigabytes(self) -> float | None:
        """The size of its weights in float32, as most are published, in GB; None where unknown."""
        return None if self.mparams is None else self.mparams * 4 / 1000

    def recall_in(self, language: str) -> float | None:
        """Return the published R@1 of texts in a language, by its ISO 639 code; None: not known."""
        if language == "en":  # figures of two sets do not compare
            return self.coco_r1
        return self.r1_by_language.get(language, self.spanish_r1 if language == "es" else None)


def list_encoders(pattern: str | None = None) -> list[EncoderListing]:
    """Return the known encoders in the order of the catalogue, all or those whose name matches.

    A pattern with ``*``, ``?`` or ``[`` must match the whole name, another one a part of it; case
    does not matter. Neither torch nor a hub library is imported, and nothing is downloaded.
    """
    catalogue = tomllib.loads(
        resources.files("vitsearch.encoders").joinpath("catalogue.toml").read_text(encoding="utf-8")
    )
    return [
        _listing(row, _first(catalogue["licences"], row), _first(catalogue["languages"], row))
        for row in catalogue["encoders"]
        if pattern is None or _matches(row["name"], pattern)
    ]


def _matches(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    return fnmatch(name, pattern) if set(pattern) & set("*?[") else pattern in name


def _first(rules: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first rule that has the encoder's name or repository; an empty one for none."""
    names = [row["name"].lower(), row.get("repo", "").lower()]
    return next(
        (
            rule
            for rule in rules
            if any(fnmatch(name, each.lower()) for name in names for each in rule["names"])
        ),
        {},
    )


def _listing(
    row: Mapping[str, Any], licence: Mapping[str, Any], languages: Mapping[str, Any]
) -> EncoderListing:
    by_language = row.get("r1_by_language", {})
    return EncoderListing(
        name=row["name"],
        dim=row.get("dim"),
        mparams=row.get("mparams"),
        gflops=row.get("gflops"),
        imagenet_top1=row.get("imagenet_top1"),
        coco_r1=row.get("coco_r1"),
        spanish_r1=row.get("spanish_r1", by_language.get("es")),
        r1_by_language=by_language,
        licence=licence.get("licence"),
        commercial=licence.get("commercial"),
        languages=tuple(languages["codes"]) if row.get("text", True) else (),
        reads_text=row.get("text", True),
        on_this_machine=_is_here(row),
    )


def _is_here(row: Mapping[str, Any]) -> bool:
    repo = row.get("repo")
    if not repo:
        return True  # part of the package
    source = row["name"].partition(":")[0]
    if source == "st":
        return is_cached(repo, sentence_transformers_files(cached_snapshot(repo)))
    if source == "hf":
        return is_cached(repo, TRANSFORMERS_FILES[: None if row.get("text", True) else 3])
    weights = "model.safetensors" if source == "timm" else row.get("file")
    return is_cached(repo, open_clip_files(weights))
