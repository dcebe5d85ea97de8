"""A collection on disk: indexes propose candidates, which the vectors in SQLite rerank."""

import logging
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitsearch.arrays import Halves, Ids, Vectors
from vitsearch.collection.backend import Backend
from vitsearch.collection.maintain import local_info
from vitsearch.collection.search import SPARE, QueryMeaning, Reranker
from vitsearch.collection.understanding import LABELLED
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import IndexDamaged
from vitsearch.filters.tree import And
from vitsearch.index.candidates import Proposal, UnindexedVectors, candidates_for
from vitsearch.index.snapshot import IndexSnapshot, manifest_stamp, open_snapshot
from vitsearch.options import SearchOptions
from vitsearch.storage import (
    DELTA_INDEX,
    MAIN_INDEX,
    CollectionConfig,
    Decoding,
    check_encoder,
    choose_decoding,
    locate,
    read_collection_config,
)
from vitsearch.storage.connections import ProcessLock
from vitsearch.storage.filesystem import writer_lock
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Prediction, SearchResult, StoredRow

log = logging.getLogger("vitsearch")
MAX_MISSING = 0.1  # of the candidates that were removed since the index was built
WITHOUT_INDEX = "searching every stored vector, the next `vitsearch index` rebuilds it"


@dataclass(frozen=True, slots=True, eq=False)
class CandidateSources:
    """Where candidates come from in one state of the collection.

    These are the indexes and the newer vectors; ``allowed`` are the ids that match a filter,
    ``removed`` those of rows that indexes hold and the collection does not, as far as is known;
    with ``complete`` there are no others.
    ``vectors`` are those proposed so far with their generations, by id, None where the database is
    to tell.
    """

    snapshots: list[IndexSnapshot]
    unindexed: UnindexedVectors
    allowed: Ids | None
    removed: Ids | None = None
    complete: bool = False
    limit: float = math.inf
    supports_batch: bool = True
    vectors: dict[int, tuple[bytes, int] | None] = field(default_factory=dict)

    def candidates_for(self, queries: Vectors, count: int) -> list[list[Proposal]]:
        """Return for each of the ``(m, dim)`` queries what each source proposes."""
        proposed = candidates_for(
            self.snapshots,
            self.unindexed,
            queries,
            count,
            allowed=self.allowed,
            removed=self.removed,
        )
        if self.complete:  # none is missing among them, so that one to spare is enough
            proposed = [[each.first(count - SPARE + 1) for each in of] for of in proposed]
        for each in (each for of_query in proposed for each in of_query):
            self.vectors.update(each.known() or dict.fromkeys(each.ids.tolist()))
        return proposed


@dataclass(slots=True, eq=False)
class _ProposedRows:
    """The stored rows of candidates, their vectors those of the indexes where these have them.
    ``missing`` counts those that are not stored: none, where the sources are complete.
    """

    store: PhotoStore
    sources: CandidateSources
    missing: int = 0
    read: dict[int, StoredRow | None] = field(default_factory=dict)

    def rows(self, ids: Sequence[int]) -> list[StoredRow]:
        """Return what `PhotoStore.rows` returns; a row that should be there is logged.

        All that was proposed so far, for other queries too, is read at once. A vector of an index
        counts where it is the one that the photo was stored with, by the checksum of the photo's
        row. Raises IndexDamaged where it is another one.
        """
        if any(each not in self.read for each in ids):
            self._read({*ids, *self.sources.vectors} - self.read.keys())
        return [row for each in ids if (row := self.read[each])]

    def _read(self, ids: set[int]) -> None:
        proposed = self.sources.vectors
        known = {each: vector for each in ids if (vector := proposed.get(each))}
        rows = self.store.rows_with(known) if known else []
        done = {row[0] for row in rows}
        others = self.store.rows([each for each in ids if each not in done])
        if any(row[0] in known and known[row[0]][0] != row[2] for row in others):
            raise IndexDamaged(
                "the index holds vectors that are not those of photos.db; index the folder again "
                "to rebuild it"
            )
        self.read |= dict.fromkeys(ids) | {row[0]: row for row in [*rows, *others]}
        missing = sorted(ids - done - {row[0] for row in others})
        self.missing += len(missing)
        if self.sources.complete and missing:
            self.store.leave_out(missing)

    def halves(self, raw: Sequence[bytes]) -> Halves:
        """Return what `PhotoStore.halves` returns."""
        return self.store.halves(raw)


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
        self._lock = ProcessLock()  # held while indexes are opened
        self._snapshots: dict[str, tuple[object, IndexSnapshot | None]] = {}  # with its version
        self._foreign: set[str] = set()
        self._folders = {name: folder / name for name in (MAIN_INDEX, DELTA_INDEX)}
        self._nothing = UnindexedVectors.empty(config.dim)
        self._unindexed: tuple[tuple[int, str], UnindexedVectors] | None = None
        self._removed: tuple[tuple[int, str], Ids] | None = None  # with the version

    def close(self) -> None:
        """Close the files of the index."""
        self._snapshots, self._unindexed = {}, None

    def find(
        self, queries: Sequence[QueryMeaning], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each query, on one state of the data."""
        with self._store.reading():
            try:
                return self._with_text_first(queries, options)
            except IndexDamaged as error:  # in a block that was not read before
                if self._strict:
                    raise
                log.warning(f"{error}; {WITHOUT_INDEX}")
                with self._lock:
                    self._snapshots = {
                        name: (version, None) for name, (version, _) in self._snapshots.items()
                    }
                return self._with_text_first(queries, options)

    def _with_text_first(
        self, queries: Sequence[QueryMeaning], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each query, those first in which its words in quotes stand."""
        results = self._find(queries, options)
        for number, query in enumerate(queries):
            if query.says is None or not len(self._store.ids_where(query.says)):
                continue
            where = And((options.where, query.says)) if options.where else query.says
            those = replace(options, where=where, offset=0, top_k=_end(options))
            (first,) = self._find([replace(query, least=-math.inf)], those)
            known = {hit.photo_id for hit in first}
            more = replace(options, offset=0, top_k=_end(options, len(first)))
            (rest,) = self._find([query], more) if len(first) < options.end else ([],)
            merged = [replace(hit, quotes=query.verbatim) for hit in first]
            merged += [hit for hit in rest if hit.photo_id not in known]
            results[number] = merged[options.offset : _end(options)]
        return results

    def _find(
        self, queries: Sequence[QueryMeaning], options: SearchOptions
    ) -> list[list[SearchResult]]:
        allowed = self._store.ids_where(options.where) if options.where is not None else None
        version = self._store.version()
        with self._lock:
            snapshots = self._indexes(version)
        indexed = max((snapshot.generation for snapshot in snapshots), default=-1)
        newer = self._newer(indexed, version)
        # what was removed since is still proposed by an index, unless a delta says what that is
        complete = not snapshots or (
            indexed == version[0]
            and all(snapshot.removed is not None for snapshot in snapshots[1:])
        )
        gone = self._removed
        removed = gone[1] if gone and gone[0] == version and snapshots else None
        sources = CandidateSources(snapshots, newer, allowed, removed, complete)
        rows = _ProposedRows(self._store, sources)
        results = Reranker(rows, self._config.dim).find(queries, options, sources)
        if snapshots and removed is None and rows.missing > MAX_MISSING * len(rows.read):
            # so many that searches would ask again and again: they are left out from now on
            gone_ids = np.setdiff1d(snapshots[0].ids, self._store.ids(), assume_unique=True)
            self._removed = version, gone_ids
        return results

    def _newer(self, generation: int, version: tuple[int, str]) -> UnindexedVectors:
        """Return the vectors stored after the generation that the indexes have."""
        if generation == version[0]:
            return self._nothing
        state = (generation, version[1])
        known = self._unindexed
        if known and known[0] == state:
            return known[1]
        batches = self._store.vector_batches(since=generation)
        unindexed = UnindexedVectors.from_batches(batches, self._config.dim)
        self._unindexed = (state, unindexed)
        return unindexed

    def _indexes(self, version: tuple[int, str]) -> list[IndexSnapshot]:
        """Return the main index and, if it continues that one, the delta of later changes.

        An index that is newer than the state of the store, or of a state that the store never had,
        is left out.
        """
        now = version[0]
        main, delta = self._current(MAIN_INDEX), self._current(DELTA_INDEX)
        if not main or main.generation > now or not self._is_of_store(main, version):
            return []
        if (
            delta is not None  # one without rows says what was removed
            and delta.manifest.since == main.generation
            and delta.generation <= now
            and self._is_of_store(delta, version)
        ):
            return [main, delta]
        return [main]

    def _is_of_store(self, snapshot: IndexSnapshot, version: tuple[int, str]) -> bool:
        """Return whether an index was built from the store; it is logged once if not."""
        state = snapshot.manifest.state
        if (snapshot.generation, state) == version:
            return True
        if self._store.had_state(snapshot.generation, state):
            return True
        if state not in self._foreign:
            self._foreign.add(state)
            log.warning(f"the index is of another state of photos.db; {WITHOUT_INDEX}")
        return False

    def _current(self, name: str) -> IndexSnapshot | None:
        """Return an index, opened again after it was replaced.

        None if it is missing, damaged, or an index of another encoder's vectors.
        """
        version = manifest_stamp(self._folders[name])
        if name not in self._snapshots or version != self._snapshots[name][0]:
            snapshot = self._opened(name) if version is not None else None
            self._snapshots[name] = version, snapshot
        return self._snapshots[name][1]

    def _opened(self, name: str) -> IndexSnapshot | None:
        try:
            # the delta is small: copying it to a device would take longer than searching it
            device = self._device if name == MAIN_INDEX else "cpu"
            snapshot = open_snapshot(self._folders[name], device=device)
        except IndexDamaged as error:
            if self._strict:
                raise
            log.warning(f"{error}; {WITHOUT_INDEX}")
            return None
        built = snapshot.manifest
        if built.dim != self._config.dim or built.fingerprint != self._config.encoder_fingerprint:
            return None
        if snapshot.degraded:
            log.warning(snapshot.degraded)
        return snapshot


def _end(options: SearchOptions, more: int = 0) -> int | None:
    """Return the position after the last result and so many more, None for all."""
    return None if options.top_k is None else options.offset + options.top_k + more


class LocalBackend(Backend):
    """The collection of a photo folder; it may be read while another process indexes into it.

    With ``read_only`` (for collections that nobody here can repair) a damaged index raises
    IndexDamaged; otherwise it is logged, and every stored vector is searched.
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
        self._read_only = read_only
        self._store = PhotoStore(folder / "photos.db", read_only=True)
        self._search = LocalSearch(folder, config, self._store, strict=read_only, device=device)

    @property
    def name(self) -> str:
        """The photo folder."""
        return str(self.root)

    @property
    def open_keywords(self) -> dict[str, Any]:
        """The keywords of `Collection.open` that open it again."""
        root, folder = os.path.abspath(self.root), os.path.abspath(self.folder)
        return {"photos": root, "collection": folder, "read_only": self._read_only}

    @property
    def store(self) -> PhotoStore:
        """The database, open for reading."""
        return self._store

    def find(
        self, queries: Sequence[QueryMeaning], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each query, best first."""
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
        """Store the first label of each photo and its score in the database.

        Raises CollectionLocked while another process writes.
        """
        with self._writable() as store:
            put_predictions(store, predictions)

    def forget(self) -> int:
        """Delete the photos that were put aside, and return how many; raises CollectionLocked."""
        with self._writable() as store:
            count = store.aside.purge()
        return count

    @contextmanager
    def _writable(self) -> Iterator[PhotoStore]:
        """Run the block as one transaction on the database, opened for writing."""
        with writer_lock(self.folder), closing(PhotoStore(self.folder / "photos.db")) as store:
            with store.writing():
                yield store
            store.checkpoint()


def put_predictions(store: PhotoStore, predictions: Sequence[Prediction]) -> None:
    """Store the first label of each photo and its score (inside `PhotoStore.writing`)."""
    first: dict[int, Prediction] = {}
    for prediction in predictions:
        first.setdefault(prediction.photo_id, prediction)
    store.put_labels([(photo_id, best.label, best.score) for photo_id, best in first.items()])
    store.set_meta(LABELLED, secrets.token_hex(8))


def open_local(
    photos: str | os.PathLike[str],
    *,
    collection: str | os.PathLike[str] | None = None,
    device: str = "auto",
    read_only: bool = False,
) -> LocalBackend:
    """Return the collection of a photo folder, stored in ``collection``.

    None is the folder's ``.vitsearch``, or the folder itself where that is a collection. Raises
    CollectionNotFound or CollectionError.
    """
    root, folder = locate(photos, collection)
    config = read_collection_config(folder, root)
    return LocalBackend(root, folder, config, device=device, read_only=read_only)
