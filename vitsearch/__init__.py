"""vitsearch: find, label and understand your photos.

>>> import vitsearch
>>> report = vitsearch.index_folder("photos")
>>> photos = vitsearch.Collection.open("photos")
>>> for hit in photos.search("a dog on a beach", top_k=5): print(hit.score, hit.path)

A name is imported from its module when it is first used (PEP 562), so that ``import vitsearch``
costs nothing. What else a program may need has a module of its own: docs/architecture.md lists
them.
"""

from importlib import import_module

from vitsearch._version import __version__

TYPE_CHECKING = False  # as type checkers take it: importing typing takes long enough for a Ctrl-C

if TYPE_CHECKING:
    from vitsearch.classifiers import ImageClassifier as ImageClassifier
    from vitsearch.classifiers import load_classifier as load_classifier
    from vitsearch.classifiers.finetune import finetune as finetune
    from vitsearch.collection import Collection as Collection
    from vitsearch.collection.query import Term as Term
    from vitsearch.collection.several import search_all as search_all
    from vitsearch.collection.update import index_folder as index_folder
    from vitsearch.encoders import Encoder as Encoder
    from vitsearch.encoders import load_encoder as load_encoder
    from vitsearch.errors import CollectionError as CollectionError
    from vitsearch.errors import EncoderError as EncoderError
    from vitsearch.errors import PhotoError as PhotoError
    from vitsearch.errors import QueryError as QueryError
    from vitsearch.errors import VitsearchError as VitsearchError
    from vitsearch.evaluation import compare as compare
    from vitsearch.evaluation import evaluate as evaluate
    from vitsearch.evaluation import train_classifier as train_classifier
    from vitsearch.filters import Filter as Filter
    from vitsearch.index.recipe import Recipe as Recipe
    from vitsearch.labels import LabelClassifier as LabelClassifier
    from vitsearch.types import IndexReport as IndexReport
    from vitsearch.types import Photo as Photo
    from vitsearch.types import Prediction as Prediction
    from vitsearch.types import Progress as Progress
    from vitsearch.types import SearchResult as SearchResult

_MODULES = {
    "Collection": "collection",
    "CollectionError": "errors",
    "Encoder": "encoders",
    "EncoderError": "errors",
    "Filter": "filters",
    "ImageClassifier": "classifiers",
    "IndexReport": "types",
    "LabelClassifier": "labels",
    "Photo": "types",
    "PhotoError": "errors",
    "Prediction": "types",
    "Progress": "types",
    "QueryError": "errors",
    "Recipe": "index.recipe",
    "SearchResult": "types",
    "Term": "collection.query",
    "VitsearchError": "errors",
    "compare": "evaluation",
    "evaluate": "evaluation",
    "finetune": "classifiers.finetune",
    "index_folder": "collection.update",
    "load_classifier": "classifiers",
    "load_encoder": "encoders",
    "search_all": "collection.several",
    "train_classifier": "evaluation",
}
__all__ = [
    *_MODULES,
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
