"""The interface between `Collection` and where its photos and vectors are stored, and a collection
that is served from Milvus behind it (one on disk is `vitsearch.collection.local`); and facts of all
photos of a collection, of a large one in Milvus of a sample.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from vitsearch.arrays import Vectors, unit_rows
from vitsearch.collection.query import QueryEncoder
from vitsearch.collection.search import QueryMeaning, Reranker
from vitsearch.encoders.base import ImageEncoder
from vitsearch.filters.tree import And, Comparison, Filter
from vitsearch.index.candidates import Proposal
from vitsearch.labels import Decision, LabelClassifier, predict
from vitsearch.milvus import Sample, parse_uri
from vitsearch.milvus.schema import CollectionMetadata
from vitsearch.milvus.store import Candidates, MilvusStore
from vitsearch.options import SearchOptions
from vitsearch.paths import cache_dir, raw_path
from vitsearch.photos import MAX_PIXELS
from vitsearch.storage import RAW, CollectionConfig, Decoding, PhotoReader
from vitsearch.storage import metadata as stored
from vitsearch.storage.metadata import Positions, Towns, values_of
from vitsearch.types import Photo, Prediction, SearchResult


def is_large(store: PhotoReader) -> TypeGuard[MilvusStore]:
    """Return whether it is that of a collection in Milvus that answers from a sample."""
    return isinstance(store, MilvusStore) and store.is_large


def sampled_values(store: PhotoReader, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the values of some columns (`values_of`), of a large collection in Milvus those of a
    sample.
    """
    return values_of(store, columns, store.sampled_photos() if is_large(store) else None)


def sampled_ids(store: PhotoReader, where: Filter) -> set[int]:
    """Return the ids of the photos that match a filter, of a large collection in Milvus those of
    the sample.
    """
    return store.sampled_ids(where) if is_large(store) else {*store.ids_where(where).tolist()}


def label_sample(
    store: PhotoReader, classifier: LabelClassifier, decision: Decision
) -> list[Prediction]:
    """Return the labels of the photos of a sample, in order of path, the best label first."""
    assert isinstance(store, MilvusStore)
    rows = sorted(store.sampled_rows(), key=lambda row: raw_path(row[1]))
    vectors = unit_rows(store.halves([row[2] for row in rows]))
    scores = predict(classifier, vectors, decision)
    return [
        Prediction(path, name, score, photo_id)
        for (photo_id, path, _, _), labels in zip(rows, scores, strict=True)
        for name, score in labels
    ]


def positions(store: PhotoReader, where: Filter) -> Positions:
    """Return the positions of the photos that match a filter, in order of id (see `Positions`)."""
    if not is_large(store):
        return stored.positions(store, where)
    sample = _located(store, where, ["latitude", "longitude"])
    rows = np.array([(row["latitude"], row["longitude"]) for row in sample.rows], dtype=np.float64)
    latitudes, longitudes = rows.reshape(-1, 2).T
    ids = np.array([row["id"] for row in sample.rows], dtype=np.int64)
    return Positions(ids, latitudes, longitudes, sample.total if sample.size else None)


def towns(store: PhotoReader, where: Filter) -> Towns:
    """Return the towns of the photos that match a filter and have a position (see `Towns`)."""
    if not is_large(store):
        return stored.towns(store, where)
    sample = _located(store, where, ["country", "city"])
    counts = Counter((row["country"] or "", row["city"] or "") for row in sample.rows)
    return Towns(sorted(counts.items()), sample.size)


def _located(store: MilvusStore, where: Filter, columns: list[str]) -> Sample:
    on_earth = Comparison("latitude", ">=", -90), Comparison("longitude", ">=", -180)
    return store.sampled(["id", *columns], store.first_moments(And((where, *on_earth))))


# -- The interface ---------------------------------------------------------------------------------


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


# -- Milvus ----------------------------------------------------------------------------------------


class MilvusBackend(Backend):
    """A collection in Milvus, filled by `vitsearch push`.

    Milvus proposes candidates, which are reranked by the vectors fetched from it: with an exact
    index (FLAT) the results and scores are those of a local collection of the same vectors. A
    search that takes more than 16,384 candidates (1,000,000 of a server) raises QueryError.
    """

    def __init__(self, uri: str, name: str | None = None, *, root: Path | None = None) -> None:
        """Open a collection such as ``milvus://localhost:19530/photos``.

        ``name`` is the last part of the URI if that is left out; ``root`` is where the photos are,
        if not where they were embedded from. Raises CollectionNotFound, or CollectionError if
        Milvus does not answer.
        """
        self.uri = parse_uri(uri, name)
        digest = hashlib.blake2b(str(self.uri).encode(), digest_size=8).hexdigest()
        self.folder = cache_dir() / "milvus" / digest
        self._store = MilvusStore.open(self.uri)
        try:
            metadata = self._store.metadata
            self.root, self.config = _root(metadata, root), _config(metadata)
        except BaseException:
            self._store.close()
            raise
        self._reranker = Reranker(self._store, self.config.dim)

    @property
    def name(self) -> str:
        """The URI."""
        return str(self.uri)

    @property
    def open_keywords(self) -> dict[str, Any]:
        """The keywords of `Collection.open` that open it again."""
        return {"photos": str(self.uri), "root": self.root}

    @property
    def store(self) -> MilvusStore:
        """The store that the photos are read from."""
        return self._store

    def find(
        self, queries: Sequence[QueryMeaning], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each query, best first."""
        condition = self._store.condition(options.where) if options.where is not None else ""
        candidates = Candidates(self._store.connection, condition)
        return self._reranker.find(queries, options, _MilvusCandidates(candidates))

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, as a query's photo must be."""
        metadata = self._store.metadata
        return Decoding(MAX_PIXELS, metadata.decoding == "exact", metadata.colours != RAW)

    def check_encoder(self, encoder: ImageEncoder) -> None:
        """Raise EncoderMismatch unless this encoder made the vectors."""
        self.config.identity.check(encoder, self.uri, "push into another --collection NAME")

    def has(self, path: Path) -> bool:
        """Return whether a path relative to the root is a photo in Milvus."""
        return self._store.photo_at(path.as_posix()) is not None

    def info(self) -> dict[str, Any]:
        """Return counts, encoder, index and URI of the collection."""
        metadata, index = self._store.metadata, self._store.connection.index()
        return {
            "photos": self._store.count(),
            "encoder": metadata.encoder,
            "encoder_fingerprint": metadata.encoder_fingerprint,
            "dtype": metadata.dtype,
            "dim": metadata.dim,
            "index": index.get("index_type"),
            "metric": index.get("metric_type"),
            "decoding": metadata.decoding,
            "source": metadata.source,
            "place": str(self.uri),
            "pushes": self._store.generation(),
        }

    def query_encoder(self, encoder: Callable[[], ImageEncoder]) -> QueryEncoder:
        """Return the encoder of queries, also for photos whose files are not on this machine."""
        return _RemoteQueryEncoder(
            self.root, self._store, encoder, dim=self.config.dim, decoding=self.decoding
        )


def _root(metadata: CollectionMetadata, root: Path | None) -> Path:
    """Return the folder of the photos: ``root``, or else the one that they were embedded from.

    For photos embedded from a URL it need not exist.
    """
    if root is not None:
        return root.expanduser()
    _, remote, rest = metadata.source.partition("://")
    return Path("/" + rest.lstrip("/")) if remote else Path(metadata.source)


def _config(metadata: CollectionMetadata) -> CollectionConfig:
    """Return the metadata of a collection in Milvus as the configuration of one on disk."""
    return CollectionConfig(
        encoder=metadata.encoder,
        encoder_fingerprint=metadata.encoder_fingerprint,
        dtype=metadata.dtype,
        dim=metadata.dim,
        recipe={},
        created_at="",
        root=metadata.source,
    )


class _RemoteQueryEncoder(QueryEncoder):
    """Encodes queries for a collection whose files need not be on this machine.

    For a photo without a file the stored vector is used.
    """

    def _file_vector(self, path: Path, photo: Photo | None) -> Vectors:
        if photo is not None and not path.exists():
            return unit_rows(self._store.vector(photo.photo_id)[None])[0]
        return super()._file_vector(path, photo)


@dataclass(frozen=True, slots=True, eq=False)
class _MilvusCandidates:
    """Milvus as the only source of candidates."""

    candidates: Candidates
    supports_batch: bool = True

    @property
    def limit(self) -> float:
        """The largest number of candidates for a query."""
        return self.candidates.limit

    def candidates_for(self, queries: Vectors, count: int) -> list[list[Proposal]]:
        """Return for each of the ``(m, dim)`` queries what Milvus proposes."""
        batch = self.candidates.candidates_for(queries, count)
        return [[Proposal(ids, more)] for ids, more in batch]
