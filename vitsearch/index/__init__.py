"""Indexes over unit vectors: they propose candidates, the stored vectors decide."""

from vitsearch.index.exact import ExactIndex
from vitsearch.index.manifest import Manifest
from vitsearch.index.propose import Fresh, propose
from vitsearch.index.protocol import Candidates, VectorIndex
from vitsearch.index.shadow import Shadow, build_shadow, check_recipe, manifest_stamp, open_shadow, remove_shadow, verify_shadow

__all__ = [
    "Candidates",
    "ExactIndex",
    "Fresh",
    "Manifest",
    "Shadow",
    "VectorIndex",
    "build_shadow",
    "check_recipe",
    "manifest_stamp",
    "open_shadow",
    "propose",
    "remove_shadow",
    "verify_shadow",
]
