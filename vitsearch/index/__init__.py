"""Indexes over unit vectors: they propose candidates, the stored vectors decide."""

from vitsearch.index.backends import ExactIndex, check_recipe, faiss_is_installed, gpu_count
from vitsearch.index.base import Candidates, VectorIndex
from vitsearch.index.candidates import UnindexedVectors, candidates_for
from vitsearch.index.manifest import Manifest, Measured, Origin
from vitsearch.index.recall import (
    Sample,
    Trial,
    fastest,
    keep_tuning,
    make_sample,
    measure,
    try_recipes,
    tune,
)
from vitsearch.index.snapshot import (
    IndexSnapshot,
    build_snapshot,
    finish_replacing,
    indexed_ids,
    manifest_stamp,
    open_snapshot,
    remove_snapshot,
    verify_snapshot,
)

__all__ = [
    "Candidates",
    "ExactIndex",
    "IndexSnapshot",
    "Manifest",
    "Measured",
    "Origin",
    "Sample",
    "Trial",
    "UnindexedVectors",
    "VectorIndex",
    "build_snapshot",
    "candidates_for",
    "check_recipe",
    "faiss_is_installed",
    "fastest",
    "finish_replacing",
    "gpu_count",
    "indexed_ids",
    "keep_tuning",
    "make_sample",
    "manifest_stamp",
    "measure",
    "open_snapshot",
    "remove_snapshot",
    "try_recipes",
    "tune",
    "verify_snapshot",
]
