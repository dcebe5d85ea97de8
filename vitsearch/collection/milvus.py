"""A collection whose photos and vectors are served from Milvus."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitsearch.arrays import Vectors, unit_rows
from vitsearch.collection.collection import SearchableCollection
from vitsearch.collection.query import QueryEncoder, Term
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


class MilvusCollection(SearchableCollection):
    """A collection in Milvus, filled by `vitsearch push`, open for reading: it answers as
    `Collection` does.

    Milvus proposes candidates, and the vectors fetched from it decide: with an exact index (FLAT)
    the results and scores are those of a local collection of the same vectors. A search that takes
    more than 16,384 candidates raises QueryError.
    """

    def __init__(
        self,
        uri: str,
        name: str | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        encoder: ImageEncoder | None = None,
        device: str = "auto",
    ) -> None:
        """Open a collection such as ``milvus://localhost:19530/photos``; ``name`` is its last part
        where that is left out.

        ``root`` is where the photos are, if not where they were embedded from; ``encoder`` and
        ``device`` are those of `Collection.open`. Raises CollectionNotFound, CollectionError where
        Milvus does not answer, or EncoderMismatch.
        """
        self.place = parse_place(uri, name)
        self.folder = (
            cache_dir()
            / "milvus"
            / hashlib.blake2b(str(self.place).encode(), digest_size=8).hexdigest()
        )
        self._milvus = MilvusStore.open(self.place)
        try:
            facts = self._milvus.facts
            super().__init__(
                root_of(facts, root),
                settings_of(facts),
                self._milvus,
                encoder=encoder,
                device=device,
            )
        except BaseException:
            self._milvus.close()
            raise
        self._terms = _RemoteTerms(
            self.root, self._milvus, lambda: self.encoder, dim=self.dim, decoding=self.decoding
        )
        self._ranking = Reranker(self._milvus, self.dim)

    def __repr__(self) -> str:
        return (
            f"MilvusCollection({str(self.place)!r}, photos={len(self)}, "
            f"encoder={self.settings.encoder!r})"
        )

    @property
    def store(self) -> MilvusStore:
        """What the photos are read from."""
        return self._milvus

    def find(
        self, queries: Sequence[QueryVector], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each (unit vector, ids to leave out), best first, equal scores in
        order of path.
        """
        condition = self._milvus.condition(options.where) if options.where is not None else ""
        return self._ranking.find(
            queries, options, _Proposing(Candidates(self._milvus.connection, condition))
        )

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, and a query's photo is to be."""
        return Decoding(MAX_PIXELS, self._milvus.facts.decoding == "exact")

    def use_encoder(self, encoder: ImageEncoder) -> None:
        """Encode queries with a model that is loaded already; raises EncoderMismatch for another
        than made the vectors.
        """
        self._encoder = self._checked(encoder)

    def info(self) -> dict[str, Any]:
        """Return counts, encoder, index and place of the collection."""
        facts, index = self._milvus.facts, self._milvus.connection.index()
        return {
            "photos": len(self),
            "encoder": facts.encoder,
            "encoder_fingerprint": facts.encoder_fingerprint,
            "dtype": facts.dtype,
            "dim": facts.dim,
            "index": index.get("index_type"),
            "metric": index.get("metric_type"),
            "decoding": facts.decoding,
            "source": facts.source,
            "place": str(self.place),
            "pushes": self._milvus.generation(),
        }

    def _has(self, path: Path) -> bool:
        return self._milvus.photo_at(path.as_posix()) is not None

    def _checked(self, encoder: ImageEncoder) -> ImageEncoder:
        self.settings.identity.check(encoder, self.place, "push into another --collection NAME")
        return encoder


def root_of(facts: CollectionMetadata, root: str | os.PathLike[str] | None = None) -> Path:
    """Return where the photos of a collection are: as given, or where they were embedded from; of a
    URL a folder that need not exist.
    """
    if root is not None:
        return Path(root).expanduser()
    _, remote, rest = facts.source.partition("://")
    return Path("/" + rest.lstrip("/")) if remote else Path(facts.source)


def settings_of(facts: CollectionMetadata) -> CollectionConfig:
    """Return the facts of a collection in Milvus as those of one on disk."""
    own = (facts.encoder, facts.encoder_fingerprint, facts.dtype, facts.dim)
    return CollectionConfig(*own, recipe={}, created_at="", root=facts.source)


class _RemoteTerms(QueryEncoder):
    """Reads queries for a collection whose photos need not be here: the vector of one that is not
    is looked up.
    """

    def _term_vector(self, term: Term, photo: Photo | None) -> Vectors:
        if photo is not None and isinstance(term.what, Path) and not term.what.exists():
            return unit_rows(self._store.vector(photo.photo_id)[None])[0]
        return super()._term_vector(term, photo)


@dataclass(frozen=True, slots=True, eq=False)
class _Proposing:
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
