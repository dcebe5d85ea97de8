"""The collection: a folder of photos that can be searched and labelled."""

from vitsearch.collection.collection import Collection
from vitsearch.collection.duplicates import LookAlikes

__all__ = ["Collection", "LookAlikes"]
