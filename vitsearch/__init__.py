"""vitsearch: find, label and understand your photos.

>>> import vitsearch
>>> report = vitsearch.index_folder("photos")
>>> photos = vitsearch.Collection.open("photos")
>>> for hit in photos.search("a dog on a beach", top_k=5): print(hit.score, hit.path)
"""

from vitsearch._version import __version__
from vitsearch.classifiers import ImageClassifier, load_classifier
from vitsearch.classifiers.finetune import FinetuneReport, FinetuneSettings, FinetuneStep, finetune
from vitsearch.collection import Collection, MilvusCollection
from vitsearch.collection.maintain import TuneReport, tune_collection
from vitsearch.collection.query import Term, parse_query
from vitsearch.collection.update import index_folder
from vitsearch.encoders import Encoder, ImageEncoder, load_encoder
from vitsearch.errors import (
    ClassifierError,
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
from vitsearch.evaluation import (
    Accuracy,
    ClassMap,
    Comparison,
    Evaluation,
    Method,
    Retrieval,
    TrainReport,
    calibrate_on,
    compare,
    derive_class_map,
    evaluate,
    evaluate_model,
    load_trained,
    read_class_map,
    train_classifier,
    write_class_map,
)
from vitsearch.explain import Explanation, explain
from vitsearch.filters import Filter, parse_filter
from vitsearch.index.recipe import Recipe, load_recipe
from vitsearch.labels import (
    Calibration,
    Label,
    LabelClassifier,
    LinearClassifier,
    TipClassifier,
    calibrate,
    parse_labels,
    zero_shot_classifier,
)
from vitsearch.outputs.sidecars import SidecarReport, write_sidecars
from vitsearch.outputs.sorting import SortReport, sort_into_folders
from vitsearch.types import (
    IndexReport,
    Photo,
    PhotoInfo,
    Prediction,
    Progress,
    SearchResult,
    SkippedPhoto,
)

__all__ = [
    "Accuracy",
    "Calibration",
    "ClassMap",
    "ClassifierError",
    "Collection",
    "CollectionError",
    "CollectionLocked",
    "CollectionNotFound",
    "Comparison",
    "Encoder",
    "EncoderError",
    "EncoderMismatch",
    "Evaluation",
    "Explanation",
    "Filter",
    "FinetuneReport",
    "FinetuneSettings",
    "FinetuneStep",
    "ImageClassifier",
    "ImageEncoder",
    "IndexDamaged",
    "IndexReport",
    "Label",
    "LabelClassifier",
    "LinearClassifier",
    "Method",
    "MilvusCollection",
    "Photo",
    "PhotoError",
    "PhotoInfo",
    "Prediction",
    "Progress",
    "QueryError",
    "Recipe",
    "RecipeError",
    "Retrieval",
    "SearchResult",
    "SidecarReport",
    "SkippedPhoto",
    "SortReport",
    "Term",
    "TipClassifier",
    "TrainReport",
    "TuneReport",
    "VitsearchError",
    "__version__",
    "calibrate",
    "calibrate_on",
    "compare",
    "derive_class_map",
    "evaluate",
    "evaluate_model",
    "explain",
    "finetune",
    "index_folder",
    "load_classifier",
    "load_encoder",
    "load_recipe",
    "load_trained",
    "parse_filter",
    "parse_labels",
    "parse_query",
    "read_class_map",
    "sort_into_folders",
    "train_classifier",
    "tune_collection",
    "write_class_map",
    "write_sidecars",
    "zero_shot_classifier",
]
