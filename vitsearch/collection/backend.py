"""The interface between `Collection` and where its photos and vectors are stored."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vitsearch.collection.query import QueryEncoder
from vitsearch.collection.search import QueryMeaning
from vitsearch.encoders.base import ImageEncoder
from vitsearch.options import SearchOptions
from vitsearch.storage.config import CollectionConfig
from vitsearch.storage.decoding import Decoding
from vitsearch.storage.reader import PhotoReader
from vitsearch.types import SearchResult


class Backend(ABC):
    """Photos with vectors of one encoder, open for reading.

    ``root`` is the folder of the photos, ``folder`` the one for thumbnails and the like (it need
    not exist); ``config`` says which encoder made the vectors.
    """

    root: Path
    folder: Path
    config: CollectionConfig

    @property
    @abstractmethod
    def name(self) -> str:
        """The name for messages: the photo folder, or the URI."""

    @property
    @abstractmethod
    def open_keywords(self) -> dict[str, Any]:
        """The keywords of `Collection.open` that open it again."""

    @property
    @abstractmethod
    def store(self) -> PhotoReader:
        """The store that the photos are read from."""

    @abstractmethod
    def find(
        self, queries: Sequence[QueryMeaning], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each query, best first, equal scores in
        order of path, all on one state of the collection.
        """

    @abstractmethod
    def decoding(self) -> Decoding:
        """Return how the photos were decoded, as a query's photo must be."""

    @abstractmethod
    def check_encoder(self, encoder: ImageEncoder) -> None:
        """Raise EncoderMismatch unless this encoder made the vectors."""

    @abstractmethod
    def has(self, path: Path) -> bool:
        """Return whether a path relative to the root is a photo here."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return counts, encoder, index and location of the collection."""

    def query_encoder(self, encoder: Callable[[], ImageEncoder]) -> QueryEncoder:
        """Return the encoder of queries; ``encoder`` loads the model at first use."""
        return QueryEncoder(
            self.root, self.store, encoder, dim=self.config.dim, decoding=self.decoding
        )

    def close(self) -> None:
        """Close the store; a second call does nothing."""
        self.store.close()
