"""Indexes over unit vectors: they propose candidates, the stored vectors decide."""

from vitsearch.index.availability import faiss_is_here, gpus
from vitsearch.index.base import Candidates, VectorIndex
from vitsearch.index.candidates import Fresh, propose
from vitsearch.index.exact import ExactIndex
from vitsearch.index.manifest import Manifest, Measured
from vitsearch.index.recall import Sample, keep_tuning, make_sample, measure, tune
from vitsearch.index.snapshot import (
    Shadow,
    build_shadow,
    check_recipe,
    manifest_stamp,
    open_shadow,
    remove_shadow,
    verify_shadow,
)

__all__ = [
    "Candidates",
    "ExactIndex",
    "Fresh",
    "Manifest",
    "Measured",
    "Sample",
    "Shadow",
    "VectorIndex",
    "build_shadow",
    "check_recipe",
    "faiss_is_here",
    "gpus",
    "keep_tuning",
    "make_sample",
    "manifest_stamp",
    "measure",
    "open_shadow",
    "propose",
    "remove_shadow",
    "tune",
    "verify_shadow",
]
