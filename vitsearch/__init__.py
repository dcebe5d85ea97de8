"""vitsearch: find, label and understand your photos.

>>> import vitsearch
>>> report = vitsearch.index_folder("photos")
>>> photos = vitsearch.Collection.open("photos")
>>> for hit in photos.search("a dog on a beach", top_k=5): print(hit.score, hit.path)
"""

from vitsearch._version import __version__
from vitsearch.classify import LinearClassifier, zero_shot_classifier
from vitsearch.collection import Collection
from vitsearch.encoders import Encoder, ImageEncoder, load_encoder
from vitsearch.errors import (
    CollectionError,
    CollectionLocked,
    CollectionNotFound,
    EncoderError,
    EncoderMismatch,
    IndexDamaged,
    PhotoError,
    QueryError,
    RecipeError,
    VitsearchError,
)
from vitsearch.explain import Explanation, explain
from vitsearch.indexing import Progress, index_folder
from vitsearch.query import Term, parse_query
from vitsearch.recipes import Recipe, load_recipe
from vitsearch.types import IndexReport, Photo, PhotoInfo, Prediction, SearchResult, SkippedPhoto

__all__ = [
    "Collection",
    "CollectionError",
    "CollectionLocked",
    "CollectionNotFound",
    "Encoder",
    "EncoderError",
    "EncoderMismatch",
    "Explanation",
    "ImageEncoder",
    "IndexDamaged",
    "IndexReport",
    "LinearClassifier",
    "Photo",
    "PhotoError",
    "PhotoInfo",
    "Prediction",
    "Progress",
    "QueryError",
    "Recipe",
    "RecipeError",
    "SearchResult",
    "SkippedPhoto",
    "Term",
    "VitsearchError",
    "__version__",
    "explain",
    "index_folder",
    "load_encoder",
    "load_recipe",
    "parse_query",
    "zero_shot_classifier",
]
