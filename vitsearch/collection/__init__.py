"""The collection: a folder of photos that can be searched and labelled."""

from vitsearch.collection.collection import Collection, Wishes
from vitsearch.collection.duplicates import LookAlikes

__all__ = ["Collection", "LookAlikes", "Wishes"]
