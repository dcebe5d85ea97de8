"""The collection: a folder of photos that can be searched and labelled."""

from vitsearch.collection.collection import SearchableCollection, SearchKeywords
from vitsearch.collection.duplicates import LookAlikes
from vitsearch.collection.local import Collection
from vitsearch.collection.milvus import MilvusCollection

__all__ = ["Collection", "LookAlikes", "MilvusCollection", "SearchKeywords", "SearchableCollection"]
