"""A collection on disk: its indexes propose candidates, the vectors stored in SQLite decide."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitsearch.arrays import Ids, Vectors
from vitsearch.collection.backend import Backend
from vitsearch.collection.info import local_info
from vitsearch.collection.search import QueryVector, Reranker, SearchOptions
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import IndexDamaged
from vitsearch.index import (
    IndexSnapshot,
    UnindexedVectors,
    candidates_for,
    manifest_stamp,
    open_snapshot,
)
from vitsearch.index.candidates import Proposal
from vitsearch.storage.config import (
    DELTA_INDEX,
    MAIN_INDEX,
    CollectionConfig,
    check_encoder,
    collection_folder,
    photo_root,
    read_collection_config,
    writer_lock,
)
from vitsearch.storage.decoding import Decoding, choose_decoding
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Prediction, SearchResult

log = logging.getLogger("vitsearch")
FRESH_KEPT = 20_000  # vectors newer than the index that are held in memory between searches


@dataclass(frozen=True, slots=True, eq=False)
class CandidateSources:
    """Where candidates come from in one state of the collection: the indexes, what is newer, and
    the ids that a filter leaves.
    """

    snapshots: list[IndexSnapshot]
    fresh: UnindexedVectors
    allowed: Ids | None
    limit: float = math.inf

    @property
    def supports_batch(self) -> bool:
        """Whether many queries are answered faster together: an index takes a fraction of the time
        for each, a filter the same.
        """
        return self.allowed is None

    def candidates_for(self, queries: Vectors, wanted: int) -> list[list[Proposal]]:
        """Return for each of the ``(m, dim)`` queries what each source proposes."""
        return candidates_for(self.snapshots, self.fresh, queries, wanted, allowed=self.allowed)


class LocalSearch:
    """Finds the stored photos nearest to vectors.

    An index that cannot be used is logged; with ``strict`` a damaged one raises IndexDamaged.
    """

    def __init__(
        self,
        folder: Path,
        config: CollectionConfig,
        store: PhotoStore,
        *,
        strict: bool = False,
        device: str = "auto",
    ) -> None:
        self._strict, self._device = strict, device
        self._folder, self._config, self._store = folder, config, store
        self._reranker = Reranker(store, config.dim)
        self._snapshots: dict[str, IndexSnapshot | None] = {}
        self._stamps: dict[str, object] = {}
        self._fresh: tuple[tuple[int, int], UnindexedVectors] | None = None

    def close(self) -> None:
        """Let the index's files go."""
        self._snapshots, self._stamps, self._fresh = {}, {}, None

    def find(
        self, queries: Sequence[QueryVector], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each (unit vector, ids to leave out), all on one state of the
        collection.
        """
        with self._store.reading():
            allowed = self._store.ids_where(options.where) if options.where is not None else None
            snapshots = self._indexes()
            sources = CandidateSources(
                snapshots,
                self._newer(max((snapshot.generation for snapshot in snapshots), default=-1)),
                allowed,
            )
            return self._reranker.find(queries, options, sources)

    def _newer(self, generation: int) -> UnindexedVectors:
        """Return the vectors that no index knows yet, all of them where there is none."""
        now = self._store.generation()
        if generation == now:
            return UnindexedVectors.empty(self._config.dim)
        if self._fresh and self._fresh[0] == (generation, now):
            return self._fresh[1]
        fresh = UnindexedVectors.from_batches(
            self._store.vector_batches(since=generation), self._config.dim
        )
        self._fresh = ((generation, now), fresh) if len(fresh) <= FRESH_KEPT else None
        return fresh

    def _indexes(self) -> list[IndexSnapshot]:
        """Return the main index and, where it goes on from that one, the delta of later changes;
        none that knows more than the store.
        """
        now, main, delta = (
            self._store.generation(),
            self._current(MAIN_INDEX),
            self._current(DELTA_INDEX),
        )
        if not main or main.generation > now:
            return []
        goes_on = delta and delta.manifest.since == main.generation and delta.generation <= now
        return [main, delta] if delta and goes_on else [main]

    def _current(self, name: str) -> IndexSnapshot | None:
        """Return an index, opened again when it was replaced; None where it is missing, damaged or
        of other vectors.
        """
        stamp = manifest_stamp(self._folder / name)
        if name in self._stamps and stamp == self._stamps[name]:
            return self._snapshots[name]
        self._stamps[name], self._snapshots[name] = stamp, None
        if stamp is not None:
            self._snapshots[name] = self._opened(name)
        return self._snapshots[name]

    def _opened(self, name: str) -> IndexSnapshot | None:
        try:
            # the delta is small: copying it would take longer than searching it
            device = self._device if name == MAIN_INDEX else "cpu"
            snapshot = open_snapshot(self._folder / name, device=device)
        except IndexDamaged as error:
            if self._strict:
                raise
            log.warning(
                f"{error}; searching every stored vector, the next `vitsearch index` rebuilds it"
            )
            return None
        built = snapshot.manifest
        if built.dim != self._config.dim or built.fingerprint != self._config.encoder_fingerprint:
            return None
        if snapshot.degraded:
            log.warning(snapshot.degraded)
        return snapshot


class LocalBackend(Backend):
    """The collection of a photo folder; it may be read while another process indexes into it.

    With ``read_only`` (for collections that nobody here can repair) a damaged index raises
    IndexDamaged, otherwise it is logged and every stored vector is searched.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        config: CollectionConfig,
        *,
        device: str = "auto",
        read_only: bool = False,
    ) -> None:
        self.root, self.folder, self.config = root, folder, config
        self._store = PhotoStore(folder / "photos.db", read_only=True)
        self._search = LocalSearch(folder, config, self._store, strict=read_only, device=device)

    @property
    def name(self) -> str:
        """The photo folder."""
        return str(self.root)

    @property
    def store(self) -> PhotoStore:
        """The database, open for reading."""
        return self._store

    def find(
        self, queries: Sequence[QueryVector], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each (unit vector, ids to leave out), best first."""
        return self._search.find(queries, options)

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, as a query's photo must be."""
        return choose_decoding(self._store)

    def check_encoder(self, encoder: ImageEncoder) -> None:
        """Raise EncoderMismatch unless this encoder made the vectors."""
        check_encoder(self.folder, self.config, encoder)

    def has(self, path: Path) -> bool:
        """Return whether a path relative to the root is a file."""
        return (self.root / path).exists()

    def info(self) -> dict[str, Any]:
        """Return counts, encoder, recipe, sizes in bytes and dates (ISO 8601, UTC)."""
        return local_info(self.folder, self.config, self._store)

    def reload(self) -> None:
        """Read ``collection.json`` again, which a run of indexing may have replaced."""
        self.config = read_collection_config(self.folder, self.root)

    def close(self) -> None:
        """Close the database and the indexes; a second call does nothing."""
        super().close()
        self._search.close()

    def store_labels(self, predictions: Sequence[Prediction]) -> None:
        """Keep the first label of each photo and its score in the database; raises CollectionLocked
        while another process writes.
        """
        first: dict[int, tuple[int, str, float]] = {}
        for prediction in predictions:
            first.setdefault(
                prediction.photo_id, (prediction.photo_id, prediction.label, prediction.score)
            )
        with writer_lock(self.folder):
            store = PhotoStore(self.folder / "photos.db")
            try:
                with store.writing():
                    store.put_labels(list(first.values()))
            finally:
                store.close()


def open_local(
    photos: str | os.PathLike[str],
    *,
    collection: str | os.PathLike[str] | None = None,
    device: str = "auto",
    read_only: bool = False,
) -> LocalBackend:
    """Return the collection of a photo folder, kept in ``collection`` (None: the folder's
    ``.vitsearch``); raises CollectionNotFound or CollectionError.
    """
    root = photo_root(photos)
    folder = collection_folder(root, collection)
    config = read_collection_config(folder, root)
    return LocalBackend(root, folder, config, device=device, read_only=read_only)
