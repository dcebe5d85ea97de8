"""An open collection: its encoder, its photos and its vectors."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from vitsearch.arrays import Vectors, unit_rows
from vitsearch.collection.backend import Backend
from vitsearch.collection.duplicates import first_indices
from vitsearch.collection.local import LocalBackend, open_local
from vitsearch.collection.relevance import KnownScale
from vitsearch.collection.search import NEAREST, QueryMeaning, Relevant, find_relevant, result_of
from vitsearch.collection.understanding import KnownWords
from vitsearch.encoders import is_known, load_named_encoder
from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.devices import ensure_single
from vitsearch.errors import CollectionError
from vitsearch.filters import EVERY
from vitsearch.filters.tree import Filter
from vitsearch.filters.words import Vocabulary
from vitsearch.milvus import is_milvus
from vitsearch.milvus.store import MilvusStore
from vitsearch.options import SearchOptions
from vitsearch.storage import CollectionConfig, Decoding, PhotoReader
from vitsearch.storage.connections import ProcessLock
from vitsearch.storage.missing import changed_folders
from vitsearch.storage.store import PhotoStore
from vitsearch.types import LeftOut, Photo, SearchResult, SkippedPhoto

SAMPLE = 1000  # photos that say how far apart the scores of a collection lie


def open_backend(
    photos: str | os.PathLike[str],
    collection: str | os.PathLike[str] | None,
    root: str | os.PathLike[str] | None,
    device: str,
    read_only: bool,
) -> Backend:
    """Return the collection with this name, open for reading (see `Collection.open`)."""
    ensure_single(device)
    if not is_milvus(photos):
        if root is not None:
            raise CollectionError(f"root goes with a collection in Milvus, not with {photos}")
        return open_local(photos, collection=collection, device=device, read_only=read_only)
    if collection is not None:
        raise CollectionError(
            "collection goes with a folder of photos: the last part of milvus://HOST:PORT/NAME "
            "names the collection"
        )
    from vitsearch.collection.backend import MilvusBackend

    return MilvusBackend(os.fspath(photos), root=None if root is None else Path(root))


def _reopened(
    kind: "type[OpenCollection]",
    keywords: dict[str, Any],
    encoder: ImageEncoder | None,
    device: str,
) -> "OpenCollection":
    return kind.open(**keywords, encoder=encoder, device=device)


class OpenCollection:
    """An open collection: where its photos and vectors are, and what is in it.

    Every method may be called from any thread at once, also while the same process indexes.
    """

    def __init__(
        self, backend: Backend, *, encoder: ImageEncoder | None = None, device: str = "auto"
    ) -> None:
        """Use `open` instead; raises EncoderMismatch."""
        self.backend = backend
        self._logged: set[str] = set()
        self._device = device
        self._encoder: ImageEncoder | None = None
        self._lender: OpenCollection | None = None
        self._loading = ProcessLock()
        if encoder is not None:
            self.use_encoder(encoder)
        self.queries = backend.query_encoder(lambda: self.encoder)
        self._words = KnownWords(backend.folder)
        self._scale = KnownScale(backend.folder, self._sample)

    @classmethod
    def open(
        cls,
        photos: str | os.PathLike[str],
        *,
        collection: str | os.PathLike[str] | None = None,
        root: str | os.PathLike[str] | None = None,
        encoder: ImageEncoder | None = None,
        device: str = "auto",
        read_only: bool = False,
    ) -> Self:
        """Return the collection of a photo folder, or one in Milvus (``milvus://HOST:PORT/NAME``).

        ``collection`` is a folder's collection when it is not in ``<photos>/.vitsearch``; ``root``
        is where the photos of a collection in Milvus are, if not where they were embedded from.
        ``encoder`` is an encoder object to use instead of loading the collection's by name;
        ``device`` is where the encoder runs and, on "cuda", the search (on "auto" of the recipes
        for GPUs). A damaged index is logged, and every stored vector is searched until it is built
        again; with ``read_only``, for collections that nobody here can repair, IndexDamaged is
        raised then. Raises CollectionNotFound, CollectionError, EncoderError for several devices,
        or EncoderMismatch for an encoder with another fingerprint.
        """
        backend = open_backend(photos, collection, root, device, read_only)
        try:
            return cls(backend, encoder=encoder, device=device)
        except BaseException:
            backend.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the place to open again, in another process too.

        An encoder that can be loaded by its name is loaded again there; another one, which was
        given to `open`, goes along.
        """
        known = is_known(self.config.encoder)
        encoder = None if known else self._encoder
        return _reopened, (type(self), self.backend.open_keywords, encoder, self._device)

    def __len__(self) -> int:
        return self.store.count_files()

    def __repr__(self) -> str:
        return (
            f"Collection({self.backend.name!r}, photos={len(self)}, "
            f"encoder={self.config.encoder!r})"
        )

    def close(self) -> None:
        """Close the store; a second call does nothing."""
        self.backend.close()

    # -- what is in it -----------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """The folder that paths are relative to."""
        return self.backend.root

    @property
    def folder(self) -> Path:
        """The folder of the collection, which need not exist for one in Milvus."""
        return self.backend.folder

    @property
    def config(self) -> CollectionConfig:
        """Which encoder made the vectors, and how they are indexed."""
        return self.backend.config

    @property
    def store(self) -> PhotoReader:
        """The store that the photos are read from."""
        return self.backend.store

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        return self.config.dim

    @property
    def encoder(self) -> ImageEncoder:
        """The collection's encoder, loaded at first use.

        Raises EncoderError, or EncoderMismatch if the encoder has changed since.
        """
        with self._loading:
            if self._encoder is None and self._lender is not None:
                self.use_encoder(self._lender.encoder)
            if self._encoder is None:
                config = self.config
                where = self.backend.folder
                self.use_encoder(
                    load_named_encoder(config.encoder, where, self._device, config.dtype)
                )
                assert self._encoder is not None
            return self._encoder

    def use_encoder(self, encoder: ImageEncoder) -> None:
        """Encode queries with a model that is loaded already.

        Raises EncoderMismatch unless it made the vectors.
        """
        self.backend.check_encoder(encoder)
        self._encoder = encoder

    def share_encoder(self, other: "OpenCollection") -> None:
        """Encode queries with the model of another collection of the same encoder, which is loaded
        when one of them needs it.
        """
        if self._encoder is None and self is not other:
            self._lender = other

    def vocabulary(self, *, private: bool = True) -> Vocabulary:
        """Return the words that queries of this collection may have besides the picture's; without
        ``private`` by the columns that everybody may see.
        """
        return self._words.of(self.store, private=private)

    def changed_folders(self) -> list[str]:
        """Return the folders, "" for the root, that got or lost files since they were last looked
        through, by one stat of each; none of a collection in Milvus.
        """
        if not isinstance(self.backend, LocalBackend):
            return []
        return changed_folders(self.root, self.folder, self.vocabulary().folders)

    def find(
        self, queries: Sequence[QueryMeaning], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each query, best first, equal scores in
        order of path, all on one state of the collection.

        For words they have their relevance, and those below ``min_relevance`` are left out.
        """
        return [answer.hits for answer in self._find(queries, options)]

    def find_or_nearest(
        self, queries: Sequence[QueryMeaning], options: SearchOptions
    ) -> list[Relevant]:
        """Return the results for each query as `find` does, and the first photos nearest to words
        that none fits; none for other queries.
        """
        answers = self._find(queries, options)
        nearest = replace(options, top_k=NEAREST, min_relevance=0)
        is_first = options.min_relevance and not options.offset
        for index, (query, each) in enumerate(zip(queries, answers, strict=True)):
            if each.hits or not query.texts or not is_first:
                answers[index] = Relevant(each.hits, [])
            elif each.nearest is None:
                answers[index] = Relevant(each.hits, self.find([query], nearest)[0])
        return answers

    def _find(self, queries: Sequence[QueryMeaning], options: SearchOptions) -> list[Relevant]:
        words = any(query.texts for query in queries)
        known = self._scale.of(self.store, self.encoder) if words else None
        if known is None:
            return [Relevant(hits) for hits in self.backend.find(queries, options)]
        return find_relevant(queries, options, known, self.backend.find, self.queries.encode_texts)

    def _sample(self) -> Vectors:
        """Return the ``(n, dim)`` unit rows of at most about 1,000 photos from all over the
        collection.
        """
        with self.store.reading():
            if isinstance(self.store, MilvusStore) and self.store.is_large:
                sampled = self.store.sampled_rows()
                rows = sampled[:: max(1, len(sampled) // SAMPLE)]
            else:
                ids = self.store.ids_where(EVERY)
                rows = self.store.rows(ids[:: max(1, len(ids) // SAMPLE)].tolist())
            if not rows:
                return np.empty((0, self.dim), dtype=np.float32)
            return unit_rows(self.store.halves([raw for _, _, raw, _ in rows]))

    def newest(self, options: SearchOptions, *, by_date: bool = True) -> list[SearchResult]:
        """Return the photos that the filter leaves, the newest first, with scores of 0; without
        ``by_date`` in order of path.
        """
        assert options.where is not None
        with self.store.reading():
            ids = self._newest_ids(options.where, options, by_date)
            paths = {row[0]: row[1] for row in self.store.rows(ids)}
        return [result_of(paths[each], 0.0, each) for each in ids if each in paths]

    def _newest_ids(self, where: Filter, options: SearchOptions, by_date: bool) -> list[int]:
        store, start, stop = self.store, options.offset, options.end
        if by_date and stop < math.inf and isinstance(store, MilvusStore) and store.is_large:
            first = store.first_moments(where) or where
            return store.newest(first, store.months_where(first), start, int(stop))
        ids: list[int] = store.ids_where(where, order="newest" if by_date else "path").tolist()
        if moments := store.moments():  # of a video one
            ids = [ids[each] for each in first_indices([moments.get(i, i) for i in ids])]
        return ids[start : int(min(stop, len(ids)))]

    def sample_size(self) -> int | None:
        """Return of how many photos a large collection in Milvus answers what takes all of them;
        None for every other collection.
        """
        store = self.store
        if isinstance(store, MilvusStore) and store.is_large:
            return len(store.sampled_rows())
        return None

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, as a query's photo must be."""
        return self.backend.decoding()

    def failures(self) -> list[SkippedPhoto]:
        """Return the files that are not in the collection, with state and reason, in order of path.

        Raises CollectionError for one in Milvus, which holds photos only.
        """
        return self._on_disk("list failures").store.failures()

    def left_out(self) -> list[LeftOut]:
        """Return what the last run of indexing met in the folder and did not take, in order of
        path, files that are not photos counted by their extension.

        Raises CollectionError for a collection in Milvus.
        """
        return self._on_disk("list what was left out").store.walked.left_out()

    def companions(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """Return the other files of photos, such as the RAW beside a JPEG, by the photo's path; a
        photo without any, and every one of a collection in Milvus, is left out.
        """
        store = self.store
        return store.walked.companions(paths) if isinstance(store, PhotoStore) else {}

    def photos(self) -> Iterator[Photo]:
        """Yield the photos in order of path; of a video its first moment."""
        return self.store.photos()

    def vectors(self) -> tuple[list[Photo], Vectors]:
        """Return all photos in order of path, and their ``(n, dim)`` float32 unit rows; that of a
        video is the mean of its moments.
        """
        with self.store.reading():
            photos = list(self.store.photos())
            batches = list(self.store.vector_batches())
            videos = self.video_vectors()
        if not photos or not batches:
            return [], np.empty((0, self.dim), dtype=np.float32)
        ids, halves = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        positions = {photo_id: position for position, photo_id in enumerate(ids.tolist())}
        # the row of a photo may be damaged where its vector is not, and the other way round
        photos = [photo for photo in photos if photo.photo_id in positions]
        rows = unit_rows(halves[[positions[photo.photo_id] for photo in photos]])
        for row, photo in enumerate(photos if videos else ()):
            rows[row] = videos.get(photo.photo_id, rows[row])
        return photos, rows

    def vectors_where(self, condition: Filter | None) -> tuple[list[Photo], Vectors]:
        """Return what `vectors` does, of the photos that a filter leaves."""
        photos, vectors = self.vectors()
        if condition is None:
            return photos, vectors
        ids = set(self.store.ids_where(condition).tolist())
        rows = [row for row, photo in enumerate(photos) if photo.photo_id in ids]
        return [photos[row] for row in rows], vectors[rows]

    def video_vectors(self) -> dict[int, Vectors]:
        """Return the mean of the moments of each video with more than one, as a unit row ``(dim,)``
        by the id of its first moment (mean pooling, CLIP4Clip, arXiv:2104.08860).
        """
        moments = self.store.moments()
        of_video: dict[int, list[Vectors]] = {}
        rows = self.store.rows([*moments, *{*moments.values()}]) if moments else []
        for photo_id, _, raw, _ in sorted(rows):
            first = moments.get(photo_id, photo_id)
            of_video.setdefault(first, []).append(unit_rows(self.store.halves([raw]))[0])
        return {
            first: unit_rows(np.mean(vectors, axis=0)[None])[0]
            for first, vectors in of_video.items()
        }

    def _on_disk(self, verb: str) -> LocalBackend:
        if isinstance(self.backend, LocalBackend):
            return self.backend
        raise CollectionError(
            f"{self.backend.name} is a collection in Milvus, which cannot {verb}: "
            "name the folder of photos"
        )
