"""A collection whose photos and vectors are served from Milvus."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitsearch.arrays import Vectors, unit_rows
from vitsearch.collection.backend import Backend
from vitsearch.collection.query import QueryEncoder
from vitsearch.collection.search import QueryVector, Reranker, SearchOptions
from vitsearch.encoders.base import ImageEncoder
from vitsearch.index.candidates import Proposal
from vitsearch.milvus import parse_place
from vitsearch.milvus.metadata import CollectionMetadata
from vitsearch.milvus.store import Candidates, MilvusStore
from vitsearch.paths import cache_dir
from vitsearch.photos import MAX_PIXELS
from vitsearch.storage.config import CollectionConfig
from vitsearch.storage.decoding import Decoding
from vitsearch.types import Photo, SearchResult


class MilvusBackend(Backend):
    """A collection in Milvus, filled by `vitsearch push`.

    Milvus proposes candidates, and the vectors fetched from it decide: with an exact index (FLAT)
    the results and scores are those of a local collection of the same vectors. A search that takes
    more than 16,384 candidates raises QueryError.
    """

    def __init__(self, uri: str, name: str | None = None, *, root: Path | None = None) -> None:
        """Open a collection such as ``milvus://localhost:19530/photos``; ``name`` is its last part
        where that is left out.

        ``root`` is where the photos are, if not where they were embedded from. Raises
        CollectionNotFound, or CollectionError where Milvus does not answer.
        """
        self.uri = parse_place(uri, name)
        digest = hashlib.blake2b(str(self.uri).encode(), digest_size=8).hexdigest()
        self.folder = cache_dir() / "milvus" / digest
        self._store = MilvusStore.open(self.uri)
        try:
            metadata = self._store.facts
            self.root, self.config = root_of(metadata, root), config_of(metadata)
        except BaseException:
            self._store.close()
            raise
        self._reranker = Reranker(self._store, self.config.dim)

    @property
    def name(self) -> str:
        """The URI."""
        return str(self.uri)

    @property
    def store(self) -> MilvusStore:
        """What the photos are read from."""
        return self._store

    def find(
        self, queries: Sequence[QueryVector], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each (unit vector, ids to leave out), best first."""
        condition = self._store.condition(options.where) if options.where is not None else ""
        candidates = Candidates(self._store.connection, condition)
        return self._reranker.find(queries, options, _MilvusCandidates(candidates))

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, as a query's photo must be."""
        return Decoding(MAX_PIXELS, self._store.facts.decoding == "exact")

    def check_encoder(self, encoder: ImageEncoder) -> None:
        """Raise EncoderMismatch unless this encoder made the vectors."""
        self.config.identity.check(encoder, self.uri, "push into another --collection NAME")

    def has(self, path: Path) -> bool:
        """Return whether a path relative to the root is a photo in Milvus."""
        return self._store.photo_at(path.as_posix()) is not None

    def info(self) -> dict[str, Any]:
        """Return counts, encoder, index and place of the collection."""
        metadata, index = self._store.facts, self._store.connection.index()
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
        """Return what turns queries into vectors, also of photos whose files are not here."""
        return _RemoteQueryEncoder(
            self.root, self._store, encoder, dim=self.config.dim, decoding=self.decoding
        )


def root_of(facts: CollectionMetadata, root: Path | None = None) -> Path:
    """Return where the photos of a collection are: as given, or where they were embedded from; of a
    URL a folder that need not exist.
    """
    if root is not None:
        return root.expanduser()
    _, remote, rest = facts.source.partition("://")
    return Path("/" + rest.lstrip("/")) if remote else Path(facts.source)


def config_of(facts: CollectionMetadata) -> CollectionConfig:
    """Return the facts of a collection in Milvus as those of one on disk."""
    own = (facts.encoder, facts.encoder_fingerprint, facts.dtype, facts.dim)
    return CollectionConfig(*own, recipe={}, created_at="", root=facts.source)


class _RemoteQueryEncoder(QueryEncoder):
    """Reads queries for a collection whose photos need not be here: the vector of one that is not
    is looked up.
    """

    def _file_vector(self, path: Path, photo: Photo | None) -> Vectors:
        if photo is not None and not path.exists():
            return unit_rows(self._store.vector(photo.photo_id)[None])[0]
        return super()._file_vector(path, photo)


@dataclass(frozen=True, slots=True, eq=False)
class _MilvusCandidates:
    """Milvus as the one source of candidates."""

    candidates: Candidates
    supports_batch: bool = True

    @property
    def limit(self) -> float:
        """How many candidates can be asked for."""
        return self.candidates.limit

    def candidates_for(self, queries: Vectors, wanted: int) -> list[list[Proposal]]:
        """Return for each query what Milvus proposes."""
        return [
            [Proposal(ids, more)] for ids, more in self.candidates.candidates_for(queries, wanted)
        ]
