"""The noun that the user holds: a folder of photos that can be searched and labelled."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitsearch.arrays import Ids, Vectors
from vitsearch.collection.collection import SearchableCollection
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
from vitsearch.types import Prediction, SearchResult, SkippedPhoto

# -- The search of a collection on disk: its indexes propose, the stored vectors decide ------------

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

    ``notes`` gains a line where an index cannot be used; with ``strict`` a damaged one raises
    IndexDamaged instead.
    """

    def __init__(
        self,
        folder: Path,
        settings: CollectionConfig,
        store: PhotoStore,
        notes: list[str],
        *,
        strict: bool = False,
        device: str = "auto",
    ) -> None:
        self._strict, self._device = strict, device
        self._folder, self._settings, self._store, self._notes = folder, settings, store, notes
        self._ranking = Reranker(store, settings.dim)
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
            return self._ranking.find(queries, options, sources)

    def _newer(self, generation: int) -> UnindexedVectors:
        """Return the vectors that no index knows yet, all of them where there is none."""
        now = self._store.generation()
        if generation == now:
            return UnindexedVectors.empty(self._settings.dim)
        if self._fresh and self._fresh[0] == (generation, now):
            return self._fresh[1]
        fresh = UnindexedVectors.from_batches(
            self._store.vector_batches(since=generation), self._settings.dim
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
            snapshot = open_snapshot(self._folder / name, device=device, tell=self._notes.append)
        except IndexDamaged as error:
            if self._strict:
                raise
            self._notes.append(
                f"{error}; searching every stored vector, the next `vitsearch index` rebuilds it"
            )
            return None
        built = snapshot.manifest
        if (
            built.dim != self._settings.dim
            or built.fingerprint != self._settings.encoder_fingerprint
        ):
            return None
        if snapshot.degraded:
            self._notes.append(snapshot.degraded)
        return snapshot


# -- The noun that the user holds: a folder of photos that can be searched and labelled ------------


class Collection(SearchableCollection):
    """An indexed folder of photos, open for reading.

    Paths in results are relative to ``root``, with ``/``. Scores are cosine similarities, computed
    exactly from the stored vectors whatever the index. A collection may be read while another
    process indexes into it.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        settings: CollectionConfig,
        *,
        encoder: ImageEncoder | None = None,
        device: str = "auto",
        read_only: bool = False,
    ) -> None:
        self.folder = folder
        self._photo_store = PhotoStore(folder / "photos.db", read_only=True)
        try:
            super().__init__(root, settings, self._photo_store, encoder=encoder, device=device)
        except BaseException:
            self._photo_store.close()
            raise
        self._searcher = LocalSearch(
            folder, settings, self._photo_store, self.notes, strict=read_only, device=device
        )

    @classmethod
    def open(
        cls,
        photos: str | os.PathLike[str],
        *,
        collection: str | os.PathLike[str] | None = None,
        encoder: ImageEncoder | None = None,
        device: str = "auto",
        read_only: bool = False,
    ) -> "Collection":
        """Return the collection of a photo folder.

        ``collection`` is its folder when it is not ``<photos>/.vitsearch``; ``encoder`` an encoder
        object to use instead of loading the collection's by name; ``device`` is where the encoder
        runs and, on "cuda", the search (on "auto" of the recipes for GPUs). A damaged index is
        noted, and every stored vector is searched until it is built again; with ``read_only``, for
        collections that nobody here can repair, IndexDamaged is raised then. Raises
        CollectionNotFound, CollectionError, or EncoderMismatch for an encoder with another
        fingerprint.
        """
        root = photo_root(photos)
        folder = collection_folder(root, collection)
        return cls(
            root,
            folder,
            read_collection_config(folder, root),
            encoder=encoder,
            device=device,
            read_only=read_only,
        )

    def __repr__(self) -> str:
        return (
            f"Collection({str(self.root)!r}, photos={len(self)}, encoder={self.settings.encoder!r})"
        )

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        super().close()
        self._searcher.close()

    def find(
        self, queries: Sequence[QueryVector], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each (unit vector, ids to leave out), best first, all on one state
        of the collection.
        """
        return self._searcher.find(queries, options)

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, and a query's photo is to be."""
        return choose_decoding(self._photo_store)

    @property
    def store(self) -> PhotoStore:
        """The database, open for reading."""
        return self._photo_store

    def failures(self) -> list[SkippedPhoto]:
        """Return the files that are not in the collection, with state and reason, in
        order of path.
        """
        return self._store.failures()

    def _checked(self, encoder: ImageEncoder) -> ImageEncoder:
        check_encoder(self.folder, self.settings, encoder)
        return encoder

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
