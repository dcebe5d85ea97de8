"""What can be done with a collection, wherever its photos and vectors are kept."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypedDict, Unpack

import numpy as np
from PIL import Image

from vitsearch.arrays import Vectors, unit_rows
from vitsearch.collection.duplicates import (
    LOOKALIKE,
    LookAlikes,
    look_alikes,
    lookalike_threshold,
    same_files,
)
from vitsearch.collection.query import Query, QueryEncoder, Term, check_top_k, photo_path
from vitsearch.collection.search import QueryVector, SearchOptions, as_where
from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import Encoder, ImageEncoder
from vitsearch.encoders.language import unread_notes
from vitsearch.errors import QueryError
from vitsearch.filters import Filter
from vitsearch.labels import (
    Decision,
    Label,
    LabelClassifier,
    LabelScore,
    LinearClassifier,
    parse_labels,
    predict,
    zero_shot_classifier,
)
from vitsearch.storage.config import CollectionConfig
from vitsearch.storage.decoding import Decoding
from vitsearch.storage.store import PhotoReader
from vitsearch.types import Photo, Prediction, SearchResult


class SearchKeywords(TypedDict, total=False):
    """What may be wished of a search besides the number of results; see `Collection.search`."""

    where: str | Filter | None
    offset: int
    min_score: float | None
    diverse: float
    collapse: bool | float


class SearchableCollection(ABC):
    """Photos with vectors of one encoder, open for reading; `Collection` and `MilvusCollection` say
    where they are.

    What is made of them, such as thumbnails, is kept in ``folder``, which need not be there.
    """

    folder: Path

    def __init__(
        self,
        root: Path,
        settings: CollectionConfig,
        store: PhotoReader,
        *,
        encoder: ImageEncoder | None,
        device: str,
    ) -> None:
        self.root = root
        self.settings = settings
        self.notes: list[str] = []
        self._noted: set[str] = set()
        self._device = device
        self._encoder = self._checked(encoder) if encoder else None
        self._store = store
        self._terms = QueryEncoder(
            root, store, lambda: self.encoder, dim=settings.dim, decoding=self.decoding
        )

    @abstractmethod
    def find(
        self, queries: Sequence[QueryVector], options: SearchOptions
    ) -> list[list[SearchResult]]:
        """Return the results for each (unit vector, ids to leave out), best first, equal scores in
        order of path.
        """

    @abstractmethod
    def decoding(self) -> Decoding:
        """Return how the photos were decoded, and a query's photo is to be."""

    @abstractmethod
    def _checked(self, encoder: ImageEncoder) -> ImageEncoder:
        """Return an encoder if it is the one that made the vectors, else raise EncoderMismatch."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.count()

    def close(self) -> None:
        """Close what the photos are read from; a second call does nothing."""
        self._store.close()

    # -- what is in it -----------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        return self.settings.dim

    @property
    def encoder(self) -> ImageEncoder:
        """The collection's encoder, loaded at first use; raises EncoderError, or EncoderMismatch
        when it is not the same any more.
        """
        if self._encoder is None:
            self._encoder = self._checked(
                load_encoder(self.settings.encoder, self._device, self.settings.dtype)
            )
        return self._encoder

    @property
    def store(self) -> PhotoReader:
        """What the photos are read from."""
        return self._store

    def photos(self) -> Iterator[Photo]:
        """Yield the photos in order of path."""
        return self._store.photos()

    def vectors(self) -> tuple[list[Photo], Vectors]:
        """Return all photos in order of path and their ``(n, dim)`` float32 unit rows; all of them
        are held in memory.
        """
        with self._store.reading():
            photos = list(self._store.photos())
            ids, halves = zip(*self._store.vector_batches(), strict=True) if photos else ((), ())
        if not photos:
            return [], np.empty((0, self.dim), dtype=np.float32)
        place = np.searchsorted(np.concatenate(ids), [photo.photo_id for photo in photos])
        return photos, unit_rows(np.concatenate(halves)[place])

    # -- search ------------------------------------------------------------------------------------

    def search(
        self, query: Query, top_k: int | None = 10, **keywords: Unpack[SearchKeywords]
    ) -> list[SearchResult]:
        """Return the ``top_k`` photos most like the query, best first, equal scores in order of
        path.

        The query is words, or terms in a string (``"2:beach + ./dog.jpg - people"``, see
        `parse_query`), a path, a PIL picture, a vector ``(dim,)``, or a list of `Term`. Photos
        named in the query are left out. Keywords: ``where``, a filter as text or as `Filter`
        (`parse_filter`); ``offset``, results to pass over; ``min_score``, the least cosine, with
        which ``top_k`` may be None for all; ``diverse``, from 0 to 1, for results unlike each
        other; ``collapse=True`` to show one photo of those that are the same or look alike (a
        number: from this cosine on). Raises QueryError, PhotoError or EncoderError.
        """
        return self.search_batch([query], top_k, **keywords)[0]

    def search_batch(
        self, queries: Sequence[Query], top_k: int | None = 10, **keywords: Unpack[SearchKeywords]
    ) -> list[list[SearchResult]]:
        """Return what `search` returns for each query, all on one state of the collection; the
        texts are encoded together.
        """
        options = self._options(top_k, keywords)
        read = self._terms.vectors_of(queries)
        self._note_unread([word for _, _, words in read for word in words])
        return self.find([(vector, named) for vector, named, _ in read], options)

    def similar(
        self,
        photo: str | os.PathLike[str] | Image.Image,
        top_k: int | None = 10,
        **keywords: Unpack[SearchKeywords],
    ) -> list[SearchResult]:
        """Return the ``top_k`` photos that look most like one photo, which is itself left out;
        keywords as in `search`.

        ``photo`` is a file (relative to the working folder, or else to the collection's root) or a
        PIL picture.
        """
        if isinstance(photo, Image.Image):
            return self.search(photo, top_k, **keywords)
        path = photo_path(photo)
        return self.search(
            [Term(self.root / path if not path.exists() and self._has(path) else path)],
            top_k,
            **keywords,
        )

    def _has(self, path: Path) -> bool:
        return (self.root / path).exists()

    def duplicates(self, *, where: str | Filter | None = None) -> list[list[Photo]]:
        """Return the groups of photos whose files are the same byte for byte, each in order of
        path, in order of their first path.
        """
        condition = as_where(where)
        with self._store.reading():
            ids = None if condition is None else set(self._store.ids_where(condition).tolist())
            return same_files(
                photo for photo in self.photos() if ids is None or photo.photo_id in ids
            )

    def lookalikes(
        self,
        threshold: float | None = None,
        *,
        where: str | Filter | None = None,
        progress: Callable[[int], object] = lambda _: None,
    ) -> list[LookAlikes]:
        """Return the groups of photos that look alike though their files differ, in order of their
        first path (see `look_alikes`).

        ``threshold`` is the least cosine with the group's first photo (None: that of the
        collection's encoder). All vectors are compared; ``progress`` is called with the number of
        photos just done. Raises QueryError for a threshold that is no cosine above 0.
        """
        least = self.lookalike_threshold if threshold is None else threshold
        condition = as_where(where)
        SearchOptions(collapse=least)  # raises for a threshold outside its range
        photos, vectors = self.vectors()
        if condition is not None:
            ids = set(self._store.ids_where(condition).tolist())
            rows = [row for row, photo in enumerate(photos) if photo.photo_id in ids]
            progress(len(photos) - len(rows))
            photos, vectors = [photos[row] for row in rows], vectors[rows]
        return look_alikes(photos, vectors, least, progress=progress)

    @property
    def lookalike_threshold(self) -> float:
        """The cosine from which this collection's encoder takes two photos for one and the same
        view.
        """
        stored = self._store.get_meta(LOOKALIKE)
        return (
            float(stored) if isinstance(stored, str) else lookalike_threshold(self.settings.encoder)
        )

    def _options(self, top_k: int | None, keywords: SearchKeywords) -> SearchOptions:
        for name in keywords:
            if name not in SearchKeywords.__annotations__:
                raise TypeError(
                    f"a search has no {name!r}: {', '.join(SearchKeywords.__annotations__)}"
                )
        collapse = keywords.get("collapse", False)
        return SearchOptions(
            top_k=top_k,
            offset=keywords.get("offset", 0),
            where=as_where(keywords.get("where")),
            min_score=keywords.get("min_score"),
            diverse=keywords.get("diverse", 0.0),
            collapse=(self.lookalike_threshold if collapse is True else collapse or None),
        )

    def _note_unread(self, texts: Sequence[str]) -> None:
        """Note once each that a text is in a language that the encoder does not know, or longer
        than it reads.
        """
        notes = unread_notes(texts, self.encoder) if texts else {}
        self.notes += [note for kind, note in notes.items() if kind not in self._noted]
        self._noted |= set(notes)

    # -- labels ------------------------------------------------------------------------------------

    def label(
        self,
        labels: Sequence[str | Label] | LabelClassifier,
        *,
        templates: str | Sequence[str] = "plain",
        top: int | None = None,
        threshold: float | None = None,
        background: bool = False,
        multi: bool = False,
    ) -> list[Prediction]:
        """Return the labels of every photo, photos in order of path, the best label first.

        The stored vectors are labelled: no photo is read. ``labels`` are strings (zero-shot;
        `zero_shot_classifier` explains them, ``templates``, ``background`` and ``multi``) or a
        classifier of this encoder's vectors. ``top`` is how many labels a photo gets (1; with
        ``multi`` all of at least 0.5), ``threshold`` the least probability (`Decision`); a photo
        that reaches none has no prediction.
        """
        check_top_k(1 if top is None else top)
        choice = Decision(top if top or multi else 1, threshold)
        classifier = (
            labels
            if isinstance(labels, LabelClassifier)
            else self.zero_shot(labels, templates, background, multi)
        )
        self.check_classifier(classifier)
        found: dict[int, list[LabelScore]] = {}
        with self._store.reading():
            photos = list(self._store.photos())
            for ids, halves in self._store.vector_batches():
                found |= zip(
                    ids.tolist(), predict(classifier, unit_rows(halves), choice), strict=True
                )
        return [
            Prediction(photo.path, name, score, photo.photo_id)
            for photo in photos
            for name, score in found[photo.photo_id]
        ]

    def zero_shot(
        self,
        labels: Sequence[str | Label],
        templates: str | Sequence[str] = "plain",
        background: bool = False,
        multi: bool = False,
    ) -> LinearClassifier:
        """Return the collection's encoder's classifier of these labels (see
        `zero_shot_classifier`).
        """
        classifier = zero_shot_classifier(
            self._text_encoder(), labels, templates=templates, background=background, multi=multi
        )
        self._note_unread([word for label in parse_labels(labels) for word in label.words])
        return classifier

    def check_classifier(self, classifier: LabelClassifier) -> None:
        """Raise EncoderMismatch for a classifier of another encoder's vectors."""
        self.settings.identity.check_classifier(classifier.fingerprint)

    def _text_encoder(self) -> Encoder:
        if not isinstance(self.encoder, Encoder):
            raise QueryError(
                f"encoder {self.encoder.name} reads no text, so it cannot label by words: "
                "give a "
                "LinearClassifier"
            )
        return self.encoder
